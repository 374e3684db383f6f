"""Gradient transforms that add normal noise, sampled with a key in their state.

    g ← g + σ(t) z      z sampled with the key fold_in(fold_in(k, t), i) for leaf i, t the number of updates made before

Equal states give equal noise, in eager and in compiled code. Parallel runs under ``vmap`` need different keys in their states:
``state | {"key": fn.key(i)}``. The noise is sampled and added in float32 or wider, and the sum is rounded.
"""

from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, random
from funcnet.contract import Grads, Params
from funcnet.errors import number, value_error, whole_number
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import without_graph
from funcnet.optim.base import GradientTransform, State
from funcnet.optim.columns import is_count, is_dense
from funcnet.optim.misfits import require_dense
from funcnet.optim.rates import Rate, at, checked, rate_field
from funcnet.precision import rounded
from funcnet.value import frozen


class _Noise(GradientTransform):
    """A transform that adds normal noise; ``std`` returns its standard deviation at each step."""

    __slots__ = ()

    seed: int

    @abstractmethod
    def std(self, step: Tensor) -> Any:
        """Return the standard deviation at the next update after ``step`` updates."""

    def init(self, params: Params) -> State:
        return {"step": torch.zeros((), dtype=torch.int64), "key": random.key(self.seed)}

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Grads, State]:
        self._require_state(state)
        column = flattening.flatten_together(grads)[0]
        if not all([g is None or is_dense(g) for g in column]):  # noqa: C419
            require_dense(self, grads)
        key, std = random.fold_in(state["key"], state["step"]), self.std(state["step"])
        new = [None if g is None else self._add_noise(g, random.fold_in(key, i), std) for i, g in enumerate(column)]
        return flattening.unflatten(grads, iter(new)), {**state, "step": state["step"] + 1}

    def _add_noise(self, g: Tensor, key: Tensor, std: Any) -> Tensor:
        dtype = kernels.wide(g.dtype)
        noise = random.normal(key.to(g.device), tuple(g.shape), dtype=dtype)
        return rounded(without_graph(g).to(dtype) + kernels.narrowed(std, noise) * noise, g)

    def _require_state(self, state: State) -> None:
        if not isinstance(state, dict) or state.keys() != {"step", "key"} or not all(map(is_count, state.values())):
            raise value_error(self, "state must be a dict of step and key, 0-d int64 tensors, as init returns it", state)


@frozen
class AddNoise(_Noise):
    """Add normal noise that decays: ``optax.add_noise``.

        g ← g + σ z      σ² = η / (1 + t)^γ, z standard normal

    Args:
        eta: η, the variance of the noise at the first update: a number, a schedule of the number of updates made, or a 0-d
            tensor.
        gamma: γ, the exponent of the decay.
        seed: The seed of the key.

    State:
        step: t, the number of updates made.
        key: k, a key.

    Raises:
        ValueError: If a number is negative or not finite, or if ``seed`` is not an integer; from ``update`` if the state belongs
            to another transform, or, with the path, if gradients are not dense floating tensors.

    References:
        Neelakantan et al. 2015, "Adding gradient noise improves learning for very deep networks", equation 1.

    >>> import torch
    >>> transform = AddNoise(eta=0.01, seed=1)
    >>> transform.update({"w": torch.zeros(2)}, transform.init({}), {})[0]["w"].abs().max() < 1
    tensor(True)
    """

    eta: Rate = rate_field()
    gamma: float = field(default=0.55, validator=number(0.0))
    seed: int = field(default=0, validator=whole_number)

    def rates(self, state: State) -> dict[str, Any]:
        self._require_state(state)
        return {"eta": checked(self, at(state["step"], self.eta), state["step"], ())[0]}

    def std(self, step: Tensor) -> Any:
        (eta,) = checked(self, at(step, self.eta), step, ())
        return (eta / (1 + step.to(torch.float64)) ** self.gamma) ** 0.5


@frozen
class AddPrivacyNoise(_Noise):
    """Add the noise of differentially private training to the mean of clipped gradients from ``clipped_grads``.

        g ← g + σ C / B z      z standard normal

    The noise hides which examples were in a batch of size B: with it before an optimizer, training is DP-SGD. The privacy depends
    on σ, the sampling rate of the batches, and the number of updates. The key must be secret, and must not be used in another
    run.

    Args:
        noise_multiplier: σ, the standard deviation of the noise relative to C.
        max_norm: C, the norm to which the gradient of each example was clipped.
        batch_size: B, the divisor of the sum of gradients; for randomly sampled batches, their mean length.
        seed: The seed of the key.

    State:
        step: t, the number of updates made.
        key: k, a key.

    Raises:
        ValueError: If a number is negative or not finite, if ``max_norm`` or ``batch_size`` is 0, or if ``seed`` is not an
            integer.

    References:
        Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.

    >>> from funcnet.optim.chaining import chain
    >>> from funcnet.optim.sgd import SGD
    >>> opt = chain(AddPrivacyNoise(1.1, max_norm=1.0, batch_size=256, seed=3), SGD(lr=0.1))
    """

    noise_multiplier: float = field(validator=number(0.0))
    max_norm: float = field(validator=number(above=0.0))
    batch_size: float = field(validator=number(above=0.0))
    seed: int = field(default=0, validator=whole_number)

    def std(self, step: Tensor) -> Any:
        return self.noise_multiplier * self.max_norm / self.batch_size
