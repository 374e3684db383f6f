"""Multi-head attention: several attentions in parallel, each on its own linear projection of queries, keys and values.

With several inputs, each uses its own rows of W. Added keys and values, learned or zero, come after the keys and values of the
input; the gradient of a learned key or value is summed over the batch.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.checks import check_gy, check_param
from funcnet.combinator import errors_at
from funcnet.contract import Cache, Grads, Params, Rng
from funcnet.kernels import linear as kernels
from funcnet.kernels.operands import unbroadcast
from funcnet.layers.attention.decoding import Decoding, batched
from funcnet.layers.attention.dot_product import require_gy_pair, steps_around
from funcnet.layers.attention.head_projections import LEARNED, NORMS, PROJECTIONS
from funcnet.layers.attention.masks import combine_masks, require_mask, steps_mask
from funcnet.value import frozen


@frozen
class MultiHeadAttention(Decoding):
    """Attention in several heads, with the params of ``torch.nn.MultiheadAttention``.

        (q k v) = x Wᵀ + b            split into heads; q and k normalized and rotated with ``qk_norm`` and ``rotary``
        a       = attention(q, k, v)  heads joined again
        y       = a Oᵀ + o
        gO = gyᵀ a    go = Σ gy    ga = gy O    gW = (gq gk gv)ᵀ x    gb = Σ (gq gk gv)    gx = (gq gk gv) W

    ``ScaledDotProductAttention`` has the formulas of gq, gk and gv.

    Masks are True where a query may see a key, the opposite of torch.nn's; floating masks are added to the scores.
    ``padding_mask``, ``causal_mask`` and ``combine_masks`` build them. A query that sees no key gives ``out_proj.bias``, not NaN.

    ``decode(params, x, carry)`` continues a sequence, with its keys and values in a carry from ``init_carry``. With a carry from
    ``memory_carry`` it attends to another sequence; its keys and values are computed only once.

    Args:
        embed_dim: Number of features of the query and of y.
        num_heads: Number of heads; it must divide ``embed_dim``.
        dropout: Probability of dropping an attention weight.
        bias: Whether the projections have biases.
        add_bias_kv: Whether to add a learned key and value, visible to every query.
        add_zero_attn: Whether to add a key and value of zeros, visible to every query.
        kdim: Number of features of the keys, if not ``embed_dim``.
        vdim: Number of features of the values, if not ``embed_dim``.
        batch_first: Whether x is (N, L, embed_dim) instead of (L, N, embed_dim), torch's default.
        num_kv_heads: Number of heads of keys and values, each shared by a group of queries; ``None`` for ``num_heads``.
        is_causal: Whether a query sees only the keys up to its own step.
        window: Largest distance in steps from a query to a key, or (before, after); ``None`` for no limit.
        rotary: ``RotaryEmbedding(embed_dim // num_heads)`` to rotate queries and keys; ``None`` for no rotation.
        qk_norm: A layer that normalizes the heads of queries and keys, like ``RMSNorm(embed_dim // num_heads)``.
        initializer: Initializer of the projection weights, by name or value; ``"torch"`` is Xavier uniform, as in torch.nn.
        need_weights: Whether the output is (y, weights). ``vjp`` then takes a pair of gradients, each of which can be ``None``.
        average_attn_weights: Whether the returned weights are the mean over the heads.
        alibi: Whether to lower scores with the distance between query and key, see ``ScaledDotProductAttention``.
        soft_cap: Bound of the absolute scores, see ``ScaledDotProductAttention``; ``None`` for no bound.

    Shape:
        x (N, L, embed_dim) for self-attention, (x, mask), (query, key, value) or (query, key, value, mask) → y (N, L, embed_dim).
        The batch axis is optional. A mask broadcasts to (N, heads, L, S), with S keys. The weights, after dropout, are (N, L, S),
        or (N, heads, L, S) without averaging; S includes the added keys, which come last.

    Params:
        in_proj_weight: (embed_dim + 2 kv, embed_dim), Xavier uniform, with kv the number of features of all heads of keys. With
            ``kdim`` or ``vdim`` it is split into the next three.
        q_proj_weight: (embed_dim, embed_dim).
        k_proj_weight: (kv, kdim).
        v_proj_weight: (kv, vdim).
        in_proj_bias: (embed_dim + 2 kv,), zeros; absent with ``bias=False``.
        out_proj.weight: (embed_dim, embed_dim), uniform in ±1 / √embed_dim.
        out_proj.bias: (embed_dim,), zeros; absent with ``bias=False``.
        bias_k: (1, 1, kv), normal with std 1 / √kv; only with ``add_bias_kv=True``.
        bias_v: (1, 1, kv), the same.
        q_norm: The params of ``qk_norm`` for queries; only with ``qk_norm``.
        k_norm: The params of ``qk_norm`` for keys; only with ``qk_norm``.

    Cache:
        The inputs, not copied; the cache of the attention and its output; the caches of the norms and of the rotation.

    Raises:
        ValueError: If sizes do not divide, or ``average_attn_weights=False`` without ``need_weights``.

    References:
        Vaswani et al. 2017, section 3.2.2; names as in ``torch.nn.MultiheadAttention``.

    >>> import torch
    >>> layer = MultiHeadAttention(8, 2, is_causal=True)
    >>> layer(layer.init(0), torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    halves_share_work = True

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        self._require_valid(params, x)
        xs, mask = self._inputs(x)
        q, k, v = self._heads(params, xs)
        q, k, normed = self._normalize(params, q, k, rng)
        k, v, mask = self._add_keys(params, q, k, v, mask) if self._added_keys() else (k, v, mask)
        a, cache = self._attention.apply({}, (q, k, v) if mask is None else (q, k, v, mask), rng)
        a, p = a if self.need_weights else (a, None)
        a, out = a.transpose(1, 2).flatten(2), params["out_proj"]
        y = self._outward(kernels.linear(a, out["weight"], out.get("bias")), x)
        return y if p is None else (y, self._weights_out(p, x)), (x, cache, a, normed)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gs, gmask, others = self._back(params, cache, gy, weights=True)
        return self._gparams(cache, gs, others), self._gx(params, cache, gs, gmask)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        gs, _, others = self._back(params, cache, gy, weights=True)
        return self._gparams(cache, gs, others)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gs, gmask, _ = self._back(params, cache, gy, weights=False)
        return self._gx(params, cache, gs, gmask)

    def _back(self, params: Any, cache: Cache, gy: Any, *, weights: bool) -> tuple[list[Tensor], Any, dict[str, Any]]:
        """Return the gradients of each input's projection, of the mask, and of all params except the input projection."""
        x, inner, a, normed = cache
        gy, gp = self._incoming(cache, gy)
        own = {"out_proj": _weight_grads(a, gy, bias=self.bias)} if weights else {}
        w = check_param(self, params["out_proj"], "weight", (self.embed_dim, self._rows()[0]), a)
        ga = self._split(kernels.matmul_input_grad(gy, w))
        gq, gk, gv, *rest = self._attention.vjp({}, inner, (ga, gp) if self.need_weights else ga)[1]
        gmask = rest[0] if rest else None
        if self._added_keys():
            own = {**_learned_grads(gk, gv, self._added_keys()), **own} if weights and self.add_bias_kv else own
            gk, gv = gk[:, :, : -self._added_keys()], gv[:, :, : -self._added_keys()]
            gmask = _mask_grad(gmask, self._inputs(x)[1], self._added_keys())
        (gq, one), (gk, other) = (self._normalize_back(params, i, normed[i], g, weights) for i, g in enumerate((gq, gk)))
        gs = [g.transpose(1, 2) for g in (gq, gk, gv)]
        gs = [torch.cat(gs, 2)] if len(self._inputs(x)[0]) == 1 else gs
        gs = [g.flatten(2) for g in gs]
        return gs, gmask, {**own, **one, **other}

    def _incoming(self, cache: Cache, gy: Any) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of y, as (N, L, features), and of the weights of each head."""
        x, (entries, _), a, _ = cache
        if not self.need_weights:
            shape = (*self._outward(a, x).shape[:-1], self.embed_dim)
            return self._inward(check_gy(self, gy, shape, a), x), None
        n, heads, length, _ = entries[0].shape
        shape = (n,) * batched(x) + (heads,) * (not self.average_attn_weights) + (length, entries[1].shape[2])
        gy, gp = require_gy_pair(self, gy, a, tuple(self._outward(a, x).shape), shape)
        if gp is not None:
            gp = gp if batched(x) else gp.unsqueeze(0)
            gp = (gp / heads).unsqueeze(1).expand(-1, heads, -1, -1) if self.average_attn_weights else gp
        return torch.zeros_like(a) if gy is None else self._inward(gy, x), gp

    def _weights_out(self, p: Tensor, x: Any) -> Tensor:
        """Return the weights of the heads, (N, heads, L, S), in the shape of the output."""
        p = p.mean(1) if self.average_attn_weights else p
        return p if batched(x) else p.squeeze(0)

    def _gparams(self, cache: Cache, gs: list[Tensor], others: Any) -> Params:
        pairs = [_weight_grads(x, g, bias=self.bias) for x, g in zip(self._inputs(cache[0])[0], gs, strict=True)]
        ws = [pair["weight"] for pair in pairs]
        inner = dict(zip(PROJECTIONS, ws, strict=True)) if self._is_separate() else {"in_proj_weight": _concat(ws)}
        bias = {"in_proj_bias": _concat([pair["bias"] for pair in pairs])} if self.bias else {}
        return {**inner, **bias, **others}

    def _gx(self, params: Params, cache: Cache, gs: list[Tensor], gmask: Any) -> Any:
        x = cache[0]
        self._check_weights(params, gs[0])
        if len(gs) == 1:
            gx = self._outward(kernels.matmul_input_grad(gs[0], params["in_proj_weight"]), x)
            return (gx, gmask) if isinstance(x, tuple) else gx
        pairs = zip(gs, self._weights(params), strict=True)
        gxs = tuple([self._outward(kernels.matmul_input_grad(g, w), x) for g, w in pairs])
        return gxs if len(x) == 3 else (*gxs, gmask)

    def _add_keys(self, params: Params, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the added keys and values, and make them visible to every query."""
        mask = self._joint_mask(q, k, mask)
        n, heads, _, size = k.shape
        joined = []
        for name, one in zip(LEARNED, (k, v), strict=True):
            learned = [params[name].reshape(1, heads, 1, size).expand(n, -1, -1, -1)] if self.add_bias_kv else []
            zeros = [one.new_zeros(n, heads, 1, size)] if self.add_zero_attn else []
            joined.append(torch.cat((one, *learned, *zeros), 2))
        if mask is not None:
            free = mask.new_full((*mask.shape[:-1], self._added_keys()), mask.dtype == torch.bool)
            mask = torch.cat((mask, free), -1)
        return joined[0], joined[1], mask

    def _joint_mask(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
        """Return the mask of the keys of the input, combined with causality and window."""
        length, keys = q.shape[2], k.shape[2]
        if mask is not None:
            mask = require_mask(self, mask, (*q.shape[:3], keys), q)
            mask = mask.broadcast_to((*mask.shape[:-1], keys))
        if self.window is None and not self.is_causal:
            return mask
        local = steps_mask(length, keys, steps_around(self.window, self.is_causal), q.device)
        if mask is None or mask.dtype is torch.bool:
            return combine_masks(local, mask)
        return torch.where(local, mask, -torch.inf)

    def _normalize_back(self, params: Params, i: int, cache: Any, g: Tensor, weights: bool) -> tuple[Tensor, Any]:
        """Return the gradients of the tensor before norm and rotation, and of the params of the norm."""
        if self.rotary is not None:
            with errors_at(self, "rotary"):
                g = self.rotary.vjp({}, cache[1], g)[1]
        if self.qk_norm is None:
            return g, {}
        p = params[NORMS[i]]
        with errors_at(self, NORMS[i]):
            if not weights:
                return self.qk_norm.input_grad(p, cache[0], g), {}
            gp, g = self.qk_norm.vjp(p, cache[0], g)
        return g, {NORMS[i]: gp}

    def update_stats(self, params: Any, cache: Cache) -> Params:
        updated = {}
        for name, (norm_cache, _) in zip(NORMS, cache[3], strict=True):
            if self.qk_norm is not None:
                with errors_at(self, name):
                    updated[name] = self.qk_norm.update_stats(params[name], norm_cache)
        return {**params, **updated}


def _learned_grads(gk: Tensor, gv: Tensor, added: int) -> dict[str, Any]:
    """Return the gradients of the learned key and value, which come first among the added keys and values."""
    return {name: g[:, :, -added].sum(0).reshape(1, 1, -1) for name, g in zip(LEARNED, (gk, gv), strict=True)}


def _mask_grad(gmask: Tensor | None, mask: Tensor | None, added: int) -> Tensor | None:
    """Return the gradient of a floating mask from the gradient of the mask for all keys, including added keys."""
    return None if gmask is None or mask is None else unbroadcast(gmask[..., :-added], tuple(mask.shape))


def _weight_grads(x: Tensor, gy: Tensor, *, bias: bool) -> dict[str, Any]:
    """Return the gradients of the weight and, if there is one, the bias of a linear map."""
    if not bias:
        return {"weight": kernels.matmul_weight_grad(gy, x)}
    gw, gb = kernels.linear_grads(x, gy)
    return {"weight": gw, "bias": gb}


def _concat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
