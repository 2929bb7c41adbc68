"""What listing a large sweep takes: `gpicl sweep` with --list, --dry_run and --status.

    JAX_PLATFORMS=cpu python benchmarks/listing.py [--gin_file gin/fig2.gin] [--workdir FOLDER]

Each is a process of its own. --workdir has run folders, as of benchmarks/synthetic_runs.py, for --status; it is also
measured for an empty folder.
"""

import argparse
import sys
import tempfile

from report import measure

from gpicl_flax.terminal import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin_file", default="gin/fig2.gin", metavar="FILE")
    parser.add_argument("--workdir", metavar="FOLDER")
    arguments = parser.parse_args()
    rows: list[tuple[str, ...]] = [("", "s", "s of CPU", "GB")]
    with tempfile.TemporaryDirectory() as empty:
        modes = {"--list": [], "--dry_run": [], "--status, empty folder": ["--workdir", empty]}
        if arguments.workdir:
            modes["--status"] = ["--workdir", arguments.workdir]
        for name, options in modes.items():
            mode = name.partition(",")[0]
            command = [sys.executable, "-m", "gpicl_flax", "sweep", "--gin_file", arguments.gin_file, mode, *options]
            rows.append((name, *(f"{value:.1f}" for value in measure(command))))
    print(text_table.render(rows, right=range(1, 4)))


if __name__ == "__main__":
    main()
