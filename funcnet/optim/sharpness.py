"""SAM: steps with the gradient at the worst params nearby."""

from collections.abc import Callable
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import flattening
from funcnet.contract import Grads, Params
from funcnet.errors import flag, number
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import is_dense
from funcnet.optim.evaluating import EvaluatingOptimizer, ValueAndGrads, inner_optimizer
from funcnet.optim.misfits import explained
from funcnet.value import frozen


@frozen
class SAM(EvaluatingOptimizer):
    """Sharpness-aware minimization: step with the gradient at the worst params within a distance: ``optax.contrib.sam``.

        q = p + ρ g / (‖g‖ + 10⁻¹²)                          ‖g‖ over all leaves
        q = p + ρ p² g / (‖p g‖ + 10⁻¹²)                     with adaptive
        p ← the step of ``optimizer`` from p with the gradient at q

    A step computes two gradients of the same batch. ``train_step`` and ``fit`` do that; in a custom loop call
    ``opt.step(value_and_grads, state, params)``, or call its parts: ``worst = opt.climb(grads, params)``, then ``opt.update``
    with the gradient at ``worst``.

    Args:
        optimizer: The optimizer that makes the steps and counts the updates.
        rho: ρ, the distance, in the unit of p.
        adaptive: Whether distances are relative to each p, which makes the climb invariant to rescaling the net.

    State:
        The state of ``optimizer``.

    Raises:
        ValueError: If an argument is outside its bounds; from ``climb`` if gradients and params do not fit each other.

    References:
        Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", algorithm 1; for ``adaptive``
        Kwon et al. 2021, "ASAM".

    >>> import torch
    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = SAM(SGD(lr=0.1), rho=0.5), {"w": torch.ones(1)}
    >>> opt.step(lambda p: ((p["w"] ** 2).sum(), {"w": 2 * p["w"]}), opt.init(params), params)
    ({'w': tensor([0.7000])}, {'step': tensor(1)}, tensor(1.))
    """

    acts_on = "tree"

    optimizer: Optimizer = field(validator=inner_optimizer)
    rho: float = field(default=0.05, validator=number(0.0))
    adaptive: bool = field(default=False, validator=flag)

    def init(self, params: Params) -> State:
        return self.optimizer.init(params)

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        """Make the second half of a step.

        Args:
            grads: The gradients at ``climb(grads, params)``.
            state: The state that ``init`` or the last ``update`` returned.
            params: The params before the step.
        """
        return self.optimizer.update(grads, state, params)

    def eval_params(self, state: State, params: Params) -> Params:
        return self.optimizer.eval_params(state, params)

    def step(self, value_and_grads: ValueAndGrads, state: State, params: Params) -> tuple[Params, State, Any]:
        value, grads = value_and_grads(params)
        worst = self.climb(grads, params)
        return *self.optimizer.update(value_and_grads(worst)[1], state, params), value

    def climb(self, grads: Tree, params: Params) -> Params:
        """Return the params at the distance ``rho`` in the direction of the steepest ascent.

        Args:
            grads: The gradients at ``params``.
            params: The params.
        """
        try:
            ps, gs = flattening.flatten_together(params, grads)
            present = [i for i, g in enumerate(gs) if g is not None]
            if not all([is_dense(ps[i]) and ps[i].shape == gs[i].shape and ps[i].dtype is gs[i].dtype for i in present]):  # noqa: C419
                raise LookupError
            new = self._climb([ps[i] for i in present], [gs[i] for i in present])
        except Exception as error:
            raise explained(self, error, params, {"grads": grads}, False) from None
        after = dict(zip(present, new, strict=True))
        made: Params = flattening.unflatten(params, iter([after.get(i, p) for i, p in enumerate(ps)]))
        return made

    def norm_of_all(self, slopes: list[Tensor]) -> Tensor:
        """Return the joint norm of the gradients, which ``adaptive`` multiplies by p.

        Args:
            slopes: A tensor for each leaf.
        """
        return kernels.norm_of_all(slopes)

    def _climb(self, ps: list[Tensor], gs: list[Tensor]) -> list[Tensor]:
        wide = [kernels.wide(p.dtype) for p in ps]
        slopes = [p.to(w) * g.to(w) if self.adaptive else g.to(w) for p, g, w in zip(ps, gs, wide, strict=True)]
        ways = [p.to(w) * s if self.adaptive else s for p, s, w in zip(ps, slopes, wide, strict=True)]
        factor = self.rho / (self.norm_of_all(slopes) + 1e-12)
        return [(p + factor.to(way) * way).to(p.dtype) for p, way in zip(ps, ways, strict=True)]

    def rates(self, state: State) -> dict[str, Any]:
        return self.optimizer.rates(state)

    def donate(self) -> "SAM":
        return self.replace(optimizer=self.optimizer.donate())

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        return self.optimizer.map_state(f, state, *others)

    def require_fit(self, state: State, params: Params) -> None:
        self.optimizer.require_fit(state, params)
