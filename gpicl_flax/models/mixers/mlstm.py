"""The mLSTM of xLSTM (Beck et al., 2024): a matrix with exponential input gates, and a normaliser."""

import math
from typing import Any

import gin
import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.models import layers
from gpicl_flax.models.backbone import MatchableBackbone
from gpicl_flax.models.matching import query_key
from gpicl_flax.models.matrix_memory import MatrixBackbone, MatrixMemory
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step
from gpicl_flax.models.sequence_model import StateSize, sow_query_key

_SLOWEST_BIAS = -math.log(math.expm1(1e-3))  # with which a matched head forgets 0.1% at each position
# The largest size of the logarithm of what a read is divided by, beside its normaliser. Beyond it, float32 sees no
# difference to the normaliser, or a read of zero. The square, which gradients need, is still finite.
_LARGEST_LOG = 40.0


@gin.configurable
class MLSTM(MatchableBackbone, MatrixBackbone):
    """The backbone with the mLSTM.

    Its block is the backbone's, and not one of the two of the paper. Gates depend on the token, as in the paper's
    equations (its code computes them from queries, keys and values). The norm of heads is an RMS norm, as in the other
    mixers, in place of a layer norm, and the output gate follows it, as in the authors' xLSTM 7B.
    """

    def mixer(self, layer: int) -> MatrixMemory:
        return MatrixLSTM(**self.mixer_settings(layer))


class MatrixLSTM(MatrixMemory):
    """C_t = f_t C_{t-1} + exp(i_t) k_t v_t^T, read as o_t = C_t^T q_t / max(|n_t^T q_t|, 1), with k_t over sqrt(K).

    The normaliser n_t = f_t n_{t-1} + exp(i_t) k_t; f is a sigmoid. Since exp(i) may be large, the state holds
    S_t = exp(-m_t) C_t and exp(-m_t) n_t with the stabiliser m_t = max(ln f_t + m_{t-1}, i_t), m_0 = 0:

        S_t = exp(ln f_t + m_{t-1} - m_t) S_{t-1} + exp(i_t - m_t) k_t v_t^T

    A norm of each head and a sigmoid gate follow.
    """

    @property
    def has_normaliser(self) -> bool:
        return True

    def state_size(self, sequence_length: int) -> StateSize:
        size = super().state_size(sequence_length)
        return size._replace(exact=size.exact + self.num_heads)  # the stabilisers

    @nn.compact
    def __call__(self, x: jax.Array, over: Pass) -> tuple[jax.Array, dict[str, Any]]:
        (query, key, value), kept = self.queries_keys_values(x, over)
        sow_query_key(self, "memory", query, key)
        log_input = self._gate("input_gate", nn.initializers.normal(0.1))(x)
        slowest = query_key.first_heads(_from_3_to_6, self.matched.num_heads, _SLOWEST_BIAS)
        log_forget = nn.log_sigmoid(self._gate("forget_gate", slowest)(x))
        read, memory = self.gated(over, query, key * self.logit_scale, value, log_input, log_forget)
        read = self.normalized_read(read) * nn.sigmoid(self.gate(x))
        return self.output(read, x.shape[-1]), kept | memory

    def gated(
        self,
        over: Pass,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        log_input: jax.Array,
        log_forget: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Writes and reads as the class says, stable for gates of any size.

        Args:
          over: the pass.
          query, key, value: [B, T, H, ...].
          log_input, log_forget: i and ln f, [B, T, H].

        Returns:
          o [B, T, H, V], and the state.
        """
        before, after, last = _stabilizers(over, log_input, log_forget)
        # In this order rounding of m cancels: it rescales the state and what reads it alike.
        log_decay = log_forget + (before - after)
        read, memory = self.remember(over, query, key * jnp.exp(log_input - after)[..., None], value, log_decay)
        one = jnp.exp(-jnp.clip(after, -_LARGEST_LOG, _LARGEST_LOG))[..., None]
        return read[..., :-1] / jnp.maximum(jnp.abs(read[..., -1:]), one), memory | {"stabilizer": last}

    def _gate(self, name: str, bias_init: nn.initializers.Initializer):
        """Returns the layer of a gate that does not depend on the token at first, to [B, T, H]."""
        zeros = nn.initializers.zeros
        return layers.linear(self.num_heads, ("embed", "heads"), name, dtype="float32", init=zeros, bias_init=bias_init)


def _stabilizers(over: Pass, log_input: jax.Array, log_forget: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes m_t = max(log_forget_t + m_{t-1}, log_input_t) for gates [B, T, H].

    Predictions do not depend on m, so no gradient passes.

    Returns:
      m_{t-1} and m_t [B, T, H], and the m [B, H] of the state.
    """
    log_input, log_forget = jax.lax.stop_gradient((log_input, log_forget))
    start = over.state["stabilizer"] if isinstance(over, Queries | Step) else jnp.zeros_like(log_input[:, 0])
    if isinstance(over, Queries):
        before = jnp.broadcast_to(start[:, None], log_input.shape)
        return before, jnp.maximum(log_forget + before, log_input), start

    def then(first, second):
        return first[0] + second[0], jnp.maximum(first[1] + second[0], second[1])

    decayed, largest = jax.lax.associative_scan(then, (log_forget, log_input), axis=1)
    every = jnp.concatenate([start[:, None], jnp.maximum(decayed + start[:, None], largest)], axis=1)
    counted = over.length if isinstance(over, Prefill) else log_input.shape[1]
    return every[:, :-1], every[:, 1:], every[:, counted]


def _from_3_to_6(key, shape, dtype=jnp.float32):
    return jnp.linspace(3, 6, *shape, dtype=dtype)
