import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gpicl_flax.training.cost import collectives
from gpicl_flax.training.cost.hbm_traffic import hbm_bytes
from gpicl_flax.training.cost.hlo import HloProgram, arrays

# Cut out of what the TPU compiler wrote: a loop of 25 turns in one of 10, which reads a row of `table` in HBM a turn,
# sums over devices, and keeps its state on the chip.
TPU = """\
HloModule jit_train_steps, is_scheduled=true, entry_computation_layout={(f32[25,256]{1,0:T(8,128)})->f32[256]{0:T(256)}}

%fused_computation.1 (param_0: f32[25,256], param_1: s32[], param_2: f32[256]) -> f32[256] {
  %param_0 = f32[25,256]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %param_2 = f32[256]{0:T(256)S(1)} parameter(2)
  %constant.1 = s32[]{:T(128)} constant(0)
  %dynamic-slice.1 = f32[1,256]{1,0:T(1,128)} dynamic-slice(%param_0, %param_1, %constant.1), dynamic_slice_sizes={1,256}
  %bitcast.1 = f32[256]{0:T(256)} bitcast(%dynamic-slice.1)
  ROOT %add.1 = f32[256]{0:T(256)} add(%bitcast.1, %param_2)
}

%region_sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%inner_condition (p.1: (s32[], f32[256], f32[25,256])) -> pred[] {
  %constant.2 = s32[]{:T(128)} constant(25)
  %p.1 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.2), direction=LT
}

%inner_body (p.2: (s32[], f32[256], f32[25,256])) -> (s32[], f32[256], f32[25,256]) {
  %p.2 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %state = f32[256]{0:T(256)S(1)} get-tuple-element(%p.2), index=1
  %table = f32[25,256]{1,0:T(8,128)} get-tuple-element(%p.2), index=2
  %fusion.1 = f32[256]{0:T(256)S(1)} fusion(%table, %i, %state), kind=kLoop, calls=%fused_computation.1
  %all-reduce.1 = f32[256]{0:T(256)S(1)} all-reduce(%fusion.1), channel_id=7, replica_groups=[1,4]<=[4], to_apply=%region_sum
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) tuple(%i, %all-reduce.1, %table)
}

%outer_condition (p.3: (s32[], f32[256], f32[25,256])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(10)
  %p.3 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.2 = s32[]{:T(128)} get-tuple-element(%p.3), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%get-tuple-element.2, %constant.3), direction=LT
}

%outer_body (p.4: (s32[], f32[256], f32[25,256])) -> (s32[], f32[256], f32[25,256]) {
  %p.4 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) parameter(0)
  ROOT %while.1 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) while(%p.4), condition=%inner_condition, body=%inner_body
}

ENTRY %main (table.1: f32[25,256]) -> f32[256] {
  %table.1 = f32[25,256]{1,0:T(8,128)} parameter(0)
  %constant.4 = s32[]{:T(128)} constant(0)
  %copy-start.1 = (f32[25,256]{1,0:T(8,128)S(1)}, f32[25,256]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%table.1)
  %copy-done.1 = f32[25,256]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %start = f32[256]{0:T(256)S(1)} broadcast(%constant.4), dimensions={}
  %all-gather-start.1 = (f32[64]{0:T(128)}, f32[256]{0:T(256)}) all-gather-start(%start), channel_id=9, dimensions={0}
  %all-gather-done.1 = f32[256]{0:T(256)} all-gather-done(%all-gather-start.1)
  %tuple.2 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) tuple(%constant.4, %start, %table.1)
  %while.2 = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}, f32[25,256]{1,0:T(8,128)}) while(%tuple.2), condition=%outer_condition, body=%outer_body
  ROOT %result = f32[256]{0:T(256)} get-tuple-element(%while.2), index=1
}
"""  # noqa: E501  # as the compiler writes them


def test_an_array_knows_its_bytes_and_whether_it_lies_in_hbm():
    here, there, truth, small = arrays(
        "(f32[256,10]{0,1:T(8,128)S(1)}, bf16[3,2]{1,0:T(8,128)(2,1)}, pred[5], s4[3]{0})"
    )
    assert (here.type, here.nbytes, here.in_hbm) == ("f32[256,10]", 10_240, False)
    assert (there.nbytes, there.in_hbm) == (12, True)
    assert (truth.nbytes, small.nbytes) == (5, 2)
    assert [array.nbytes for array in arrays("s32[]{:T(128)}")] == [4]


def test_what_is_inside_of_loops_is_run_every_turn():
    program = HloProgram(TPU)
    assert program.times["%main"] == 1
    assert program.times["%outer_body"] == 10
    assert program.times["%inner_body"] == program.times["%fused_computation.1"] == 250
    assert program.num_loops == 2


def test_collectives_are_found_with_their_sizes_and_how_often_a_step_makes_them():
    gathered, summed = sorted(collectives.collectives(HloProgram(TPU)), key=lambda c: c.kind)
    assert (gathered.kind, gathered.times, gathered.nbytes) == ("all-gather", 1, 1024)
    assert (summed.kind, summed.times, summed.largest.type) == ("all-reduce", 250, "f32[256]")
    text = collectives.summary([summed], steps=10)
    assert text == "25 all-reduce of 0.0256 MB (to f32[256])"
    assert collectives.summary([]) == "none"


def test_traffic_is_what_crosses_to_hbm_every_time_and_of_sliced_arrays_what_is_used():
    copied, gathered, a_row = 25 * 256 * 4, (64 + 256) * 4, 256 * 4
    index = 4  # of the loop, a scalar
    assert hbm_bytes(HloProgram(TPU)) == copied + gathered + index + 250 * (a_row + index)


def test_a_program_of_this_machine_has_the_loops_and_collectives_that_it_was_written_with():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.ShapeDtypeStruct((16, 128), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))

    def steps(rows):
        return jax.lax.scan(lambda rows, _: (rows + rows.sum(0), None), rows, length=6)[0]

    program = HloProgram(jax.jit(steps).lower(rows).compile().as_text())
    found = collectives.collectives(program)
    assert [(c.kind, c.times, c.nbytes) for c in found] == [("all-reduce", 6, 128 * 4)]
    assert program.num_loops == 1


@pytest.mark.parametrize("text", ["", "HloModule nothing\n"])
def test_text_that_is_no_program_is_an_error(text):
    with pytest.raises(ValueError, match="no program"):
        HloProgram(text)
