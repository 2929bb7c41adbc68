"""The results of one run as text."""

import math
from typing import Any

from gpicl_flax.records import json_lines, plateau, schemas
from gpicl_flax.records.criteria import Criteria
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.records.transience import transience
from gpicl_flax.terminal import text_table


def summary(folder: RunFolder, evaluation: dict[str, Any] | None) -> str:
    """Returns the plateau and a table of a meta-test: its score with its 95% interval at the first and last position.

    The score is the accuracy, or for numbers the squared error.
    """
    lines = [plateau_sentence(folder)]
    if evaluation is not None:
        lines.append(accuracies(folder.read_run_info("sequence_length"), evaluation))
    return "\n".join(lines)


def accuracies(run_info: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """Returns a meta-test of the run that a run.json describes, as a table."""
    criteria = Criteria.required(run_info)
    name, as_text = ("accuracy", "{:.1%}") if criteria.score == "accuracy" else ("squared error", "{:.3f}")
    curves = evaluation["curves"]
    at = (curves[0].get("positions") or [0, run_info["sequence_length"] - 1]) if curves else [0, 0]
    header = (f"meta-test {name}", f"example {at[0] + 1}", f"example {at[-1] + 1}")
    cells = ([_cell(curve, criteria.score, as_text, position) for position in (0, -1)] for curve in curves)
    rows = [header, *((_name(curve), *own) for curve, own in zip(curves, cells, strict=True))]
    sequences = " or ".join(
        dict.fromkeys(str(curve["num_sequences"]) for curve in evaluation["curves"] if "num_sequences" in curve)
    )
    return (
        f"{text_table.render(rows)}\n"
        f"(step {evaluation['step']:,}; {sequences} sequences of test examples a row; brackets: 95% intervals; "
        f"chance is {as_text.format(criteria.chance_score)})"
    )


def plateau_sentence(folder: RunFolder) -> str:
    """Says when the run left its plateau, by the rules of `records.plateau`, and why it stopped if it stopped early."""
    run_info, rows = folder.read_run_info("steps"), json_lines.read(folder.metrics)
    if not run_info["steps"]:
        return "Not meta-trained: a run of 0 steps."
    threshold = Criteria.required(run_info).threshold
    step = plateau.plateau_exit_step([row["step"] for row in rows], [row["loss_ema"] for row in rows], threshold)
    recorded = schemas.left_before_gap(run_info, "plateau")
    step = step if recorded is None else recorded
    if step is None:
        sentence = f"The plateau was not left in {rows[-1]['step'] if rows else 0:,} steps"
    else:
        sentence = f"The plateau was left by step {step:,}"
    sentence += f" (average loss under {threshold:.2f})"
    losses = {row["step"]: row["diagnostics"]["unseen_loss"] for row in rows if "diagnostics" in row}
    losses = {step: math.nan if loss is None else loss for step, loss in losses.items()}
    if losses:  # only they show what the run has learned if it trains on biased tasks, or on easier ones at first
        recorded = schemas.left_before_gap(run_info, "unseen_plateau")
        found = plateau.unseen_plateau_exit_step(list(losses), list(losses.values()), threshold)
        step = found if recorded is None else recorded
        sentence += ", on unseen tasks " + (f"not in {max(losses):,}" if step is None else f"by step {step:,}")
    sentence += _transience_clause(rows, Criteria.required(run_info).chance_score)
    if rows and "stopped_early" in rows[-1]:
        why, share = rows[-1]["stopped_early"], rows[-1].get("leave_probability")
        why += "" if share is None else f": by runs like it, {share:.1%} would still leave it"
        sentence += f". Stopped early at step {rows[-1]['step']:,} of {run_info['steps']:,} ({why})"
    gaps = [f"Its log has a gap: {schemas.gap_in_words(gap)}" for gap in run_info.get("log_gaps", ())]
    return ". ".join([sentence, *gaps]) + "."


def _transience_clause(rows: list[dict[str, Any]], chance: float) -> str:
    """Says when learning in context was lost, by the rule of `records.transience`; '' if that was not measured."""
    found = {row["step"]: row.get("diagnostics", {}).get("in_context_accuracy") for row in rows}
    found = {step: accuracy for step, accuracy in found.items() if accuracy is not None}
    if not found:
        return ""
    lost = transience(list(found), list(found.values()), chance)
    if lost is None:
        return ". No learning in context was lost"
    return f". Learning in context, best at step {lost.peak_step:,}, was lost by step {lost.step:,}"


def _name(curve) -> str:
    return f"{curve['tasks']} tasks, {curve['base_dataset']}"


def _cell(curve, score: str, as_text: str, position: int) -> str:
    mean, low, high = (as_text.format(curve[f"{score}{end}"][position]) for end in ("", "_low", "_high"))
    return f"{mean} [{low}, {high}]"
