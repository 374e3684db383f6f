"""Embeddings: tables whose rows are looked up by integer indices.

x (...) integers, w (num_embeddings, embedding_dim), y (..., embedding_dim). An integer has no gradient: gx is ``None``.
"""

from abc import abstractmethod
from functools import reduce
from typing import Any

import torch
from attrs import field
from attrs.validators import optional
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import Misfit, check_gy, require_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import describe, number, size, value_error, whole_number
from funcnet.initializers.elementary import Initializer, Normal, Uniform
from funcnet.kernels import embedding as kernels
from funcnet.random.keys import Key
from funcnet.value import frozen

_INTEGERS = (torch.int32, torch.int64)


@frozen
class Table(Layer):
    """Base of layers with a table that has a row for each of ``num_embeddings`` integers."""

    num_embeddings: int = field(validator=size)
    embedding_dim: int = field(validator=size)

    @property
    @abstractmethod
    def initializer(self) -> str | Initializer:
        """The initializer of ``weight``: a field of the subclass."""

    def init(self, rng: Key | int) -> Params:
        return {"weight": initializers.initialize(rng, self.param_shapes()["weight"], self.initializer)}

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Any:
        self._checked(params, cache, gy)

    def _checked(self, params: Params, cache: Any, gy: Tensor) -> Tensor:
        """Return gy if it has the shape of y, and the dtype and device of the table."""
        return check_gy(self, gy, (*self._shape(cache), self.embedding_dim), self._weight(params))

    def _shape(self, cache: Any) -> Shape:
        """Return the shape of y without its last axis."""
        return tuple(cache.shape)

    def _rows(self, params: Params, x: Tensor) -> Tensor:
        """Return the rows of the table at x."""
        return kernels.embedding(self._table(params, x), x)

    def _table(self, params: Params, x: Tensor) -> Tensor:
        """Return the table if it is dense and on the device of x."""
        require_params(self, params)
        w = self._weight(params)
        if w.is_cpu is not x.is_cpu or x.layout is not torch.strided or x.is_nested:
            got = f"{describe(w)} on {w.device} and {describe(x)} on {x.device}"
            raise value_error(self, "weight and x must be dense tensors on one device", got)
        return w

    def _weight(self, params: Params) -> Tensor:
        """Return the table, checked: the kernels would accept integers and other shapes."""
        w: Tensor = params["weight"]
        if w.shape != (self.num_embeddings, self.embedding_dim):
            raise Misfit
        if not w.is_floating_point() or w.layout is not torch.strided:
            raise value_error(self, "weight must be a dense floating tensor", w)
        return w

    def param_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def complaint(self, x: Any) -> str | None:
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        return None if kind in _INTEGERS else f"x must be an int32 or int64 tensor, not {kind}"


@frozen
class PaddedTable(Table):
    """Base of tables with an optional padding row at index ``padding_idx``; a negative index counts from the end."""

    @property
    @abstractmethod
    def padding_idx(self) -> int | None:
        """The index of the padding row, or ``None``: a field of the subclass."""

    def __attrs_post_init__(self) -> None:
        n = self.num_embeddings
        if self.padding_idx is not None and not -n <= self.padding_idx < n:
            raise value_error(type(self).__name__, f"padding_idx must be from {-n} to {n - 1}, or None", repr(self.padding_idx))

    @property
    def padding_row(self) -> int:
        """The index of the padding row, counted from the start; -1 if there is none."""
        return -1 if self.padding_idx is None else self.padding_idx % self.num_embeddings

    def init(self, rng: Key | int) -> Params:
        w = Table.init(self, rng)["weight"]
        rows = torch.arange(self.num_embeddings, device=w.device).unsqueeze(1)
        return {"weight": w if self.padding_idx is None else w.masked_fill(rows == self.padding_row, 0.0)}

    def complaint(self, x: Any) -> str | None:
        n, rule = self.num_embeddings, Table.complaint(self, x)
        inside = rule or not x.numel() or 0 <= x.min() <= x.max() < n
        return rule if inside else f"x must be from 0 to num_embeddings - 1 = {n - 1}, and is from {x.min()} to {x.max()}"


