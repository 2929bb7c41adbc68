"""Shell scripts are clean."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("launch/**/*.sh"), ROOT / ".ci/run"])


def test_shellcheck_finds_nothing():
    assert len(SCRIPTS) > 20
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    result = subprocess.run([shellcheck, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_value_is_evaluated():
    for path in SCRIPTS:
        assert not re.search(r"\beval\b|\bbash -c\b|\bsh -c\b", (ROOT / path).read_text()), path


def test_scripts_stop_at_the_first_error():
    for path in ROOT.glob("launch/*.sh"):
        assert "\nset -euo pipefail\n" in path.read_text() and path.stat().st_mode & 0o111, path
