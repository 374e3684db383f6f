"""Training: the four lines of a step as one pure function of params, state and a batch.

    y, cache      = net.apply(params, x)
    value, gy     = loss.value_and_grad(y, target)
    grads         = net.grads(params, cache, gy)
    params, state = opt.update(grads, state, params)

The function is a value: it compares, prints and pickles like its parts.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.errors import flag, instances, value_error, whole
from funcnet.flattening import Tree
from funcnet.gradients import ValueAndGrads, has_one_value, is_layer, value_and_grads
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.layerwise import Updater
from funcnet.losses.loss import Loss
from funcnet.optim.base import Optimizer
from funcnet.optim.evaluating import EvaluatingOptimizer
from funcnet.optim.transforms.loss_scale import LossScale
from funcnet.optim.transforms.noise import AddPrivacyNoise
from funcnet.random.keys import Key
from funcnet.transforms.accumulation import Accumulated
from funcnet.value import Value, frozen, parts


def _has_loss_scale(opt: Optimizer) -> bool:
    """Return whether an optimizer has a ``LossScale``; raise if it has two, which would both divide by the factor of one."""
    found = [part for part in parts(opt, given=True) if isinstance(part, LossScale)]
    if len(found) > 1:
        raise value_error("train_step", "an optimizer must have at most one LossScale", f"{len(found)} in {opt!r}")
    return bool(found)


def _reject_privacy_noise(opt: Optimizer) -> None:
    """Raise for ``AddPrivacyNoise``: gradients here are not clipped row by row, and the noise would hide nothing."""
    if any([isinstance(part, AddPrivacyNoise) for part in parts(opt, given=True)]):  # noqa: C419
        rule = "AddPrivacyNoise needs the gradients of clipped_grads, which a train step does not make; call opt.update with them"
        raise value_error("train_step", rule, repr(opt))


@frozen
class TrainStep(Value):
    """A training step as one pure function; created by ``train_step``.

        y, cache      = net.apply(params, x)
        value, gy     = loss.value_and_grad(y, target)
        grads         = net.grads(params, cache, gy)
        params, state = opt.update(grads, state, net.update_stats(params, cache))

    Args:
        net: The net.
        loss: A loss with one value.
        opt: The optimizer.
        in_backward: Whether to update each layer during the backward pass.
        accumulate: Number of micro-batches.
    """

    label = "train_step"

    net: Layer = field(validator=is_layer)
    loss: Loss = field(validator=has_one_value)
    opt: Optimizer = field(validator=instances(Optimizer, "an optimizer"))
    in_backward: bool = field(default=False, validator=flag)
    accumulate: int = field(default=1, validator=whole(1))
    _gradient: ValueAndGrads | Accumulated = field(init=False, eq=False)
    _has_running_stats: bool = field(init=False, eq=False)
    _has_loss_scale: bool = field(init=False, eq=False)
    _updater: Updater | None = field(init=False, eq=False)
    _evaluating: EvaluatingOptimizer | None = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _reject_privacy_noise(self.opt)
        if self.in_backward and self.accumulate > 1:
            rule = "in_backward=True updates layers in each backward pass, so gradients cannot be accumulated over several"
            raise value_error("train_step", rule, f"accumulate={self.accumulate}")
        one = value_and_grads(self.net, self.loss)
        object.__setattr__(self, "_gradient", one if self.accumulate == 1 else Accumulated(one, self.accumulate))
        object.__setattr__(self, "_has_running_stats", self.net.has_running_stats)
        object.__setattr__(self, "_has_loss_scale", _has_loss_scale(self.opt))
        object.__setattr__(self, "_updater", Updater(self.net, self.opt) if self.in_backward else None)
        object.__setattr__(self, "_evaluating", self.opt if isinstance(self.opt, EvaluatingOptimizer) else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainStep, (self.net, self.loss, self.opt, self.in_backward, self.accumulate)

    def __call__(
        self, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None = None
    ) -> tuple[Params, Tree, Tensor]:
        if self._updater is not None:
            return self._layer_by_layer(self._updater, params, state, x, target, rng)
        if self._evaluating is not None:
            return self._with_evaluations(self._evaluating, params, state, x, target, rng)
        scale = self._loss_scale(state) if self._has_loss_scale else None
        value, grads, cache = self._gradient.scaled(params, x, target, rng, scale)
        if self._has_running_stats:
            params = self._gradient.update_stats(params, cache)
        del cache  # before new params need memory
        params, state = self.opt.update(grads, state, params)
        return params, state, value

    def _with_evaluations(
        self, opt: EvaluatingOptimizer, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None
    ) -> tuple[Params, Tree, Tensor]:
        """Run the step of an optimizer that evaluates several gradients; running statistics come from the first."""
        caches: list[Cache] = []
        scale = self._loss_scale(state)  # for all gradients: it does not change the direction that SAM climbs

        def value_and_grads(params: Params) -> tuple[Tensor, Grads]:
            value, grads, cache = self._gradient.scaled(params, x, target, rng, scale)
            caches.append(cache if not caches and self._has_running_stats else None)
            return value, grads

        params, state, value = opt.step(value_and_grads, state, params)
        return self._gradient.update_stats(params, caches[0]) if self._has_running_stats else params, state, value

    def _loss_scale(self, state: Tree) -> Tensor | None:
        """Return the factor of the loss, or ``None``."""
        if not self._has_loss_scale:
            return None
        rates = self.opt.rates(state)
        if not isinstance(rates.get("loss_scale"), Tensor):
            raise value_error("train_step", "a LossScale must be in a chain for all params, not for a group of them", self.opt)
        scale: Tensor = rates["loss_scale"]
        return scale

    def _layer_by_layer(
        self, update: Updater, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None
    ) -> tuple[Params, Tree, Tensor]:
        """Run the step with an update of each layer during the backward pass."""
        y, cache = self.net.apply(params, x, rng)
        value, gy = self.loss.value_and_grad(y, target)
        del y
        start = self.net.update_stats(params, cache) if self._has_running_stats else params
        return *update(params, start, state, cache, gy), value

    @property
    def gradient(self) -> ValueAndGrads | Accumulated:
        """The first three lines of the step: the value and the gradient of a batch."""
        return self._gradient

    def with_gradient(self, gradient: Any) -> "TrainStep":
        """Return the step with another function for value and gradient.

        Args:
            gradient: An object with the methods ``scaled`` and ``update_stats`` of ``ValueAndGrads``.
        """
        step = TrainStep(self.net, self.loss, self.opt)
        object.__setattr__(step, "_gradient", gradient)
        return step

    def __repr__(self) -> str:
        more = ", in_backward=True" * self.in_backward + f", accumulate={self.accumulate}" * (self.accumulate > 1)
        return f"train_step({self.net!r}, {self.loss!r}, {self.opt!r}{more})"


def train_step(net: Layer, loss: Loss, opt: Optimizer, *, in_backward: bool = False, accumulate: int = 1) -> TrainStep:
    """Make the function ``(params, state, x, target, rng=None) -> (params, state, value)`` of one training step.

        y, cache      = net.apply(params, x)
        value, gy     = loss.value_and_grad(y, target)
        grads         = net.grads(params, cache, gy)
        params, state = opt.update(grads, state, net.update_stats(params, cache))

    It writes to nothing and reads nothing else: compile it whole, repeat it, or undo it by keeping the old params. If ``opt`` has
    a ``LossScale``, the gradient is that of the loss times its factor.

    It calls ``kernels.retain_freed_memory``: a step frees caches and gradients together, and glibc would return them to the
    system. A step of an LSTM of 128 features on 32 sequences of 50 takes 30 ms instead of 57.

    If params require grad, as those of a module do, autograd builds its graph in the first step; new params do not require grad.

    With ``in_backward``, the gradients are never all in memory at once: training 64 ``Linear(512, 512)`` with a donated Adam
    takes 7 MB besides params and state, and 73 without; 8 transformer blocks of 256 features take 6 and 30. Each layer takes 12
    to 23 µs more. ``repeat`` updates its copies one after the other in eager mode; layers in ``shared``, ``tied``, ``scan`` or
    ``ensemble`` are updated together. If the backward pass raises an error, a donated optimizer has already written to the params
    of the later layers.

    Args:
        net: The net.
        loss: A loss with one value.
        opt: The optimizer. If it needs gradients at other params too, as ``SAM`` and ``LBFGS`` do, they are computed for the same
            batch and key.
        in_backward: Whether to update each layer as soon as the backward pass has its gradient, which is then released. The
            result is the same, bit for bit.
        accumulate: Number of micro-batches from which the gradient is computed, one after the other, in a fraction of the memory
            of activations. The gradient is that of the whole batch, up to rounding, as with ``accumulate(net, loss, k)``; running
            statistics are those of the last micro-batch.

    Raises:
        ValueError: If the loss has ``reduction="none"``; if ``accumulate`` is below 1, or above 1 with ``in_backward``; if
            ``opt`` is not an optimizer, or has an ``AddPrivacyNoise``, which needs the gradients of ``clipped_grads``; and, with
            ``in_backward``, if it needs all gradients at once, as ``ClipByGlobalNorm`` does. A custom optimizer that steps each
            leaf separately declares ``acts_on = "leaves"``.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> from funcnet.optim.sgd import SGD
    >>> net, opt = Linear(2, 1, initializer="zeros"), SGD(lr=0.1)
    >>> params = net.init(0)
    >>> params, state, value = train_step(net, MSE(), opt)(params, opt.init(params), torch.ones(5, 2), torch.ones(5, 1))
    >>> value, params["bias"]
    (tensor(1.), tensor([0.2000]))
    """
    retain_freed_memory()
    return TrainStep(net, loss, opt, in_backward, accumulate)
