"""What a traced program costs, counted in its jaxpr: without a compiler, and so in no time.

Counted is the program as it was written. The compiler saves memory where it computes something again instead of keeping
it, and takes more where it pads arrays.
"""

import math

import jax
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]  # public: jax renames it there

_LOOPS = ("scan", "while")
# Element by element, or only moving elements.
_FUSED = frozenset(
    "abs add add_any and asin atan2 broadcast_in_dim ceil clamp convert_element_type copy cos div eq erf exp exp2 "
    "expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg not "
    "one_minus_square or pad pow reshape rem rev round rsqrt select_n shift_left shift_right_arithmetic "
    "shift_right_logical sharding_constraint sign sin slice split sqrt square squeeze stop_gradient sub tanh transpose "
    "xor".split()
)


def matmul_flops(jaxpr: ClosedJaxpr) -> int:
    """Two for each multiply-add of each matrix product, those inside a scan as often as it turns.

    Everything else is left out: element by element operations, random numbers, factorisations, and what a `while` does.
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
    """How often the loops of a jaxpr turn, those inside of others every time.

    One that is unrolled by n counts an n-th as often, and not at all if that is all of it.
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
    """Memory of the inputs and of what is alive at once between them and the outputs, in the order of the jaxpr.

    Operations that act element by element or only move elements are taken to be fused with those that read their
    results, as a compiler does: what they read stays alive instead.
    """
    return sum(map(_size, (*jaxpr.jaxpr.invars, *jaxpr.jaxpr.constvars))) + _alive(jaxpr.jaxpr)


def _alive(jaxpr) -> int:
    """The peak of what a jaxpr makes, its outputs among them, and not what it is given."""
    line = _TimeLine()
    outputs = line.add(jaxpr, [frozenset()] * len(jaxpr.invars))
    line.use(frozenset().union(*outputs))
    return line.peak()


class _TimeLine:
    """The buffers of a program, one after another.

    Each tells when it is made and last used, and what is needed besides meanwhile.
    """

    def __init__(self):
        self._now = 0
        self._buffers: list[list[int]] = []  # made, last used, bytes
        self._besides: list[int] = []  # at each time

    def add(self, jaxpr, inputs: list[frozenset[int]]) -> list[frozenset[int]]:
        """Maps the buffers that hold the inputs of a jaxpr, or that they are computed from, to those of its outputs."""
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
        """They are read at a new time, when other bytes are needed besides."""
        self._now += 1
        self._besides.append(besides)
        for buffer in buffers:
            self._buffers[buffer][1] = self._now

    def peak(self) -> int:
        """The largest sum at any time."""
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
    """The jaxprs that an equation calls.

    Of a `cond` it is the branch with most products, and not that of a platform of its own.
    """
    if equation.primitive.name == "cond":
        return [max((branch.jaxpr for branch in reversed(equation.params["branches"])), key=_flops)]
    found = jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"))
    return [getattr(x, "jaxpr", x) for x in found if hasattr(x, "jaxpr") or hasattr(x, "eqns")]


def _size(var) -> int:
    dtype = getattr(var.aval, "dtype", None)
    return math.prod(var.aval.shape) * dtype.itemsize if dtype is not None else 0
