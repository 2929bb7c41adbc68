"""Kernels are read from the traces of each kind of device; those of a GPU and a TPU are written here by hand."""

import numpy as np
import pytest
from jax.profiler import ProfileData

from gpicl_flax.training.cost import kernels

PROGRAM = """
  %fusion.1 = f32[4]{0} fusion(%x), kind=kLoop, metadata={op_name="jit(f)/while/body/jvp(M)/M.run/block_0/mlp_norm/mul"}
  ROOT %dot.2 = f32[4,4]{1,0} dot(%x, %y), metadata={op_name="jit(f)/transpose(jvp(M))/M.run/block_1/query/dot_general"}
"""


def space(*planes):
    """A trace of planes: (name, {line: [(event, start us, duration us, instruction or None)]})."""
    text = ""
    for name, lines in planes:
        names, body = {}, ""
        for line, events in lines.items():
            body += f'lines {{ name: "{line}"'
            for event, start, duration, operation in events:
                number = names.setdefault(event, len(names) + 1)
                stats = f'stats {{ metadata_id: 1 str_value: "{operation}" }}' if operation else ""
                body += (
                    f" events {{ metadata_id: {number} offset_ps: {start * 10**6} duration_ps: {duration * 10**6} "
                    f"{stats} }}"
                )
            body += " }"
        for event, number in names.items():
            body += f'event_metadata {{ key: {number} value {{ id: {number} name: "{event}" }} }}'
        body += 'stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }'
        text += f'planes {{ name: "{name}" {body} }}'
    return ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(text))


HOST = ("/host:CPU", {"thread": [("fusion.1", 0, 1000, "fusion.1")]})  # no kernel where there is a device


def test_kernels_of_gpus_are_those_of_streams_on_all_cards():
    card = {
        "Stream #13(Compute)": [
            ("gemm", 0, 30, "dot.2"),
            ("loop_fusion", 40, 10, "fusion.1"),
            ("gemm", 50, 30, "dot.2"),
        ],
        "Stream #14(MemcpyH2D)": [("MemcpyH2D", 0, 10, None)],
        "XLA Modules": [("jit_f", 0, 80, None)],
    }
    found = kernels.costliest_first(space(("/device:GPU:0", card), ("/device:GPU:1", card), HOST), PROGRAM)
    assert found == [
        ("gemm", 4, 0.12, 0.75, "gradient of block_1/query/dot_general"),
        ("loop_fusion", 2, 0.02, 0.125, "block_0/mlp_norm/mul"),
        ("MemcpyH2D", 2, 0.02, 0.125, ""),
    ]


def test_kernels_of_a_tpu_are_its_operations_and_loops_are_none():
    lines = {
        "XLA Ops": [
            ("%while.3 = (s32[]) while(%t), body=%b", 0, 100, None),
            ("%fusion.1 = f32[4]{0} fusion(%x)", 5, 60, None),
            ("%dot.2 = f32[4,4] dot(%x)", 70, 20, None),
        ],
        "Steps": [("1", 0, 100, None)],
    }
    found = kernels.costliest_first(space(("/device:TPU:0", lines), HOST), PROGRAM)
    assert [kernel[:3] for kernel in found] == [("fusion.1", 1, 0.06), ("dot.2", 1, 0.02)]
    assert [kernel.share for kernel in found] == pytest.approx([0.75, 0.25])


def test_kernels_without_a_device_are_operations_on_the_threads_of_the_host():
    lines = {
        "worker 1": [("call", 0, 50, "call"), ("dot.2", 10, 30, "dot.2"), ("end: dot.2", 40, 1, "dot.2")],
        "worker 2": [("dot.2", 10, 20, "dot.2"), ("python", 0, 90, None)],
    }
    assert kernels.costliest_first(space(("/host:CPU", lines))) == [("dot.2", 2, 0.05, 1.0, "")]


def test_a_kernel_of_several_places_names_them():
    lines = {"Stream #1": [("gemm", 0, 1, "dot.2"), ("gemm", 2, 1, "fusion.1"), ("gemm", 4, 1, "dot.2")]}
    (kernel,) = kernels.costliest_first(space(("/device:GPU:0", lines)), PROGRAM)
    assert kernel.place == "gradient of block_1/query/dot_general, block_0/mlp_norm/mul"


def test_a_trace_without_kernels_has_none():
    assert kernels.costliest_first(space(("/device:GPU:0", {}), HOST)) == []


def test_own_times_add_up_to_the_time_that_anything_ran():
    """Against a count of each microsecond by the innermost event, on random nested events."""
    rng = np.random.default_rng(0)
    events, innermost = [], {}

    def fill(start, end, depth):
        while start < end:
            begin = min(start + int(rng.integers(5)), end - 1)
            stop = min(begin + 1 + int(rng.integers(100 // 2**depth)), end)
            name = f"event {len(events)}"
            events.append((name, float(begin), float(stop - begin)))
            innermost.update(dict.fromkeys(range(begin, stop), name))
            if depth < 4 and stop - begin > 2:
                fill(begin + 1, stop - 1, depth + 1)
            start = stop

    fill(0, 1000, 0)
    found = dict(kernels.own_times(rng.permutation(np.array(events, object)).tolist()))
    assert len(events) > 50 and len(found) == len(events)
    assert found == {name: list(innermost.values()).count(name) for name, _, _ in events}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("jit(train_steps)/while/body/eval_jaxpr/jvp(LSTM)/LSTM.run/mlp_0/dot_general", "mlp_0/dot_general"),
        ("jit(f)/transpose(jvp(T))/T.run/b/parts_0.with_shared/parts_0/cond/branch_0_fun/mul", "gradient of b/mul"),
        ("jit(f)/while/body/eval_jaxpr/reduce_sum", "reduce_sum"),
        ("", ""),
    ],
)
def test_places_are_of_the_model(path, expected):
    assert kernels.place(path) == expected
