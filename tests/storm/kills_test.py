"""Runs that are killed at random moments end as undisturbed ones do, byte for byte."""

import os
import signal
import time

import numpy as np
import pytest

from tests.storm.conftest import leftovers, results

pytestmark = pytest.mark.storm
GRID = ["--gin_bindings", "sweep.grids = [{'Run.seed': [0, 1, 2]}]"]


def kill_at_random(process, rng, wait_for, has_begun):
    """Kills a process some time after it has begun. Returns whether it was still running."""
    wait_for(lambda: has_begun() or process.poll() is not None)
    time.sleep(rng.uniform(0, 2.5))
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def first_change(folder):
    """Returns a function that says whether anything in the folder has changed since this call."""

    def newest():
        times = [os.stat(os.path.join(parent, name)).st_mtime for parent, _, names in os.walk(folder) for name in names]
        return max(times, default=0.0)

    before = newest()
    return lambda: newest() > before


def test_a_single_run(start, tmp_path, wait_for):
    undisturbed, folder, log = (str(tmp_path / name) for name in ("undisturbed", "run", "log"))
    assert start(log, "train", "--workdir", undisturbed, "--quiet").wait() == 0
    rng, kills = np.random.default_rng(0), 0
    for _ in range(24):
        begun = first_change(folder)
        kills += kill_at_random(start(log, "train", "--workdir", folder, "--quiet"), rng, wait_for, begun)
    assert start(log, "train", "--workdir", folder, "--quiet").wait() == 0
    print(f"{kills} kills of a single run")
    assert kills >= 12
    assert results(folder) == results(undisturbed)
    assert not leftovers(folder)


@pytest.mark.parametrize(("workers", "stack"), [(2, "off"), (1, "3")])
def test_a_sweep(start, tmp_path, wait_for, workers, stack):
    """By two workers who take over from each other, and as one stack."""
    undisturbed, folder, log = (str(tmp_path / name) for name in ("undisturbed", "sweep", "log"))
    more = [*GRID, "--stack", stack, "--quiet"]
    assert start(log, "sweep", "--workdir", undisturbed, more=more).wait() == 0
    rng, kills = np.random.default_rng(1), 0
    for _ in range(9):
        begun = first_change(folder)
        processes = [start(log, "sweep", "--workdir", folder, more=more) for _ in range(workers)]
        for process in processes:
            kills += kill_at_random(process, rng, wait_for, begun)
    assert start(log, "sweep", "--workdir", folder, more=more).wait() == 0
    print(f"{kills} kills of {workers} worker(s), stack {stack}")
    assert kills >= 8
    names = sorted(os.listdir(undisturbed))
    assert sorted(os.listdir(folder)) == names and len(names) == 3
    for name in names:
        found, expected = (results(os.path.join(place, name)) for place in (folder, undisturbed))
        if stack != "off":  # members that start from different steps see other rounding than those of one stack
            found, expected = (
                {key: data for key, data in each.items() if "." not in key or key == "config.gin"}
                for each in (found, expected)
            )
        assert found == expected
    assert not leftovers(folder)


SELECT = [
    *("--gin_bindings", "sweep.grids = [{'LSTM.hidden_size': [6, 8], 'Run.seed': [0]}]"),
    *("--gin_bindings", "sweep.select = {'adam.learning_rate': [1e-3, 1e30, 1e-2]}"),
    *("--gin_bindings", "sweep.select_seeds = 1"),
]


def test_a_sweep_that_chooses(start, tmp_path, wait_for):
    """Two workers, which take over from each other in both stages; one candidate diverges."""
    undisturbed, folder, log = (str(tmp_path / name) for name in ("undisturbed", "sweep", "log"))
    more = [*SELECT, "--quiet"]
    assert start(log, "sweep", "--workdir", undisturbed, more=more).wait() == 0
    rng, kills = np.random.default_rng(2), 0
    for _ in range(12):
        begun = first_change(folder)
        for process in [start(log, "sweep", "--workdir", folder, more=more) for _ in range(2)]:
            kills += kill_at_random(process, rng, wait_for, begun)
    assert start(log, "sweep", "--workdir", folder, more=more).wait() == 0
    print(f"{kills} kills of a sweep that chooses")
    assert kills >= 8
    names = sorted(os.listdir(undisturbed))
    assert sorted(os.listdir(folder)) == names and len(names) == 2 * 3 + 2
    for name in names:
        if not os.path.exists(os.path.join(undisturbed, name, "DIVERGED")):
            assert results(os.path.join(folder, name)) == results(os.path.join(undisturbed, name))
        else:
            assert os.path.exists(os.path.join(folder, name, "DIVERGED"))
    assert not leftovers(folder)


# The command with leases that end sooner than those of users.
SHORT_LEASES = """
import sys
from gpicl_flax.records import lease, lease_files
lease.HEARTBEAT_SECONDS, lease_files.LEASE_SECONDS = 0.5, 4.0
from gpicl_flax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_was_stopped_until_another_took_its_run(start, tmp_path, wait_for):
    """It comes back with one line, and leaves nothing."""
    undisturbed, folder, log = (str(tmp_path / name) for name in ("undisturbed", "run", "log"))
    assert start(log, "train", "--workdir", undisturbed, "--quiet").wait() == 0
    for number in range(3):
        folder = str(tmp_path / f"run{number}")
        own_log = str(tmp_path / f"stopped{number}")
        stopped = start(own_log, "train", "--workdir", folder, "--quiet", program=["-c", SHORT_LEASES])
        checkpoint = os.path.join(folder, "checkpoints", str(50 + 60 * number))
        wait_for(lambda path=checkpoint: os.path.exists(path), lambda process=stopped: process.poll() is None)
        stopped.send_signal(signal.SIGSTOP)
        (lease,) = (name for name in os.listdir(os.path.join(folder, ".claim")) if name.endswith(".json"))
        path = os.path.join(folder, ".claim", lease)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:  # as if it were on another host, where nobody sees that it lives
            file.write(text.replace('"host": "', '"host": "not-'))
        time.sleep(4.5)  # more than its lease
        other = start(log, "train", "--workdir", folder, "--quiet", program=["-c", SHORT_LEASES])
        if number == 2:  # it comes back while the other one still trains
            wait_for(
                lambda path=f"{path[:-6]}2.json": os.path.exists(path), lambda process=other: process.poll() is None
            )
            stopped.send_signal(signal.SIGCONT)
        assert other.wait() == 0
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait() == 1
        with open(own_log) as file:
            message = file.read().strip()
        assert message.count("\n") == 0 and "was taken over by another process" in message, message
        assert results(folder) == results(undisturbed) and not leftovers(folder), number
