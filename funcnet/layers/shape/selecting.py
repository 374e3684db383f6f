"""Selection: one entry of several outputs, or one element of each row."""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.checks import Misfit, check_gy, floating_complaint, kind_of, require_dense, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import is_whole, valid_if, value_error, whole_number
from funcnet.flattening import flatten_together, unflatten
from funcnet.value import frozen

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@frozen
class Select(Layer):
    """Return one entry of a tuple or dict: ``serial(LSTM(4, 6), Select(0), Linear(6, 2))`` drops the last states of the LSTM.

        y  = x[index]
        gx = gy for that entry, zeros for the others

    ``Pick`` returns ``None`` instead of zeros for the other entries.

    Args:
        index: The position in a tuple, from the end if negative, or the name in a dict.

    Shape:
        x (x₀, x₁, ...), a tuple or dict of tensors or trees → y = x[index]

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x does not have this entry.

    >>> Select(1)({}, (torch.zeros(2), torch.ones(3)))
    tensor([1., 1., 1.])
    """

    index: int | str = field(validator=valid_if(lambda got: is_whole(got) or _is_name(got), "a whole number or a name"))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Any]:
        require_no_params(self, params)
        if not isinstance(x, dict if isinstance(self.index, str) else tuple) or not _holds_trees(x):
            raise Misfit
        entry: Any = x[self.index]  # type: ignore[index]  # a name for a dict, a number for a tuple
        return entry, x

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        if isinstance(cache, dict):
            return params, {name: self._grad(x, gy, name == self.index) for name, x in cache.items()}
        at = int(self.index) % len(cache)
        return params, tuple([self._grad(x, gy, i == at) for i, x in enumerate(cache)])

    def _grad(self, x: Any, gy: Any, is_selected: bool) -> Any:
        """Return the gradient of one entry; absent leaves of gy count as zeros."""
        if not is_selected:
            return tree.map(_zeros, x)
        leaves, grads = flatten_together(x, gy)
        return unflatten(x, iter([self._leaf_grad(leaf, g) for leaf, g in zip(leaves, grads, strict=True)]))

    def _leaf_grad(self, x: Any, g: Any) -> Any:
        if g is None or not isinstance(x, Tensor) or x.is_nested:
            return _zeros(x)
        return check_gy(self, g, x.shape, x)

    def complaint(self, x: Any) -> str | None:
        if isinstance(self.index, str):
            found = isinstance(x, dict) and self.index in x and _holds_trees(x)
            return None if found else f"x must be a dict of tensors, or trees of them, with the key {self.index!r}"
        found = isinstance(x, tuple) and -len(x) <= self.index < len(x) and _holds_trees(x)
        return None if found else f"x must be a tuple of tensors, or trees of them, with an entry {self.index}"


def _holds_trees(x: Any) -> bool:
    """Return whether all entries are tensors, tuples or dicts: numbers have no gradient."""
    return all([isinstance(one, (Tensor, tuple, dict)) for one in (x.values() if isinstance(x, dict) else x)])  # noqa: C419


def _is_name(got: Any) -> bool:
    """Return whether a string can name an output, as in ``branch``; "2" is probably a mistake."""
    return isinstance(got, str) and got.isidentifier()


def _zeros(x: Any) -> Tensor | None:
    return torch.zeros_like(x) if isinstance(x, Tensor) and x.is_floating_point() else None


@frozen
class Gather(Layer):
    """Select one element of each row by its index, like the value Q(s)[a] of the action taken.

        y[...]          = q[..., a[...], ...]            x = (q, a)
        gq[..., k, ...] = gy[...] for k = a[...], else 0          ga is ``None``

    Args:
        dim: The axis of q that a indexes.

    Shape:
        (q (..., n, ...), a (..., ...)) → y (..., ...): a and y have the axes of q without ``dim``. For ``dim=-1``, q is (N,
        actions) and a is (N,).

    Cache:
        ``a`` as int64 with an axis of size 1 at ``dim``, the shape of q, and an empty tensor of its dtype.

    Raises:
        ValueError: If a does not have the axes of q without ``dim``, or an index is out of range.

    References:
        ``torch.gather``.

    >>> Gather()({}, (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0])))
    tensor([2., 3.])
    """

    dim: int = field(default=-1, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Tensor]]:
        require_no_params(self, params)
        if not isinstance(x, tuple) or len(x) != 2:
            raise Misfit
        q, a = x
        shape = tuple(q.shape)
        at = self.dim % len(shape)
        alike = q.layout is a.layout is torch.strided and q.is_cpu is a.is_cpu
        if not alike or a.shape != (*shape[:at], *shape[at + 1 :]) or a.dtype not in _INTEGERS or not q.is_floating_point():
            raise Misfit  # torch accepts an index with shorter axes
        index = (a if a.dtype is torch.int64 else a.to(torch.int64)).unsqueeze(at)
        return torch.gather(q, self.dim, index).squeeze(at), (index, shape, kind_of(q))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Tensor], gy: Tensor) -> tuple[Grads, tuple[Tensor, None]]:
        index, shape, kind = cache
        at = self.dim % len(shape)
        g = check_gy(self, gy, (*shape[:at], *shape[at + 1 :]), kind)
        return params, (g.new_zeros(shape).scatter(self.dim, index, g.unsqueeze(at)), None)

    def _shape_complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or len(x) != 2 or floating_complaint(x[0]) or not _is_integer(x[1]):
            return "x must be a pair (q, a) of a floating tensor and an integer tensor"
        q, a = require_dense(self, x[0]), require_dense(self, x[1])
        if not -q.dim() <= self.dim < q.dim():
            return f"q must have an axis {self.dim}"
        want = tuple([n for i, n in enumerate(q.shape) if i != self.dim % q.dim()])
        return None if tuple(a.shape) == want and a.device == q.device else f"a must have the axes of q without axis {self.dim}"

    def complaint(self, x: Any) -> str | None:
        rule = self._shape_complaint(x)
        if rule or not x[1].numel():
            return rule
        n, low, high = x[0].shape[self.dim], int(x[1].min()), int(x[1].max())
        if not 0 <= low <= high < n:
            raise value_error(self, f"a must hold indices from 0 to {n - 1}", f"indices from {low} to {high}")
        return None


def _is_integer(a: Any) -> bool:
    return isinstance(a, Tensor) and a.dtype in _INTEGERS
