"""The real-gated linear recurrent unit (De et al., 2024), in the recurrent block of Griffin and Hawk."""

from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.errors import UsageError
from gpicl_flax.models.backbone import Backbone
from gpicl_flax.models.initializers import partitioned
from gpicl_flax.models.kernels import vector_state
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step
from gpicl_flax.models.sequence_model import StateSize
from gpicl_flax.models.short_convolution import NUM_KEPT, ShortConvolution

FORMS = ("parallel", "recurrent")
_SHARPNESS = 8.0  # c: a = exp(-c softplus(Lambda) r)
_SLOWEST, _FASTEST = 0.999, 0.9  # the range of exp(-softplus(Lambda)) at first


@gin.configurable
class RGLRU(Backbone):
    """The backbone with Griffin's recurrent block.

    This is the paper's Hawk. Griffin is a `Hybrid` (gin/griffin.gin).

    The block has d_rnn = num_heads * key_size channels. By default that is the model size, as in google-deepmind's
    recurrentgemma; the paper has about 4/3 of it. The state is a vector of d_rnn numbers a block (`paper`), and 3 d_rnn
    more of the convolution.

    Attributes:
      num_heads, key_size: the number of blocks of the block-diagonal gates, and the channels of each.
      short_convolution: whether the channels pass through a convolution over four positions, as in the paper.
      form: 'parallel': an associative scan; 'recurrent': step by step. Both compute the same function.
    """

    short_convolution: bool = True
    form: str = "parallel"

    def __post_init__(self):
        super().__post_init__()
        if self.form not in FORMS:
            raise UsageError(f"RGLRU.form must be one of {', '.join(FORMS)}, not {self.form!r}")

    def mixer(self, layer: int) -> "GriffinBlock":
        return GriffinBlock(**self.mixer_settings(layer), form=self.form)


class GriffinBlock(Mixer):
    """output(gelu(linear(x)) * h), with h the recurrent unit of u = convolution(linear(x)).

        h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t),   a_t = exp(-8 softplus(Lambda) r_t)

    for each channel. The gates r and i are sigmoids of block-diagonal layers of u. Lambda starts so that
    exp(-softplus(Lambda)) lies in [0.9, 0.999] as in recurrentgemma, where the paper says this of its eighth power. The
    first position is as the others, as in the paper; in recurrentgemma it has 1 for sqrt(1 - a^2). That code also has a
    bias after the convolution, which here the layer before has.
    """

    form: str

    @property
    def convolution_size(self) -> int:
        return self.short_convolution * NUM_KEPT * self.num_heads * self.key_size

    def state_size(self, sequence_length: int) -> StateSize:
        paper = self.num_heads * self.key_size
        return StateSize(paper=paper, exact=paper + self.convolution_size)

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        shape = self.num_heads, self.key_size
        names = "embed", "heads", "kv"
        gate = nn.gelu(self.linear(shape, names, "gate")(x))
        u, kept = self.linear(shape, names, "value")(x), {}
        if self.short_convolution:
            u, kept["convolution"] = ShortConvolution(name="value_convolution")(u, over.part("convolution"))

        rate = self.param("decay", partitioned(_decay_init, ("heads", "kv")), shape)
        log_decay = -_SHARPNESS * nn.softplus(rate) * nn.sigmoid(BlockDiagonal(name="decay_gate")(u))
        # The floor, which no sum in float32 would notice, keeps the gradient finite where nothing is forgotten.
        written = (
            jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_decay), 1e-30))
            * nn.sigmoid(BlockDiagonal(name="input_gate")(u))
            * u
        )
        h, kept["vector"] = self._recurrence(written, log_decay, over)
        return self.output(gate * h, x.shape[-1]), kept

    def _recurrence(self, written: jax.Array, log_decay: jax.Array, over: Pass) -> tuple[jax.Array, jax.Array]:
        """Returns h [B, T, H, K] and the state [B, H K]."""
        shape = written.shape
        if isinstance(over, Prefill):  # the other positions write and forget nothing
            counts = (jnp.arange(shape[1]) < over.length)[:, None, None]
            written, log_decay = written * counts, log_decay * counts
        written, log_decay = (y.reshape(*shape[:2], -1) for y in (written, log_decay))
        if isinstance(over, Queries):
            state = over.state["vector"]
            h = vector_state.each(written, log_decay, state)
        elif isinstance(over, Step):
            h, state = vector_state.recurrent(written, log_decay, over.state["vector"])
        else:
            form = vector_state.parallel if self.form == "parallel" else vector_state.recurrent
            h, state = form(written, log_decay)
        return h.reshape(shape), state


class BlockDiagonal(nn.Module):
    """A linear layer of x [B, T, H, K] within each head, with a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads, size = x.shape[2:]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        kernel = self.param("kernel", partitioned(init, ("heads", None, "kv")), (heads, size, size))
        bias = self.param("bias", partitioned(nn.initializers.zeros, ("heads", "kv")), (heads, size))
        return jnp.einsum("bthi,hij->bthj", x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


def _decay_init(key, shape, dtype=jnp.float32):
    """Draws Lambda with exp(-2 softplus(Lambda)), the square of the slowest decay, uniform."""
    square = jax.random.uniform(key, shape, dtype, _FASTEST**2, _SLOWEST**2)
    return jnp.log(jnp.expm1(-0.5 * jnp.log(square)))
