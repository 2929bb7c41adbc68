"""The scripts: the doors of launch/ find or make gpicl, and all are clean."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOORS = {"tpu_sweep.sh": "sweep", "tpu_train.sh": "train", "status.sh": "status", "delete.sh": "delete"}
SCRIPTS = [ROOT / "gpicl_flax/launch/host.sh", *sorted(ROOT.glob("launch/*.sh")), ROOT / ".ci/run"]
SAYS_ITS_ARGUMENTS = '#!/bin/sh\nprintf "%s|" "$0" "$@"\nexit 42\n'


def test_shellcheck_finds_nothing():
    assert len(SCRIPTS) == 7
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    result = subprocess.run([shellcheck, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_is_little_of_them():
    assert sum(len(path.read_text().splitlines()) for path in SCRIPTS[:-1]) <= 250


def test_scripts_stop_at_the_first_error():
    assert "\nset -euo pipefail\n" in (ROOT / "launch/gpicl.sh").read_text()


def test_no_value_is_evaluated():
    for path in (*SCRIPTS, *(ROOT / "gpicl_flax/launch").glob("*.py")):
        assert not re.search(r"\beval\b|\bbash -c\b|\bsh -c\b|shell=True|os\.system", path.read_text()), path


@pytest.fixture
def checkout(tmp_path):
    """A copy of launch/ without an environment, and a PATH with nothing of ours."""
    shutil.copytree(ROOT / "launch", tmp_path / "checkout/launch")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "sh", "mkdir", "cp", "chmod", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path / "checkout"


def put(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def call(checkout, door, *words):
    path = str(checkout.parent / "bin")
    return subprocess.run(
        [checkout / "launch" / door, *words], env={"PATH": path}, capture_output=True, text=True, check=False, cwd="/"
    )


@pytest.mark.parametrize(("door", "command"), DOORS.items())
def test_a_door_calls_its_command_of_the_checkouts_environment(checkout, door, command):
    assert (ROOT / "launch" / door).stat().st_mode & 0o111
    own = checkout / ".venv/bin/gpicl"
    put(own, SAYS_ITS_ARGUMENTS)
    put(checkout.parent / "bin/gpicl", "#!/bin/sh\nexit 1\n")
    result = call(checkout, door, "a b", "$(touch pwned)", "")
    assert result.stdout == f"{own}|launch|{command}|a b|$(touch pwned)||" and result.returncode == 42


def test_without_an_environment_a_door_calls_the_gpicl_on_path(checkout):
    put(checkout.parent / "bin/gpicl", SAYS_ITS_ARGUMENTS)
    result = call(checkout, "tpu_sweep.sh", "x.gin")
    assert result.stdout == f"{checkout.parent / 'bin/gpicl'}|launch|sweep|x.gin|" and result.returncode == 42


def test_without_any_gpicl_a_door_makes_the_environment(checkout):
    makes = f"""#!/bin/sh
[ "$*" = "--quiet -C {checkout} install" ] || exit 3
echo installing
mkdir -p {checkout}/.venv/bin
cat > {checkout}/.venv/bin/gpicl << 'END'
{SAYS_ITS_ARGUMENTS}END
chmod +x {checkout}/.venv/bin/gpicl
"""
    put(checkout.parent / "bin/make", makes)
    result = call(checkout, "status.sh", "--name", "x")
    assert result.stdout == f"{checkout}/.venv/bin/gpicl|launch|status|--name|x|" and "installing" in result.stderr
    put(checkout.parent / "bin/make", "#!/bin/sh\nexit 7\n")
    shutil.rmtree(checkout / ".venv")
    assert call(checkout, "status.sh").returncode == 7
