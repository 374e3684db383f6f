"""Multi-head attention: several attentions side by side, each on its own linear view of queries, keys and values.

    (q k v) = x Wᵀ + b            split into heads; q and k turned by the rotary embedding, where there is one
    a       = attention(q, k, v)  with its heads joined again
    y       = a Oᵀ + o

    gO = gyᵀ a      go = Σ gy      ga = gy O      gW = (gq gk gv)ᵀ x      gb = Σ (gq gk gv)      gx = (gq gk gv) W

For several inputs the rows of W that make q, k and v are applied to each of them.
"""

from typing import Any

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import initializers, random
from funcnet.errors import flag, instances, number, size, wrong
from funcnet.initializers import Initializer, Uniform
from funcnet.kernels import linear as kernels
from funcnet.layer import Cache, Layer, Params, explained, frozen, output, wrong_params
from funcnet.layers.attention import ScaledDotProductAttention, window_of_steps
from funcnet.layers.positions import RotaryEmbedding
from funcnet.random import Key

_LOOKUP = ScaledDotProductAttention(enable_gqa=True)

_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")

_NORMS = ("q_norm", "k_norm")

_rotary = instances((RotaryEmbedding, type(None)), "a RotaryEmbedding")
_norm = instances((Layer, type(None)), "a layer, such as RMSNorm")


