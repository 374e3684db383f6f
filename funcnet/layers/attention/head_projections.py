"""The options and params of multi-head attention, and the split of its features into heads.

    (q k v) = x Wᵀ + b            rows of W: embed_dim for q, then num_kv_heads · size of a head for each of k and v

W is stored as three params if keys or values have another number of features than the output.
"""

from typing import Any, Self

from attrs import Factory, field, validators
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import Misfit, check_param, floating_complaint, require_kind
from funcnet.combinator import Children, Combinator, Rewrite, errors_at
from funcnet.contract import Layer, Params, Shape, output
from funcnet.errors import adds_location, divides, flag, instances, number, size, value_error
from funcnet.initializers.elementary import Initializer, Normal, Uniform
from funcnet.layers.attention.dot_product import ScaledDotProductAttention, window_of_steps
from funcnet.layers.attention.positions import RotaryEmbedding
from funcnet.probes import Probe
from funcnet.random.keys import Key
from funcnet.value import frozen

PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")

NORMS = ("q_norm", "k_norm")

LEARNED = ("bias_k", "bias_v")

_rotary = instances((RotaryEmbedding, type(None)), "a RotaryEmbedding(embed_dim // num_heads) or None")
_norm = instances((Layer, type(None)), "a layer, such as RMSNorm")


@adds_location("MultiHeadAttention")
def _attention(layer: Any) -> ScaledDotProductAttention:
    """Return the attention of the heads; with added keys, the mask handles causality and window."""
    causal, window = (False, None) if layer._added_keys() else (layer.is_causal, layer.window)
    return ScaledDotProductAttention(
        causal, None, layer.dropout, True, window, layer.need_weights is True, layer.alibi, layer.soft_cap
    )


