"""Counts the bytes that a compiled program moves to and from the memory of a device (HBM).

It counts every iteration of a loop. The compiler's own count includes the body of a loop once, and also includes data
that stays on the chip.
"""

from collections.abc import Iterable

from gpicl_flax.training.cost.hlo import Array, HloProgram, Instruction

# These move nothing, or are counted where they are started or inside of what they call.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all iota partition-id replica-id "
    "opt-barrier async-start async-update".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")

Computation = dict[str, Instruction]


def hbm_bytes(program: HloProgram) -> int:
    """Returns the bytes of one call of a program, on each device.

    Arrays count without padding. Of arrays that are sliced, only the parts that are used count.
    """
    return sum(times * _bytes(program, instruction, within) for instruction, within, times in program.executed())


def _bytes(program: HloProgram, instruction: Instruction, within: Computation) -> int:
    operation, results = instruction.operation, instruction.arrays
    if operation in _FREE or operation.endswith("-done"):
        return 0
    operands = [within[name].arrays for name in instruction.operands if name in within]
    if operation in ("copy-start", "slice-start"):  # their results name both the source and the destination
        source = operands[0][0]
        (to,) = [a for a in results[:2] if a.in_hbm != source.in_hbm][:1] or [source]
        moved = min(source.nbytes, to.nbytes)
        return moved * (source.in_hbm + to.in_hbm)
    if operation == "fusion":
        fused = program.computations[instruction.called[0]]
        parameters = {int(i.rest.partition(")")[0]): i for i in fused.values() if i.operation == "parameter"}
        read = (
            _used(program, fused, parameters[index])
            for index, arrays in enumerate(operands)
            if len(arrays) == 1 and arrays[0].in_hbm and index in parameters
        )
        return sum(read) + _written(program, fused, results)
    if operation in _SLICES:
        return (
            _in_hbm(results) * (1 + operands[0][0].in_hbm)
            if results[0].in_hbm
            else _all(results) * operands[0][0].in_hbm
        )
    if operation == "dynamic-update-slice":
        return _in_hbm(operands[1]) + _all(operands[1]) * results[0].in_hbm
    return sum(map(_in_hbm, operands)) + _in_hbm(results)


def _used(program: HloProgram, fused: Computation, value: Instruction) -> int:
    """Returns the bytes of an array that a fusion reads. If it is only sliced, these are the bytes of the slices."""
    whole, used = _all(value.arrays), 0
    for user in fused.values():
        if value.name not in user.operands:
            continue
        if user.operation in _SLICES and user.operands[0] == value.name:
            used += _all(user.arrays)
        elif user.operation == "bitcast":
            used += _used(program, fused, user)
        elif user.operation == "fusion":
            inner = program.computations[user.called[0]]
            index = user.operands.index(value.name)
            used += sum(
                _used(program, inner, i)
                for i in inner.values()
                if i.operation == "parameter" and i.rest.startswith(f"{index})")
            )
        elif not (user.operation == "dynamic-update-slice" and user.operands[0] == value.name):  # updated in place
            return whole
    return min(used, whole)


def _written(program: HloProgram, fused: Computation, results: tuple[Array, ...]) -> int:
    """Returns the bytes that a fusion writes to HBM. For an array updated in place, these are those of the update."""
    (root,) = (i for i in fused.values() if i.is_root)
    values = [fused[name] for name in root.operands] if root.operation == "tuple" else [root]
    return sum(_made(program, fused, value) for value, result in zip(values, results, strict=False) if result.in_hbm)


def _made(program: HloProgram, fused: Computation, value: Instruction) -> int:
    while value.operation == "bitcast" and value.operands[0] in fused:
        value = fused[value.operands[0]]
    if value.operation == "dynamic-update-slice":
        return _all(fused[value.operands[1]].arrays)
    if value.operation == "fusion":
        inner = program.computations[value.called[0]]
        (root,) = (i for i in inner.values() if i.is_root)
        return _made(program, inner, root)
    return _all(value.arrays)


def _all(arrays: Iterable[Array]) -> int:
    return sum(a.nbytes for a in arrays)


def _in_hbm(arrays: Iterable[Array]) -> int:
    return sum(a.nbytes for a in arrays if a.in_hbm)
