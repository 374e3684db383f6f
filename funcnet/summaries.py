"""Summary: what each layer of a net holds, caches and computes, measured on the meta device, where nothing is computed.

    net = mlp((784, 256, 10))
    print(summary(net, (64, 784)))

The net and the batch can be far larger than the memory of this machine. ``metering`` does the measuring.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from funcnet import tree
from funcnet.contract import Layer, Params, meta_params
from funcnet.markup import Markup, element, output, table
from funcnet.metering import Record, Storages, measure, storages
from funcnet.sizes import infer_sizes, on_meta
from funcnet.tables import aligned, short
from funcnet.walking import require_layer

_LONGEST = 40
_HEADER = ("path", "layer", "output shape", "params", "bytes", "cache bytes", "FLOPs", "backward FLOPs")


class Row(NamedTuple):
    """One layer in a ``Summary``, or the whole net in ``Summary.total``.

    Args:
        path: The path of the layer.
        layer: The layer.
        output_shape: The shape of its output, or the tree of shapes; that of its first call if it is called several times.
        params: Number of elements of its params, running statistics included.
        bytes: Size of its params in bytes.
        cache_bytes: Bytes of memory that its cache keeps for the backward pass.
        flops: Multiplications and additions of ``apply``, in products; see ``summary``.
        backward_flops: Multiplications and additions of ``vjp``, in products.
    """

    path: str
    layer: Layer
    output_shape: Any
    params: int
    bytes: int
    cache_bytes: int
    flops: int
    backward_flops: int


class Summary(NamedTuple):
    """The table of a net, returned by ``summary``. It prints as text; notebooks show it as HTML.

    Args:
        rows: A ``Row`` for each layer, in the order of ``walk``.
        total: A ``Row`` for the net.
    """

    rows: tuple[Row, ...]
    total: Row

    def __str__(self) -> str:
        cells = [_HEADER, *map(_cells, self.rows), ("total", "", *_cells(self.total)[2:])]
        lines = aligned(cells, 3)
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return output(element("div", table_of(self), class_="scroll"))


def table_of(found: Summary) -> Markup:
    """Return a summary as a table of HTML."""
    return table(_HEADER, map(_cells, found.rows), ("total", "", *_cells(found.total)[2:]), words=3)


def summary(net: Layer, x: Any, dtype: torch.dtype | None = None) -> Summary:
    """Summarize a net: output shape, params, memory and FLOPs of each layer, without computing anything.

    A FLOP is a multiplication or an addition. Matrix products, convolutions and attention count, two FLOPs for each pair of
    factors, as in ``torch.utils.flop_counter``; elementwise functions, sums and normalization do not. Params that several layers
    share count once, in the row of the first. A tensor that several layers cache counts in each of their rows, and once in the
    total, which is the memory that the cache of one training step holds. The kernels are those of the CPU, except for a float32
    LSTM, whose kernel on the CPU keeps two to three times as much. Layers whose cache depends on the data, such as ``uniqued``
    and ``EmbeddingBag`` with offsets, count as if all rows were distinct.

    Every layer without layers inside has a row; a combinator has one if it has params, caches or computes something itself.
    Ensembles, ``lora``, ``parametrize`` and attention with norms have one row that includes the layers inside.

    Args:
        net: The net; sizes of ``None`` are inferred.
        x: An input for it: a tensor, a shape, or a tuple or dict of them.
        dtype: The dtype of inputs given as shapes; for indices ``torch.int64``.

    Returns:
        A ``Summary`` with ``rows`` and ``total``.

    Raises:
        ValueError: If ``net`` is not a layer, x is none of these, or a layer rejects it.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> total = summary(serial(Linear(4, 3), Tanh()), (8, 4)).total
    >>> total.params, total.output_shape, total.flops, total.backward_flops
    (15, torch.Size([8, 3]), 192, 384)
    """
    require_layer("summary", net)
    with torch.inference_mode(False):  # inference mode does not decompose compound kernels
        x = on_meta(x, dtype, "summary")
        net = infer_sizes(net, x, dtype)
        params = meta_params(net)
        record, y, cache = measure(net, params, x)
    kept = storages(cache)
    rows = tuple(_rows(record, params, kept))
    flops = sum([row.flops for row in rows]), sum([row.backward_flops for row in rows])
    return Summary(rows, Row("", net, shapes_of(y), tree.size(params), tree.nbytes(params), _size(kept), *flops))


def _rows(record: Record, params: Params, kept: Storages) -> Iterator[Row]:
    """Yield a row for each record without inner records, and for each whose layer has something besides its inner layers."""
    own = _owned(record, params)
    for one in record.walk():
        within = set[int]().union(*[inner.kept for inner in one.walk() if inner is not one])
        cache = {key: storage for key, storage in one.kept.items() if key in kept and key not in within}
        sizes = tree.size(own[id(one)]), tree.nbytes(own[id(one)]), _size(cache)
        if not one.within or any((*sizes, one.flops, one.backward_flops)):
            yield Row(one.path, one.layer, shapes_of(one.output), *sizes, one.flops, one.backward_flops)


def _owned(record: Record, params: Params) -> dict[int, list[Any]]:
    """Assign each parameter to the innermost layer on its path."""
    owned: dict[int, list[Any]] = {id(one): [] for one in record.walk()}
    innermost = {one.path: id(one) for one in record.walk()}  # the last of those with the same path
    for path, leaf in tree.names(params).items():
        place = path
        while place not in innermost:
            place = place.rpartition(".")[0]
        owned[innermost[place]].append(leaf)
    return owned


def _size(kept: Storages) -> int:
    return sum([storage.nbytes() for storage in kept.values()])


def shapes_of(values: Any) -> Any:
    """Return the shape of a tensor, or the tree of the shapes of several."""
    return tree.map(lambda leaf: leaf.shape, values)


def _cells(row: Row) -> tuple[str, ...]:
    name = repr(row.layer)
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
    sizes = f"{short(row.bytes)}B", f"{short(row.cache_bytes)}B"
    return (
        row.path or "(net)",
        name,
        shape_words(row.output_shape),
        f"{row.params:,}",
        *sizes,
        short(row.flops),
        short(row.backward_flops),
    )


def shape_words(shape: Any) -> str:
    """Format a shape, or the tree of shapes, without the name ``torch.Size``."""
    if isinstance(shape, dict):
        return f"{{{', '.join([f'{name}: {shape_words(one)}' for name, one in shape.items()])}}}"
    if isinstance(shape, tuple) and not isinstance(shape, torch.Size):
        return f"({', '.join(map(shape_words, shape))})"
    return str(tuple(shape)) if isinstance(shape, torch.Size) else "-"
