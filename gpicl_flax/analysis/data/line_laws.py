"""The laws of the lines of a study, in numbers and in words."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from gpicl_flax.analysis.data import size_lines
from gpicl_flax.analysis.data.runs import criteria
from gpicl_flax.analysis.data.size_lines import ACCURACY, WORDS, Line
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.stats import law_errors, scaling_law
from gpicl_flax.analysis.stats.intervals import Estimate
from gpicl_flax.analysis.stats.law_forms import Form, OffsetPower, Saturating
from gpicl_flax.analysis.stats.scaling_law import Law

_DRAWS = 500  # behind intervals
_SAID = 8  # lines that a sentence names


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A line, and its law, or the reason why it has none."""

    line: Line
    law: Law | str


def fitted(study: Study, score: str, wanted: Callable[[Line], bool] = lambda line: True) -> list[Fitted]:
    """Returns the lines of a study, each with its law.

    Args:
      study: the runs.
      score: `size_lines.ACCURACY` or `size_lines.LOSS`.
      wanted: decides whether to take a line.
    """
    floor = _floor(study)
    return [
        Fitted(line, _fit(line, Saturating(line.chance) if score == ACCURACY else OffsetPower(floor)))
        for line in size_lines.lines(study, score)
        if wanted(line)
    ]


def _fit(line: Line, form: Form) -> Law | str:
    if (reason := scaling_law.refusal(len(line.sizes))) is not None:
        return reason
    if not len(line.values):
        return "no seed was run at all sizes"
    return scaling_law.fit(line.sizes, line.values, form, draws=_DRAWS, seed=line.draw_seed)


def _floor(study: Study) -> float:
    """Returns the lowest loss there can be: that of a density has none."""
    known = [criteria(row) for _, row in study.ended().iterrows()]
    return -math.inf if any(found and found.score == "squared_error" for found in known) else 0.0


def numbers(found: Sequence[Fitted]) -> pd.DataFrame:
    """Returns a row for each line.

    Columns: size (what the law is in), condition, tasks, test_dataset, own, architecture, sizes and seeds (how many),
    seeds_left_out (that were run at some sizes only), smallest, largest, no_law (why there is none, or ''), law (its
    formula), its constants, and left_out: the error at the largest size of the law fitted without it. Constants and
    error have the ends of their intervals in columns with _low and _high.
    """
    return pd.DataFrame([_row(one) for one in found])


def _row(one: Fitted) -> dict[str, object]:
    line, law = one.line, one.law
    row: dict[str, object] = {
        name: getattr(line, name) for name in ("size", "condition", "tasks", "test_dataset", "own", "architecture")
    }
    row |= {"sizes": len(line.sizes), "seeds": len(line.values), "seeds_left_out": line.seeds_left_out}
    row |= {"smallest": line.sizes[0], "largest": line.sizes[-1]}
    if isinstance(law, str):
        return row | {"no_law": law}
    row |= {"no_law": "", "law": law.form.formula}
    for name, estimate in (law.constants | {"left_out": law.left_out}).items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def sentences(found: Sequence[Fitted], score: str) -> list[str]:
    """Returns for each test which size predicts the largest models best, and with what error."""
    texts = []
    for (condition, tasks, dataset), laws in _by_test(found):
        where = ", ".join(filter(None, (f"{tasks} tasks of {dataset}", condition)))
        texts.append(f"{where[0].upper()}{where[1:]}: {_verdict(laws, score)}")
    return texts


def _by_test(found: Sequence[Fitted]) -> Iterator[tuple[tuple[str, str, str], dict[str, dict[str, Law]]]]:
    """Yields each test with its laws by size and architecture."""
    tests: dict[tuple[str, str, str], dict[str, dict[str, Law]]] = {}
    for one in found:
        if isinstance(one.law, Law):
            test = one.line.condition, one.line.tasks, one.line.test_dataset
            tests.setdefault(test, {}).setdefault(one.line.size, {})[one.line.architecture] = one.law
    yield from sorted(tests.items())


def _verdict(laws: dict[str, dict[str, Law]], score: str) -> str:
    """Returns the comparison of sizes, over the architectures that have a law in each of them."""
    common = set.intersection(*map(set, laws.values()))
    if not common:  # laws of different runs are not compared
        return " ".join(_verdict({size: own}, score) for size, own in laws.items())
    compared = law_errors.compare({size: [own[name] for name in sorted(common)] for size, own in laws.items()})
    over = f" over {len(common)} architectures" if len(common) > 1 else f" of {next(iter(common))}"
    best, rest = compared.best, compared.margins
    error = _in_words(compared.errors[best], score)
    if not rest:
        return f"the law in {WORDS[best]}{over} misses the largest size, left out of the fit, by {error}."
    others = " and ".join(
        f"{WORDS[size]} by {_in_words(compared.errors[size], score)}, which is {_in_words(rest[size], score)} more"
        for size in rest
    )
    text = f"laws in {WORDS[best]}{over} miss the largest size, left out of the fit, by {error}; in {others}."
    if compared.decided:
        return f"{text} {WORDS[best].capitalize()} predicts it best."
    return f"{text} That does not decide which predicts it best."


def _in_words(estimate: Estimate, score: str) -> str:
    """Returns an error in points of accuracy, or in the unit of the loss."""
    scale, digits, unit = (100, 1, " points") if score == ACCURACY else (1, 3, "")
    value, low, high = (f"{scale * x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{unit}" + ("" if math.isnan(estimate.low) else f" [{low}, {high}]")


def without_law(found: Sequence[Fitted]) -> list[str]:
    """Returns a sentence for each reason why lines have no law."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        if isinstance(one.law, str):
            line = one.line
            words = f"{line.architecture} against {WORDS[line.size]} ({line.tasks} tasks of {line.test_dataset})"
            reasons.setdefault(one.law, []).append(words)
    texts = []
    for reason, names in reasons.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _SAID} more" if len(names) > _SAID else ""
        texts.append(f"No law for {', '.join(names[:_SAID])}{more}: {reason}.")
    return texts
