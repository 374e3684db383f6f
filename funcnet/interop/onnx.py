"""ONNX: nets for evaluation as files for onnxruntime and other programs, written with torch's exporter (extra ``onnx``)."""

import os
import warnings
from importlib.util import find_spec
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, is_whole, value_error
from funcnet.flattening import Tree
from funcnet.interop.reasons import reason_of
from funcnet.kernels.onnx_forms import ONNX_FORMS
from funcnet.saving.atomic import require_new_file


class _Net(torch.nn.Module):
    """The traced module: params are numbered buffers, and x is built from its leaves."""

    def __init__(self, net: Layer, params: Params, x: Tree) -> None:
        super().__init__()
        self.net, self.like, self.params = net, x, params
        for i, leaf in enumerate(tree.leaves(params)):
            self.register_buffer(f"p{i}", leaf.detach())

    def forward(self, *leaves: Tensor) -> Any:
        numbers, rest = count(), iter(leaves)
        params = tree.map(lambda _: getattr(self, f"p{next(numbers)}"), self.params)
        y = self.net(params, tree.map(lambda _: next(rest), self.like))
        return tree.map(lambda out: out.clone() if any(out is leaf for leaf in leaves) else out, y)  # outputs need distinct names


def _require_extra() -> None:
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise ImportError(f"onnx.export: the package {name} must be installed; pip install 'funcnet[onnx]' installs it")


def _inputs(x: Tree) -> list[Tensor]:
    """Return the leaves of x; the first one must have a batch axis."""
    leaves = tree.leaves(x)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.layout is torch.strided for leaf in leaves):
        raise value_error("onnx.export", "x must be a dense tensor, or a tuple or dict of these", describe(x))
    if not leaves[0].dim():
        raise value_error("onnx.export", "the first axis of x must be the batch", leaves[0])
    return leaves


def _open(leaves: list[Tensor]) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Return examples with at least two rows, because torch treats sizes 0 and 1 as constants, and the variable axes."""
    rows, size = leaves[0].shape[0], Dim("batch", min=1)
    has_batch = [leaf.dim() > 0 and leaf.shape[0] == rows for leaf in leaves]
    if rows < 2:
        leaves = [leaf.new_zeros(2, *leaf.shape[1:]) if has else leaf for leaf, has in zip(leaves, has_batch, strict=True)]
    return leaves, tuple({0: size} if has else None for has in has_batch)


def _names(word: str, n: int, given: Any) -> list[str]:
    """Return the names of n inputs or outputs: ``given``, or the word, numbered if n is above 1."""
    if given is None:
        return [word] if n == 1 else [f"{word}{i}" for i in range(n)]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name for name in names):
        raise value_error("onnx.export", f"the names of {word} must be a string, or a tuple or list of strings", describe(given))
    if len(names) != n or len(set(names)) < n:
        raise value_error("onnx.export", f"there must be {n} different names of {word}", repr(given))
    return [*names]


def _require_different(names: list[str]) -> None:
    """Reject names shared between inputs, outputs and params: names in an ONNX graph must be unique."""
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise value_error("onnx.export", "inputs, outputs and params must have different names", f"{twice[0]!r} twice")


def _require_opset(version: Any) -> None:
    if version is not None and (not is_whole(version) or version < 1):
        rule = "opset_version must be a whole number of at least 1, or None"
        raise value_error("onnx.export", rule, describe(version))


def _traced(root: _Net, examples: list[Tensor], shapes: tuple[Any, ...]) -> ExportedProgram:
    """Trace the net, with formulas for the operations that torch translates incorrectly."""
    program = torch.export.export(root, tuple(examples), dynamic_shapes=(shapes,), strict=False)
    found = any(node.target in ONNX_FORMS for node in program.graph.nodes if node.op == "call_function")
    return program.run_decompositions(ONNX_FORMS) if found else program


def _written(net: Layer, params: Params, leaves: list[Tensor], x: Tree, **options: Any) -> Any:
    """Convert the net to an ONNX graph with torch; on failure prefer eager mode's error, which is clearer than torch's."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own internals
            examples, shapes = _open(leaves)
            program = _traced(_Net(net, params, x), examples, shapes)
            return torch.onnx.export(program, dynamo=True, dynamic_shapes=(shapes,), verbose=False, optimize=False, **options)
    except Exception as error:
        failed = error
    try:
        net(params, x)
        raise value_error("onnx.export", "torch must be able to convert net to ONNX", reason_of(failed)) from failed
    finally:
        del failed  # its traceback refers to this frame


def export(
    net: Layer,
    params: Params,
    x: Any,
    path: str | os.PathLike[str],
    *,
    input_names: Any = None,
    output_names: Any = None,
    opset_version: int | None = None,
) -> None:
    """Write ``net.inference()`` with its params to an ONNX file.

    The params are initializers named by their paths, such as ``"0.weight"``. The first axis of x, the batch, can have any size,
    as can that of every other input with as many rows as the first in the example. Integer inputs stay integers, and dtypes are
    those of the net.

    Args:
        net: The net; ``inference()`` is applied to it.
        params: Its params.
        x: An example input: a tensor, or a tree of tensors, each of which becomes an input.
        path: File to write. Params of more than 2 GB are stored in a second file next to it.
        input_names: Names of the inputs, by default ``x``, or ``x0``, ``x1`` and so on.
        output_names: Names of the outputs, by default ``y``, or ``y0``, ``y1`` and so on.
        opset_version: Version of the ONNX operators, by default the one recommended by torch.

    Raises:
        ImportError: Without the extra ``onnx``.
        ValueError: If ONNX cannot express the net, with torch's reason, or an argument has another type.

    >>> import tempfile
    >>> import funcnet as fn
    >>> from funcnet.interop import onnx
    >>> net = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.export(net, net.init(0), torch.ones(2, 3), f"{folder}/net.onnx")
    """
    _require_extra()
    found = require_new_file("onnx.export", path)
    if not isinstance(net, Layer):
        raise value_error("onnx.export", "net must be a layer", net)
    leaves, still = _inputs(x), net.inference()
    with torch.no_grad():
        outputs = len(tree.leaves(still(params, x)))
    ins, outs, paths = _names("x", len(leaves), input_names), _names("y", outputs, output_names), [*tree.names(params)]
    _require_different([*ins, *outs, *paths])
    _require_opset(opset_version)
    written = _written(still, params, leaves, x, input_names=ins, output_names=outs, opset_version=opset_version)
    _rename(written.model.graph, paths)
    written.save(os.fspath(found))
    _check(os.fspath(found))


def _rename(graph: Any, paths: list[str]) -> None:
    """Name the initializers by the paths of the params."""
    for i, path in enumerate(paths):
        if (value := graph.initializers.get(f"p{i}")) is not None:
            value.name = path


def _check(path: str) -> None:
    from onnx import checker

    checker.check_model(path)
