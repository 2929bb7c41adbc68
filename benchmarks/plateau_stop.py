"""What the plateau-aware stop of sweeps saves, and which runs it wrongly ends: on kept runs and on simulated ones.

    python benchmarks/plateau_stop.py FOLDER... [--confidence P] [--differ_in PATTERN...] [--runs]
    python benchmarks/plateau_stop.py --simulate [--sweeps N]

A FOLDER holds the run folders of a sweep, or the tables that `gpicl report WORKDIR --tables FOLDER` writes of one. Its
runs must have been trained to their end, with diagnostics. `as a sweep` replays them in the order in which they began:
a run sees what had ended by then, each as the stop would have left it. Tables do not say when, so that each run sees
those before it. `one left out` lets each run see all others.
"""

import argparse
import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import one_run, plateau_replay, read_tables, runs, study_tables
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.data.plateau_replay import KeptRun
from gpicl_flax.analysis.stats.simulated_plateaus import CLASSES, SimulatedSweep
from gpicl_flax.runs.plateau_stop import PlateauStop

# What a simulated sweep may be like: how many of its runs leave, how much their plateaus differ, how suddenly scores
# grow, and whether scores have to do with it at all.
WORLDS = {
    "few leave": SimulatedSweep(runs=60, left=0.2),
    "half leave": SimulatedSweep(runs=60, left=0.5),
    "most leave": SimulatedSweep(runs=60, left=0.8),
    "plateaus differ much": SimulatedSweep(runs=60, left=0.3, spread=1.2),
    "plateaus differ little": SimulatedSweep(runs=60, left=0.3, spread=0.25),
    "scores grow late": SimulatedSweep(runs=60, left=0.3, growing=0.25),
    "scores grow very late": SimulatedSweep(runs=60, left=0.3, growing=0.12),
    "scores jump": SimulatedSweep(runs=60, left=0.3, growing=0.05),
    "scores are noisy": SimulatedSweep(runs=60, left=0.3, noise=0.02),
    "scores say nothing": SimulatedSweep(runs=60, left=0.3, scores="unrelated"),
    "no scores": SimulatedSweep(runs=60, left=0.3, scores="none"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="run folders of a sweep, or their tables")
    parser.add_argument("--simulate", action="store_true", help="simulated sweeps")
    parser.add_argument("--sweeps", type=int, default=40, metavar="N", help="of each kind (default %(default)s)")
    parser.add_argument("--confidence", type=float, metavar="P")
    parser.add_argument("--min_runs", type=int, metavar="N")
    parser.add_argument("--min_left", type=int, metavar="N")
    parser.add_argument("--from_step", type=int, metavar="STEP")
    parser.add_argument("--differ_in", nargs="+", metavar="PATTERN", help="as in sweep.plateau_stop")
    parser.add_argument("--runs", action="store_true", help="also a line for each run that is ended")
    arguments = parser.parse_args()
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(PlateauStop)}
    settings = PlateauStop(**{name: value for name, value in given.items() if value is not None})
    print(settings)
    whole: dict[bool, list[pd.DataFrame]] = {False: [], True: []}
    for folder in arguments.folders:
        found = list(read(folder))
        kept = plateau_replay.kept(found, settings)
        groups = pd.Series([run.likeness for run in kept], dtype=object).value_counts()
        print(f"\n{folder}: {len(kept)} of {len(found)} runs can be replayed, in {len(groups)} groups of like ones")
        for leave_one_out in whole:
            table = plateau_replay.replay(kept, settings, leave_one_out=leave_one_out)
            whole[leave_one_out].append(table)
            show(table, leave_one_out, arguments.runs)
    if len(arguments.folders) > 1:
        print("\nall folders")
        for leave_one_out, tables in whole.items():
            show(pd.concat(tables), leave_one_out, False)
    if arguments.simulate:
        print(f"\nsimulated, {arguments.sweeps} sweeps each")
        for name, world in WORLDS.items():
            table = pd.concat([plateau_replay.replay(sweep(world, seed), settings) for seed in range(arguments.sweeps)])
            print(f"  {name:24} {plateau_replay.outcome(table).text}", flush=True)


def read(folder: str) -> Iterator[OneRun]:
    """Yields the runs of a folder of run folders or of tables."""
    if study_tables.holds_tables(folder):
        yield from read_tables.read(folder).each
    else:
        yield from map(one_run.read, runs.find(folder))


def show(table: pd.DataFrame, leave_one_out: bool, each: bool) -> None:
    print(f"  {'one left out' if leave_one_out else 'as a sweep':14} {plateau_replay.outcome(table).text}")
    if each and table["stopped_at"].notna().any():
        print(table[table["stopped_at"].notna()].to_string(index=False))


def sweep(world: SimulatedSweep, seed: int) -> list[KeptRun]:
    """Returns the runs of a simulated sweep."""
    rng = np.random.default_rng(seed)
    info = {"num_classes": CLASSES, "steps": world.steps}
    return [KeptRun(str(number), info, world.rows(length, rng), "") for number, length in enumerate(world.lengths(rng))]


if __name__ == "__main__":
    main()
