"""Orthogonal weights: the weight w of a layer has orthonormal columns (rows if it is wide), and is computed from any matrix x.

    w = b q(x)      gq = bᵀ gw      y = f(w, x), gw and gx from f.vjp      b: the fixed orthogonal base, if any

q are the first k columns of the map of x (n, k), n ≥ k; A = L - Lᵀ, where L is the lower triangle of x, with columns of 0 up
to (n, n), and gL = gA - gAᵀ:

    matrix_exp     q = eᴬ                            gA = upper right block of exp of (Aᵀ gq; 0 Aᵀ)
    cayley         q = (I - A/2)⁻¹ (I + A/2)         gA = ½ (I + A/2)⁻¹ gq (I + q)ᵀ
    householder    q = (I - V U) d                   gV = - gq d Uᵀ + I Hᵀ + V (P + Pᵀ)
                   U = S⁻¹ V₁ᵀ                       H = - S⁻ᵀ Vᵀ gq d           P = upper(- H Uᵀ)

V (n, k) has the entries of x below the diagonal and 1 on it, and V₁ are its first k rows. I - V U is the product of k
reflections, one for each column of V. S = upper(VᵀV), where upper is the upper triangle with half the diagonal. d are the signs
of the diagonal of x, which has no gradient.
"""

from collections.abc import Callable

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.combinators.parametrization import Parametrization, Parametrized
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import adds_location, flag, one_of, value_error
from funcnet.random.keys import Key, key_beside
from funcnet.value import frozen


def _skew(x: Tensor) -> Tensor:
    """Return a skew-symmetric matrix (n, n) from the lower triangle of x (n, k)."""
    lower = _square(x.tril())
    return lower - lower.mT


def _square(x: Tensor) -> Tensor:
    """Append columns of 0 to x (n, k), up to (n, n)."""
    return torch.cat((x, x.new_zeros(*x.shape[:-1], x.shape[-2] - x.shape[-1])), -1)


def _skew_back(ga: Tensor, x: Tensor) -> Tensor:
    return (ga - ga.mT)[..., : x.shape[-1]].tril()


def _exponential(x: Tensor) -> Tensor:
    """Return eˣ, computed in float64: in float32 torch 2.13.0 is up to 20 units in the last place off."""
    return torch.matrix_exp(x.double()).to(x.dtype)


def _exp(x: Tensor) -> Tensor:
    return _exponential(_skew(x))


def _exp_back(x: Tensor, q: Tensor, gq: Tensor) -> Tensor:
    a, n = _skew(x), x.shape[-2]
    blocks = torch.cat((torch.cat((a.mT, _square(gq)), -1), torch.cat((torch.zeros_like(a), a.mT), -1)), -2)
    return _skew_back(_exponential(blocks)[..., :n, n:], x)


def _cayley(x: Tensor) -> Tensor:
    half = _skew(x) / 2
    one = torch.eye(half.shape[-1], dtype=x.dtype, device=x.device)
    q: Tensor = torch.linalg.solve(one - half, one + half)
    return q


def _cayley_back(x: Tensor, q: Tensor, gq: Tensor) -> Tensor:
    one = torch.eye(q.shape[-1], dtype=x.dtype, device=x.device)
    right = torch.matmul(gq, (one + q)[..., : x.shape[-1]].mT)
    return _skew_back(torch.linalg.solve(one + _skew(x) / 2, right) / 2, x)


