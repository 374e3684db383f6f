"""L-BFGS: steps with an inverse Hessian estimated from the last steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import field
from attrs.validators import optional
from torch import Size, Tensor

from funcnet import flattening
from funcnet.contract import Params
from funcnet.errors import flag, number, one_of, value_error, whole
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.leafwise import placed
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import State
from funcnet.optim.columns import Columns, replaced
from funcnet.optim.curvature import Pairs, flat, split_like
from funcnet.optim.evaluating import EvaluatingOptimizer, ValueAndGrads
from funcnet.optim.line_search import Point, strong_wolfe
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, rate_field
from funcnet.value import frozen

Evaluate = Callable[[Sequence[Tensor]], tuple[float, Tensor]]
"""A function from the leaves with a gradient to the loss and the flat gradient."""


@frozen
class LBFGS(MomentOptimizer, EvaluatingOptimizer):
    """Limited-memory quasi-Newton method: ``torch.optim.LBFGS``.

        s = the last step, y = the change of the gradient g along it: kept if y s > 10⁻¹⁰
        d = -H g                       H the inverse Hessian: two loops over the kept pairs, starting from (y s) / y²
        p ← p + t d                    t = η, at the first iteration η min(1, 1 / ‖g‖₁), or from a line search

    ``opt.step(value_and_grads, state, params)`` makes up to ``max_iter`` iterations on one function, like torch's ``step`` with a
    closure; ``train_step`` and ``fit`` call it. It reads values as Python numbers, so it can be neither compiled nor mapped;
    compile ``value_and_grads`` instead. ``update`` makes one iteration with the given gradient, without line search, like torch
    with ``max_iter=1``.

    Args:
        lr: η, a factor without unit: a number, a schedule of the number of steps made, or a 0-d tensor.
        max_iter: Maximal number of iterations per ``step``.
        max_eval: Maximal number of evaluations per ``step``; ``None`` means ``max_iter * 5 // 4``.
        tolerance_grad: Params do not move if no element of the gradient is larger.
        tolerance_change: A step ends if no element of params changes by more, or if the loss changes by less.
        history_size: Number of kept pairs.
        line_search_fn: ``"strong_wolfe"``, or ``None`` for the fixed length t.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        n_iter: Number of iterations, like the next three a 0-d float64 tensor.
        t: The last length.
        H_diag: The scale (y s) / y² of H.
        n_pairs: Number of kept pairs.
        d: The last direction.
        prev_grad: The last gradient.
        old_dirs: The kept y, stacked, the newest last.
        old_stps: The kept s, stacked, the newest last. The state takes 2 ``history_size`` + 2 numbers for each parameter. A leaf
            should have a gradient always or never: if its gradient is sometimes absent, its pairs become stale.

    Raises:
        ValueError: If an argument is outside its bounds; from ``step`` if it is compiled or mapped.

    References:
        Nocedal & Wright 2006, "Numerical optimization", algorithms 7.4 and 7.5.

    >>> opt, params = LBFGS(line_search_fn="strong_wolfe"), {"w": torch.tensor([3.0, -4.0])}
    >>> bowl = lambda p: ((p["w"] ** 2).sum(), {"w": 2 * p["w"]})
    >>> params, state, value = opt.step(bowl, opt.init(params), params)
    >>> value, params["w"].abs().max() < 1e-6
    (tensor(25.), tensor(True))
    """

    moments = ("d", "prev_grad", "old_dirs", "old_stps")

    reads_values = True

    lr: Rate = rate_field(1.0)
    max_iter: int = field(default=20, validator=whole(1))
    max_eval: int | None = field(default=None, validator=optional(whole(1)))
    tolerance_grad: float = field(default=1e-7, validator=number(0.0))
    tolerance_change: float = field(default=1e-9, validator=number(0.0))
    history_size: int = field(default=100, validator=whole(1))
    line_search_fn: str | None = field(default=None, validator=one_of(None, "strong_wolfe"))
    maximize: bool = field(default=False, kw_only=True, validator=flag)
    _evaluate: Evaluate | None = field(init=False, eq=False, default=None)
    _value: Any = field(init=False, eq=False, default=None)

    @property
    def scalars(self) -> dict[str, float]:
        return {"n_iter": 0.0, "t": 0.0, "H_diag": 1.0, "n_pairs": 0.0}

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr}

    def moment_shape(self, name: str, shape: Size) -> Size:
        return Size((self.history_size, *shape)) if name.startswith("old") else shape

    def step(  # type: ignore[override]  # the base class calls step with columns only if there are no scalars
        self, value_and_grads: ValueAndGrads, state: State, params: Params
    ) -> tuple[Params, State, Any]:
        if not is_eager():
            rule = "step reads values as numbers and can be neither compiled nor mapped; compile value_and_grads"
            raise value_error(self, rule, "a step that is traced")
        value, grads = value_and_grads(params)
        searching = self.replace()
        object.__setattr__(searching, "_evaluate", _on_leaves(value_and_grads, grads, params, self._sign))
        object.__setattr__(searching, "_value", float(value) * self._sign)
        return *searching.update(grads, state, params), value

    @property
    def _sign(self) -> float:
        return -1.0 if self.maximize else 1.0

    def _with_scalars(self, columns: Columns, step: Tensor, rates: Rates, scalars: Any) -> Columns:
        ps, gs, *moments = columns
        now = dict(zip(self._numbers, map(kernels.read, scalars), strict=True))
        old = [ps, *moments]
        if not any([p.numel() for p in ps]):  # noqa: C419
            return old
        vectors = [flat(one, None if i < 2 else self.history_size) for i, one in enumerate(moments)]
        run = Descent(ps, -flat(gs) if self.maximize else flat(gs), vectors, now)
        is_moving = _not(kernels.read(run.g.abs().amax()) <= self.tolerance_grad)
        if is_moving is False:
            return old
        if self._evaluate is None:
            run.turn(rates[0])
            run.move(run.t, _not(kernels.read(run.g.dot(run.d)) > -self.tolerance_change))
        else:
            self._iterate(run, self._evaluate, rates[0])
        new, numbers = run.columns(), run.numbers()
        if isinstance(is_moving, Tensor):
            new = [[_choose(is_moving, x, y) for x, y in zip(*both, strict=True)] for both in zip(new, old, strict=True)]
            numbers = [_choose(is_moving, x, y) for x, y in zip(numbers, scalars, strict=True)]
        scalars[:] = map(self._kept, scalars, numbers)
        return [[placed(y, x, self._writes) for y, x in zip(*both, strict=True)] for both in zip(new, old, strict=True)]

    def _iterate(self, run: "Descent", evaluate: Evaluate, lr: float) -> None:
        """Make the iterations of one step."""
        f, count = self._value, 1
        most = self.max_iter * 5 // 4 if self.max_eval is None else self.max_eval
        for i in range(self.max_iter):
            run.turn(lr)
            slope = run.g.dot(run.d).item()
            if slope > -self.tolerance_change:
                return
            before = f
            if self.line_search_fn is not None:
                f, more = self._search(run, evaluate, Point(0.0, f, run.g, slope), most - count)
            else:
                f, more = self._walk(run, evaluate, f, is_last=i + 1 == self.max_iter)
            count += more
            ends = count >= most or run.g.abs().max().item() <= self.tolerance_grad
            if ends or (run.d * run.t).abs().max().item() <= self.tolerance_change or abs(f - before) < self.tolerance_change:
                return

    def _walk(self, run: "Descent", evaluate: Evaluate, f: float, *, is_last: bool) -> tuple[float, int]:
        """Move by t d; return the loss there and the number of evaluations: 0 after the last iteration."""
        run.move(run.t)
        if is_last:
            return f, 0
        f, run.g = evaluate(run.ps)
        return f, 1

    def _search(self, run: "Descent", evaluate: Evaluate, first: Point, most: int) -> tuple[float, int]:
        """Move by the length from the line search; return the loss there and the number of evaluations."""

        def at(t: float) -> Point:
            f, g = evaluate(run.at(t))
            return Point(t, f, g, g.dot(run.d).item())

        found, count = strong_wolfe(at, first, run.t, run.d.abs().max().item(), self.tolerance_change, most)
        run.move(found.t)
        run.t, run.g = found.t, found.g
        return found.f, count


class Descent:
    """The state of a descent, with params as leaves and everything else as vectors."""

    def __init__(self, ps: Sequence[Tensor], g: Tensor, vectors: Sequence[Tensor], now: dict[str, Any]) -> None:
        self.ps, self.g, self.t, self.n_iter = ps, g, now["t"], now["n_iter"]
        self.d, self.last_g, ys, ss = vectors
        self.pairs = Pairs(len(ys), ys, ss, now["n_pairs"], now["H_diag"])

    def turn(self, lr: Any) -> None:
        """Set the direction and the initial length for this iteration."""
        self.pairs.add(self.g - self.last_g, self.d * kernels.narrowed(self.t, self.d))
        self.d, self.last_g, self.n_iter = self.pairs.direction(self.g), self.g, self.n_iter + 1
        self.t = self._first_length(lr)

    def _first_length(self, lr: Any) -> Any:
        size = kernels.read(self.g.abs().sum())
        if isinstance(size, Tensor) or isinstance(self.n_iter, Tensor):
            return torch.where(torch.as_tensor(self.n_iter == 1), (1 / size).clamp(max=1.0), 1.0) * lr
        return min(1.0, 1 / size) * lr if self.n_iter == 1 else lr

    def at(self, t: Any) -> list[Tensor]:
        """Return the params at p + t d."""
        return [kernels.plus(p, d.to(p.dtype), t) for p, d in zip(self.ps, split_like(self.d, self.ps), strict=True)]

    def move(self, t: Any, condition: Any = True) -> None:
        """Move by t d if the condition is true."""
        if isinstance(condition, Tensor):
            self.ps = [torch.where(condition, x, p) for x, p in zip(self.at(t), self.ps, strict=True)]
        elif condition:
            self.ps = self.at(t)

    def columns(self) -> list[Sequence[Tensor]]:
        """Return the lists of params and moments."""
        return [self.ps, *[split_like(one, self.ps) for one in (self.d, self.last_g, *self.pairs.stacks(self.d))]]

    def numbers(self) -> list[Any]:
        """Return the scalars of the state."""
        return [self.n_iter, self.t, self.pairs.scale, self.pairs.count]


def _not(condition: Any) -> Any:
    """Return the negation of a bool or a tensor. It is true for a comparison with NaN, which keeps NaN visible."""
    return ~condition if isinstance(condition, Tensor) else not condition


def _choose(condition: Tensor, new: Any, old: Tensor) -> Tensor:
    """Return the new tensor or number if a condition is true, else the old one, on the device of the condition."""
    return torch.where(condition, torch.as_tensor(new).to(condition.device, old.dtype), old.to(condition.device))


def _on_leaves(value_and_grads: ValueAndGrads, grads: Tree, params: Params, sign: float) -> Evaluate:
    """Convert ``value_and_grads`` to a function of the leaves that have a gradient, times a sign."""
    leaves, first = flattening.flatten_together(params, grads)
    places = [i for i, g in enumerate(first) if g is not None]

    def evaluate(some: Sequence[Tensor]) -> tuple[float, Tensor]:
        own = [x.to(leaves[i].dtype) for i, x in zip(places, some, strict=True)]
        value, grads = value_and_grads(flattening.unflatten(params, iter(replaced(leaves, places, own))))
        gs = flattening.flatten_together(params, grads)[1]
        found = [torch.zeros_like(x) if gs[i] is None else gs[i].detach() for i, x in zip(places, some, strict=True)]
        return float(value) * sign, flat([g.to(kernels.wide(g.dtype)) * sign for g in found])

    return evaluate
