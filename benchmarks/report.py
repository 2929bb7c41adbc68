"""What a report takes: the time and the memory of `gpicl report` for studies of 200 and of 2,000 runs.

    JAX_PLATFORMS=cpu python benchmarks/report.py [--runs 200 2000] [--folder FOLDER]

The runs are those of benchmarks/synthetic_runs.py, 1 GB for the larger study. Each report is a process of its own.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import synthetic_runs

from gpicl_flax.terminal import text_table


def measure(command: list[str]) -> tuple[float, float, float]:
    """Runs a command, and returns its seconds, those of the processor, and the gigabytes that it had at most."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, nargs="+", choices=synthetic_runs.STUDIES, default=list(synthetic_runs.STUDIES)
    )
    parser.add_argument("--folder", metavar="FOLDER", help="where run folders are kept, or are from the last time")
    arguments = parser.parse_args()
    rows = [("runs", "s", "s of CPU", "GB")]
    with tempfile.TemporaryDirectory() as temporary:
        for count in arguments.runs:
            workdir = pathlib.Path(arguments.folder or temporary) / str(count)
            if not workdir.is_dir():
                synthetic_runs.write(synthetic_runs.STUDIES[count].config(), workdir)
            seconds, cpu, memory = measure(
                [sys.executable, "-m", "gpicl_flax", "report", str(workdir), "--out", f"{temporary}/report_{count}"]
            )
            rows.append((f"{count:,}", f"{seconds:.1f}", f"{cpu:.1f}", f"{memory:.2f}"))
    print(text_table.render(rows, right=range(4)))


if __name__ == "__main__":
    main()
