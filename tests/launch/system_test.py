"""The machine: commands, files, and signals of a real process."""

import pathlib
import signal
import subprocess
import sys

import pytest

from gpicl_flax.errors import GpiclError
from gpicl_flax.launch.actions import WriteFile, command, line, shown
from gpicl_flax.launch.slice_type import parse
from gpicl_flax.launch.system import Stopped, System, caches
from gpicl_flax.launch.watch import watch
from gpicl_flax.training.cost.chips import CHIPS

WORDS = ["plain", "two words", "", "it's", "$HOME `x` \\", "a\nb\t\x07c", "é ∞", "'\n'", "\udcff", "%s*?[!"]


def test_a_shell_reads_a_shown_line_as_its_words():
    text = line(["printf", "%s\\0", *WORDS])
    assert text.isprintable()
    out = subprocess.run(["bash", "-c", text], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert out.decode(errors="surrogateescape").split("\0")[:-1] == WORDS


def test_a_shown_file_is_the_one_that_is_written(tmp_path):
    texts = [WriteFile(tmp_path / name / "a file", "two\n$HOME 'lines'\n") for name in ("shown", "written")]
    subprocess.run(["bash", "-c", shown(texts[0])], check=True)
    System().do(texts[1:])
    assert texts[0].path.read_text() == texts[1].path.read_text() == texts[0].text


def test_what_a_command_answers():
    system = System()
    answer = system.call(
        ["sh", "-c", "echo out; echo 'ERROR: why'; echo 'Error: because' >&2; echo see docs >&2; exit 3"]
    )
    assert answer == (3, "out\nERROR: why", "Error: because")
    assert system.call(["sh", "-c", "echo sorry >&2; exit 1"]).error == "sorry"
    assert system.call(["no-such-program"]) == (127, "", "no-such-program is not installed")
    with pytest.raises(GpiclError, match="it cannot be listed: .*No such file"):
        system.do([command("ls", "/no/such/folder", failure="it cannot be listed")])
    with pytest.raises(GpiclError, match="false ended with exit code 1"):
        system.do([command("false")])


def test_the_cache_is_where_the_environment_says():
    assert caches({"HOME": "/h"}) == pathlib.Path("/h/.cache/gpicl_flax/launch")
    assert caches({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == pathlib.Path("/c/gpicl_flax/launch")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_signals_are_counted_and_end_a_pause_but_no_command(number, code):
    program = """
from gpicl_flax.launch.system import Stopped, System
system = System()
system.listen()
print("listening", flush=True)
system.wait(600)
print(system.stops, system.call(["sh", "-c", "kill -%d $PPID; sleep 0.2; echo ended"]).output, system.stops, flush=True)
system.wait(600)  # it was told meanwhile
try:
    system.stopped("in order")
except Stopped as stopped:
    raise SystemExit(stopped.exit_code)
"""
    process = subprocess.Popen([sys.executable, "-c", program % number], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "listening\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == code and out.startswith("1 ended 2\n") and "in order" in out


def test_what_nohup_ignores_stays_ignored():
    program = """
import os, signal
from gpicl_flax.launch.system import System
signal.signal(signal.SIGHUP, signal.SIG_IGN)
system = System()
system.listen()
for number in (signal.SIGHUP, signal.SIGTERM):
    os.kill(os.getpid(), number)
system.wait(600)
print(system.stops, system.stop_signal.name)
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "1 SIGTERM\n"


def test_a_watcher_is_told_before_each_look_and_looks_again_without_a_pause():
    class Fake(System):
        waits, looks = 0, 0

        def wait(self, seconds):
            self.waits += 1

    class Watched:
        def advance(self, shard):
            system.looks += 1
            if system.looks == 3:
                system.stops += 1
            return True

        def stop(self):
            system.stopped("in order")

    system = Fake()
    system.show = lambda text: None
    with pytest.raises(Stopped):
        watch(system, [1], Watched(), 30)
    assert (system.looks, system.waits) == (3, 2)  # the pause behind the third look was left out


@pytest.mark.parametrize(
    ("name", "chips", "topology", "hosts"),
    [
        ("v5litepod-1", 1, "1x1", 1),
        ("v5litepod-8", 8, "2x4", 1),
        ("v5litepod-16", 16, "4x4", 4),
        ("v6e-4", 4, "2x2", 1),
        ("v6e-256", 256, "16x16", 64),
        ("v4-8", 4, "2x2x1", 1),
        ("v4-16", 8, "2x2x2", 2),
        ("v5p-4096", 2048, "8x16x16", 512),
    ],
)
def test_a_type_of_slices(name, chips, topology, hosts):
    found = parse(name)
    assert (found.num_chips, found.topology, found.hosts) == (chips, topology, hosts)
    assert found.chip.accelerator_type(chips) == name and found.chip in CHIPS.values()
