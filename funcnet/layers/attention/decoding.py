"""Decoding: multi-head attention that continues a sequence from the keys and values of its earlier steps.

    k', v' = k and v, with the steps of x appended           y = attention(q, k', v')       self-attention
    y      = attention(q, k_m, v_m)                          keys and values of another sequence m, computed once

The carry is a dict of tensors. Nothing is modified in place: each call returns a new carry.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.checks import floating_complaint
from funcnet.combinator import child_key, errors_at
from funcnet.contract import Params, Rng
from funcnet.errors import describe, is_whole_tuple, value_error
from funcnet.kernels import attention
from funcnet.kernels import linear as kernels
from funcnet.kernels.tracing import is_plain
from funcnet.layers.attention.dot_product import ScaledDotProductAttention
from funcnet.layers.attention.head_projections import NORMS, Heads
from funcnet.layers.attention.masks import require_mask
from funcnet.value import frozen

Carry = dict[str, Tensor]

_LOOKUP = ScaledDotProductAttention(enable_gqa=True)


@frozen
class Decoding(Heads):
    """Attention step by step, and the projections of each input; ``MultiHeadAttention`` adds the verbs of a layer."""

    def init_carry(self, batch: int | None, max_length: int, *, dtype: torch.dtype | None = None, device: Any = None) -> Carry:
        """Return an empty carry for ``decode``, with room for the keys and values of ``max_length`` steps.

        Args:
            batch: Number of sequences; ``None`` for x without a batch axis.
            max_length: Number of steps that the carry has room for.
            dtype: The dtype of the keys and values; by default torch's default dtype.
            device: The device of the carry.

        Returns:
            A dict: ``k`` and ``v`` (batch, kv heads, max_length, size of a head), zeros, and ``steps``, the number of steps seen,
            0.

        Raises:
            ValueError: If ``batch`` or ``max_length`` is not a whole number of at least 0.
        """
        if not is_whole_tuple((0 if batch is None else batch, max_length), 0):
            rule = "batch (or None) and max_length must be whole numbers of at least 0"
            raise value_error(self, rule, f"{batch!r} and {max_length!r}")
        shape = (1 if batch is None else batch, self._kv_heads(), max_length, self._head())
        k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return {"k": k, "v": v, "steps": torch.zeros((), dtype=torch.int64, device=device)}

    def memory_carry(self, params: Params, memory: Tensor, mask: Tensor | None = None) -> Carry:
        """Return the keys and values of a memory, computed once for all calls of ``decode``.

        Args:
            params: The params of the layer.
            memory: A sequence (N, S, features), the keys and values of every step.
            mask: A mask that broadcasts to (N, heads, L, S), True where a query may see a key; ``None`` for all.

        Returns:
            A carry that ``decode`` does not change.

        Raises:
            ValueError: If memory does not fit, or the layer is causal, uses positions, adds keys or returns weights.
        """
        by_steps = self.is_causal or self.window is not None or self.rotary is not None or self.alibi
        rule = "memory_carry needs a layer without is_causal, window, rotary, alibi, added keys and returned weights"
        if by_steps or self._added_keys() or self.need_weights:
            raise value_error(self, rule, self)
        _, *widths = self._widths()
        if floating_complaint(memory) or memory.dim() not in (2, 3) or [memory.shape[-1]] * 2 != widths:
            raise value_error(
                self,
                f"memory must be a floating tensor with the axes (N, S, features), of {_join_widths(widths)} features",
                memory,
            )
        k, v = (self._project(params, i, self._inward(memory, memory)) for i in (1, 2))
        k = self._normalize_one(params, 1, k, None)[0]
        return {"memory_k": k, "memory_v": v, **({} if mask is None else {"mask": mask})}

    def decode(self, params: Params, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Return y for one or more next steps x, which see all earlier steps, and the new carry.

        With a carry from ``memory_carry`` the steps see the memory, and the carry is returned unchanged.

        Args:
            params: The params of the layer.
            x: The next steps, (N, L, embed_dim), or without the batch axis.
            carry: The carry from ``init_carry``, ``memory_carry`` or the previous ``decode``.

        Returns:
            The pair of y, of the shape of x, and the new carry.

        Raises:
            ValueError: If the layer is not causal, or the carry has another shape or dtype or too little room for the steps.

        >>> from funcnet.layers.attention.multihead import MultiHeadAttention
        >>> layer = MultiHeadAttention(4, 2, is_causal=True)
        >>> params, x = layer.init(0), torch.ones(1, 3, 4)
        >>> y, carry = layer.decode(params, x[:, :2], layer.init_carry(1, max_length=3))
        >>> y, carry = layer.decode(params, x[:, 2:], carry)
        >>> torch.allclose(y, layer(params, x)[:, 2:])
        True
        """
        if isinstance(carry, dict) and "memory_k" in carry:
            return self._decode_memory(params, x, carry), carry
        decodes = self.is_causal and not self._added_keys() and not self.need_weights and not isinstance(x, tuple)
        form = "decode needs one tensor, and a layer with is_causal=True that adds no keys and returns no weights"
        rule = self.complaint(x) if decodes else form
        if rule:
            raise value_error(self, rule, x)
        q, k, v = self._heads(params, self._inputs(x)[0])
        self._require_carry(carry, k)
        steps, room = carry["steps"] + torch.arange(q.shape[2], device=q.device), carry["k"].shape[2]
        count = int(steps[-1]) + 1 if is_plain(steps) and len(steps) else q.shape[2]
        if count > room:
            raise value_error(self, f"the carry has room for at most {room} steps", f"{count}")
        q, k, _ = self._normalize(params, q, k, None, steps)
        kv = {"k": carry["k"].index_copy(2, steps, k), "v": carry["v"].index_copy(2, steps, v)}
        behind = steps.unsqueeze(1) - torch.arange(room, device=q.device)
        visible = behind >= 0 if self.window is None else (behind >= 0) & (behind <= self._steps_before())
        y = self._project_out(params, self._look_up(q, kv["k"], kv["v"], steps, visible), x)
        return y, {**kv, "steps": carry["steps"] + q.shape[2]}

    def _require_carry(self, carry: Any, k: Tensor) -> None:
        """Raise ``ValueError`` for a carry of another layer, batch or dtype: the kernels' own errors would be obscure."""
        found = [carry[name] for name in ("k", "v")] if isinstance(carry, dict) and carry.keys() == {"k", "v", "steps"} else []
        sizes = k.shape[:2], k.shape[3:], k.dtype
        if not found or any([(one.shape[:2], one.shape[3:], one.dtype) != sizes for one in found]):  # noqa: C419
            n, heads, _, size = k.shape
            rule = f"carry must be from init_carry or decode, with k and v ({n}, {heads}, max_length, {size}) in {k.dtype}"
            raise value_error(self, rule, describe(found[0] if found else carry))

    def _decode_memory(self, params: Params, x: Tensor, carry: Carry) -> Tensor:
        q = self._project(params, 0, self._inward(x, x))
        q, k, v = self._normalize_one(params, 0, q, None)[0], carry["memory_k"], carry["memory_v"]
        mask = require_mask(self, carry["mask"], (*q.shape[:3], k.shape[2]), q) if "mask" in carry else None
        if self.soft_cap is None:
            a = _LOOKUP({}, (q, k, v) if mask is None else (q, k, v, mask))
        else:
            visible, bias = (None, mask) if mask is not None and mask.is_floating_point() else (mask, None)
            a = attention.weighted(attention.weights(q, k, bias, visible, self._head() ** -0.5, self.soft_cap), v)
        return self._project_out(params, a, x)

    def _look_up(self, q: Tensor, k: Tensor, v: Tensor, steps: Tensor, visible: Tensor) -> Tensor:
        """Return the attention of queries at ``steps`` (L,) to the visible keys at steps 0, 1, ..."""
        if not self.alibi and self.soft_cap is None:
            y: Tensor = _LOOKUP({}, (q, k, v, visible))
            return y
        bias = None
        if self.alibi:
            bias = attention.alibi_bias(self.num_heads, steps, torch.arange(k.shape[2], device=q.device), q.dtype)
        return attention.weighted(attention.weights(q, k, bias, visible, self._head() ** -0.5, self.soft_cap), v)

    def _steps_before(self) -> int:
        return self.window[0] if isinstance(self.window, tuple) else self.window or 0

    def _inputs(self, x: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the inputs as (N, L, features), and the mask."""
        if not isinstance(x, tuple):
            return (self._inward(x, x),), None
        xs, mask = (x[:-1], x[-1]) if len(x) in (2, 4) else (x, None)
        return tuple([self._inward(one, x) for one in xs]), mask

    def _inward(self, one: Tensor, x: Any) -> Tensor:
        """Return a tensor in the layout of x with the axes (N, L, features)."""
        if not batched(x):
            return one.unsqueeze(0)
        return one if self.batch_first else one.transpose(0, 1)

    def _outward(self, one: Tensor, x: Any) -> Tensor:
        if not batched(x):
            return one.squeeze(0)
        return one if self.batch_first else one.transpose(0, 1)

    def _heads(self, params: Any, xs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return q, k and v, split into heads."""
        if len(xs) > 1:
            return [self._project(params, i, one) for i, one in enumerate(xs)]
        joint = self._split(kernels.linear(xs[0], params["in_proj_weight"], params.get("in_proj_bias")))
        return list(torch.split(joint, [rows // self._head() for rows in self._rows()], 1))

    def _project(self, params: Any, i: int, one: Tensor) -> Tensor:
        """Return q, k or v (number i), split into heads."""
        b = params.get("in_proj_bias")
        return self._split(kernels.linear(one, self._weights(params)[i], b if b is None else b.split(self._rows())[i]))

    def _project_out(self, params: Params, a: Tensor, x: Any) -> Tensor:
        """Join the heads, and return y in the layout of x."""
        out = params["out_proj"]
        return self._outward(kernels.linear(a.transpose(1, 2).flatten(2), out["weight"], out.get("bias")), x)

    def _normalize(self, params: Params, q: Tensor, k: Tensor, rng: Rng, steps: Tensor | None = None) -> Any:
        """Return queries and keys, normalized and rotated to their steps, and the caches of both."""
        q, of_q = self._normalize_one(params, 0, q, rng, steps)
        k, of_k = self._normalize_one(params, 1, k, rng, steps)
        return q, k, (of_q, of_k)

    def _normalize_one(self, params: Params, i: int, one: Tensor, rng: Rng, steps: Tensor | None = None) -> tuple[Tensor, Any]:
        norm_cache, rotary_cache = (), ()
        if self.qk_norm is not None:
            with errors_at(self, NORMS[i]):
                one, norm_cache = self.qk_norm.apply(params[NORMS[i]], one, child_key(self.qk_norm, rng, 16 + i))
        if self.rotary is not None:
            with errors_at(self, "rotary"):
                entry = one if steps is None else (one, steps)
                one, rotary_cache = self.rotary.apply({}, entry, child_key(self.rotary, rng, 18 + i))
        return one, (norm_cache, rotary_cache)


def _join_widths(widths: list[int]) -> str:
    return " and ".join(map(str, dict.fromkeys(widths)))


def batched(x: Any) -> bool:
    """Return whether the inputs have a batch axis."""
    return bool((x[0] if isinstance(x, tuple) else x).dim() == 3)
