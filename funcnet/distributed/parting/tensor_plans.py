"""Plans for tensor parallelism: the axis along which each leaf is divided."""

from collections.abc import Iterator
from typing import Any

from torch.distributed.device_mesh import DeviceMesh

from funcnet.combinator import Combinator
from funcnet.combinators.depth import Repeat
from funcnet.combinators.sharing import Tied
from funcnet.contract import Layer
from funcnet.distributed.parting.parts_of_nets import Way, opens, run_from
from funcnet.distributed.parting.passages import Cut
from funcnet.distributed.sharding.placements import divided_along
from funcnet.errors import value_error
from funcnet.flattening import join
from funcnet.layers.attention.head_projections import PROJECTIONS
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.linear.linear import Linear

Plan = dict[str, Any]
"""Placements by path; leaves without an entry are whole on each worker."""


def tensor_parallel_plan(net: Layer, mesh: Any = None) -> Plan:
    """Return placements by path for ``shard``, to divide the params of a net for ``tensor_parallel``.

    A ``Linear`` is divided by columns, or by rows if its input comes from one by columns through elementwise layers, dropout or a
    gated unit, like the second Linear of a transformer's mlp. ``MultiHeadAttention`` is divided by heads, and ``Embedding`` by
    rows, together with layers tied to it. Norms, convolutions, recurrent layers and attention with grouped keys stay whole.

    A projection of queries, keys and values in one matrix is divided in three separate stretches: ``in_proj_weight`` has torch's
    ``_StridedShard(0, split_factor=3)``, which gives a worker the rows of its own heads in all three. Likewise, the ``Linear``
    before a gated unit is divided in two stretches. ``unshard`` restores the order of the rows.

    Args:
        net: The net.
        mesh: The mesh with one axis. Leaves whose size its workers do not divide stay whole. By default every size is assumed to
            be divisible.

    Returns:
        A dict of placements by path, which can be changed.

    Raises:
        ValueError: If ``net`` is not a layer, or ``mesh`` has several axes.

    >>> from funcnet.blocks.perceptron import mlp
    >>> tensor_parallel_plan(mlp([4, 8, 2]))
    {'0.weight': Shard(dim=0), '0.bias': Shard(dim=0), '2.weight': Shard(dim=1)}
    """
    if not isinstance(net, Layer):
        raise value_error("tensor_parallel_plan", "net must be a layer", net)
    if mesh is not None and (not isinstance(mesh, DeviceMesh) or mesh.ndim != 1):
        raise value_error("tensor_parallel_plan", "mesh must be a DeviceMesh of one axis, or None", repr(mesh))
    return dict(_planned(net, "", 0, 1 if mesh is None else mesh.size()))


def _planned(layer: Layer, at: str, depth: int, n: int) -> Iterator[tuple[str, Any]]:
    """List the placements of a layer at a path for n workers; its leaves have ``depth`` additional axes."""
    kind = type(layer)
    if kind is Linear:
        yield from _by_columns(layer, at, depth, n)
    elif kind is Embedding:
        if layer.num_embeddings % n == 0:  # type: ignore[attr-defined]
            yield join(at, "weight"), divided_along(depth)
    elif kind is MultiHeadAttention:
        yield from _by_heads(layer, at, depth, n)
    elif isinstance(layer, Tied):
        yield from _without(layer, dict(_planned(layer.layer, at, depth, n)), at)
    elif isinstance(layer, Repeat):
        yield from _planned(layer.layer, at, depth + 1, n)
    elif isinstance(layer, Combinator) and opens(layer):
        yield from _of_children(layer, at, depth, n)


def _of_children(net: Combinator, at: str, depth: int, n: int) -> Iterator[tuple[str, Any]]:
    done: set[str] = set()
    for name, child in net.children().items():
        groups, end = _pair(net, name, child, n) if name not in done else (0, "")
        path = join(at, name) if name else at
        if end:
            yield from _by_columns(child, path, depth, n, groups)
            yield join(join(at, end), "weight"), divided_along(depth + 1)
            done |= {name, end}
        elif name not in done:
            yield from _planned(child, path, depth, n)


def _pair(net: Layer, name: str, child: Layer, n: int) -> tuple[int, str]:
    """Return the number of stretches of a Linear, and the name of the layer that uses its parts, or (0, "")."""
    children: Any = net.children()  # type: ignore[attr-defined]

    def way_at(other: str) -> Way | None:
        one = children[other]
        return Way(one, "cut", "sum") if type(one) is Linear and one.in_features % n == 0 else None

    for groups in (1, 2) if type(child) is Linear else ():
        run = run_from(net, name, Way(child, "copy", "join", Cut(-1, groups)), way_at)
        if run is not None and child.out_features % (groups * n) == 0:  # type: ignore[attr-defined]
            return groups, run[-1]
    return 0, ""


def _by_columns(layer: Any, at: str, depth: int, n: int, groups: int = 1) -> Iterator[tuple[str, Any]]:
    if layer.out_features % (groups * n) == 0:
        yield join(at, "weight"), divided_along(depth, groups)
        if layer.bias:
            yield join(at, "bias"), divided_along(depth, groups)


def _by_heads(layer: Any, at: str, depth: int, n: int) -> Iterator[tuple[str, Any]]:
    separate = layer.kdim not in (None, layer.embed_dim) or layer.vdim not in (None, layer.embed_dim)
    kv = layer.num_kv_heads or layer.num_heads
    mixes = layer.need_weights or layer.alibi or layer.add_bias_kv or layer.add_zero_attn
    if mixes or layer.num_heads % n or kv % n or (kv != layer.num_heads and not separate):
        return
    names = PROJECTIONS if separate else ("in_proj_weight",)
    for name in names:
        yield join(at, name), divided_along(depth, 1 if separate else 3)
    if layer.bias and kv == layer.num_heads:
        yield join(at, "in_proj_bias"), divided_along(depth, 3)
    yield join(at, "out_proj.weight"), divided_along(depth + 1)


def _without(layer: Tied, plan: Plan, at: str) -> Iterator[tuple[str, Any]]:
    """List the placements of a net, without leaves that are tied to others."""
    away = tuple([join(at, path) for _, *others in layer.groups for path in others])
    for path, placement in plan.items():
        if path not in away and not path.startswith(tuple([f"{one}." for one in away])):
            yield path, placement
