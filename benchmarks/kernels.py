"""What a training step of each kernel costs, step by step and in parallel, by the length of the sequence.

    python benchmarks/kernels.py [--only PATTERN] [--rounds N] [--batch B] [--lengths T ...] [--chunk-sizes C ...]

A step is the value and the gradients to all inputs, in float32, with 8 heads and keys and values of 32. The forms take
turns, so that all of them meet the same machine; the table shows the median of the rounds, and the memory beside inputs
and outputs that the compiler plans. `step by step` is a `lax.scan` over positions.
"""

import argparse
import fnmatch
import functools

import jax
import numpy as np
from setups import seconds

from gpicl_flax.models.kernels import matrix_state, vector_state

H, K, V = 8, 32, 32
MATRIX = [
    f"{decay}, {correction}"
    for decay in ("head", "key dimension")
    for correction in ("no correction", "delta rule", "two directions")
]
VECTOR = "vector state"


def matrix_arguments(name: str, batch: int, length: int):
    """Returns query, key, value, log_decay and correction of the named kind of matrix state."""
    rng = np.random.default_rng(0)

    def normal(*sizes):
        return rng.normal(size=(batch, length, H, *sizes)).astype(np.float32)

    def unit():
        x = normal(K)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    decay_of, correction = name.split(", ")
    query, key, value = unit(), unit(), normal(V)
    log_decay = -0.1 * np.abs(normal(*([K] if decay_of == "key dimension" else [])))
    strength = 0.5 * np.exp(log_decay.reshape(batch, length, H, -1))
    pairs = {"no correction": None, "delta rule": (None, strength * key), "two directions": (-0.5 * key, unit())}
    return query, key, value, log_decay, pairs[correction]


def vector_arguments(batch: int, length: int):
    """Returns x and log_decay of a vector state of as many channels as all heads have value dimensions."""
    x, decay = np.random.default_rng(0).normal(size=(2, batch, length, H * V)).astype(np.float32)
    return x, -0.1 * np.abs(decay)


class Step:
    """The value and the gradients of a form, compiled for its arguments."""

    def __init__(self, form, arguments):
        def loss(arguments):
            return (form(*arguments)[0] ** 2).mean()

        self.arguments = jax.device_put(arguments)
        self.compiled = jax.jit(jax.value_and_grad(loss)).lower(self.arguments).compile()

    def __call__(self):
        return self.compiled(self.arguments)

    @property
    def mebibytes(self) -> float:
        analysis = self.compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="kinds whose name matches, such as 'head*'")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each (default %(default)s)")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="sequences (default %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192], metavar="T")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", metavar="C", help="default: that of the models")
    arguments = parser.parse_args()
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, B = {arguments.batch}, H = {H}, K = V = {K}, float32"
    )
    print(f"{'kind':29} {'T':>5} {'form':>12} {'ms':>8} {'faster':>7} {'us/position':>11} {'MiB':>8}")
    for kind in (*MATRIX, VECTOR):
        if not fnmatch.fnmatch(kind, arguments.only):
            continue
        for length in arguments.lengths:
            if kind == VECTOR:
                inputs = vector_arguments(arguments.batch, length)
                forms = {"step by step": vector_state.recurrent, "parallel": vector_state.parallel}
            else:
                inputs = matrix_arguments(kind, arguments.batch, length)
                of_models = matrix_state.CHUNK_SIZE if "head" in kind else matrix_state.KEY_DECAY_CHUNK_SIZE
                forms = {"step by step": matrix_state.recurrent} | {
                    f"chunks of {size}": functools.partial(matrix_state.chunked, chunk_size=size)
                    for size in arguments.chunk_sizes or [of_models]
                }
            steps = [Step(form, inputs) for form in forms.values()]
            times = seconds(steps, arguments.rounds)
            for form, step, took in zip(forms, steps, times, strict=True):
                print(
                    f"{kind:29} {length:5} {form:>12} {1e3 * took:8.1f} {times[0] / took:7.1f} "
                    f"{1e6 * took / length:11.1f} {step.mebibytes:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
