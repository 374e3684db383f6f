"""torchvision functions that are not traced into, known by their qualified names: nothing is imported."""

from math import log
from typing import Any

from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, constant, node, sized
from funcnet.interop.torch_nn.importing.functions.arithmetic import add, mul, rescale
from funcnet.interop.torch_nn.importing.functions.choosing import without_gradient
from funcnet.interop.torch_nn.importing.functions.joining import pick
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS, function
from funcnet.interop.torch_nn.importing.values import Arithmetic, Node, Size, UnsupportedError
from funcnet.layers.activation.bounds import Clamp
from funcnet.layers.activation.elementary import Exp
from funcnet.layers.activation.softmaxes import Softmax
from funcnet.layers.attention.shifted_windows import ShiftedWindowMask, WindowShift
from funcnet.layers.linear.functional_linear import FunctionalLinear
from funcnet.layers.noise.dropout import Dropout, DropPath
from funcnet.layers.norm.standardize import Normalize
from funcnet.layers.operands.matmul import MatMul
from funcnet.layers.operands.picking import Concat, Unbind
from funcnet.layers.shape.axes import Permute, Transpose, Unsqueeze
from funcnet.layers.shape.indexing import Chunk
from funcnet.layers.shape.sized import ConstantPad, View

_SWIN = "torchvision.models.swin_transformer"


@function("torchvision.ops.stochastic_depth.stochastic_depth")
def _stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Any:
    if not training or p == 0.0:
        return input
    if mode != "row":
        raise UnsupportedError(f"stochastic_depth with mode={mode!r} drops whole batches and has no layer; DropPath drops rows")
    return node(DropPath(p), input)


@function(f"{_SWIN}._patch_merging_pad")
def _patch_merging_pad(x: Tensor) -> Any:
    x = sized(ConstantPad, x, (0, 0, 0, Arithmetic("mod", Size(x, -2), 2), 0, Arithmetic("mod", Size(x, -3), 2)))
    places = [(0, 0), (1, 0), (0, 1), (1, 1)]
    index = FUNCTIONS["__getitem__"]
    parts = [index(x, (..., slice(i, None, 2), slice(j, None, 2), slice(None))) for i, j in places]
    return node(Concat(-1), *parts)


@function(f"{_SWIN}._get_relative_position_bias")
def _relative_position_bias(relative_position_bias_table: Tensor, relative_position_index: Tensor, window_size: Any) -> Node:
    n = window_size[0] * window_size[1]
    rows = FUNCTIONS["__getitem__"](relative_position_bias_table, relative_position_index)
    return node(Unsqueeze(0), node(Permute((2, 0, 1)), sized(View, rows, (n, n, -1))))


@function(f"{_SWIN}.shifted_window_attention")
def _shifted_window_attention(  # noqa: PLR0917 (the arguments are torchvision's)
    input: Tensor,
    qkv_weight: Tensor,
    proj_weight: Tensor,
    relative_position_bias: Tensor,
    window_size: Any,
    num_heads: int,
    shift_size: Any,
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    qkv_bias: Any = None,
    proj_bias: Any = None,
    logit_scale: Any = None,
    training: bool = True,
) -> Any:
    window, shift = tuple(constant(window_size, "window_size")), tuple(constant(shift_size, "shift_size"))
    x = sized(ConstantPad, input, (0, 0, 0, _missing(input, 2, window[1]), 0, _missing(input, 1, window[0])))
    windows = _windows(node(WindowShift(window, shift), x) if any(shift) else x, window)
    bias = qkv_bias if logit_scale is None or qkv_bias is None else _without_key_bias(qkv_bias)
    q, k, v = _heads(_linear(windows, qkv_weight, bias), num_heads)
    scores = add(_scores(q, k, logit_scale), relative_position_bias)
    if any(shift):
        scores = _masked(scores, node(ShiftedWindowMask(window, shift), x), num_heads)
    p = _dropped(node(Softmax(-1), scores), attention_dropout, training)
    y = sized(View, node(Transpose(1, 2), node(MatMul(), p, v)), (Size(windows, 0), Size(windows, 1), -1))
    y = _image(_dropped(_linear(y, proj_weight, proj_bias), dropout, training), x, window)
    y = node(WindowShift(window, shift, back=True), y) if any(shift) else y
    return FUNCTIONS["__getitem__"](y, (slice(None), slice(None, Size(input, 1)), slice(None, Size(input, 2))))


