"""Embedding: integers name rows of a table; what comes out are the rows.

    Embedding      y = w[x]                     gw[i] = Σ gy where x = i
      max_norm c   y = s w[x], s = c / ‖w[x]‖   gw[i] = s (g - (g · w[i]) n / ‖w[i]‖), g = Σ gy, where ‖w[i]‖ > c
    HashEmbed      y = Σ w[h(x)]                gw[i] = Σ gy where h(x) = i      over the hash functions h

x (...), w (rows, dim), y (..., dim). An integer has no gradient: gx is ``None``. n is the gradient of the norm: of ‖w‖ₚ it is
sign(w) (|w| / ‖w‖ₚ)ᵖ⁻¹.
"""

from functools import reduce
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import Misfit, check_gy, explain_error
from funcnet.contract import Layer, Params, Rng
from funcnet.errors import number, size, value_error, whole_number
from funcnet.initializers import Initializer, Normal, Uniform
from funcnet.kernels import embedding as kernels
from funcnet.random import Key
from funcnet.value import frozen

_INTEGERS = (torch.int32, torch.int64)


@frozen
class Table(Layer):
    """A table with a row for each integer, of which one, ``padding_idx``, may stand for none."""

    num_embeddings: int = field(validator=size)
    embedding_dim: int = field(validator=size)

    def _padding(self, index: int | None) -> int:
        """Return the number of the padding row, -1 for none; it may be counted from the end."""
        return -1 if index is None else index % self.num_embeddings

    def _check_padding(self, index: int | None) -> None:
        n = self.num_embeddings
        if index is not None and not -n <= index < n:
            raise value_error(type(self).__name__, f"padding_idx must be from {-n} to {n - 1}, or None", repr(index))

    def _table(self, params: Params) -> Tensor:
        w: Tensor = params["weight"]
        if len(params) != 1 or w.shape != (self.num_embeddings, self.embedding_dim):
            raise Misfit
        return w

    def _first(self, rng: Key | int, initializer: str | Initializer, padding_idx: int | None) -> Params:
        w = initializers.initialize(rng, (self.num_embeddings, self.embedding_dim), initializer)
        rows = torch.arange(self.num_embeddings, device=w.device).unsqueeze(1)
        return {"weight": w if padding_idx is None else w.masked_fill(rows == self._padding(padding_idx), 0.0)}

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def complaint(self, x: Tensor) -> str | None:
        if not isinstance(x, Tensor) or x.dtype not in _INTEGERS:
            return f"x must be an int32 or int64 tensor, not {x.dtype if isinstance(x, Tensor) else type(x).__name__}"
        if x.numel() and (x.min() < 0 or x.max() >= self.num_embeddings):
            lowest, highest = int(x.min()), int(x.max())
            return f"x must be from 0 to num_embeddings - 1 = {self.num_embeddings - 1}, and is from {lowest} to {highest}"
        return None


def padding_index(layer: Any, attribute: Any, got: Any) -> None:
    """Validate the number of a row, or None."""
    if got is not None:
        whole_number(layer, attribute, got)


