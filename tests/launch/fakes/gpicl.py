"""A gpicl for tests: notes how it was called, and ends as script.json in $FAKE_GPICL says.

What it "compiles" is one file a start in $JAX_COMPILATION_CACHE_DIR.

script.json: shard ('1/2', 'train', or 'prepare') -> what each start does; after the last one, 0. A start is an exit
  code, or  hang: run until SIGTERM, then exit with 42;  deaf: run until SIGKILL;  preempt: have the slice taken away,
  then hang;  kill: die of SIGKILL.
"""

import fcntl
import json
import os
import pathlib
import signal
import sys
import time

FOLDER = pathlib.Path(os.environ["FAKE_GPICL"])
argv = sys.argv[1:]
if "--status" in argv or "--list" in argv:
    print("the table of the runs")
    sys.exit(0)
is_preparation = argv[:2] == ["datasets", "prepare"]
shard = argv[argv.index("--shard") + 1] if "--shard" in argv else "prepare" if is_preparation else "train"
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
with open(FOLDER / "calls.jsonl", "a+") as log:
    fcntl.flock(log, fcntl.LOCK_EX)
    log.seek(0)
    started = sum(json.loads(line)["shard"] == shard for line in log)
    environment = {key: value for key, value in os.environ.items() if key.startswith(("JAX_", "TFDS_", "TPU_"))}
    call = {"shard": shard, "argv": argv, "pid": os.getpid(), "cwd": os.getcwd(), "environment": environment}
    call["cores"] = sorted(os.sched_getaffinity(0))
    call["files"] = {str(p): p.read_text() for p in map(pathlib.Path, argv) if p.suffix == ".gin" and p.is_file()}
    if not is_preparation and (programs := environment.get("JAX_COMPILATION_CACHE_DIR")):
        os.makedirs(programs, exist_ok=True)
        call["programs"] = sorted(os.listdir(programs))
        (pathlib.Path(programs) / f"program-{shard.replace('/', '-')}.{started}").write_text("compiled")
    log.write(json.dumps(call) + "\n")
steps = json.loads((FOLDER / "script.json").read_text()).get(shard, [])
step = steps[started] if started < len(steps) else 0
print(f"start {started} of shard {shard}: {step}", flush=True)
if is_preparation and step == 0:
    for name in argv[2:]:
        folder = pathlib.Path(os.environ["TFDS_DATA_DIR"]) / name / "3.0.1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "info").write_text("prepared")
if step == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if step == "preempt":
    (pathlib.Path(os.environ["FAKE_GCLOUD"]) / f"preempt-{os.environ['FAKE_RESOURCE']}").touch()
if step in ("preempt", "hang", "deaf"):
    while not told or step == "deaf":
        time.sleep(0.02)
    # Sent twice it is one request, also to a Python that is ending, which has no handlers any more.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    step = 42
sys.exit(step)
