"""The bases of optimizers and gradient transforms that count their updates and hold moments for each leaf."""

from operator import is_
from typing import ClassVar, Self

from attrs import field

from funcnet import flattening, tree
from funcnet.contract import Params
from funcnet.errors import flag
from funcnet.flattening import Tree
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.columns import is_count, is_dense, is_scalar
from funcnet.optim.moment_rule import MomentRule
from funcnet.value import frozen


@frozen
class MomentOptimizer(MomentRule, Optimizer):
    """An optimizer that counts its steps and holds, for each leaf, some moments; see ``MomentRule``.

    A subclass defines ``moments``, ``hyperparameters`` and ``formula``, and where it needs them ``coefficients``, ``scalars``,
    ``initial`` and ``moment_shape``:

    >>> import torch
    >>> from funcnet.optim.rates import Rate, rate_field
    >>> @frozen
    ... class HeavyBall(MomentOptimizer):
    ...     lr: Rate = rate_field(0.1)
    ...     moments = ("velocity",)
    ...
    ...     @property
    ...     def hyperparameters(self):
    ...         return {"lr": self.lr}
    ...
    ...     def formula(self, p, g, velocity, *, lr):
    ...         velocity = 0.9 * velocity + g
    ...         return p - lr * velocity, velocity
    >>> opt, params = HeavyBall(), {"w": torch.ones(2)}
    >>> opt.update(params, opt.init(params), params)[0]
    {'w': tensor([0.9000, 0.9000])}
    """

    donated: bool = field(default=False, kw_only=True, validator=flag)

    def donate(self) -> Self:
        return self.replace(donated=True)

    def require_fit(self, state: State, params: Params) -> None:
        if not self.donated or not is_eager():
            return
        try:
            columns, _ = self._guards.flatten((params, *[state[name] for name in self._names]))
            self._guards.require_apart(columns, state["step"], self._shapes)
            if not is_count(state["step"]) or not all([is_scalar(state[name]) for name in self._numbers]):  # noqa: C419
                raise LookupError
        except Exception as error:
            steppable = tree.map(lambda p: p if is_dense(p) else None, params)
            raise self._explained(error, steppable, state, params) from None

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        columns, new, write, counts = self._update(params, grads, state, params)
        if self._writes and all(map(is_, new, (columns[0], *columns[2:]))):
            return params, {**state, **counts}
        params, *moments = [write(column) for column in new]
        return params, {**counts, **dict(zip(self._names, moments, strict=True))}


@frozen
class MomentTransform(MomentRule, GradientTransform):
    """A gradient transform that counts its steps and holds, for each leaf, some moments; see ``MomentRule``.

    A subclass defines what one of ``MomentOptimizer`` does; its ``formula`` returns the new gradient in the place of the param.
    """

    reads_params: ClassVar[bool] = False
    """Whether ``formula`` needs the params; if not, its ``p`` is the gradient too, and ``update`` ignores params."""

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        carrier = params if self.reads_params else grads
        columns, new, write, counts = self._update(carrier, grads, state, carrier)
        after = [None if g is None else y for g, y in zip(columns[1], new[0], strict=True)]
        moments = [write(column) for column in new[1:]]
        return flattening.unflatten(grads, iter(after)), {**counts, **dict(zip(self._names, moments, strict=True))}