def _optional(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        size(layer, attribute, got)


@frozen
class MultiHeadAttention(Layer):
    """Attention in ``num_heads`` heads, with the params of ``torch.nn.MultiheadAttention``.

    x is one tensor (N, L, embed_dim) for self-attention; (x, mask); (query, key, value) for attention to another sequence; or
    (query, key, value, mask). The batch axis may be missing. ``batch_first=False`` has (L, N, ...), which is torch's default and
    not this one's. Masks broadcast to (N, heads, L, S), True where a query may see a key (torch.nn's are the other way round),
    and floating ones are added to the scores; ``padding_mask`` and ``combine_masks`` make them. ``is_causal`` and ``window`` are
    those of ``ScaledDotProductAttention``. A query that may see no key gives ``out_proj.bias``, and not NaN.

    ``num_kv_heads`` heads of keys and values, fewer than ``num_heads``, are shared by groups of queries. ``qk_norm``, such as
    ``RMSNorm(size of a head)``, normalizes queries and keys, and ``rotary`` turns them. ``decode(params, x, carry)`` goes on
    from the steps before, held in a carry from ``init_carry``.

    Params   ``in_proj_weight`` (embed_dim + 2 · kv, embed_dim) with kv the joint size of the heads of keys; with ``kdim`` or
             ``vdim`` instead ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``; all drawn as torch.nn draws them,
             Xavier uniform, unless ``initializer`` names another; ``in_proj_bias``, zeros; ``out_proj``: ``weight``
             (embed_dim, embed_dim) and ``bias``, zeros. With ``bias=False`` there is none.
    Cache    the inputs, the attention's cache, its output, and what the norms and the rotary embedding keep.
    Raises   ``ValueError`` for sizes that do not divide, params that are not this layer's, and an ``x`` of other axes or dtype.
    Source   Vaswani et al. 2017, section 3.2.2.
    """

    embed_dim: int = field(validator=size)
    num_heads: int = field(validator=size)
    dropout: float = field(default=0.0, validator=number(0.0, at_most=1.0))
    bias: bool = field(default=True, validator=flag)
    kdim: int | None = field(default=None, validator=_optional)
    vdim: int | None = field(default=None, validator=_optional)
    batch_first: bool = field(default=True, validator=flag)
    num_kv_heads: int | None = field(default=None, validator=_optional)
    is_causal: bool = field(default=False, validator=flag)
    window: int | tuple[int, int] | None = field(default=None, validator=window_of_steps)
    rotary: RotaryEmbedding | None = field(default=None, validator=_rotary)
    qk_norm: Layer | None = field(default=None, validator=_norm)
    initializer: str | Initializer = field(default="torch", validator=initializers.known)

    _attention: ScaledDotProductAttention = field(
        init=False,
        eq=False,
        default=Factory(
            lambda self: ScaledDotProductAttention(self.is_causal, None, self.dropout, True, self.window), takes_self=True
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.embed_dim % self.num_heads:
            got = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
            raise wrong("MultiHeadAttention", "num_heads must divide embed_dim", got)
        if self.num_heads % self._kv_heads():
            got = f"num_kv_heads={self.num_kv_heads}, num_heads={self.num_heads}"
            raise wrong("MultiHeadAttention", "num_kv_heads must divide num_heads", got)
        if self.rotary is not None and self.rotary.dim != self._head():
            raise wrong("MultiHeadAttention", f"rotary's dim must be that of a head, {self._head()}", repr(self.rotary))

    @property
    def stochastic(self) -> bool:
        return self.dropout > 0

    def init(self, rng: Key | int) -> Params:
        rng, drawn = random.as_key(rng), {}
        for i, (name, shape) in enumerate(self._own_shapes().items()):
            drawn[name] = self._draw(name, shape)(random.fold_in(rng, i), shape)
        inner = {name: leaf for name, leaf in drawn.items() if "." not in name}
        norms = () if self.qk_norm is None else _NORMS
        normed = {name: self.qk_norm.init(random.fold_in(rng, 16 + i)) for i, name in enumerate(norms) if self.qk_norm}
        return {**inner, "out_proj": {name[9:]: leaf for name, leaf in drawn.items() if "." in name}, **normed}

    def _draw(self, name: str, shape: tuple[int, ...]) -> Initializer:
        if name.endswith("bias"):
            return initializers.Zeros()
        if self.initializer == "torch":
            bound = (self.embed_dim**-0.5) if name == "out_proj.weight" else (6 / sum(shape)) ** 0.5
            return Uniform(-bound, bound)
        return initializers.NAMES[self.initializer] if isinstance(self.initializer, str) else self.initializer

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Tensor, Cache]:
        try:
            self._check(params, x)
            xs, mask = self._inputs(x)
            q, k, v = self._heads(params, xs)
            q, k, turned = self._turn(params, q, k)
            entries: Any = ({}, (q, k, v) if mask is None else (q, k, v, mask), rng)
            a, cache = self._attention.apply(*entries) if self.stochastic else self._attention.apply(*entries[:2])
            a = a.transpose(1, 2).flatten(2)
            out = params["out_proj"]
            return self._outward(kernels.linear(a, out["weight"], out.get("bias")), x), (x, cache, a, turned)
        except Exception as error:
            raise explained(self, params, x, error) from None

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Params, Any]:
        gs, gmask, others = self._back(params, cache, gy, weights=True)
        return self._gparams(cache, gs, others), self._gx(params, cache, gs, gmask)

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Params:
        gs, _, others = self._back(params, cache, gy, weights=True)
        return self._gparams(cache, gs, others)

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Any:
        gs, gmask, _ = self._back(params, cache, gy, weights=False)
        return self._gx(params, cache, gs, gmask)

    def _back(self, params: Params, cache: Cache, gy: Tensor, *, weights: bool) -> tuple[list[Tensor], Any, Params]:
        """Return the gradients of each input's projection, of the mask, and of the params of ``out_proj`` and the norms."""
        x, inner, a, turned = cache
        gy = self._inward(gy, x)
        if gy.shape != (*a.shape[:-1], self.embed_dim):
            raise wrong(self, "gy must have the shape of y", f"gy of shape {tuple(gy.shape)}")
        others = {"out_proj": _weight_grads(a, gy, bias=self.bias)} if weights else {}
        ga = kernels.linear_input_grad(gy, params["out_proj"]["weight"])
        gq, gk, gv, *rest = self._attention.vjp({}, inner, self._split(ga))[1]
        (gq, one), (gk, other) = (self._turn_back(params, i, turned[i], g, weights) for i, g in enumerate((gq, gk)))
        gs = [g.transpose(1, 2).flatten(2) for g in (gq, gk, gv)]
        gs = [torch.cat(gs, -1)] if len(self._inputs(x)[0]) == 1 else gs
        return gs, rest[0] if rest else None, others | one | other

    def _gparams(self, cache: Cache, gs: list[Tensor], others: Params) -> Params:
        pairs = [_weight_grads(x, g, bias=self.bias) for x, g in zip(self._inputs(cache[0])[0], gs, strict=True)]
        ws = [pair["weight"] for pair in pairs]
        inner = dict(zip(_PROJECTIONS, ws, strict=True)) if self._apart() else {"in_proj_weight": _stacked(ws)}
        bias = {"in_proj_bias": _stacked([pair["bias"] for pair in pairs])} if self.bias else {}
        return {**inner, **bias, **others}

    def _gx(self, params: Params, cache: Cache, gs: list[Tensor], gmask: Any) -> Any:
        x = cache[0]
        if len(gs) == 1:
            gx = self._outward(kernels.linear_input_grad(gs[0], params["in_proj_weight"]), x)
            return (gx, gmask) if isinstance(x, tuple) else gx
        pairs = zip(gs, self._weights(params), strict=True)
        gxs = tuple([self._outward(kernels.linear_input_grad(g, w), x) for g, w in pairs])
        return gxs if len(x) == 3 else (*gxs, gmask)

    def init_carry(
        self, batch: int | None, max_length: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> dict[str, Tensor]:
        """Return room for the keys and values of ``max_length`` steps, and the number of steps that are there, 0."""
        shape = (1 if batch is None else batch, self._kv_heads(), max_length, self._head())
        k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return {"k": k, "v": v, "steps": torch.zeros((), dtype=torch.int64, device=device)}

    def decode(self, params: Params, x: Tensor, carry: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return y for the next steps x, one or more, which see all that came before, and the new carry.

        Raises   ``ValueError`` when the layer is not causal, and when there are more steps than the carry has room for.
        """
        if not self.is_causal or isinstance(x, tuple):
            raise wrong(self, "decode must be of one tensor and a layer with is_causal=True", x)
        fault = self._fault(x)
        if fault:
            raise wrong(self, fault, x)
        q, k, v = self._heads(params, self._inputs(x)[0])
        steps, room = carry["steps"] + torch.arange(q.shape[2], device=q.device), carry["k"].shape[2]
        if q.shape[2] > room:
            raise wrong(self, f"steps must be no more than the carry has room for, {room}", x)
        q, k, _ = self._turn(params, q, k, steps)
        try:
            kv = {"k": carry["k"].index_copy(2, steps, k), "v": carry["v"].index_copy(2, steps, v)}
        except (IndexError, RuntimeError):
            raise wrong(self, f"steps must be no more than the carry has room for, {room}", f"{int(steps[-1]) + 1}") from None
        behind = steps.unsqueeze(1) - torch.arange(room, device=q.device)
        seen = behind >= 0 if self.window is None else (behind >= 0) & (behind <= self._before())
        a = _LOOKUP({}, (q, kv["k"], kv["v"], seen)).transpose(1, 2).flatten(2)
        out = params["out_proj"]
        y = self._outward(kernels.linear(a, out["weight"], out.get("bias")), x)
        return y, {**kv, "steps": carry["steps"] + q.shape[2]}

    def inference(self) -> Layer:
        return self.replace(dropout=0.0)

    def _kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def _head(self) -> int:
        return self.embed_dim // self.num_heads

    def _before(self) -> int:
        return self.window[0] if isinstance(self.window, tuple) else self.window or 0

    def _rows(self) -> list[int]:
        """Return how many rows of the projection make queries, keys and values."""
        return [self.embed_dim, *[self._kv_heads() * self._head()] * 2]

    def _widths(self) -> list[int]:
        """Return the features of query, key and value."""
        return [self.embed_dim, self.kdim or self.embed_dim, self.vdim or self.embed_dim]

    def _apart(self) -> bool:
        return self._widths() != [self.embed_dim] * 3

    def _weights(self, params: Params) -> list[Tensor]:
        if self._apart():
            return [params[name] for name in _PROJECTIONS]
        return list(params["in_proj_weight"].split(self._rows()))

    def _inputs(self, x: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the inputs, as (N, L, features), and the mask."""
        if not isinstance(x, tuple):
            return (self._inward(x, x),), None
        xs, mask = (x[:-1], x[-1]) if len(x) in (2, 4) else (x, None)
        return tuple([self._inward(one, x) for one in xs]), mask

    def _inward(self, one: Tensor, x: Any) -> Tensor:
        """Give a tensor that lies as x does the axes (N, L, features)."""
        if (x[0] if isinstance(x, tuple) else x).dim() == 2:
            return one.unsqueeze(0)
        return one if self.batch_first else one.transpose(0, 1)

    def _outward(self, one: Tensor, x: Any) -> Tensor:
        if (x[0] if isinstance(x, tuple) else x).dim() == 2:
            return one.squeeze(0)
        return one if self.batch_first else one.transpose(0, 1)

    def _heads(self, params: Params, xs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return q, k and v, split into heads."""
        b = params.get("in_proj_bias")
        if len(xs) == 1:
            joint = self._split(kernels.linear(xs[0], params["in_proj_weight"], b))
            return list(torch.split(joint, [rows // self._head() for rows in self._rows()], 1))
        bs = [None] * 3 if b is None else b.split(self._rows())
        rows = zip(xs, self._weights(params), bs, strict=True)
        return [self._split(kernels.linear(x, w, b)) for x, w, b in rows]

    def _split(self, joint: Tensor) -> Tensor:
        """Split the last axis of (N, L, features) into heads: (N, heads, L, size)."""
        return joint.reshape(*joint.shape[:-1], joint.shape[-1] // self._head(), self._head()).transpose(1, 2)

    def _turn(self, params: Params, q: Tensor, k: Tensor, steps: Tensor | None = None) -> tuple[Tensor, Tensor, Any]:
        """Normalize queries and keys, and turn them to their steps; and what the way back needs, for each."""
        turned, caches = [q, k], []
        for i in range(2):
            one, normed, rotated = turned[i], (), ()
            if self.qk_norm is not None:
                one, normed = self.qk_norm.apply(params[_NORMS[i]], one)
            if self.rotary is not None:
                one, rotated = self.rotary.apply({}, one if steps is None else (one, steps))
            turned[i] = one
            caches.append((normed, rotated))
        return turned[0], turned[1], tuple(caches)

    def _turn_back(self, params: Params, i: int, cache: Any, g: Tensor, weights: bool) -> tuple[Tensor, Params]:
        """Return the gradient before turning and normalizing, and that of the norm's params."""
        g = g if self.rotary is None else self.rotary.vjp({}, cache[1], g)[1]
        if self.qk_norm is None:
            return g, {}
        p = params[_NORMS[i]]
        if not weights:
            return self.qk_norm.input_grad(p, cache[0], g), {}
        gp, g = self.qk_norm.vjp(p, cache[0], g)
        return g, {_NORMS[i]: gp}

    def _check(self, params: Params, x: Any) -> None:
        """Refuse what no kernel would complain about."""
        fault = self._fault(x)
        biases = not self.bias or (
            params["in_proj_bias"].shape == (sum(self._rows()),) and params["out_proj"]["bias"].shape == (self.embed_dim,)
        )
        count = 2 + 2 * self._apart() + self.bias + 2 * (self.qk_norm is not None)
        if fault or not biases or len(params) != count or len(params["out_proj"]) != 1 + self.bias:
            raise wrong_params(self, params)

    def _sized(self, x: Any) -> tuple[Layer, Any]:
        head = torch.empty(1, self._head(), device="meta")
        layer = self.replace(qk_norm=self.qk_norm and self.qk_norm._sized(head)[0])
        return layer, output(layer, x)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        inner = {} if self.qk_norm is None else self.qk_norm._shapes() or {}
        return self._own_shapes() | {f"{name}.{leaf}": shape for name in _NORMS for leaf, shape in inner.items()}

    def _own_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"in_proj_weight": (sum(self._rows()), self.embed_dim)}
        if self._apart():
            pairs = zip(_PROJECTIONS, self._rows(), self._widths(), strict=True)
            shapes = {name: (rows, width) for name, rows, width in pairs}
        if self.bias:
            shapes["in_proj_bias"] = (sum(self._rows()),)
        shapes["out_proj.weight"] = (self.embed_dim, self.embed_dim)
        return {**shapes, "out_proj.bias": (self.embed_dim,)} if self.bias else shapes

    def _fault(self, x: Any) -> str | None:
        form = "x must be a tensor, (x, mask), (query, key, value) or (query, key, value, mask)"
        if isinstance(x, tuple) and len(x) not in (2, 3, 4):
            return form
        xs = (x,) if not isinstance(x, tuple) else x[:-1] if len(x) in (2, 4) else x
        if not all(isinstance(one, Tensor) and one.is_floating_point() and one.dim() in (2, 3) for one in xs):
            return f"{form}, floating and of axes (N, L, features) or (L, features)"
        if len(xs) == 1 and self._apart():
            return "with kdim or vdim, x must be (query, key, value) or (query, key, value, mask)"
        for name, one, width in zip(("query", "key", "value")[: len(xs)], xs, self._widths()[: len(xs)], strict=True):
            if one.dim() != xs[0].dim() or one.shape[-1] != width:
                who = "x" if len(xs) == 1 else name
                return f"the last axis of {who} must be {width}, and all must have the same number of axes"
        return None


def _weight_grads(x: Tensor, gy: Tensor, *, bias: bool) -> Params:
    """Return the gradients of a linear map's weight and, where it has one, bias."""
    if not bias:
        return {"weight": kernels.linear_weight_grad(gy, x)}
    gw, gb = kernels.linear_grads(x, gy)
    return {"weight": gw, "bias": gb}


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
