"""Training: the four lines as pure functions of params, state and a batch.

    y, cache      = net.apply(params, x)
    value, gy     = loss.value_and_grad(y, target)
    grads         = net.grads(params, cache, gy)
    params, state = opt.update(grads, state, params)

Each function here is a value: it compares, prints and pickles like what it is made of.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache, Layer, Params
from funcnet.errors import flag, instances, value_error
from funcnet.flattening import Tree
from funcnet.layerwise import Updater
from funcnet.losses.loss import Loss
from funcnet.optim.base import Optimizer
from funcnet.optim.evaluating import EvaluatingOptimizer
from funcnet.optim.transforms.loss_scale import LossScale
from funcnet.optim.transforms.noise import AddPrivacyNoise
from funcnet.random.keys import Key
from funcnet.value import Value, frozen, parts

_layer, _optimizer = instances(Layer, "a layer"), instances(Optimizer, "an optimizer")


def _one_value(value: Any, attribute: Any, got: Any) -> None:
    instances(Loss, "a loss")(value, attribute, got)
    if got.reduction == "none":
        raise value_error(got, 'to train, the loss must have one value: reduction "mean", "sum" or "batch"', "reduction 'none'")


@frozen
class ValueAndGrads(Value):
    """The loss of a net and its gradient, as one function; made by ``value_and_grads``."""

    label = "value_and_grads"

    net: Layer = field(validator=_layer)
    loss: Loss = field(validator=_one_value)

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Params, Cache]:
        return _value_and_grads(self.net, self.loss, params, x, target, rng)

    def __repr__(self) -> str:
        return f"value_and_grads({self.net!r}, {self.loss!r})"


def _value_and_grads(
    net: Layer, loss: Loss, params: Params, x: Any, target: Any, rng: Key | int | None, scale: Tensor | None = None
) -> tuple[Tensor, Params, Cache]:
    y, cache = net.apply(params, x, rng)
    value, gy = loss.value_and_grad(y, target) if scale is None else _scaled(loss, y, target, scale)
    return value, net.grads(params, cache, gy), cache


def _scaled(loss: Loss, y: Any, target: Any, scale: Tensor) -> tuple[Tensor, Any]:
    """Return the loss, and the gradient of ``scale`` times it: multiplied before it is rounded to half precision."""
    try:
        value, kept = loss.forward(y, target)
        return value, loss.backward(kept, scale.float())
    except Exception:
        loss.value_and_grad(y, target)  # raises what explains it
        raise


def value_and_grads(net: Layer, loss: Loss) -> ValueAndGrads:
    """Make the function ``(params, x, target, rng=None) -> (value, grads, cache)``.

    ``value`` is the loss of the net's output, ``grads`` its gradient by the params, and ``cache`` the net's, from which
    ``net.update_stats(params, cache)`` takes batch statistics. A stochastic net needs the key ``rng``; others leave it unread.

    Raises   ``ValueError`` for a loss with ``reduction="none"``, which has many values, and for what is no layer or no loss.
    """
    return ValueAndGrads(net, loss)


def _has_loss_scale(opt: Optimizer) -> bool:
    """Tell whether there is a ``LossScale`` in an optimizer; two would both divide by the factor of one."""
    found = [part for part in parts(opt, given=True) if isinstance(part, LossScale)]
    if len(found) > 1:
        raise value_error("train_step", "an optimizer must have at most one LossScale", f"{len(found)} in {opt!r}")
    return bool(found)


def _require_public(opt: Optimizer) -> None:
    """Refuse noise for privacy on gradients that are not clipped row by row: it would hide nothing."""
    if any([isinstance(part, AddPrivacyNoise) for part in parts(opt, given=True)]):  # noqa: C419
        rule = "AddPrivacyNoise needs the gradients of clipped_grads, which a train step does not make; call opt.update with them"
        raise value_error("train_step", rule, repr(opt))


@frozen
class TrainStep(Value):
    """A step of training as one pure function; made by ``train_step``."""

    label = "train_step"

    net: Layer = field(validator=_layer)
    loss: Loss = field(validator=_one_value)
    opt: Optimizer = field(validator=_optimizer)
    in_backward: bool = field(default=False, validator=flag)
    _has_running_stats: bool = field(init=False, eq=False)
    _has_loss_scale: bool = field(init=False, eq=False)
    _updater: Updater | None = field(init=False, eq=False)
    _evaluating: EvaluatingOptimizer | None = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _require_public(self.opt)
        object.__setattr__(self, "_has_running_stats", self.net.has_running_stats)
        object.__setattr__(self, "_has_loss_scale", _has_loss_scale(self.opt))
        object.__setattr__(self, "_updater", Updater(self.net, self.opt) if self.in_backward else None)
        object.__setattr__(self, "_evaluating", self.opt if isinstance(self.opt, EvaluatingOptimizer) else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainStep, (self.net, self.loss, self.opt, self.in_backward)

    def __call__(
        self, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None = None
    ) -> tuple[Params, Tree, Tensor]:
        if self._updater is not None:
            return self._layer_by_layer(self._updater, params, state, x, target, rng)
        if self._evaluating is not None:
            return self._with_evaluations(self._evaluating, params, state, x, target, rng)
        value, grads, cache = _value_and_grads(self.net, self.loss, params, x, target, rng, self._loss_scale(state))
        if self._has_running_stats:
            params = self.net.update_stats(params, cache)
        params, state = self.opt.update(grads, state, params)
        return params, state, value

    def _with_evaluations(
        self, opt: EvaluatingOptimizer, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None
    ) -> tuple[Params, Tree, Tensor]:
        """Make the step of an optimizer that asks for several gradients; statistics are those of the first."""
        caches: list[Cache] = []
        scale = self._loss_scale(state)  # of all gradients: a direction, which SAM climbs, does not change with it

        def value_and_grads(params: Params) -> tuple[Tensor, Params]:
            value, grads, cache = _value_and_grads(self.net, self.loss, params, x, target, rng, scale)
            caches.append(cache if not caches and self._has_running_stats else None)
            return value, grads

        params, state, value = opt.step(value_and_grads, state, params)
        return self.net.update_stats(params, caches[0]) if self._has_running_stats else params, state, value

    def _loss_scale(self, state: Tree) -> Tensor | None:
        if not self._has_loss_scale:
            return None
        rates = self.opt.rates(state)
        if not isinstance(rates.get("loss_scale"), Tensor):
            raise value_error("train_step", "a LossScale must be in a chain of all params, not of a group of them", self.opt)
        scale: Tensor = rates["loss_scale"]
        return scale

    def _layer_by_layer(
        self, update: Updater, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None
    ) -> tuple[Params, Tree, Tensor]:
        """Make the step with the optimizer's update of each layer in the backward pass."""
        y, cache = self.net.apply(params, x, rng)
        value, gy = self.loss.value_and_grad(y, target)
        start = self.net.update_stats(params, cache) if self._has_running_stats else params
        return *update(params, start, state, cache, gy), value

    def __repr__(self) -> str:
        return f"train_step({self.net!r}, {self.loss!r}, {self.opt!r}{', in_backward=True' * self.in_backward})"


