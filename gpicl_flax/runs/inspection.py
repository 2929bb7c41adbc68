"""Shows the contents of a run folder: model, settings, data, checkpoints, and how far the run is.

It neither trains nor reads data.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from gpicl_flax.config import Config
from gpicl_flax.errors import Damaged
from gpicl_flax.models import SIZE_NAMES, abstract_parameters
from gpicl_flax.records import json_lines, schemas
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.runs import saved_config, status
from gpicl_flax.runs.run import Run
from gpicl_flax.terminal import text_table
from gpicl_flax.training.checkpoint import Checkpoints

EXPORTED = "exported"  # the state of a folder that `gpicl export` wrote, which is not a run any more

# The values of the rows of metrics.jsonl that are followed, and whether the lowest or the highest is the best. Then the
# same for their diagnostics.
_METRICS = {"loss": min, "loss_ema": min, "accuracy_last": max, "squared_error_last": min}
_DIAGNOSTICS = {
    "unseen_loss": min,
    "unseen_accuracy_last": max,
    "unseen_loss_last": min,
    "unseen_squared_error_last": min,
    "in_context_accuracy": max,
    "in_weights_accuracy": max,
}

# The quantity of a meta-test that is followed: the first of these that its curves have.
_SCORES = ("accuracy", "squared_error", "loss")


class Tensor(NamedTuple):
    """The parameters of one name: its path in the model, from the outermost module, and its shape."""

    path: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


class Metric(NamedTuple):
    """A measurement along training: its last value, its best value and the step of the best."""

    name: str
    last: float
    best: float
    best_step: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The contents of a run folder.

    Attributes:
      folder: the folder.
      status: how far the run is. For an exported learner the state is EXPORTED.
      why_diverged: the text of its DIVERGED marker, or None.
      model: the name of its class.
      sizes: those of the model, under the keys of `SIZE_NAMES`.
      tensors: the model's parameters, in the order of their paths.
      config: the bindings of config.gin.
      base_dataset: the data it trains on: name, train_examples, test_examples, mean, std, fingerprint; for tasks that
        are drawn on the device only name and fingerprint. None: it has not begun.
      checkpoints: their steps, ascending.
      metrics: those of metrics.jsonl and of the run's own meta-tests, as far as it has them.
    """

    folder: RunFolder
    status: status.Status
    why_diverged: str | None
    model: str
    sizes: dict[str, int]
    tensors: list[Tensor]
    config: Config
    base_dataset: dict[str, Any] | None
    checkpoints: list[int]
    metrics: list[Metric]

    def as_json(self) -> str:
        """Returns one line of JSON."""
        values = {"folder": str(self.folder)} | self.status.as_dict()
        values |= {"why_diverged": self.why_diverged, "model": self.model} | self.sizes
        values["tensors"] = [
            {"name": "/".join(tensor.path), "shape": tensor.shape, "count": tensor.size} for tensor in self.tensors
        ]
        values["config"] = _as_text(self.config)
        values |= {"base_dataset": self.base_dataset, "checkpoints": self.checkpoints}
        values["metrics"] = [metric._asdict() for metric in self.metrics]
        return json.dumps(values)

    def as_text(self) -> str:
        """Returns a few lines about the run, and tables of its metrics, its parameters by module, and its bindings."""
        parts = [text_table.render(list(self._summary_rows()))]
        if self.metrics:
            parts.append(_metrics_table(self.metrics))
        parts += [self.parameters_as_text()] if self.tensors else []
        return "\n\n".join([*parts, self.bindings_as_text()])

    def parameters_as_text(self) -> str:
        """Returns a table: a line for each module with its number of parameters, and under it those of its parts."""
        return _parameter_table(self.tensors)

    def bindings_as_text(self) -> str:
        """Returns a table of config.gin."""
        return text_table.render([("binding", "value"), *_as_text(self.config).items()])

    def _summary_rows(self) -> Iterator[tuple[str, str]]:
        """Yields names and values."""
        now, data = self.status, self.base_dataset
        yield "run", str(self.folder)
        total = "" if now.steps is None else f" of {now.steps:,}"
        step = f"{now.state}, step {now.step or 0:,}{total}"
        yield "state", f"{EXPORTED} from a run of {now.steps:,} steps" if now.state == EXPORTED else step
        reasons = {
            "diverged": self.why_diverged,
            "stopped early": now.stopped_early,
            "who": now.who,
            "log": "; ".join(now.log_gaps),
        }
        yield from ((name, text) for name, text in reasons.items() if text)
        if now.plateau is not None:
            yield "plateau", now.plateau_in_words
            yield "phase", (now.phase or "not known yet").lower()
        yield "model", self.model
        yield from ((name, f"{self.sizes[key]:,}") for key, name in SIZE_NAMES.items())
        if data:
            if "train_examples" in data:
                examples = f"{data['train_examples']:,} train and {data['test_examples']:,} test examples"
                yield "base dataset", f"{data['name']}: {examples}, fingerprint {data['fingerprint']}"
            else:
                yield "tasks", f"{data['name']}, drawn on the device"
        yield "checkpoints", ", ".join(f"{step:,}" for step in self.checkpoints) or "none"


