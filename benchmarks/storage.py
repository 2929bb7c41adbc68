"""What run folders on gs:// cost: requests, and seconds at 50 ms a request, against the storage server of the tests.

python -m benchmarks.storage [--latency SECONDS] [--runs N]
"""

import argparse
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.fakes.gcs.handle import FakeGcs

INFO = {"steps": 100, "num_tasks": None, "num_classes": 10, "base_dataset": {"name": "digits"}}
CURVE = {"tasks": "unseen", "base_dataset": "digits", "accuracy": [0.1, 0.9]}
EVALUATION = {"step": 100, "curves": [CURVE | {"accuracy_low": [0.1, 0.9], "accuracy_high": [0.1, 0.9]}]}
OTHER_OBJECTS = 40  # of two checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that each request takes (0.05)")
    parser.add_argument("--runs", type=int, default=200, help="runs of the sweep (200)")
    arguments = parser.parse_args()
    with FakeGcs() as gcs:
        os.environ |= gcs.environment  # before anything uses gs://
        measure(gcs, arguments.latency, arguments.runs)


def measure(gcs: FakeGcs, latency: float, runs: int) -> None:
    from gpicl_flax.analysis.data import runs as run_tables
    from gpicl_flax.records import json_lines, lease
    from gpicl_flax.records.run_folder import DONE, RunFolder, write_atomically, write_json
    from gpicl_flax.runs.status import read_status
    from gpicl_flax.sweep import table

    def say(name: str, call: Callable[[], Any]) -> None:
        gcs.mark()
        begun = time.perf_counter()
        call()
        seconds = time.perf_counter() - begun
        print(f"{name:44} {len(gcs.requests()):6,} requests {seconds:8.2f} s", flush=True)

    folder = RunFolder("gs://bucket/sweep/run0")
    log = json_lines.JsonLines(folder.metrics)
    rows = [
        {"step": step, "loss": 2.3, "loss_ema": 2.3, "plateau": False, "plateau_left_at": 20}
        for step in range(10, 110, 10)
    ]
    gcs.set_faults(latency=latency)
    say("write a small file", lambda: write_atomically(folder.config, "Run.seed = 1\n"))
    write_json(folder.run_info, INFO)
    log.replace([])
    for row in rows[:5]:
        log.append(row)
    log.flush()
    for row in rows[5:]:
        log.append(row)
    say("write the new rows of a log", log.flush)
    say("whether a run has ended", lambda: folder.ended)
    say("take a lease", lambda: lease.acquire(folder).release(lease.DONE))  # pyright: ignore[reportAttributeAccessIssue]
    write_json(folder.evaluation(100), EVALUATION)
    folder.mark(DONE)
    say("the status of a run", lambda: read_status("run0", folder))
    for number in range(OTHER_OBJECTS):
        gcs.put("bucket", f"sweep/run0/checkpoints/100/state/d/{number}", b"x" * 1000)
    for number in range(1, runs):
        gcs.clone("bucket", "sweep/run0/", f"sweep/run{number}/")
    points: Any = [SimpleNamespace(run_id=f"run{n}", digest=f"run{n}", legacy_ids=()) for n in range(runs)]
    say(f"the status of {runs} runs", lambda: table.read_all(points, "gs://bucket/sweep"))
    say(f"reading {runs} runs for a report", lambda: run_tables.load("gs://bucket/sweep"))


if __name__ == "__main__":
    main()
