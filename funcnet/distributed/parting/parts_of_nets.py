"""Parting: the net that one worker computes, derived from the whole net and the placements of its params.

A layer with whole params does not change. ``Linear``, convolutions, ``Embedding`` and ``MultiHeadAttention`` become parts that
compute on the worker's own piece of the params. All other layers with divided params gather them at each use.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
from torch.distributed.tensor import DTensor

from funcnet import tree
from funcnet.blocks.wired import Wired
from funcnet.combinator import Combinator
from funcnet.combinators.dag import Graph
from funcnet.combinators.depth import Repeat
from funcnet.combinators.freezing import Frozen
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.combinators.sequential import Serial
from funcnet.combinators.sharing import Shared, Tied
from funcnet.contract import Layer, Params
from funcnet.distributed.parting.part_layers import DropoutPart, HeadsPart, Parted, TablePart
from funcnet.distributed.parting.passages import Cut, Move, Passage
from funcnet.distributed.sharding.placements import WHOLE, cut_of, divided_along, is_divided, placement_of
from funcnet.distributed.workers import Workers
from funcnet.layers.activation.glu import GLU, Gated
from funcnet.layers.attention.head_projections import NORMS, PROJECTIONS
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout
from funcnet.layers.norm.layer_norm import LayerNorm, RMSNorm
from funcnet.paths import named_leaves

_CONVS = (Conv1d, Conv2d, Conv3d)
_NORMS = (type(None), LayerNorm, RMSNorm)
_TRANSPARENT = (Tied, Shared, Repeat, Frozen, MixedPrecision)


class Way(NamedTuple):
    """How a worker computes its part of a layer."""

    layer: Layer
    """The layer for this worker's piece of the params."""
    takes: str
    gives: str
    """The passages before and after the part: see ``Passage``."""
    cut: Cut = Cut(-1)
    """The cut of the divided axis: of y if the layer returns parts, else of x."""
    once: tuple[str, ...] = ()
    needed: dict[str, Any] = {}  # noqa: RUF012 (of a tuple, read only)
    """The placements that the part needs, by path of leaf, if they differ from the params'."""
    partial: tuple[str, ...] = ()
    """Paths of whole leaves whose gradient is the sum of parts on all workers."""


def part_of(layer: Layer, params: Params, workers: Workers) -> Layer:
    """Return the net that this worker computes; params are DTensors, or plain tensors if they are whole."""
    if not _is_divided(params):
        return layer
    way = way_of(layer, params, workers)
    if way is not None:
        return _parted(way, params, workers, way.takes, way.gives)
    if isinstance(layer, Tied):
        return layer.with_children({"": part_of(layer.layer, layer.filled(params), workers)})
    if isinstance(layer, Repeat) and all(cut_of(leaf)[0] for leaf in tree.leaves(params)):
        return layer.with_children({"": part_of(layer.layer, tree.map(_one_copy, params), workers)})
    if isinstance(layer, Combinator) and opens(layer) and not isinstance(layer, Repeat):
        return _with_parts(layer, params, workers)
    return _parted(_gathering(layer, params), params, workers, "none", "none")


def way_of(layer: Layer, params: Params, workers: Workers) -> Way | None:
    """Return how a worker computes its part of a layer, or ``None`` for unsupported placements and sizes."""
    kind = type(layer)
    find: Callable[..., Way | None] | None = _WAYS.get(kind)
    if find is None or not isinstance(params, dict) or not _is_divided(params) or not _has_shapes(layer, params):
        return None
    return find(layer, params, workers)


def opens(layer: Combinator) -> bool:
    """Return whether a net applies its children with their own params."""
    return isinstance(layer, _TRANSPARENT) or (layer.passes_gradients_on and not layer.computes_as_one)


