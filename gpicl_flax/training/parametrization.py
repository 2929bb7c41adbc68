"""The part of muP that concerns the optimiser: the steps of each tensor at another width and depth (`models.scaling`).

Adam divides by the size of gradients, so an epsilon / s is the same as the epsilon with gradients times s: then both
of its epsilons, that beside the root and that under it, scale as they should (the latter by 1 / s^2). So all numbers of
an optimiser remain single numbers, in which the members of a stack may differ.
"""

from collections.abc import Callable, Mapping

import optax

from gpicl_flax.errors import UsageError
from gpicl_flax.models import SequenceModel, scaling
from gpicl_flax.models.scaling import Path, TensorScale
from gpicl_flax.training import optimizers
from gpicl_flax.training.optimizers import Optimizer

Scales = Mapping[Path, TensorScale]


def for_model(optimizer: optax.GradientTransformation, model: SequenceModel) -> optax.GradientTransformation:
    """Returns the optimiser that makes the steps of the model's parametrisation.

    It is the optimiser itself in the standard parametrisation, and at the base size. One that was scaled for another
    model is scaled anew, and not once more.

    Raises:
      UsageError: the model has 'mup', and its rules for this optimiser are not known.
    """
    plain = getattr(optimizer, "unscaled", optimizer)
    if model.parametrization == scaling.STANDARD:
        return plain
    scales = model.tensor_scales()
    kind = _KINDS.get(plain.factory) if isinstance(plain, Optimizer) else None
    if kind is None or not isinstance(plain, Optimizer):
        name = plain.factory.__name__.strip("_") if isinstance(plain, Optimizer) else "one that is not gpicl_flax's"
        raise UsageError(
            f"{type(model).__name__}.parametrization = 'mup' needs Run.optimizer = @adam(), @adamw() or @sign_ema(), "
            f"whose steps do not grow with the gradient; it is {name}"
        )
    if all(scale.is_one for scale in scales.values()):
        return plain
    scaled = Optimizer.make(kind(scales), **plain.arguments)
    scaled.unscaled = plain
    return scaled


def _adam(scales: Scales) -> Callable[..., optax.GradientTransformation]:
    def scaled_adam(learning_rate, b1, b2, eps, eps_root, clip_norm, schedule=None):
        adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root)
        rate = optax.scale_by_learning_rate(learning_rate)
        return optimizers.whole(optax.chain(_gradients(scales), adam, _rates(scales), rate), clip_norm, schedule)

    return scaled_adam


def _adamw(scales: Scales) -> Callable[..., optax.GradientTransformation]:
    def scaled_adamw(learning_rate, b1, b2, eps, eps_root, weight_decay, clip_norm, schedule=None):
        adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root)
        # After the rates of tensors: the decay of a hidden tensor is m times as large, and its rate 1 / m.
        decay = optax.add_decayed_weights(weight_decay)
        rate = optax.scale_by_learning_rate(learning_rate)
        steps = optax.chain(_gradients(scales), adam, _rates(scales), decay, rate)
        return optimizers.whole(steps, clip_norm, schedule)

    return scaled_adamw


def _sign_ema(scales: Scales) -> Callable[..., optax.GradientTransformation]:
    def scaled_sign_ema(learning_rate, decay, clip_norm, schedule=None):
        return optax.chain(optimizers.make_sign_ema(learning_rate, decay, clip_norm, schedule), _rates(scales))

    return scaled_sign_ema


_KINDS = {
    optimizers.make_adam: _adam,
    optimizers.make_adamw: _adamw,
    optimizers.make_sign_ema: _sign_ema,
}


def _gradients(scales: Scales) -> optax.GradientTransformation:
    """Multiplies gradients by 1 over the factor on epsilon."""
    return _scale({path: 1 / scale.epsilon for path, scale in scales.items()})


def _rates(scales: Scales) -> optax.GradientTransformation:
    """Multiplies updates by the factors on the learning rate."""
    return _scale({path: scale.rate for path, scale in scales.items()})


def _scale(factors: Mapping[Path, float]) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: scaling.multiply(updates, factors))