def _missing(x: Tensor, axis: int, window: int) -> Arithmetic:
    """Return the padding that makes an axis a multiple of the window."""
    return Arithmetic("mod", Arithmetic("sub", window, Arithmetic("mod", Size(x, axis), window)), window)


def _counts(x: Tensor, window: tuple[int, ...]) -> list[Arithmetic]:
    return [Arithmetic("floordiv", Size(x, axis), n) for axis, n in zip((1, 2), window, strict=True)]


def _windows(x: Tensor, window: tuple[int, ...]) -> Node:
    """Cut images (N, height, width, channels) into windows (N · windows, places, channels)."""
    (rows, columns), (h, w) = _counts(x, window), window
    y = node(Permute((0, 1, 3, 2, 4, 5)), sized(View, x, (Size(x, 0), rows, h, columns, w, Size(x, 3))))
    return sized(View, y, (Arithmetic("mul", Size(x, 0), Arithmetic("mul", rows, columns)), h * w, Size(x, 3)))


def _image(y: Tensor, x: Tensor, window: tuple[int, ...]) -> Node:
    """Join windows to images of the size of x."""
    y = sized(View, y, (Size(x, 0), *_counts(x, window), *window, Size(x, 3)))
    return sized(View, node(Permute((0, 1, 3, 2, 4, 5)), y), (Size(x, 0), Size(x, 1), Size(x, 2), Size(x, 3)))


def _without_key_bias(bias: Tensor) -> Node:
    """Return the bias of queries, keys and values with zeros for the keys."""
    parts = node(Chunk(3, 0), bias, parts=(None, None, None))
    q, k, v = (pick(parts, i) for i in range(3))
    return node(Concat(0), q, without_gradient("zeros_like", k), v)


def _linear(x: Tensor, weight: Tensor, bias: Any) -> Node:
    return node(FunctionalLinear(), x, weight) if bias is None else node(FunctionalLinear(), x, weight, bias)


def _heads(qkv: Tensor, heads: int) -> list[Tensor]:
    """Return queries, keys and values (N, heads, places, features)."""
    y = sized(View, qkv, (Size(qkv, 0), Size(qkv, 1), 3, heads, Arithmetic("floordiv", Size(qkv, 2), 3 * heads)))
    parts = node(Unbind(0), node(Permute((2, 0, 3, 1, 4)), y), parts=(None, None, None))
    return [pick(parts, i) for i in range(3)]


def _scores(q: Tensor, k: Tensor, logit_scale: Any) -> Any:
    """Return the scaled products of queries and keys, or their cosines with a learned scale."""
    if logit_scale is None:
        return node(MatMul(), rescale(q, Arithmetic("pow", Size(q, 3), -0.5)), node(Transpose(-2, -1), k))
    cosines = node(MatMul(), node(Normalize(dim=-1), q), node(Transpose(-2, -1), node(Normalize(dim=-1), k)))
    return mul(cosines, node(Exp(), node(Clamp(max=log(100.0)), logit_scale)))


def _masked(scores: Tensor, mask: Tensor, heads: int) -> Node:
    """Add the mask of the windows of an image to the scores of all images."""
    shape = -1, Size(mask, 0), heads, Size(mask, 1), Size(mask, 2)
    added = add(sized(View, scores, shape), node(Unsqueeze(1), mask))
    return sized(View, added, (-1, heads, Size(mask, 1), Size(mask, 2)))


def _dropped(x: Tensor, p: float, training: bool) -> Tensor:
    return node(Dropout(p), x) if training and p else x
