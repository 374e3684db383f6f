"""The check of losses: ``check_loss`` checks the contract of ``funcnet.losses.loss``, for custom losses too.

The laws of layers are checked first, on ``loss.as_layer()``: gradients, purity, dtypes, strides, transforms, ``repr``. Then come
the rules for losses only:

    agreement    value_and_grad, __call__, as_layer, backward and the parts give one value and one gradient
    reductions   "sum", "mean" and "batch" are computed from the terms that "none" returns
    weights      Σ w value / Σ w, w = weight_of(target), over any split of the rows is the value of all rows
    masks        weighted(loss), with a mask that drops rows, equals the loss of the other rows
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.errors import value_error
from funcnet.losses.loss import Loss
from funcnet.losses.sample_weights import WeightedLoss, weighted
from funcnet.random.keys import Key
from funcnet.testing.comparison import DTYPES, check_equal, require, require_dtypes, shown
from funcnet.testing.laws import check_laws

Rule = Callable[[Any, Any, Any], None]

_DOUBLE = torch.float64


def check_loss(
    loss: Loss,
    y: Any,
    target: Any,
    rng: Key | int = 0,
    *,
    batched: bool = True,
    compiled: bool = True,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
) -> None:
    """Check the contract of a loss: the laws of its layer, and the rules of losses, with every reduction that it has.

    Args:
        loss: The loss to check.
        y: An output, a tensor or a tree of tensors, away from kinks. It is not changed.
        target: A target for it. It is not changed.
        rng: Key or seed for gradients of the value.
        batched: Whether the value of a batch is computed from the values of its rows, along the first axes of y and target.
            ``False`` skips the rules of weights and masks. They are also skipped for a ``batch_dependent`` loss, such as a
            contrastive loss.
        compiled: Whether to check ``torch.compile`` too, which takes most of the time.
        dtypes: The dtypes to check, as for ``check_laws``.

    Raises:
        AssertionError: If the loss breaks a law or a rule; the message starts with its name, as ``law 1, transpose`` or
            ``rule of losses, weights``.
        ValueError: If ``loss`` is not a loss, or ``dtypes`` is not a tuple of floating dtypes.

    >>> from funcnet.losses.regression import MSE
    >>> check_loss(MSE(), torch.ones(4, 3), torch.zeros(4, 3), compiled=False)
    """
    if not isinstance(loss, Loss):
        raise value_error("check_loss", "loss must be a loss", loss)
    require_dtypes("check_loss", dtypes)
    check_laws(loss.as_layer(), (y, target), rng=rng, batched=False, compiled=compiled, dtypes=dtypes)
    check_rules(loss, y, target, batched=batched)


def check_rules(loss: Loss, y: Any, target: Any, *, batched: bool = True) -> None:
    """Check the rules for losses only, in float64, with every reduction."""
    y, target = tree.cast(y, _DOUBLE), tree.cast(target, _DOUBLE)
    by_rows = batched and not loss.batch_dependent and _row_count(y, target)
    for one in _with_reductions(loss):
        _try("agreement", _check_agreement, one, y, target)
        if by_rows:
            _try("weights", _check_weights, one, y, target)
    if loss.part_count == 1 and len(_with_reductions(loss)) > 1:
        _try("reductions", _check_reductions, loss, y, target)
        for one in _with_reductions(loss) if by_rows else ():
            _try("masks", _check_masks, one, y, target)


def _try(name: str, rule: Rule, loss: Loss, y: Any, target: Any) -> None:
    """Run a rule; its errors start with its name."""
    try:
        rule(loss, y, target)
    except AssertionError as error:
        raise AssertionError(f"rule of losses, {name}: {error}") from error
    except Exception as error:
        raise AssertionError(f"rule of losses, {name}: {type(error).__name__}: {error}; in {shown(loss)}") from error


def _with_reductions(loss: Loss) -> list[Loss]:
    """Return the loss with each reduction that it has."""
    found = [one for name in ("mean", "sum", "batch", "none") if (one := _with_reduction(loss, name)) is not None]
    return found if loss in found else [loss, *found]


def _with_reduction(loss: Loss, reduction: str) -> Loss | None:
    try:
        return loss.with_reduction(reduction)
    except (TypeError, ValueError):
        return None


def _check_agreement(loss: Any, y: Any, target: Any) -> None:
    """Require that every way to compute the value and the gradient gives the same."""
    value, gy = loss.value_and_grad(y, target)
    want = {"value": value, "gy": gy}
    layer = loss.as_layer()
    params = tree.cast(layer.init(0), _DOUBLE)
    of_layer, kept = layer.apply(params, (y, target))
    _equal(loss, "loss(y, target) must be the value of value_and_grad", {"value": loss(y, target)}, {"value": value}, y)
    found = {"value": of_layer, "gy": layer.vjp(params, kept, torch.ones_like(value))[1][0]}
    _equal(loss, "value_and_grad must agree with as_layer() and its vjp of ones", want, found, y)
    _, cache = loss.forward(y, target)
    for rule, g in {
        "backward(cache)": None,
        "backward(cache, 1.0)": 1.0,
        "backward(cache, ones)": torch.ones_like(value),
    }.items():
        again = loss.backward(cache) if g is None else loss.backward(cache, g)
        _equal(loss, f"{rule} must be the gradient of value_and_grad", {"gy": again}, {"gy": gy}, y)
    values, gy = loss.parts_and_grad(y, target)
    total: Any = sum([part.factor * one for part, one in zip(loss.part_list(), values, strict=True)])
    _equal(loss, "the value must be the sum of the parts times their factors", want, {"value": total, "gy": gy}, y)


def _check_reductions(loss: Any, y: Any, target: Any) -> None:
    """Require that each reduction of the terms, and of their gradients, is correct."""
    if (of_terms := _with_reduction(loss, "none")) is None:
        return
    terms, gy = of_terms.value_and_grad(y, target)
    count = _count(loss, terms, target)
    rows = terms.shape[0] if terms.dim() else 1
    for name, by in {"sum": 1, "batch": rows, "mean": count if loss.mean_of_terms else 0}.items():
        if (one := _with_reduction(loss, name)) is not None and by:
            want = {"value": terms.sum() / by, "gy": tree.scale(gy, 1 / by)}
            rule = f'"{name}" must be the sum of the terms of "none" divided by {float(by):g}'
            _equal(loss, rule, dict(zip(("value", "gy"), one.value_and_grad(y, target), strict=True)), want, y)


def _count(loss: Any, terms: Tensor, target: Any) -> float:
    """Return the number by which the mean divides the sum of the terms."""
    counts = loss.term_weights(target)
    if counts is None:
        return terms.numel()
    return float(counts.reshape((*counts.shape, *[1] * (terms.dim() - counts.dim()))).expand(terms.shape).sum())


def _check_weights(loss: Any, y: Any, target: Any) -> None:
    """Require that batches give the value and gradient of all rows: single rows, uneven batches, empty batches."""
    n = _row_count(y, target)
    for cuts in ([0, *range(1, n), n], [0, 0, n // 3, n], [0, n, n]):
        _check_split(loss, y, target, cuts)


def _check_split(loss: Any, y: Any, target: Any, cuts: list[int]) -> None:
    batches = [(_rows(y, a, b), _rows(target, a, b)) for a, b in pairwise(cuts)]
    parts = loss.part_list()
    weights = [[1.0 if part.reduction == "sum" else float(part.weight_of(t)) for part in parts] for _, t in batches]
    for (a, b), row in zip(pairwise(cuts), weights, strict=True):
        for part, w in zip(parts, row, strict=True):
            rule = "weight_of must be a finite number of at least 0, and 0 for no rows"
            holds = part.reduction in ("sum", "none") or (0 <= w < torch.inf and (b > a or not w))
            require(holds, loss, f"{rule}, got {w:g} for {b - a} rows")
    totals = [sum(column) or 1.0 for column in zip(*weights, strict=True)]
    found = [loss.parts_and_grad(*batch, _shares(parts, row, totals)) for batch, row in zip(batches, weights, strict=True)]
    want, gy = loss.parts_and_grad(y, target)
    rule = f"the rows split at {cuts[1:-1]} must give the value and gradient of all rows, by Σ w value / Σ w"
    got = [_over(part, [v[i] for v, _ in found], [w[i] / totals[i] for w in weights]) for i, part in enumerate(parts)]
    if all([sum(column) for column in zip(*weights, strict=True)]):  # noqa: C419 (with weights 0 the mean is 0 or NaN)
        _equal(loss, rule, {"value": tuple(got)}, {"value": want}, y)
        joined = tree.map(lambda *leaves: torch.cat(leaves), *[gradient for _, gradient in found])
        _equal(loss, rule, {"gy": joined}, {"gy": gy}, y)


def _check_masks(loss: Any, y: Any, target: Any) -> None:
    """Require that a mask gives the value of the rows it keeps, and the gradient 0 for the others."""
    n = _row_count(y, target)
    of_terms = _with_reduction(loss, "none")
    if loss.reduction not in ("mean", "sum") or not loss.mean_of_terms or isinstance(loss, WeightedLoss):
        return
    if of_terms is None or of_terms(y, target).shape[:1] != (n,):
        return
    kept = torch.arange(n) % 3 != 1
    by_mask: Any = weighted(loss)
    value, gy = by_mask.value_and_grad(y, (target, kept))
    want, part = loss.value_and_grad(*tree.map(lambda leaf: leaf[kept], (y, target)))
    rule = "weighted(loss) with a mask must be the loss of the rows that the mask keeps"
    whole = tree.map(lambda leaf, g: torch.zeros_like(leaf).index_put((kept,), g), y, part)
    _equal(loss, rule, {"value": value, "gy": gy}, {"value": want, "gy": whole}, y)


def _shares(parts: Any, weights: list[float], totals: list[float]) -> tuple[float, ...]:
    """Return the factors of the values of a batch: its share of the weight, or 1 for sums and terms."""
    rows = zip(parts, weights, totals, strict=True)
    return tuple([1.0 if part.reduction in ("sum", "none") else w / total for part, w, total in rows])


def _over(part: Any, values: list[Tensor], shares: list[float]) -> Tensor:
    """Return the value of all rows."""
    if part.reduction == "none":
        return torch.cat(values)
    shares = [1.0] * len(shares) if part.reduction == "sum" else shares
    total: Any = sum([v * share for v, share in zip(values, shares, strict=True) if share])
    return torch.as_tensor(total)


def _row_count(y: Any, target: Any) -> int:
    """Return the common length of the first axes of all tensors; 0 if they differ, or for a target of ``None``."""
    sizes = {leaf.shape[0] if leaf.dim() else 0 for leaf in tree.leaves((y, target))}
    return sizes.pop() if len(sizes) == 1 and tree.leaves(target) else 0


def _rows(values: Any, a: int, b: int) -> Any:
    return tree.map(lambda leaf: leaf[a:b], values)


def _equal(loss: Any, rule: str, got: Any, want: Any, y: Any) -> None:
    check_equal(loss, rule, got, want, scale={"y": y, "value": got})
