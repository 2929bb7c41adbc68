"""Launch scripts with a gcloud, a kubectl and a gpicl that are made for tests, first on PATH."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FAKES = pathlib.Path(__file__).parent / "fakes"

# Stands for the python3 of a host: `pip install --target FOLDER uv` makes a uv that notes its calls, and whose
# environments hold the gpicl of these tests.
HOST_PYTHON = """
case "$*" in
  "-m pip install"*) ;;
  *) exec {python} "$@" ;;
esac
printf '%s\\n' "pip $*" >> {log}
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/bin"
cat > "$2/bin/uv" << 'END'
#!/bin/sh
printf 'uv %s\\n' "$*" >> {log}
for env in "$@"; do :; done
if [ "$1" = venv ]; then
  if [ -e {folder}/uv-fails ]; then rm {folder}/uv-fails; exit 1; fi
  mkdir -p "$env/bin"
  cp {folder}/bin/gpicl "$env/bin/gpicl"
fi
END
chmod +x "$2/bin/uv"
"""


class Cloud:
    """A place with fakes on PATH: scripts run in `here`, with a home and working folders of their own."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.here = folder / "here"
        self.bucket = folder / "gcloud" / "buckets" / "bucket"
        for name in ("here", "bin", "home", "gcloud", "gpicl", "kubectl"):
            (folder / name).mkdir()
        for name in ("gcloud", "gpicl", "kubectl"):
            python = [sys.executable, *([] if name == "kubectl" else ["-I", "-S"]), str(FAKES / f"{name}.py")]
            self.put_on_path(name, f'exec {shlex.join(python)} "$@"')
            self.script(name)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPICL_", "JAX_", "TFDS_", "XLA_", "XDG_"))}
        self.environment = kept | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            **{f"FAKE_{name.upper()}": str(folder / name) for name in ("gcloud", "gpicl", "kubectl")},
        }

    def put_on_path(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def script(self, fake: str, **what) -> None:
        (self.folder / fake / "script.json").write_text(json.dumps(what))

    def calls(self, fake: str) -> list:
        path = self.folder / fake / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pretend_prepared(self, folder: pathlib.Path, *names: str) -> None:
        """Writes of datasets of TFDS, prepared in `folder`, what tells that they are, and no examples."""
        splits = [{"name": name, "shardLengths": ["1"]} for name in ("train", "test")]
        for name in names:
            info = {"name": name, "version": "3.0.1", "fileFormat": "array_record", "splits": splits}
            (folder / name / "3.0.1").mkdir(parents=True)
            (folder / name / "3.0.1" / "dataset_info.json").write_text(json.dumps(info))

    def verbs(self, verb: str) -> list[str]:
        """The ids of the slices that gcloud was asked to create, delete, ..., in order."""
        start = ["compute", "tpus", "queued-resources", verb]
        return [call[4] for call in self.calls("gcloud") if call[:4] == start]

    @property
    def slices(self) -> set[str]:
        return {path.stem for path in (self.folder / "gcloud" / "resources").glob("*.json")}

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(ROOT / "launch" / script), *arguments],
            cwd=self.here,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(script, *arguments, **environment)
        try:
            out, err = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{script} did not end:\n{out}\n{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def stop(self, process: subprocess.Popen, number: int) -> str:
        """Sends a signal, again where the script has not said that it heard it, and returns the output.

        Bash can lose a SIGINT that comes while it forks.
        """
        heard = False
        for _ in range(20):
            if not heard:
                process.send_signal(number)
            try:
                return process.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired as expired:
                heard = any(word in (expired.output or b"") for word in (b": deleting", b": kept", b"stopping"))
        process.kill()
        return pytest.fail(f"did not end: {process.communicate()}")

    def clean_up(self) -> None:
        """Ends the sessions of hosts that a test has left."""
        sessions = self.folder / "gcloud" / "sessions"
        for line in sessions.read_text().split() if sessions.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(line), signal.SIGKILL)
        for call in self.calls("gpicl"):
            with contextlib.suppress(ProcessLookupError, OSError):
                command = pathlib.Path(f"/proc/{call['pid']}/cmdline").read_bytes()
                if str(FAKES).encode() in command:
                    os.kill(call["pid"], signal.SIGKILL)


@pytest.fixture
def cloud(tmp_path):
    place = Cloud(tmp_path)
    yield place
    place.clean_up()


@pytest.fixture
def on_slices() -> list[str]:
    """Options of a quick sweep on fake slices, with the fake gpicl."""
    return [
        *("--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16", "--name", "sweep"),
        *(
            "--workdir",
            "gs://bucket/study",
            "--package",
            "preinstalled",
            "--poll_seconds",
            "0.03",
            "--restart_seconds",
            "0",
        ),
    ]


@pytest.fixture
def uv_calls(cloud):
    log = cloud.folder / "uv.log"
    cloud.put_on_path("python3", HOST_PYTHON.format(python=sys.executable, log=log, folder=cloud.folder))
    return lambda: log.read_text().replace(str(cloud.folder / "gcloud/hosts"), "HOSTS").splitlines()


@pytest.fixture
def without_package(on_slices):
    at = on_slices.index("--package")
    return on_slices[:at] + on_slices[at + 2 :]