@frozen
class Heads(Combinator):
    """Fields and params of multi-head attention, for ``MultiHeadAttention``."""

    ensemble_mode = "loop if large"
    computes_as_one = True

    embed_dim: int = field(validator=size)
    num_heads: int = field(validator=[size, divides("embed_dim")])
    dropout: float = field(default=0.0, validator=number(0.0, at_most=1.0))
    bias: bool = field(default=True, validator=flag)
    add_bias_kv: bool = field(default=False, validator=flag)
    add_zero_attn: bool = field(default=False, validator=flag)
    kdim: int | None = field(default=None, validator=validators.optional(size))
    vdim: int | None = field(default=None, validator=validators.optional(size))
    batch_first: bool = field(default=True, validator=flag)
    num_kv_heads: int | None = field(default=None, validator=validators.optional([size, divides("num_heads")]))
    is_causal: bool = field(default=False, validator=flag)
    window: int | tuple[int, int] | None = field(default=None, validator=window_of_steps)
    rotary: RotaryEmbedding | None = field(default=None, validator=_rotary)
    qk_norm: Layer | None = field(default=None, validator=_norm)
    initializer: str | Initializer = field(default="torch", validator=initializers.known)
    need_weights: bool = field(default=False, validator=flag)
    average_attn_weights: bool = field(default=True, validator=flag)
    alibi: bool = field(default=False, validator=flag)
    soft_cap: float | None = field(default=None, validator=validators.optional(number(above=0.0)))

    _attention: ScaledDotProductAttention = field(init=False, eq=False, default=Factory(_attention, takes_self=True))

    _own: tuple[tuple[str, Shape], ...] = field(init=False, eq=False)
    """Names and shapes of the params, without the norms: every step reads them, and computing them takes 2 µs."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_own", tuple(self._own_shapes().items()))
        if self.rotary is not None and self.rotary.dim != self._head():
            raise value_error(self.label, f"rotary.dim must be the size of a head, {self._head()}", repr(self.rotary))
        if not self.average_attn_weights and not self.need_weights:
            raise value_error(self.label, "average_attn_weights=False requires need_weights=True", "need_weights=False")
        if self.alibi and self._added_keys():
            raise value_error(self.label, "alibi=True must come without added keys, which have no position", "added keys")

    @property
    def stochastic(self) -> bool:
        return self.dropout > 0 or super().stochastic

    def children(self) -> Children:
        norms = {} if self.qk_norm is None else dict.fromkeys(NORMS, self.qk_norm)
        return norms if self.rotary is None else {**norms, "rotary": self.rotary}

    def with_children(self, children: Children) -> Self:
        norms = [children[name] for name in NORMS if name in children]
        if norms[1:] != norms[:1]:
            raise value_error(self.label, "q_norm and k_norm must be the same layer, qk_norm", " and ".join(map(repr, norms)))
        return self.replace(qk_norm=norms[0] if norms else None, rotary=children.get("rotary"))

    def location(self, name: Any) -> str:
        return f"{self.label}, {name}"

    def map_with_params(self, f: Rewrite, params: Any) -> tuple[Self, Params]:
        pairs = {name: f(self.qk_norm, params[name]) for name in NORMS if self.qk_norm is not None}
        children = {**self.children(), **{name: layer for name, (layer, _) in pairs.items()}}
        return self.with_children(children), {**params, **{name: p for name, (_, p) in pairs.items()}}

    def init(self, rng: Key | int) -> Params:
        rng, leaves = random.as_key(rng), {}
        for i, (name, shape) in enumerate(self._own_shapes().items()):
            draw, key = self._initializer(name, shape), random.fold_in(rng, i)
            stacked = name == "in_proj_weight"  # three maps in one: each output belongs to one of the three
            leaves[name] = draw.for_fans(key, shape, (shape[1], shape[0] // 3)) if stacked else draw(key, shape)
        inner = {name: leaf for name, leaf in leaves.items() if "." not in name}
        norms = () if self.qk_norm is None else NORMS
        normed = {}
        for i, name in enumerate(norms):
            with errors_at(self, name):
                normed[name] = self.qk_norm.init(random.fold_in(rng, 16 + i))  # type: ignore[union-attr]  # else no norms
        return {**inner, "out_proj": {name[9:]: leaf for name, leaf in leaves.items() if "." in name}, **normed}

    def inference(self) -> Layer:
        return super().inference().replace(dropout=0.0)

    def _added_keys(self) -> int:
        """Return the number of added keys; this also runs before the flags are validated, when they can be anything."""
        return (self.add_bias_kv is True) + (self.add_zero_attn is True)

    def _initializer(self, name: str, shape: tuple[int, ...]) -> Initializer:
        if name in LEARNED:
            return Normal(std=shape[-1] ** -0.5)
        if name.endswith("bias"):
            return initializers.Zeros()
        if self.initializer == "torch":
            bound = (self.embed_dim**-0.5) if name == "out_proj.weight" else (6 / sum(shape)) ** 0.5
            return Uniform(-bound, bound)
        return initializers.NAMES[self.initializer] if isinstance(self.initializer, str) else self.initializer

    def _kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def _head(self) -> int:
        return self.embed_dim // self.num_heads

    def _rows(self) -> list[int]:
        """Return the numbers of rows of the projection for queries, keys and values."""
        return [self.embed_dim, *[self._kv_heads() * self._head()] * 2]

    def _widths(self) -> list[int]:
        """Return the numbers of features of query, key and value."""
        return [self.embed_dim, self.kdim or self.embed_dim, self.vdim or self.embed_dim]

    def _is_separate(self) -> bool:
        return self.kdim not in (None, self.embed_dim) or self.vdim not in (None, self.embed_dim)

    def _weights(self, params: Params) -> list[Tensor]:
        if self._is_separate():
            return [params[name] for name in PROJECTIONS]
        return list(params["in_proj_weight"].split(self._rows()))

    def _check_weights(self, params: Params, like: Tensor) -> None:
        """Check shape and dtype of the input projection's weights, for backward methods."""
        if not self._is_separate():
            check_param(self, params, "in_proj_weight", (sum(self._rows()), self.embed_dim), like)
            return
        for name, rows, width in zip(PROJECTIONS, self._rows(), self._widths(), strict=True):
            check_param(self, params, name, (rows, width), like)

    def _split(self, joint: Tensor) -> Tensor:
        """Split the last axis of (N, L, features) into heads: (N, heads, L, size of a head)."""
        return joint.reshape(*joint.shape[:-1], joint.shape[-1] // self._head(), self._head()).transpose(1, 2)

    def _require_valid(self, params: Params, x: Any) -> None:
        """Raise ``Misfit`` for mismatches that no kernel would notice."""
        out, own, separate = params["out_proj"], {}, self._is_separate()
        count = 2 + 2 * separate + self.bias + 2 * self.add_bias_kv + 2 * (self.qk_norm is not None)
        fits = type(x) is Tensor and not separate and x.is_floating_point() and not x.is_nested  # the usual case saves a call
        fits = fits and x.dim() in (2, 3) and x.shape[-1] == self.embed_dim
        if len(params) != count or len(out) != 1 + self.bias or (not fits and self.complaint(x)):
            raise Misfit
        for name, shape in self._own:
            own[name] = leaf = out[name[9:]] if "." in name else params[name]
            if leaf.shape != shape:
                raise Misfit
        for one in (x,) if isinstance(x, Tensor) else x[: 1 if len(x) == 2 else 3]:
            require_kind(self, own, one)

    def infer(self, x: Any) -> tuple[Self, Any]:
        """Infer the sizes of the norm, which occurs twice; the generic method would probe two layers."""
        if self.qk_norm is None:
            return self, output(self, x)
        probe = Probe(self.qk_norm)
        y = output(self.replace(qk_norm=probe), x)
        return self.replace(qk_norm=probe.layer), y

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        inner = {} if self.qk_norm is None else self.qk_norm.param_shapes() or {}
        return self._own_shapes() | {f"{name}.{leaf}": shape for name in NORMS for leaf, shape in inner.items()}

    def _own_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"in_proj_weight": (sum(self._rows()), self.embed_dim)}
        if self._is_separate():
            pairs = zip(PROJECTIONS, self._rows(), self._widths(), strict=True)
            shapes = {name: (rows, width) for name, rows, width in pairs}
        if self.bias:
            shapes["in_proj_bias"] = (sum(self._rows()),)
        shapes["out_proj.weight"] = (self.embed_dim, self._rows()[0])
        shapes |= {"out_proj.bias": (self.embed_dim,)} if self.bias else {}
        return shapes | ({name: (1, 1, self._rows()[1]) for name in LEARNED} if self.add_bias_kv else {})

    def complaint(self, x: Any) -> str | None:
        forms = ("x must be ", "a tensor, (x, mask), ", "(query, key, value) or (query, key, value, mask)")
        count, is_separate = len(x) if isinstance(x, tuple) else 0, self._is_separate()
        if count not in ((3, 4) if is_separate else (0, 2, 3, 4)):
            return forms[0] + forms[1] * (not is_separate) + forms[2] + ", with kdim or vdim" * is_separate
        xs = x[: 1 if count == 2 else 3] if count else (x,)
        names, several = (("query", "key", "value"), ", like the others") if xs[1:] else (("x",), "")
        for name, one, width in zip(names, xs, self._widths()[: len(xs)], strict=True):
            if floating_complaint(one) or one.dim() not in (2, 3) or one.dim() != xs[0].dim() or one.shape[-1] != width:
                return f"{name} must be a floating tensor with the axes (N, L, {width}) or (L, {width}){several}"
        return None