@frozen
class Embedding(PaddedTable):
    """A learned vector for each integer from 0 to ``num_embeddings`` - 1.

        y     = w[x]
        gw[i] = Σ gy where x = i, gx is ``None``

    With ``max_norm=c``, where ‖w[i]‖ > c:

        y     = s w[x], s = c / ‖w[x]‖
        gw[i] = s (g - (g · w[i]) n / ‖w[i]‖),  g = Σ gy where x = i,  n = sign(w) (|w| / ‖w‖ₚ)ᵖ⁻¹ the gradient of the norm

    The row ``padding_idx`` is initialized to zeros, and y is zero for that index even if the row in params is not; its gradient
    is 0. torch.nn would return the row. To use the table as an output projection too, share its weight with
    ``Linear(embedding_dim, num_embeddings)``, using ``tied``.

    With ``max_norm``, y is the same as in torch.nn. torch writes the scaled rows into the table, and computes the gradient from
    the new table; here the table does not change, and the gradient is exact. The arguments ``sparse`` and ``scale_grad_by_freq``
    do not exist: gradients are dense, and not divided by the frequency of a row.

    Args:
        num_embeddings: Number of integers, the rows of the table.
        embedding_dim: Size of each row, the last axis of y.
        padding_idx: Index whose vector is always zero; negative to count from the end; ``None`` for no such index.
        max_norm: Largest norm of a row of y, above 0; longer rows are scaled down to it. ``None`` for no limit.
        norm_type: The exponent p of that norm, at least 1.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (...), int32 or int64 → y (..., embedding_dim)

    Params:
        weight: (num_embeddings, embedding_dim), standard normal.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If ``padding_idx`` is out of range, or if x is not an integer tensor or has an index out of range.

    References:
        ``torch.nn.Embedding``.

    >>> layer = Embedding(10, 4)
    >>> layer(layer.init(0), torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 4])
    """

    padding_idx: int | None = field(default=None, validator=optional(whole_number))
    max_norm: float | None = field(default=None, validator=optional(number(above=0.0)))
    norm_type: float = field(default=2.0, validator=number(1.0))
    initializer: str | Initializer = field(default=Normal(), validator=initializers.known)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        w = self._table(params, x)
        y = kernels.embedding(w, x) if self.padding_idx is None else kernels.padded_embedding(w, x, self.padding_row)
        return y if self.max_norm is None else y * self._scale_of(y, self.max_norm)[0], x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, None]:
        gy = self._checked(params, cache, gy)
        if self.max_norm is not None:
            gy = self._scaled_grad(kernels.embedding(params["weight"], cache), gy, self.max_norm)
        gw = kernels.embedding_backward(gy, cache, self.num_embeddings, self.padding_row)
        return {"weight": gw}, None

    def _scale_of(self, rows: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factor of each row, the norm, and whether the norm exceeds the bound."""
        norm: Tensor = torch.linalg.vector_norm(rows, self.norm_type, -1, keepdim=True)
        long = norm > bound
        return torch.where(long, bound / (norm + 1e-7), 1.0), norm, long  # torch adds the same 1e-7

    def _scaled_grad(self, rows: Tensor, g: Tensor, bound: float) -> Tensor:
        """Return the gradient of the rows, given the gradient of the scaled rows."""
        s, norm, long = self._scale_of(rows, bound)
        slope = rows.sign() * (rows.abs() / norm) ** (self.norm_type - 1)
        along = (g * rows).sum(-1, keepdim=True) / (norm + 1e-7)
        return s * (g - torch.where(long, along * slope, 0.0))


@frozen
class HashEmbed(Table):
    """Sum of ``num_hashes`` rows of a table, selected by hashing: far more integers than rows get distinct vectors.

        y     = Σ_j w[h_j(x)]
        gw[i] = Σ gy where h_j(x) = i, over all hashes j; gx is ``None``

    The hash is SplitMix64 with the key ``fold_in(key(seed), j)``, the same on every device.

    Args:
        num_embeddings: Number of rows of the table.
        embedding_dim: Size of each row, the last axis of y.
        seed: Seed of the hash functions.
        num_hashes: Number of hash functions, and of rows that are summed.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (...), int32 or int64 → y (..., embedding_dim)

    Params:
        weight: (num_embeddings, embedding_dim), uniform in ±0.1.

    Cache:
        The indices of the rows, (..., num_hashes).

    Raises:
        ValueError: If x is not an integer tensor.

    References:
        Svenstrup, Hansen & Winther 2017, "Hash embeddings"; thinc's ``HashEmbed``, for the defaults.

    >>> layer = HashEmbed(100, 4)
    >>> layer(layer.init(0), torch.tensor([12, 10**9])).shape
    torch.Size([2, 4])
    """

    seed: int = field(default=0, validator=whole_number)
    num_hashes: int = field(default=4, validator=size)
    initializer: str | Initializer = field(default=Uniform(-0.1, 0.1), validator=initializers.known)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        if x.dtype not in _INTEGERS or x.layout is not torch.strided or x.is_nested:
            raise Misfit
        key, count = random.key(self.seed).to(x.device), self.num_embeddings
        rows = [random.fold_in(random.fold_in(key, i), x).remainder(count) for i in range(self.num_hashes)]
        return reduce(torch.add, [self._rows(params, one) for one in rows]), torch.stack(rows, -1)

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, None]:
        gy = self._checked(params, cache, gy).unsqueeze(-2).expand(*cache.shape, -1)
        return {"weight": kernels.embedding_backward(gy, cache, self.num_embeddings, -1)}, None

    def _shape(self, cache: Tensor) -> Shape:
        return tuple(cache.shape[:-1])
