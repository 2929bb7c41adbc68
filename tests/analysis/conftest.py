"""Synthetic runs with known plateaus, written as training writes them."""

import math

import numpy as np
import pytest
from etils import epath

from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import DONE, RunFolder, write_json

CHANCE = math.log(10)


def curve(
    tasks: str,
    base_dataset: str = "digits",
    last: float = 0.7,
    first: float = 0.1,
    margin: float = 0.05,
    loss: float = 2.0,
) -> dict:
    """A learning curve of a meta-test that rises in a line; the mean of its loss over positions is `loss`."""
    accuracy = np.linspace(first, last, 5)
    return {
        "base_dataset": base_dataset, "tasks": tasks, "num_sequences": 64, "accuracy": accuracy.tolist(),
        "accuracy_low": (accuracy - margin).tolist(), "accuracy_high": (accuracy + margin).tolist(),
        "loss": np.linspace(loss + 0.5, loss - 0.5, 5).tolist(),
    }  # fmt: skip


def diagnosed(unseen_loss: float, layers: int = 2, heads: int = 2, parts=("embedding", "block_0/query")) -> dict:
    """What a Transformer's diagnostics hold; the matching score of a head grows with its number."""
    scores = [[(layer * heads + head) / (layers * heads) for head in range(heads)] for layer in range(layers)]
    return {
        "unseen_loss": unseen_loss, "unseen_accuracy_last": 0.3, "same_class_uniform": 0.1,
        "grad_norms": {name: 0.1 * (1 + index) for index, name in enumerate(parts)},
        "matching_score": scores, "same_class_attention": scores, "previous_token_attention": scores,
    }  # fmt: skip


def write_run(
    path: epath.PathLike,
    *,
    left_at: int | None = 50,
    unseen_left_at: int | None = None,
    steps: int = 100,
    ended: str | None = DONE,
    diagnostics_period: int | None = 20,
    evaluations: dict[int, list[dict]] | None = None,
    config: str | None = None,
    settings: dict[str, object] | None = None,
    **run_info,
) -> RunFolder:
    """A run that logs every 10 steps; its average loss is 2.25 until the step `left_at`, and 1.5 from then on.

    The mean of its last three losses on unseen tasks is first under 2.2 at `unseen_left_at`, if that is a multiple of
    `diagnostics_period`. Without `evaluations` there is one at the end, of seen and unseen digits. `settings` are the
    bindings of both config.gin and operative_config.gin.
    """
    folder = RunFolder(path)
    labels = run_info.pop("labels", {})
    known = {
        "labels": labels, "model": "Transformer", "parameters": 1000, "state_size_paper": 10, "state_size_exact": 10,
        "num_classes": 10, "sequence_length": 5, "task_batch_size": 8, "num_tasks": None, "permute_labels_prob": 1.0,
        "steps": steps, "seed": 0, "base_dataset": {"name": "digits"},
    }  # fmt: skip
    write_json(folder.run_info, known | run_info)
    if settings is not None:
        config = "".join(f"{name} = {value}\n" for name, value in settings.items())
        folder.operative_config.write_text(config)
    if config is not None:
        folder.config.write_text(config)
    log = JsonLines(folder.metrics)
    for step in range(10, steps + 1, 10):
        log.append(metrics_row(step, left_at, unseen_left_at, diagnostics_period))
    log.flush()
    if evaluations is None:
        evaluations = {steps: [curve("seen"), curve("unseen", last=0.6)]}
    for step, curves in evaluations.items():
        write_json(folder.evaluation(step), {"step": step, "curves": curves})
    if ended:
        folder.mark(ended)
    return folder


def metrics_row(step: int, left_at: int | None, unseen_left_at: int | None, diagnostics_period: int | None) -> dict:
    """A row of metrics.jsonl as `write_run` writes it."""
    ema = 1.5 if left_at is not None and step >= left_at else 2.25
    row = {"step": step, "loss": ema - 0.01, "loss_ema": ema, "accuracy_last": 0.2, "plateau": ema >= 2.2}
    if diagnostics_period and step % diagnostics_period == 0:
        # 2.25, 2.25 and 2.09 have a mean under 2.2.
        unseen = 2.09 if unseen_left_at is not None and step >= unseen_left_at else 2.25
        row["diagnostics"] = diagnosed(unseen)
    return row


@pytest.fixture
def make_run():
    """`write_run`."""
    return write_run


@pytest.fixture
def make_curve():
    """`curve`."""
    return curve


@pytest.fixture
def make_row():
    """`metrics_row`, with diagnostics every 20 steps."""
    return lambda step, left_at: metrics_row(step, left_at, None, 20)
