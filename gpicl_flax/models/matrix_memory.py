"""Mixers whose heads keep a matrix for any length of the sequence, and the settings of models that are made of them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gpicl_flax.bindings.kinds import Width
from gpicl_flax.errors import UsageError
from gpicl_flax.models.backbone import Backbone
from gpicl_flax.models.kernels import matrix_state
from gpicl_flax.models.kernels.matrix_state import Correction
from gpicl_flax.models.mixer import Mixer
from gpicl_flax.models.passes import Pass, Prefill, Queries, Step
from gpicl_flax.models.sequence_model import StateSize

FORMS = ("chunked", "recurrent")


class MatrixBackbone(Backbone):
    """A backbone whose mixers are `MatrixMemory`s.

    Attributes:
      value_size: the size of each head's values; None: the default of the model, the key size or a multiple of it.
      form: 'chunked': parallel within chunks; 'recurrent': step by step. Both compute the same function.
      chunk_size: positions of a chunk, rounded up to a power of two.
    """

    value_size: Width | None = None
    form: str = "chunked"
    chunk_size: Width = matrix_state.CHUNK_SIZE

    def __post_init__(self):
        super().__post_init__()
        if self.form not in FORMS:
            raise UsageError(f"{type(self).__name__}.form must be one of {', '.join(FORMS)}, not {self.form!r}")

    def mixer_settings(self, layer: int) -> dict[str, Any]:
        return super().mixer_settings(layer) | {
            "value_size": self.value_size or self.default_value_size,
            "chunk_size": self.chunk_size if self.form == "chunked" else None,
        }

    @property
    def default_value_size(self) -> int:
        """The size of values where none is set."""
        return self.key_size


class MatrixMemory(Mixer):
    """A mixer whose heads keep a matrix, and perhaps a normaliser.

    A new one computes queries, keys, values and decays, and calls `remember`.

    Attributes:
      chunk_size: positions of a chunk; None: step by step.
    """

    chunk_size: int | None

    @property
    def has_normaliser(self) -> bool:
        """Whether heads also keep the decayed sum of their keys."""
        return False

    def state_size(self, sequence_length: int) -> StateSize:
        keys = self.num_heads * self.key_size
        paper = keys * self.value_size
        return StateSize(paper=paper, exact=paper + keys * self.has_normaliser + self.convolution_size)

    def remember(
        self,
        over: Pass,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        log_decay: jax.Array,
        correction: Correction | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Writes and reads the matrices: S_t = (D_t + a_t b_t^T) S_{t-1} + k_t v_t^T, o_t = S_t^T q_t.

        Each of several independent queries writes to its own copy. With a normaliser, o has one more column: the
        product of the query and the normaliser.

        Args:
          over: the pass.
          query, key, value, log_decay, correction: those of `kernels.matrix_state`, for heads [B, T, H, ...].

        Returns:
          o [B, T, H, V], and the state: 'matrix' [B, H, K, V] (and 'normaliser' [B, H, K]).
        """
        if self.has_normaliser:
            value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1)
        if isinstance(over, Prefill):  # the other positions write and forget nothing
            counts = jnp.arange(key.shape[1]) < over.length
            key, log_decay = (x * jnp.expand_dims(counts, range(1, x.ndim - 1)) for x in (key, log_decay))
            if correction is not None and correction[0] is not None:
                correction = correction[0] * counts[:, None, None], correction[1]
        if isinstance(over, Queries):
            state = self._joined(over.state)
            return matrix_state.each(query, key, value, log_decay, correction, state), self._parted(state)
        if isinstance(over, Step):
            read, state = matrix_state.recurrent(query, key, value, log_decay, correction, self._joined(over.state))
        elif self.chunk_size is None:
            read, state = matrix_state.recurrent(query, key, value, log_decay, correction)
        else:
            read, state = matrix_state.chunked(query, key, value, log_decay, correction, chunk_size=self.chunk_size)
        return read, self._parted(state)

    def _joined(self, state: dict[str, jax.Array]) -> jax.Array:
        """Returns the matrices, with the normalisers as their last column."""
        if not self.has_normaliser:
            return state["matrix"]
        return jnp.concatenate([state["matrix"], state["normaliser"][..., None]], axis=-1)

    def _parted(self, state: jax.Array) -> dict[str, jax.Array]:
        if not self.has_normaliser:
            return {"matrix": state}
        return {"matrix": state[..., :-1], "normaliser": state[..., -1]}

    def normalized_read(self, read: jax.Array, epsilon: float = 1e-5) -> jax.Array:
        """Returns the RMS norm of each head's read [B, T, H, V]."""
        scale_init = nn.with_logical_partitioning(nn.initializers.ones, ("kv",))
        return nn.RMSNorm(epsilon=epsilon, scale_init=scale_init, name="read_norm")(read)

    def gate(self, x: jax.Array) -> jax.Array:
        """Returns a linear layer of x, [B, T, H, V], for the activation of an output gate."""
        return self.linear((self.num_heads, self.value_size), ("embed", "heads", "kv"), "gate")(x)