def _with_parts(net: Combinator, params: Params, workers: Workers) -> Layer:
    """Return a combinator of parts; elementwise layers between a layer by columns and one by rows get a part of x."""
    children = net.children()
    entries = [params] if [*children] == [""] else net._child_entries(params)
    given = dict(zip(children, entries, strict=True))
    ways = {name: way_of(child, given[name], workers) for name, child in children.items()}
    made: dict[str, Layer] = {}
    for start, way in ways.items():
        run = run_from(net, start, way, lambda name: ways[name]) if way is not None and start not in made else None
        if way is None or run is None:
            continue
        last: Any = ways[run[-1]]
        made[start] = _parted(way, given[start], workers, way.takes, "none")
        made[run[-1]] = _parted(last, given[run[-1]], workers, "none", last.gives)
        for name in run[1:-1]:
            made[name] = _of_parts(children[name], way.cut, workers)
    parts = {name: made[name] if name in made else part_of(child, given[name], workers) for name, child in children.items()}
    return net.with_children(parts)


def run_from(net: Layer, start: str, way: Way, way_at: Callable[[str], Way | None]) -> list[str] | None:
    """Return the children from a layer by columns to the layer by rows that uses its parts, or ``None``."""
    if way.gives != "join" or not isinstance(net, (Serial, Wired, Graph)):
        return None
    wires, children = net.wires(), net.children()
    run, groups = [start], way.cut.groups
    while True:
        targets = [b for a, b in wires if a == run[-1]]
        name = targets[0] if len(targets) == 1 else None
        if name is None or name in run or [a for a, b in wires if b == name] != [run[-1]]:
            return None
        run.append(name)
        after = way_at(name)
        if after is not None:
            takes = after.takes == "cut" and after.cut.axis == way.cut.axis and groups == 1
            return run if takes else None
        groups = _groups_after(children[name], way.cut.axis, groups)
        if not groups:
            return None


def _groups_after(layer: Layer, axis: int, groups: int) -> int:
    """Return the number of groups in the cut after a layer that acts on each part separately, or 0 for another layer."""
    if isinstance(layer, (GLU, Gated)):
        return 1 if layer.dim == axis and groups == 2 else 0
    if type(layer) is Dropout:
        return groups if not layer.broadcast_dims else 0
    if isinstance(layer, Serial):
        for one in layer.layers:
            groups = groups and _groups_after(one, axis, groups)
        return 0 if layer.stochastic else groups
    return groups if layer.ensemble_mode == "elementwise" else 0


def _of_parts(layer: Layer, cut: Cut, workers: Workers) -> Layer:
    if type(layer) is Dropout and layer.stochastic:
        return DropoutPart(layer.p, layer.broadcast_dims, cut=cut, workers=workers)
    return layer


def _parted(way: Way, params: Params, workers: Workers, takes: str, gives: str) -> Layer:
    if isinstance(way.layer, TablePart):
        return way.layer
    moves = []
    for path, leaf in named_leaves("", params):
        needed = way.needed.get(path)
        if needed is not None and (needed != placement_of(leaf) or path in way.partial):
            layout = (leaf.device_mesh, leaf.placements, leaf.shape, leaf.stride())
            moves.append(Move(path, layout, (needed,), path in way.partial))
    before, after = Passage(takes, workers, way.cut), Passage(gives, workers, way.cut)
    return Parted(way.layer, before, after, tuple(moves), way.once)


def _is_divided(params: Params) -> bool:
    return any(is_divided(leaf) for leaf in tree.leaves(params))


def _one_copy(leaf: Any) -> Any:
    """Return the leaf of one copy of a ``repeat``, which has one axis less."""
    axis, groups = cut_of(leaf)
    if axis < 0:
        return leaf[0] if placement_of(leaf) is None else _whole_like(leaf)
    placement = divided_along(axis - 1, groups)
    local, shape, stride = leaf._local_tensor[0], leaf.shape[1:], leaf.stride()[1:]
    return DTensor.from_local(local, leaf.device_mesh, [placement], run_check=False, shape=shape, stride=stride)


def _whole_like(leaf: Any) -> Any:
    return DTensor.from_local(leaf._local_tensor[0], leaf.device_mesh, leaf.placements, run_check=False)


