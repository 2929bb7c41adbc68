"""Estimates the cost of a traced program from its jaxpr, without a compiler and so almost instantly.

The program is counted as it was written. The compiler uses less memory where it recomputes something instead of keeping
it, and more where it pads arrays.
"""

import math

import jax
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]  # public: jax renames it there

_LOOPS = ("scan", "while")
# Operations that act element by element, or only move elements.
_FUSED = frozenset(
    "abs add add_any and asin atan2 broadcast_in_dim ceil clamp convert_element_type copy cos div eq erf exp exp2 "
    "expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg not "
    "one_minus_square or pad pow reshape rem rev round rsqrt select_n shift_left shift_right_arithmetic "
    "shift_right_logical sharding_constraint sign sin slice split sqrt square squeeze stop_gradient sub tanh transpose "
    "xor".split()
)


def matmul_flops(jaxpr: ClosedJaxpr) -> int:
    """Returns two flops for each multiply-add of each matrix product, with those inside a scan for every iteration.

    Everything else is ignored: element by element operations, random numbers, factorisations, and the body of a
    `while`.
    """
    return _flops(jaxpr.jaxpr)


def _flops(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        turns = equation.params["length"] if equation.primitive.name == "scan" else equation.primitive.name != "while"
        total += turns * sum(map(_flops, _parts(equation)))
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    return total


def loop_turns(jaxpr: ClosedJaxpr) -> int:
    """Returns how many iterations the loops of a jaxpr make, with nested ones counted every time.

    A loop that is unrolled by n counts one n-th as often, and not at all if it is unrolled completely.
    """
    return _turns(jaxpr.jaxpr)


def _turns(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(map(_turns, _parts(equation)))
        if equation.primitive.name == "scan":
            length, unroll = equation.params["length"], equation.params["unroll"]
            own = 0 if unroll > 1 and unroll >= length else -(-length // unroll)
            inner = own + length * inner
        total += inner
    return total


def peak_bytes(jaxpr: ClosedJaxpr) -> int:
    """Returns the memory of the inputs and of everything alive at once, in the order of the jaxpr.

    Operations that act element by element or only move elements are assumed to be fused with those that read their
    results, as a compiler does. What they read stays alive instead.
    """
    return sum(map(_size, (*jaxpr.jaxpr.invars, *jaxpr.jaxpr.constvars))) + _alive(jaxpr.jaxpr)


def _alive(jaxpr) -> int:
    """Returns the peak memory of what a jaxpr makes, including its outputs but not its inputs."""
    line = _TimeLine()
    outputs = line.add(jaxpr, [frozenset()] * len(jaxpr.invars))
    line.use(frozenset().union(*outputs))
    return line.peak()


class _TimeLine:
    """The buffers of a program over time.

    It records when each buffer is made and last used, and the additional bytes that are needed at each time.
    """

    def __init__(self):
        self._now = 0
        self._buffers: list[list[int]] = []  # made, last used, bytes
        self._besides: list[int] = []  # at each time

    def add(self, jaxpr, inputs: list[frozenset[int]]) -> list[frozenset[int]]:
        """Maps the buffers behind the inputs of a jaxpr to those of its outputs. An input may depend on several."""
        held = dict(zip(map(id, jaxpr.invars), inputs, strict=True))
        for equation in jaxpr.eqns:
            read = [held.get(id(var), frozenset()) for var in equation.invars]
            name, parts = equation.primitive.name, _parts(equation)
            if name not in _LOOPS and len(parts) == 1:
                made = self.add(parts[0], read[len(read) - len(parts[0].invars) :])
            elif name in _FUSED:
                made = [frozenset().union(*read)] * len(equation.outvars)
            else:
                self.use(frozenset().union(*read), max(map(_alive, parts), default=0) if name in _LOOPS else 0)
                made = [self._make(_size(var)) for var in equation.outvars]
            held |= zip(map(id, equation.outvars), made, strict=True)
        return [held.get(id(var), frozenset()) for var in jaxpr.outvars]

    def _make(self, size: int) -> frozenset[int]:
        self._buffers.append([self._now, self._now, size])
        return frozenset({len(self._buffers) - 1})

    def use(self, buffers: frozenset[int], besides: int = 0) -> None:
        """Records that buffers are read at a new time, when `besides` other bytes are needed."""
        self._now += 1
        self._besides.append(besides)
        for buffer in buffers:
            self._buffers[buffer][1] = self._now

    def peak(self) -> int:
        """Returns the largest sum at any time."""
        changes = [0] * (self._now + 2)
        for made, last_used, size in self._buffers:
            changes[made] += size
            changes[last_used + 1] -= size
        alive, peak = changes[0], 0
        for time, besides in enumerate(self._besides, 1):
            alive += changes[time]
            peak = max(peak, alive + besides)
        return peak


def _parts(equation) -> list:
    """Returns the jaxprs that an equation calls.

    For a `cond` it is the branch with the most products, except for branches that are specific to a platform.
    """
    if equation.primitive.name == "cond":
        return [max((branch.jaxpr for branch in reversed(equation.params["branches"])), key=_flops)]
    found = jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"))
    return [getattr(x, "jaxpr", x) for x in found if hasattr(x, "jaxpr") or hasattr(x, "eqns")]


def _size(var) -> int:
    dtype = getattr(var.aval, "dtype", None)
    return math.prod(var.aval.shape) * dtype.itemsize if dtype is not None else 0