def inspect(folder: RunFolder, trusted_modules: Iterable[str] = ()) -> Inspection:
    """Inspects the folder of a run that is done, diverged or unfinished, even while it trains.

    Args:
      folder: the run folder, or that of an exported learner.
      trusted_modules: see `saved_config.trusted`.

    Raises:
      UsageError: the folder is no run, or its configuration cannot be read here.
    """
    config = saved_config.read(folder)
    # TensorBoard may not be installed here.
    run = saved_config.resolve(config.without("Run.tensorboard"), str(folder.config), trusted_modules)
    marker = folder.path / DIVERGED
    return Inspection(
        folder,
        _status(folder),
        folder.read_marker(DIVERGED) if marker.exists() else None,
        type(run.model).__name__,
        run.sizes(),
        _tensors(run),
        config,
        _base_dataset(folder),
        _checkpoints(folder),
        [*_along_training(folder), *_of_meta_tests(folder)],
    )


def _status(folder: RunFolder) -> status.Status:
    if folder.is_exported:
        return status.Status(folder.path.name, EXPORTED, steps=folder.read_run_info("steps")["steps"])
    return status.read_status(folder.path.name, folder)


def _base_dataset(folder: RunFolder) -> dict[str, Any] | None:
    if not folder.run_info.exists():
        return None
    run_info = folder.read_run_info("base_dataset")
    data = run_info["base_dataset"]
    if not {"fingerprint", *(() if "family" in run_info else ("train_examples", "test_examples"))} <= data.keys():
        raise Damaged(f"{folder.run_info} is damaged: it does not describe its base dataset; {schemas.RUN_INFO.remedy}")
    return data


def _tensors(run: Run) -> list[Tensor]:
    params = nn.unbox(abstract_parameters(run.model, run.tasks.num_features, run.tasks.sequence_length))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [Tensor(tuple(entry.key for entry in path), leaf.shape) for path, leaf in leaves]


def _checkpoints(folder: RunFolder) -> list[int]:
    if not folder.checkpoints.exists():
        return []
    with Checkpoints(folder.checkpoints) as checkpoints:
        return checkpoints.steps


def _along_training(folder: RunFolder) -> Iterator[Metric]:
    rows = json_lines.read(folder.metrics)
    diagnosed = [row["diagnostics"] | {"step": row["step"]} for row in rows if "diagnostics" in row]
    for source, best_of in ((rows, _METRICS), (diagnosed, _DIAGNOSTICS)):
        for name, best in best_of.items():
            yield from _metric(name, ((row["step"], row.get(name)) for row in source), best)


def _of_meta_tests(folder: RunFolder) -> Iterator[Metric]:
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for evaluation in folder.read_evaluations():
        for curve in evaluation["curves"]:
            name = f"meta-test of {curve['tasks']} tasks, {curve['base_dataset']}"
            score = next(score for score in _SCORES if score in curve)
            found.setdefault((f"{score}, {name}" if score != "accuracy" else name, score), []).append(
                (evaluation["step"], curve[score][-1])
            )
    for (name, score), values in found.items():
        yield from _metric(name, values, max if score == "accuracy" else min)


def _metric(name: str, values: Iterable[tuple[int, float | None]], best) -> Iterator[Metric]:
    """Yields the metric made of pairs of a step and a value, if there are any.

    A value is None if it was not finite. Among equal values the first is the best.
    """
    known = [(step, value) for step, value in values if value is not None]
    if known:
        step, value = best(known, key=lambda pair: pair[1])
        yield Metric(name, known[-1][1], value, step)


def _metrics_table(metrics: Iterable[Metric]) -> str:
    rows = [("metric", "last", "best", "at step")]
    for metric in metrics:
        number = "{:.4f}" if "loss" in metric.name or "squared_error" in metric.name else "{:.1%}"
        rows.append((metric.name, number.format(metric.last), number.format(metric.best), f"{metric.best_step:,}"))
    return text_table.render(rows, right=(1, 2, 3))


def _parameter_table(tensors: Iterable[Tensor]) -> str:
    counts: dict[tuple[str, ...], int] = {}
    shapes = {tensor.path: tensor.shape for tensor in tensors}
    for tensor in tensors:
        for depth in range(1, len(tensor.path) + 1):
            path = tensor.path[:depth]
            counts[path] = counts.get(path, 0) + tensor.size
    rows = [("parameters by module", "shape", "numbers")]
    for path, count in counts.items():
        shape = " x ".join(map(str, shapes[path])) or "1" if path in shapes else ""
        rows.append((f"{'  ' * (len(path) - 1)}{path[-1]}", shape, f"{count:,}"))
    return text_table.render(rows, right=(1, 2))


def _as_text(config: Config) -> dict[str, str]:
    return {key: repr(value) for key, value in sorted(config.bindings.items())}
