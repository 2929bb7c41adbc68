import json
import types

import pytest

from gpicl_flax.sweep import aot, cost
from gpicl_flax.sweep.aot import Cost, Slice
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.programs import Program
from gpicl_flax.training.cost import chips
from gpicl_flax.training.cost.chips import GIB

ON = Slice("v5e:2x2x1", chips.chip("v5e"), (None,) * 4)
# As libtpu 0.0.50.1 writes it.
EXHAUSTED = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (21.30G) exceeds available HBM (15.75G). HLO module: jit_train_steps.\nSee "
    "https://openxla.org/xla/errors/error_1000 for more details."
)


def program(name, count, steps=1000):
    run = types.SimpleNamespace(training=types.SimpleNamespace(steps=steps), labels={})
    points = tuple(Point(f"{name}_seed={i}", {}, None, (name, f"seed={i}")) for i in range(count))
    return Program(points, (run,) * count)


RESULTS = [
    (program("small", 8), Cost(4, {"data": 4}, 2e9, False, 5e6, GIB // 2, 63 * GIB // 4, "none", 0.5, 3.25)),
    (program("looping", 2), Cost(1, {"data": 4}, 3e9, True, 6e6, GIB, 63 * GIB // 4, "none", 0.25, 4.5)),
    (program("large", 3), Cost(1, {"data": 4}, compile_seconds=2.0, **aot._refusal(EXHAUSTED))),
    (program("odd", 1), Cost(1, problem="6 is not divisible by the mesh")),
]


def test_what_the_compiler_says_of_too_large_a_program_becomes_numbers():
    refusal = aot._refusal(EXHAUSTED)
    assert refusal["problem"] == "does not fit: 21.30 of 15.75 GiB"
    assert refusal["hbm_limit"] == ON.usable_hbm and refusal["hbm_bytes"] == round(21.3 * GIB)
    assert aot._refusal("INTERNAL: it broke\nat a place") == {"problem": "does not compile: INTERNAL: it broke"}


def test_the_table_has_a_line_a_program_and_names_the_points_that_cannot_run():
    lines = aot.as_table(RESULTS, ON).splitlines()
    assert "v5e:2x2x1 (v5litepod-4: 4 chip(s))" in lines[0]
    cells = {line.split()[0]: line.split() for line in lines[2:6]}
    assert cells["small"][1:8] == ["8", "4", "data=4", "2.00", "5.0", "0.500", "15.75"]
    assert cells["looping"][4] == "3.00*" and cells["looping"][8:10] == ["250,000", "4.5"]
    assert lines[4].endswith("does not fit: 21.30 of 15.75 GiB") and lines[5].endswith("not divisible by the mesh")
    at = lines.index("4 of 14 points cannot run so:")
    assert lines[at + 1 : at + 5] == [
        "  large: does not fit: 21.30 of 15.75 GiB, 5.55 GiB too much",
        "    large_seed=0",
        "    large_seed=1",
        "    large_seed=2",
    ]
    assert aot.as_table(RESULTS[:2], ON).endswith("All 10 points compile and fit.")


def test_chip_hours_are_those_of_the_whole_slice_for_each_stack():
    (small, large), *_ = RESULTS
    assert cost.compiled_chip_hours(small, large, ON) == pytest.approx(2 * 1000 * 0.5 * 4 / 3600)
    text = cost.compiled_as_table(RESULTS, ON)
    assert "does not fit: 21.30 of 15.75 GiB" in text
    first = json.loads(cost.compiled_as_json(RESULTS, ON).splitlines()[0])
    assert (first["program"], first["chip_hours"], len(first["points"])) == ("small", pytest.approx(4000 / 3600), 8)
    total = 2 * 1000 * 0.5 * 4 / 3600 + 2 * 1000 * 0.25 * 4 / 3600
    assert next(line for line in text.splitlines() if line.startswith("all")).split() == ["all", "14", f"{total:.3g}"]


def test_devices_and_names_of_slices_are_those_of_cloud_tpu():
    assert chips.chip("v4").accelerator_type(8) == "v4-16"  # cores
    assert chips.chip("v5e").accelerator_type(16) == "v5litepod-16"  # chips
    half = Slice("tpu7x:2x2x1", chips.chip("tpu7x"), (None,) * 8)
    assert half.num_chips == 4 and half.usable_hbm == round(2 * 94.74 * GIB) // 2
    assert str(half).endswith("4 chip(s), 8 devices)")
