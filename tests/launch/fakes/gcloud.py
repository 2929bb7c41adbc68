"""A gcloud for tests: scripted queued resources that really run their start-up script here, and gs:// beside them.

$FAKE_GCLOUD is its folder. script.json there says what happens:
states: id -> a list for each time the resource is created, of the states that it shows, one a look; the last one stays.
'STATE?' waits in the state before until the file preempt-ID appears, then takes it away. REBOOT starts the hosts anew.
errors: verb (create, describe, delete, list, ssh) -> a list of texts for stderr, one a call; null lets the call
through. hosts: how many hosts a slice has. seconds_of_create: how long a request takes. calls.jsonl is the log of all
calls, hosts/ID.N/ holds what the hosts of the N-th creation keep on disk. `gcloud storage` is in gcloud_storage.py.
"""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import sys
import time

# Other imports are in the functions: a script calls this many times.

FOLDER = pathlib.Path(os.environ["FAKE_GCLOUD"])
GONE = "NOT_FOUND: Resource 'projects/{project}/locations/{zone}/queuedResources/{id}' was not found"
THERE = "ALREADY_EXISTS: Resource 'projects/{project}/locations/{zone}/queuedResources/{id}' already exists"
DOWN = {"SUSPENDING", "SUSPENDED", "FAILED", "DELETING", "NONE"}


def main(argv):
    with open(FOLDER / "calls.jsonl", "a") as log:
        log.write(json.dumps(argv) + "\n")
    script = json.loads((FOLDER / "script.json").read_text())
    sys.path.append(str(pathlib.Path(__file__).parent))
    if argv[:1] == ["storage"]:
        import gcloud_storage

        return gcloud_storage.main(FOLDER / "buckets", argv[1:])
    from gcloud_options import Options, verb_and_rest

    verb = "?"
    try:
        verb, rest = verb_and_rest(argv)
        options = Options(verb, rest)
    except ValueError as error:
        print(f"ERROR: (gcloud.compute.tpus.queued-resources.{verb}) {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fail_if_scripted(script, verb)
        return globals()[verb](options, script)


def fail_if_scripted(script, verb):
    errors = script.get("errors", {}).get(verb, [])
    path = FOLDER / f"errors-{verb}"
    used = int(path.read_text()) if path.exists() else 0
    path.write_text(str(used + 1))
    if used < len(errors) and errors[used]:
        complain(verb, errors[used])


def complain(verb, text):
    print(f"ERROR: (gcloud.compute.tpus.queued-resources.{verb}) {text}", file=sys.stderr)
    raise SystemExit(1)


def resource_path(name):
    return FOLDER / "resources" / f"{name}.json"


def load(options, verb):
    path = resource_path(options.id)
    if not path.exists():
        complain(verb, GONE.format(**vars(options)))
    return json.loads(path.read_text())


def save(resource):
    path = resource_path(resource["id"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(resource))


def create(options, script):
    if resource_path(options.id).exists():
        complain("create", THERE.format(**vars(options)))
    key, _, startup = options.metadata_from_file.partition("=")
    assert key == "startup-script" and options.node_id == options.id
    path = FOLDER / f"creations-{options.id}"
    number = int(path.read_text()) if path.exists() else 0
    path.write_text(str(number + 1))
    time.sleep(script.get("seconds_of_create", 0))
    states = script.get("states", {}).get(options.id, [["WAITING_FOR_RESOURCES", "ACTIVE"]])
    kept = FOLDER / f"startup-{options.id}.{number}.sh"
    shutil.copy(startup, kept)
    save(
        {
            "id": options.id,
            "number": number,
            "states": states[min(number, len(states) - 1)],
            "looks": 0,
            "state": "ACCEPTED",
            "startup": str(kept),
            "pids": [],
        }
    )


def describe(options, script):
    resource = load(options, "describe")
    step(resource, script)
    if resource["state"] == "NONE":
        resource_path(options.id).unlink()
        complain("describe", GONE.format(**vars(options)))
    save(resource)
    assert options.format == "value(state.state)"
    print(resource["state"])


def step(resource, script):
    """One look at a resource is one step in its script."""
    states = resource["states"]
    state = states[min(resource["looks"], len(states) - 1)]
    if state.endswith("?"):
        preempt = FOLDER / f"preempt-{resource['id']}"
        if not preempt.exists():
            return
        preempt.unlink()
        state = state[:-1]
    resource["looks"] += 1
    if state in DOWN or state == "REBOOT":
        stop_hosts(resource)
    resource["state"] = "ACTIVE" if state == "REBOOT" else state
    if resource["state"] == "ACTIVE" and not resource["pids"]:
        start_hosts(resource, script.get("hosts", 1))


def start_hosts(resource, hosts):
    import socket
    import subprocess

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for host in range(hosts):
        folder = FOLDER / "hosts" / f"{resource['id']}.{resource['number']}" / str(host)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if k != "TFDS_DATA_DIR"} | {  # another machine
            "HOME": str(folder / "home"),
            "GPICL_HOST_FOLDER": str(folder),
            "GPICL_HOST_INDEX": str(host),
            "GPICL_DEVICES": str(FOLDER / "dev" / "accel*"),
            "GPICL_LOCKFILE": str(FOLDER / "libtpu_lockfile"),
            "FAKE_RESOURCE": resource["id"],
            "JAX_PLATFORMS": "cpu",
        }
        if hosts > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(hosts),
                "JAX_PROCESS_ID": str(host),
            }
        with open(folder / "console", "a") as console:
            process = subprocess.Popen(
                ["bash", resource["startup"]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=folder,
                start_new_session=True,
            )
        resource["pids"].append(process.pid)
        with open(FOLDER / "sessions", "a") as sessions:
            sessions.write(f"{process.pid}\n")


def stop_hosts(resource):
    """SIGTERM to every process of the hosts, and SIGKILL to what is left after a while."""
    for number, patience in ((signal.SIGTERM, 300), (signal.SIGKILL, 60)):
        for pid in resource["pids"]:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                continue
        until = time.time() + patience
        while time.time() < until and any(alive(pid) for pid in resource["pids"]):
            time.sleep(0.02)
    resource["pids"] = []


def alive(session):
    """Whether any process of a session is left, but for those that are dead and not waited for."""
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(session) and fields[0] != "Z":
            return True
    return False


def delete(options, script):
    stop_hosts(load(options, "delete"))
    resource_path(options.id).unlink()


def list(options, script):  # noqa: A001
    for path in sorted((FOLDER / "resources").glob("*.json")):
        resource = json.loads(path.read_text())
        print(f"{resource['id']}\t{resource['state']}")


def ssh(options, script):
    print(f"the log of {options.id}")


sys.exit(main(sys.argv[1:]))