def _reflections(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return V, S, U and d."""
    v = x.tril(-1) + torch.eye(*x.shape[-2:], dtype=x.dtype, device=x.device)
    s = _halve_diagonal(torch.matmul(v.mT, v))
    signs = torch.where(x.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(x.dtype)
    return v, s, torch.linalg.solve_triangular(s, v[..., : x.shape[-1], :].mT, upper=True), signs.unsqueeze(-2)


def _halve_diagonal(square: Tensor) -> Tensor:
    """Return the upper triangle with half of the diagonal."""
    return (square.triu() + square.triu(1)) / 2


def _householder(x: Tensor) -> Tensor:
    v, _, u, signs = _reflections(x)
    return (torch.eye(*x.shape[-2:], dtype=x.dtype, device=x.device) - torch.matmul(v, u)) * signs


def _householder_back(x: Tensor, q: Tensor, gq: Tensor) -> Tensor:
    """Compute the gradient with products and solves: 14 ms for ``Linear(256, 256)``; torch's loop over reflections takes 50."""
    v, s, u, signs = _reflections(x)
    g = gq * signs
    h = torch.linalg.solve_triangular(s.mT, -torch.matmul(v.mT, g), upper=False)
    p = _halve_diagonal(-torch.matmul(h, u.mT))
    gv = torch.matmul(v, p + p.mT) - torch.matmul(g, u.mT)
    return (gv + _below(h.mT, x)).tril(-1)


def _below(top: Tensor, x: Tensor) -> Tensor:
    """Append rows of 0 to a square matrix, up to the number of rows of x."""
    return torch.cat((top, top.new_zeros(*top.shape[:-2], x.shape[-2] - top.shape[-2], top.shape[-1])), -2)


Map = Callable[[Tensor], Tensor]
MapBack = Callable[[Tensor, Tensor, Tensor], Tensor]

_MAPS: dict[str, tuple[Map, MapBack]] = {
    "matrix_exp": (_exp, _exp_back),
    "cayley": (_cayley, _cayley_back),
    "householder": (_householder, _householder_back),
}


@frozen
class _Orthogonal(Parametrization):
    """Compute a matrix with orthonormal columns or rows from any matrix; leading axes of a weight are a batch of matrices."""

    label = "orthogonal"

    orthogonal_map: str | None = field(default=None, validator=one_of(*_MAPS, None))
    use_trivialization: bool = field(default=True, validator=flag)

    non_trainable = ("base",)

    def initial(self, rng: Key | int, w: Tensor) -> tuple[Params, Tensor]:
        if w.dim() < 2:
            raise value_error("orthogonal", "the weight must have at least two axes", w)
        x = _tall(w)
        n, k = x.shape[-2:]
        if self.use_trivialization:
            more = random.normal(key_beside(rng, w), (*x.shape[:-1], n - k)).to(w.dtype)
            start = torch.eye(n, k, dtype=w.dtype, device=w.device).expand(x.shape)
            return {"base": _orthonormalize(torch.cat((x, more), -1))}, _undo_tall(-start, w).contiguous()
        return {}, _undo_tall(_find_reflectors(x), w).contiguous() if self._name(x) == "householder" else w

    def call(self, layer: Layer, name: str) -> str:
        how = "" if self.use_trivialization else ", use_trivialization=False"
        return f"orthogonal({layer!r}, {name!r}, {self.orthogonal_map!r}{how})"

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        z = _tall(x).to(torch.promote_types(x.dtype, torch.float32))
        full = _MAPS[self._name(z)][0](z)
        q = full[..., : z.shape[-1]]
        w = torch.matmul(self._base(params, z, x), q) if self.use_trivialization else q
        return _undo_tall(w, x).to(x.dtype), (x, full)

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        x, full = cache
        z, g = _tall(x).to(full.dtype), _tall(gy).to(full.dtype)
        g = torch.matmul(self._base(params, z, x).mT, g) if self.use_trivialization else g
        gx = _undo_tall(_MAPS[self._name(z)][1](z, full, g), x).to(x.dtype)
        return {"base": None} if self.use_trivialization else {}, gx

    def _base(self, params: Params, tall: Tensor, x: Tensor) -> Tensor:
        """Return the base in the dtype of ``tall``, after checking shape and dtype: torch would broadcast or cast."""
        base: Tensor = params["base"]
        shape = (*tall.shape[:-1], tall.shape[-2])
        if base.shape != shape or base.dtype is not x.dtype or base.is_cpu is not x.is_cpu:
            raise value_error("orthogonal", f"base must have the shape {shape}, and the dtype and device of the original", base)
        return base.to(tall.dtype)

    def _name(self, x: Tensor) -> str:
        """Return the name of the map; by default matrix_exp for square matrices and householder for others."""
        return self.orthogonal_map or ("matrix_exp" if x.shape[-2] == x.shape[-1] else "householder")


def _tall(x: Tensor) -> Tensor:
    return x.mT if x.shape[-2] < x.shape[-1] else x


def _undo_tall(tall: Tensor, x: Tensor) -> Tensor:
    """Transpose back a matrix that was transposed to be tall."""
    return tall.mT if x.shape[-2] < x.shape[-1] else tall


def _orthonormalize(x: Tensor) -> Tensor:
    """Return Q of x = Q R, where the diagonal of R is positive."""
    q, r = torch.linalg.qr(x.to(torch.promote_types(x.dtype, torch.float32)))
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    found: Tensor = q * signs.unsqueeze(-2)
    return found.to(x.dtype)


def _find_reflectors(x: Tensor) -> Tensor:
    """Return the matrix from which householder computes the Q of x = Q R, where the diagonal of R is positive."""
    found, t = torch.geqrf(x.to(torch.promote_types(x.dtype, torch.float32)))
    signs = found.diagonal(dim1=-2, dim2=-1).sign() * torch.where(t == 0, -1.0, 1.0)
    return (found.tril(-1) + torch.eye(*x.shape[-2:], dtype=found.dtype) * signs.unsqueeze(-2)).to(x.dtype)


@adds_location("orthogonal")
def orthogonal(
    layer: Layer, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Parametrized:
    """Keep the columns of a weight orthonormal, or its rows if it is wide.

        w = b q(r)      y = f(w, x)      q: the orthogonal matrix of the map, b: the fixed base, if any
        gq = bᵀ gw      gr from the gradient of the map (the module ``orthogonality`` has the formulas)

    At first w is the orthogonal factor of the QR decomposition of the layer's initial weight. Without a base and with a map other
    than ``"householder"`` it is the map of the initial weight itself. A weight with more than two axes is a batch of matrices.
    ``"householder"`` uses the diagonal of r, which weight decay can shrink. Here only its signs count; torch truncates its
    entries to integers, and so to 0.

    Args:
        layer: The layer f.
        name: Name of the weight in its params.
        orthogonal_map: ``"matrix_exp"``, ``"cayley"`` or ``"householder"``; by default ``"matrix_exp"`` for square matrices and
            ``"householder"`` for others.
        use_trivialization: Whether to multiply by the base b, so that the map starts at the identity.

    Params:
        The layer's params, with ``original`` and, if there is a base, ``0.base`` under ``parametrizations.weight`` instead of the
        weight.

    Raises:
        ValueError: If the weight has fewer than two axes.

    References:
        Lezcano-Casado & Martínez-Rubio 2019; Lezcano-Casado 2019 (trivialization); Mhammedi et al. 2017 (products of
        reflections); ``torch.nn.utils.parametrizations.orthogonal``.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = orthogonal(Linear(5, 3))
    >>> w = net.merged(net.init(0))["weight"]
    >>> torch.allclose(w @ w.T, torch.eye(3), atol=1e-5)
    True
    """
    return Parametrized(layer, _Orthogonal(orthogonal_map, use_trivialization), name)
