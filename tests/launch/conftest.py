"""Launches in this process, on a machine that is made for tests; and processes with fakes first on PATH."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

from gpicl_flax.cli.main import parser
from gpicl_flax.launch import options, plan, startup
from gpicl_flax.launch.system import System
from tests.launch.fake_system import FakeSystem, launcher
from tests.launch.prepared import pretend_prepared

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


@pytest.fixture
def machine(tmp_path):
    """A machine in this process. `run` calls `gpicl launch` on it."""
    return FakeSystem(tmp_path)


@pytest.fixture
def run(machine, monkeypatch, capsys):
    return launcher(machine, monkeypatch, capsys)


def make_plan(command: str, *words: str, environment: dict[str, str]) -> plan.Plan:
    """Returns the plan of a command."""
    arguments = parser().parse_args(["launch", command, *words])
    system = System()
    system.environment = environment
    return plan.make(options.read(command, vars(arguments), arguments.given, environment), system)


class Cloud:
    """A place with fakes on PATH: processes run in `here`, with a home and working folders of their own."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.here = folder / "here"
        self.bucket = folder / "gcloud" / "buckets" / "bucket"
        for name in ("here", "bin", "home", "gcloud", "gpicl"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("gcloud", "gpicl"):
            python = [sys.executable, "-I", "-S", str(FAKES / f"{name}.py")]
            self.put_on_path(name, f'exec {shlex.join(python)} "$@"')
            self.script(name)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPICL_", "JAX_", "TFDS_", "XLA_", "XDG_"))}
        self.environment = kept | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            **{f"FAKE_{name.upper()}": str(folder / name) for name in ("gcloud", "gpicl")},
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

    @property
    def slices(self) -> set[str]:
        return {path.stem for path in (self.folder / "gcloud" / "resources").glob("*.json")}

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        """Starts `gpicl launch`."""
        return subprocess.Popen(
            [sys.executable, "-m", "gpicl_flax", "launch", *words],
            cwd=self.here,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*words, **environment)
        try:
            out, err = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{words} did not end:\n{out}\n{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def startup_script(self, *words: str, command: str = "sweep") -> pathlib.Path:
        """Writes the start-up script of the first shard of a command."""
        made = make_plan(command, *words, environment=self.environment)
        path = self.folder / "startup.sh"
        path.write_text(startup.scripts(made)[0].text)
        return path

    def boot(self, script: pathlib.Path, number: int = 0, host: int = 0, **more: str) -> subprocess.Popen:
        """Starts a host of the slice's creation `number`, as a boot does: runs its start-up script."""
        folder = self.host_folder(number, host)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in self.environment.items() if k not in ("TFDS_DATA_DIR", "PYTHONPATH")} | {
            "HOME": str(folder / "home"),
            "GPICL_HOST_FOLDER": str(folder),
            "GPICL_HOST_INDEX": str(host),
            "GPICL_DEVICES": str(self.folder / "gcloud/dev/accel*"),
            "GPICL_LOCKFILE": str(self.folder / "gcloud/libtpu_lockfile"),
            "JAX_PLATFORMS": "cpu",
            **more,
        }
        with open(folder / "console", "a") as console:
            process = subprocess.Popen(
                ["bash", str(script)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=folder,
                start_new_session=True,
            )
        with open(self.folder / "gcloud" / "sessions", "a") as sessions:
            sessions.write(f"{process.pid}\n")
        return process

    def host_folder(self, number: int = 0, host: int = 0) -> pathlib.Path:
        return self.folder / f"gcloud/hosts/sweep-1.{number}/{host}"

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
    """Options of a sweep on slices, with the gpicl that is there."""
    return [
        *("--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16", "--name", "sweep"),
        *("--workdir", "gs://bucket/study", "--package", "preinstalled", "--restart_seconds", "0"),
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


@pytest.fixture
def prepared(tmp_path) -> pathlib.Path:
    """A folder of TFDS with the base datasets of most gin files."""
    pretend_prepared(tmp_path / "tfds", "mnist", "fashion_mnist")
    return tmp_path / "tfds"
