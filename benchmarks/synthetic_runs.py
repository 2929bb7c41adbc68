"""Writes the run folders of a sweep without training it, for measurements of what reads them.

    python benchmarks/synthetic_runs.py FOLDER [--runs 200|2000 | --gin_file FILE]

The folders have the names, files and columns of real runs; their numbers come from formulas and noise. A run leaves its
plateau the later, the more tasks it has and the smaller its model is, or never. Without --gin_file the sweep is one of
STUDIES. Its report is no result: nothing was trained.
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

import gpicl_flax
from gpicl_flax.config import Config, parse
from gpicl_flax.records import schemas
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.records.run_folder import DONE, RunFolder, write_json
from gpicl_flax.runs.run import ResolvedRun, Run
from gpicl_flax.sweep import grid, listing

MODELS = ("Transformer.model_size", "LSTM.hidden_size", "DeltaNet.model_size", "GLA.model_size")
SIZES = (32, 64, 128, 256, 512)
ROWS, PER_DIAGNOSIS = 500, 10  # rows of a log, and how many rows there are for each that has diagnostics
LAYERS, HEADS = 4, 8
PARTS = ("attention_norm", "attention_output", "key", "mlp_hidden", "mlp_norm", "mlp_output", "query", "value")


class Study(NamedTuple):
    """The numbers of values on the axes of a sweep."""

    models: int
    tasks: int
    datasets: int
    seeds: int

    def config(self) -> Config:
        """Returns the sweep: a grid for each model, all with the same sizes, tasks, datasets and seeds."""
        common = (
            f"'TaskDistribution.num_tasks': {[16**power for power in range(1, self.tasks + 1)]}, "
            f"'TaskDistribution.base_dataset': {['mnist', 'fashion_mnist'][: self.datasets]}, "
            f"'Run.seed': {list(range(self.seeds))}"
        )
        grids = (
            f"{{'Run.model': @{name.partition('.')[0]}(), '{name}': {list(SIZES)}, {common}}}"
            for name in MODELS[: self.models]
        )
        return parse(["gin/base.gin"], [f"sweep.grids = [{', '.join(grids)}]"])


STUDIES = {200: Study(models=2, tasks=4, datasets=1, seeds=5), 2000: Study(models=4, tasks=5, datasets=2, seeds=10)}


def write(config: Config, workdir: epath.PathLike) -> int:
    """Writes the run folders of the sweep that `config` describes into a folder, and returns their number."""
    points = grid.points(config)
    for point, resolved in zip(points, listing.resolve_points(points), strict=True):
        _write_run(RunFolder(epath.Path(workdir) / point.run_id), resolved, point.digest)
    return len(points)


def _write_run(folder: RunFolder, resolved: ResolvedRun, digest: str) -> None:
    run, rng = resolved.run, np.random.default_rng(int(digest, 16))
    folder.evaluations.mkdir(parents=True)
    folder.config.write_text(resolved.config.text)
    folder.operative_config.write_text(resolved.operative_config)
    info = _run_info(run)
    write_json(folder.run_info, info)
    left_at = _plateau(run, info, rng)
    metrics, timing = JsonLines(folder.metrics), JsonLines(folder.timing, schemas.TIMING)
    for row in _rows(run, left_at, rng):
        metrics.append(row)
        timing.append({"step": row["step"], "time": 1.7e9 + 0.01 * row["step"]})
    metrics.flush()
    timing.flush()
    last = run.training.steps
    for step in (last // 2, last):
        write_json(folder.evaluation(step), {"step": step, "curves": list(_curves(run, left_at <= step, rng))})
    folder.mark(DONE)


def _run_info(run: Run) -> dict[str, Any]:
    """Returns run.json, with numbers of a base dataset that was not read."""
    name = run.tasks.data_name
    about = {"train_examples": 60_000, "test_examples": 10_000, "mean": 33.3, "std": 78.6, "fingerprint": "0" * 16}
    return {
        "gpicl_flax": gpicl_flax.__version__, "jax": "synthetic", "labels": dict(run.labels),
        "model": type(run.model).__name__, **run.sizes(), **run.tasks.run_info(), "steps": run.training.steps,
        "seed": run.seed, "base_dataset": {"name": name, **about}, "input_rms": 1.0,
        "projection": {"form": "span", "basis_shape": [14, 14, 1], "input_shape": [14, 14, 1]},
        "mesh": {"member": 1, "data": 1, "fsdp": 1, "model": 1}, "device": "synthetic",
    }  # fmt: skip


def _classes(run: Run) -> int:
    """Returns the number of classes; exits if targets are numbers, for which there are no formulas here."""
    classes = run.tasks.targets.num_classes
    if not classes:
        raise SystemExit(f"the targets of {run.tasks.gin_name} are numbers; only tasks of classes can be made up")
    return classes


def _plateau(run: Run, info: dict[str, Any], rng: np.random.Generator) -> float:
    """Returns the step at which a run leaves its plateau, log-normal around a power law; inf: beyond its last step."""
    tasks = run.tasks.num_tasks or 2**25
    step = 400 * tasks**0.3 * (1e5 / info["parameters"]) ** 0.25 * math.exp(rng.normal(0, 0.3))
    return step if step < run.training.steps else math.inf


def _rows(run: Run, left_at: float, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yields the rows of metrics.jsonl."""
    tracker = PlateauTracker(_classes(run), run.tasks.num_tasks)
    steps = np.linspace(0, run.training.steps, ROWS + 1)[1:].astype(int)
    height = math.log(_classes(run))
    learned = 1 / (1 + np.exp(-(steps - 1.1 * left_at) / (0.1 * left_at))) if left_at < math.inf else 0.0 * steps
    ema = height - 0.02 - (height - 0.7) * learned + rng.normal(0, 0.003, ROWS)
    noise = np.abs(rng.normal(0.5, 0.1, (ROWS, 7)))
    for index, step in enumerate(steps.tolist()):
        one = noise[index].tolist()
        loss = float(ema[index] + rng.normal(0, 0.01))
        accuracy = 0.1 + 0.7 * float(learned[index])
        row = {
            "step": step, "accuracy": accuracy * (0.9 + 0.1 * one[0]), "accuracy_first": 0.1 * one[1] + 0.05,
            "accuracy_last": accuracy, "grad_norm": one[2], "loss": loss, "loss_ema": float(ema[index]),
            "loss_last": loss * (0.9 + 0.1 * one[3]), "param_norm": 80 + one[4],
        }  # fmt: skip
        row["plateau"] = row["loss_ema"] >= tracker.criteria.threshold
        found = _diagnostics(run, loss + 0.02, accuracy, rng) if (index + 1) % PER_DIAGNOSIS == 0 else None
        tracker.follow(step, row["loss_ema"], found)
        row |= {"plateau_left_at": tracker.exit_step, "phase": tracker.phase}
        yield row | ({} if found is None else {"diagnostics": found})