def _gathering(layer: Layer, params: Params) -> Way:
    """Return the layer itself, with all its params gathered."""
    needed = {path: WHOLE for path, leaf in named_leaves("", params) if placement_of(leaf) is not None}
    return Way(layer, "none", "none", needed=needed)


def _has_shapes(layer: Layer, params: Params) -> bool:
    shapes = layer.param_shapes() or {}
    return {path: tuple(leaf.shape) for path, leaf in named_leaves("", params)} == shapes


def _linear(layer: Linear, params: Params, workers: Workers) -> Way | None:
    return _affine(layer, params, workers, ("out_features", "in_features"), -1)


def _conv(layer: Any, params: Params, workers: Workers) -> Way | None:
    if layer.groups > 1:
        return None
    return _affine(layer, params, workers, ("out_channels", "in_channels"), -1 - layer.axes)


def _affine(layer: Any, params: Params, workers: Workers, sizes: tuple[str, str], axis_of_x: int) -> Way | None:
    """Return the way by columns, with the weight divided along the axis of y, or by rows, along the axis of x."""
    axis, groups = cut_of(params["weight"])
    if axis not in (0, 1) or getattr(layer, sizes[axis]) % (workers.size * groups) or (axis == 1 and groups > 1):
        return None
    own = layer.replace(**{sizes[axis]: getattr(layer, sizes[axis]) // workers.size})
    cut, bias = Cut(axis_of_x, groups), ("bias",) if layer.bias else ()
    if axis == 0:
        return Way(own, "copy", "join", cut, needed=dict.fromkeys(bias, divided_along(0, groups)))
    return Way(own, "cut", "sum", cut, once=bias, needed=dict.fromkeys(bias, WHOLE))


def _embedding(layer: Embedding, params: Params, workers: Workers) -> Way | None:
    """Return the way for a table divided by rows or by features."""
    axis, groups = cut_of(params["weight"])
    if groups > 1 or tuple(params["weight"].shape)[axis] % workers.size:
        return None
    if axis == 1:
        return Way(layer.replace(embedding_dim=layer.embedding_dim // workers.size), "none", "join")
    rows = layer.num_embeddings // workers.size
    padding = layer.padding_row - workers.rank * rows
    own = layer.replace(num_embeddings=rows, padding_idx=padding if 0 <= padding < rows else None)
    return Way(TablePart(own, workers.rank * rows, layer.num_embeddings, workers), "none", "none")


def _heads(layer: MultiHeadAttention, params: Params, workers: Workers) -> Way | None:
    """Return the way by heads, for attention whose heads are equal and independent."""
    kv = layer.num_heads if layer.num_kv_heads is None else layer.num_kv_heads
    mixes = layer.need_weights or layer.alibi or layer.add_bias_kv or layer.add_zero_attn
    if mixes or type(layer.qk_norm) not in _NORMS or layer.num_heads % workers.size or kv % workers.size:
        return None
    stacked = "in_proj_weight" in params
    if (stacked and kv != layer.num_heads) or cut_of(params["in_proj_weight" if stacked else "q_proj_weight"])[0] != 0:
        return None
    needed = {path: WHOLE for path, _ in named_leaves("", params)}
    needed |= dict.fromkeys(PROJECTIONS, divided_along(0, 1)) | {"in_proj_weight": divided_along(0, 3)}
    needed |= {"in_proj_bias": divided_along(0, 3), "out_proj.weight": divided_along(1, 1)}
    partial = tuple([path for path in needed if path.startswith(NORMS)])
    fields = {one.alias: getattr(layer, one.name) for one in attrs.fields(MultiHeadAttention) if one.init}  # type: ignore[arg-type]
    own = HeadsPart(**fields, workers=workers)
    return Way(own, "copy", "sum", once=("out_proj.bias",) if layer.bias else (), needed=needed, partial=partial)


_WAYS: dict[type, Callable[..., Way | None]] = {
    Linear: _linear,
    Embedding: _embedding,
    MultiHeadAttention: _heads,
    **dict.fromkeys(_CONVS, _conv),
}