def train_step(net: Layer, loss: Loss, opt: Optimizer, *, in_backward: bool = False) -> TrainStep:
    """Make the function ``(params, state, x, target, rng=None) -> (params, state, value)``: the four lines and ``update_stats``.

    It writes to nothing and reads nothing else, so it may be compiled whole, repeated, or undone by keeping the old params.
    Where ``opt`` has a ``LossScale``, the gradient is that of the loss times its factor.

    Params that require grad, as those of a module do, cost autograd's graph in the first step: those that come out require none.

    With ``in_backward`` all gradients are never in memory at once: training 64 ``Linear(512, 512)`` with a donated Adam takes
    7 MB beside params and state, and 73 without; 8 transformer blocks of 256 features take 6 and 30. Each layer takes 12 to 23 µs
    more. ``repeat`` updates its copies one after the other in eager mode; layers within ``shared``, ``tied``, ``scan`` or
    ``ensemble`` are updated together. If the backward pass raises an error, a donated optimizer has already written to the params
    of the later layers.

    Args:
        net: The net.
        loss: A loss with one value.
        opt: The optimizer. One that asks for gradients at other params too, as ``SAM`` and ``LBFGS`` do, gets them from the
            same batch and key.
        in_backward: Whether to update each layer as soon as the backward pass has its gradient, which is then released. The
            result is the same, bit for bit.

    Raises:
        ValueError: As ``value_and_grads``; for an ``opt`` that is no optimizer, or has an ``AddPrivacyNoise``, which needs the
            gradients of ``clipped_grads``; and, with ``in_backward``, for one that needs all gradients at once, as
            ``ClipByGlobalNorm`` does. A custom optimizer that steps each leaf by itself says so with ``acts_on = "leaves"``.
    """
    return TrainStep(net, loss, opt, in_backward)