def _diagnostics(run: Run, loss: float, accuracy: float, rng: np.random.Generator) -> dict[str, Any]:
    norms = rng.exponential(0.1, (LAYERS, len(PARTS)))
    found = {
        "grad_norms": {
            f"block_{layer}/{part}": float(norms[layer, index])
            for layer in range(LAYERS)
            for index, part in enumerate(PARTS)
        },
        "unseen_accuracy_last": accuracy,
        "unseen_loss": loss,
    }
    if type(run.model).__name__ == "Transformer":
        heads = rng.uniform(0, 0.2, (3, LAYERS, HEADS)).tolist()
        names = ("matching_score", "previous_token_attention", "same_class_attention")
        found |= dict(zip(names, heads, strict=True)) | {"same_class_uniform": 0.09}
    return found


def _curves(run: Run, has_left: bool, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yields the curves of a meta-test on the base dataset trained on, and on another one."""
    positions, sequences = np.arange(run.tasks.sequence_length), run.meta_test.num_sequences
    chance, many = 1 / _classes(run), min(1.0, math.log2(run.tasks.num_tasks or 2**25) / 16)
    own = run.tasks.data_name
    for name in dict.fromkeys((own, "mnist", "fashion_mnist")):
        for tasks in ("seen", "unseen"):
            last = 0.8 * has_left * (many if tasks == "unseen" else 1.0) * (1.0 if name == own else 0.8)
            truth = chance + max(last - chance, 0) * (1 - np.exp(-positions / 20))
            accuracy = rng.binomial(sequences, truth) / sequences
            loss = -np.log(truth) + rng.normal(0, 0.02, len(positions))
            margin = 1.96 * np.sqrt(truth * (1 - truth) / sequences)
            yield {"base_dataset": name, "fingerprint": "0" * 16, "tasks": tasks, "num_sequences": sequences} | {
                f"{quantity}{end}": np.clip(values + sign * width, 0, most).tolist()
                for quantity, values, width, most in (("accuracy", accuracy, margin, 1), ("loss", loss, 0.05, math.inf))
                for end, sign in (("", 0), ("_low", -1), ("_high", 1))
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="the folder of the sweep, which is made")
    parser.add_argument("--runs", type=int, choices=STUDIES, default=200, help="the study (default %(default)s)")
    parser.add_argument("--gin_file", action="append", metavar="FILE", help="a sweep instead of a study; repeat it")
    arguments = parser.parse_args()
    config = parse(arguments.gin_file) if arguments.gin_file else STUDIES[arguments.runs].config()
    print(f"{write(config, arguments.folder):,} run folders in {arguments.folder}")


if __name__ == "__main__":
    main()
