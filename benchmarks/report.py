"""What a report takes: the time and the memory of `gpicl report` for studies of 200 and of 2,000 runs.

    JAX_PLATFORMS=cpu python benchmarks/report.py [--runs 200 2000] [--folder FOLDER]

The runs are those of benchmarks/synthetic_runs.py, 1 GB for the larger study. Each report is a command of its own, with
all its processes.
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

import psutil
import synthetic_runs

from gpicl_flax.terminal import text_table

_EVERY = 0.25  # seconds between two looks at a command


def measure(command: list[str]) -> tuple[float, float, float]:
    """Runs a command, and returns its seconds, those of processors, and the gigabytes that its processes had at most.

    They are looked at every quarter of a second. Memory that they share counts once.
    """
    start, seconds, most = time.monotonic(), {}, 0.0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        memory = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                    used = each.cpu_times()
                    seconds[each.pid] = used.user + used.system
                    memory += each.memory_full_info().pss / 1e9
        most = max(most, memory)
        time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return time.monotonic() - start, sum(seconds.values()), most


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
