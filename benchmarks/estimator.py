"""What a query of `InContextClassifier` costs, with its context read once and with its context read for every query.

    python benchmarks/estimator.py [--only PATTERN] [--rounds N]

Of models as a run at 14x14x1 and T = 100 has them, with random parameters: one query, and many at once, for a context
of 99 examples. Everything takes turns, so that all of it meets the same machine; float32.
"""

import argparse
import fnmatch
import functools
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from setups import seconds

from gpicl_flax import models, references
from gpicl_flax.models import SequenceModel
from gpicl_flax.terminal import text_table

T, X = 100, 196
SETTINGS = (
    ("Transformer", models.Transformer(), 64),
    ("LSTM 256", models.LSTM(), 64),
    ("outer-product LSTM 32", models.OuterProductLSTM(), 64),
    ("DeltaNet", models.DeltaNet(), 16),
    ("VSML 16", models.VSML(), 4),
    ("MAML", references.MAML(), 64),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models whose name matches, such as 'LSTM*'")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    inputs: Any = rng.normal(size=(1, T - 1, X)).astype(np.float32)
    labels: Any = rng.integers(10, size=(1, T - 1)).astype(np.int32)
    rows: list[tuple[str, ...]] = [
        ("", "encode ms", "one query ms", "read again ms", "ratio", "Q", "of Q, each ms", "read again ms", "ratio")
    ]
    for name, model, many in (row for row in SETTINGS if fnmatch.fnmatch(row[0], arguments.only)):
        params = jax.jit(lambda key, model=model: nn.unbox(model.init(key, inputs, labels)))(jax.random.key(0))
        apply = functools.partial(jax.jit(model.apply, static_argnames="method"), params)
        context = apply(inputs, labels, method="encode")
        again = SequenceModel.encode(model, inputs, labels)
        functions = [functools.partial(apply, inputs, labels, method="encode")]
        for num_queries in (1, many):
            queries = rng.normal(size=(1, num_queries, X)).astype(np.float32)
            functions.append(functools.partial(apply, context, queries, method="answer"))
            functions.append(functools.partial(apply, again, queries, method=SequenceModel.answer))
        encode, one, one_again, each, each_again = seconds(functions, arguments.rounds)
        each, each_again = each / many, each_again / many
        numbers = [f"{1e3 * x:.3f}" for x in (encode, one, one_again, each, each_again)]
        rows.append(
            (
                name,
                *numbers[:3],
                f"{one_again / one:.1f}",
                str(many),
                *numbers[3:],
                f"{each_again / each:.1f}",
            )
        )
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, a context of {T - 1} examples of {X} inputs")
    print(text_table.render(rows, right=range(1, len(rows[0]))))


if __name__ == "__main__":
    main()