def _positive_or_none(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        number(above=0.0)(layer, attribute, got)


@frozen
class Embedding(Table):
    """A row of ``embedding_dim`` numbers for each integer from 0 to ``num_embeddings`` - 1; x has any shape.

    The row ``padding_idx`` is zeros at first and, as in torch.nn, has the gradient 0 where x names it: it is held, whatever the
    derivative, and so stays zeros. To use the table as an output projection too, give
    ``Linear(embedding_dim, num_embeddings)`` the same weight, by ``tied``.

    With ``max_norm`` a row whose norm ‖·‖ₚ, p = ``norm_type``, is larger comes out shortened to it. The values are torch.nn's,
    but torch writes the short rows into the table, and its gradient is that of the table it then has; here the table stays as it
    is, and the gradient is exact. Gradients are dense, and not divided by how often a row is named: there is no ``sparse`` and
    no ``scale_grad_by_freq``.

    Params   ``weight`` (num_embeddings, embedding_dim), normal with variance 1 unless ``initializer`` names another.
    Cache    ``x``.
    Raises   ``ValueError`` for sizes below 1, a ``padding_idx`` that is no row, a ``max_norm`` of 0 or less, a ``norm_type``
             below 1, params that are not this layer's, and an ``x`` that is not of integers or names a row that there is not.
    Source   the names are ``torch.nn.Embedding``'s.
    """

    padding_idx: int | None = field(default=None, validator=padding_index)
    max_norm: float | None = field(default=None, validator=_positive_or_none)
    norm_type: float = field(default=2.0, validator=number(1.0))
    initializer: str | Initializer = field(default=Normal(), validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        self._check_padding(self.padding_idx)

    def init(self, rng: Key | int) -> Params:
        return self._first(rng, self.initializer, self.padding_idx)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        try:
            y = kernels.embedding(self._table(params), x)
            return y if self.max_norm is None else y * self._shortened(y, self.max_norm)[0], x
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, None]:
        gy = check_gy(self, gy, (*cache.shape, self.embedding_dim))
        if self.max_norm is not None:
            gy = self._long_grad(kernels.embedding(params["weight"], cache), gy, self.max_norm)
        gw = kernels.embedding_backward(gy, cache, self.num_embeddings, self._padding(self.padding_idx))
        return {"weight": gw}, None

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> None:
        return None

    def _shortened(self, rows: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return by what rows are multiplied, their norms, and which of them are too long."""
        norm: Tensor = torch.linalg.vector_norm(rows, self.norm_type, -1, keepdim=True)
        long = norm > bound
        return torch.where(long, bound / (norm + 1e-7), 1.0), norm, long  # torch adds this much too

    def _long_grad(self, rows: Tensor, g: Tensor, bound: float) -> Tensor:
        """Return the gradient of rows from that of the shortened ones."""
        s, norm, long = self._shortened(rows, bound)
        slope = rows.sign() * (rows.abs() / norm) ** (self.norm_type - 1)
        along = (g * rows).sum(-1, keepdim=True) / (norm + 1e-7)
        return s * (g - torch.where(long, along * slope, 0.0))


@frozen
class HashEmbed(Table):
    """A sum of ``num_hashes`` rows, which a hash of the integer names: any integers, far more than rows, have vectors apart.

    The hash is SplitMix64's, of the key ``fold_in(key(seed), number of the hash)``: the same on every device.

    Params   ``weight`` (num_embeddings, embedding_dim), uniform in ±0.1 unless ``initializer`` names another.
    Cache    the rows' numbers, with the hashes as last axis.
    Raises   ``ValueError`` for sizes below 1, params that are not this layer's, and an ``x`` that is not of integers.
    Source   Svenstrup, Hansen & Winther 2017; ``thinc.HashEmbed``, whose four hashes and first values these are.
    """

    seed: int = field(default=0, validator=whole_number)
    num_hashes: int = field(default=4, validator=size)
    initializer: str | Initializer = field(default=Uniform(-0.1, 0.1), validator=initializers.known)

    def init(self, rng: Key | int) -> Params:
        return self._first(rng, self.initializer, None)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        try:
            w = self._table(params)
            if x.dtype not in _INTEGERS:
                raise Misfit
            key = random.key(self.seed).to(x.device)
            rows = [random.fold_in(random.fold_in(key, i), x).remainder(len(w)) for i in range(self.num_hashes)]
            return reduce(torch.add, [kernels.embedding(w, one) for one in rows]), torch.stack(rows, -1)
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, None]:
        gy = check_gy(self, gy, (*cache.shape[:-1], self.embedding_dim)).unsqueeze(-2).expand(*cache.shape, -1)
        return {"weight": kernels.embedding_backward(gy, cache, self.num_embeddings, -1)}, None

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> None:
        return None

    def complaint(self, x: Tensor) -> str | None:
        return None if isinstance(x, Tensor) and x.dtype in _INTEGERS else "x must be an int32 or int64 tensor"
