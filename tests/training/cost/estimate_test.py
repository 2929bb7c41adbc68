import jax
import jax.numpy as jnp

from gpicl_flax.training.cost import estimate


def jaxpr(function, *arguments):
    return jax.make_jaxpr(function)(*arguments)


def test_a_product_counts_two_flops_a_multiply_add_and_its_gradient_two_products_more():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))

    def loss(a, b):
        return jnp.sum(jnp.tanh(a @ b))

    assert estimate.matmul_flops(jaxpr(loss, a, b)) == 2 * 3 * 5 * 7
    assert estimate.matmul_flops(jaxpr(jax.grad(loss, (0, 1)), a, b)) == 3 * 2 * 3 * 5 * 7


def test_a_scan_counts_as_often_as_it_turns_also_inside_of_another():
    matrix = jnp.zeros((4, 4))

    def turn(x, _):
        return jax.lax.scan(lambda x, _: (x @ matrix, None), x, length=3)[0], None

    traced = jaxpr(lambda x: jax.lax.scan(turn, x, length=5)[0], matrix)
    assert estimate.matmul_flops(traced) == 5 * 3 * 2 * 4**3
    assert estimate.loop_turns(traced) == 5 + 5 * 3


def test_an_unrolled_loop_turns_less_often_and_costs_the_same():
    matrix = jnp.zeros((4, 4))
    for unroll, turns in ((1, 10), (4, 3), (10, 0)):
        traced = jaxpr(
            lambda x, n=unroll: jax.lax.scan(lambda x, _: (x @ matrix, None), x, length=10, unroll=n)[0], matrix
        )
        assert estimate.loop_turns(traced) == turns
        assert estimate.matmul_flops(traced) == 10 * 2 * 4**3


def test_of_branches_one_is_counted():
    matrix = jnp.zeros((4, 4))
    traced = jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), matrix)
    assert estimate.matmul_flops(traced) == 2 * 2 * 4**3


def test_memory_is_that_of_the_inputs_and_of_what_is_alive_at_once():
    x = jnp.zeros((10, 10))  # 400 bytes
    assert estimate.peak_bytes(jaxpr(lambda x: x @ x, x)) == 800
    assert estimate.peak_bytes(jaxpr(lambda x: x @ x @ x @ x @ x, x)) == 3 * 400  # an operand and a result


def test_what_acts_element_by_element_is_fused_and_takes_no_memory():
    x = jnp.zeros((10, 10))
    assert estimate.peak_bytes(jaxpr(lambda x: jnp.tanh(x * 2) @ x, x)) == 800


def test_the_backward_pass_keeps_what_it_needs_and_less_of_it_with_checkpoints():
    x, depth = jnp.zeros((100, 100)), 8

    def layer(x):
        for _ in range(2):
            x = jnp.tanh(x @ x)
        return x

    def loss(x, layer):
        for _ in range(depth):
            x = layer(x)
        return x.sum()

    kept = estimate.peak_bytes(jaxpr(jax.grad(lambda x: loss(x, layer)), x))
    checkpointed = estimate.peak_bytes(jaxpr(jax.grad(lambda x: loss(x, jax.checkpoint(layer))), x))
    assert 2 * depth * x.nbytes <= kept <= (2 * depth + 6) * x.nbytes
    assert checkpointed < 0.75 * kept


def test_a_loop_keeps_a_row_for_each_of_its_turns():
    x, turns = jnp.zeros((10, 10)), 20
    traced = jaxpr(lambda x: jax.lax.scan(lambda x, _: (x @ x, x @ x), x, length=turns), x)
    assert turns * x.nbytes < estimate.peak_bytes(traced) < (turns + 6) * x.nbytes
