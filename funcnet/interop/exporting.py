"""Exporting: a pure function, such as a whole training step, as a torch program that runs without funcnet.

``torch.export`` traces a module with tensors that have shapes but no values. Here the module only calls the function: params and
state are arguments and outputs of the program, and nothing is kept between calls.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from funcnet import random, tree
from funcnet.compilation.options import step_options
from funcnet.errors import describe, is_whole, value_error
from funcnet.flattening import Tree
from funcnet.interop.graph_writes import written_inputs
from funcnet.interop.reasons import reason_of
from funcnet.saving.atomic import require_new_file, written_whole
from funcnet.value import parts

_NODES = (dict, OrderedDict, tuple, list)
"""The containers that torch can save and that a process without funcnet can build."""


class _Root(torch.nn.Module):
    """The traced module: it calls the step, with copies of the tensors whose leaf numbers are in ``copied``."""

    def __init__(self, step: Callable[..., Any], copied: set[int]) -> None:
        super().__init__()
        self.step, self.copied = step, copied

    def forward(self, *args: Any) -> Any:
        numbers = count()
        return self.step(*_mapped(lambda x: x.clone() if next(numbers) in self.copied else x, args))


def _leaves(value: Tree, place: str = "args") -> Iterator[tuple[str, Any]]:
    """Yield the place and value of each leaf of a tree other than ``None``."""
    if type(value) in _NODES:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(child, f"{place}[{key!r}]")
    elif value is not None:
        yield place, value


def _mapped(f: Callable[[Any], Any], value: Tree) -> Tree:
    """Apply ``f`` to the leaves of a tree, in the order of ``_leaves``."""
    if isinstance(value, dict):
        return type(value)((key, _mapped(f, child)) for key, child in value.items())
    if type(value) in _NODES:
        return type(value)(_mapped(f, child) for child in value)
    return None if value is None else f(value)


def _require_step(step: Any) -> None:
    """Reject a step that is not a function, branches on values, or holds tensors, which would become constants."""
    if not callable(step):
        raise value_error("export", "step must be a function", step)
    for part in parts(step):
        if getattr(part, "reads_values", False):
            rule = "a step must not read the loss during the update, as LBFGS does; export its value_and_grads"
            raise value_error("export", rule, repr(part))
        if isinstance(part, Tensor):
            rule = "a tensor in a step, such as a rate, would be a constant of the program; use a number or a schedule"
            raise value_error("export", rule, describe(part))


def _require_args(args: Any) -> None:
    if type(args) is not tuple:
        raise value_error("export", "args must be the tuple of the arguments of step", args)
    for place, leaf in _leaves(args):
        if not isinstance(leaf, Tensor):
            rule = f"{place} must be a tensor, None, or a dict, tuple or list of these: anything else would be a constant"
            raise value_error("export", rule, describe(leaf))
        if leaf.is_nested or leaf.layout is not torch.strided:
            raise value_error("export", f"{place} must be a dense tensor", leaf)


def _parameters(step: Callable[..., Any]) -> list[str]:
    try:
        return [*signature(step).parameters]
    except (TypeError, ValueError):
        return []


def _with_key(names: list[str], args: Any) -> Any:
    """Convert an int seed ``rng`` to a key, as a compiled step does."""
    at = names.index("rng") if isinstance(args, tuple) and "rng" in names[: len(args)] else None
    if at is None or type(args[at]) is not int:
        return args
    return (*args[:at], random.key(args[at]), *args[at + 1 :])


def _places(names: list[str], args: tuple[Any, ...], batch: Sequence[int | str]) -> list[int]:
    """Return the numbers of the arguments named in ``batch``."""
    if not isinstance(batch, (tuple, list)) or not all(isinstance(one, str) or is_whole(one) for one in batch):
        raise value_error(
            "export", "batch must be a tuple of names or numbers of arguments, such as ('x', 'target')", describe(batch)
        )
    known = [*range(len(args)), *names[: len(args)]]
    for one in batch:
        if one not in known:
            raise value_error("export", f"batch must name arguments among {', '.join(map(repr, known))}", repr(one))
    return [names.index(one) if isinstance(one, str) else one for one in batch]


def _with_open_batch(args: tuple[Any, ...], places: list[int]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the arguments, and their axes of variable size.

    Torch treats the sizes 0 and 1 as constants, so a batch of one row is extended to two.
    """
    for place, leaf in _leaves(args):
        if any(place.startswith(f"args[{i}]") for i in places) and not leaf.dim():
            raise value_error("export", f"{place} must have the batch as its first axis", leaf)
    size = Dim("batch", min=1)
    opened = [_mapped(_two_rows, arg) if i in places else arg for i, arg in enumerate(args)]
    return tuple(opened), tuple(_mapped(lambda _: {0: size}, arg) if i in places else None for i, arg in enumerate(args))


def _shapes_of(args: tuple[Any, ...], dynamic_shapes: Any) -> Any:
    """Return the dynamic shapes for the root's only argument ``*args``; ``None`` fixes a whole tree."""
    if not isinstance(dynamic_shapes, (tuple, list)) or len(dynamic_shapes) != len(args):
        rule = f"dynamic_shapes must be a tuple with an entry for each of the {len(args)} arguments"
        raise value_error("export", rule, describe(dynamic_shapes))
    return (tuple(_fixed(arg) if one is None else one for one, arg in zip(dynamic_shapes, args, strict=True)),)


def _fixed(arg: Tree) -> Tree:
    return _mapped(lambda _: None, arg)


def _two_rows(leaf: Tensor) -> Tensor:
    return leaf if leaf.shape[0] > 1 else torch.cat([leaf, leaf]) if leaf.shape[0] else leaf.new_zeros(2, *leaf.shape[1:])


def _traced(step: Callable[..., Any], args: tuple[Any, ...], shapes: Any) -> ExportedProgram:
    """Trace a step, and trace it again with copies of the arguments that it writes to, as a donated step does."""
    program = _program(step, args, shapes, set())
    written = written_inputs(program)
    numbers = {i for i, name in enumerate(_inputs(program)) if name in written}
    if len(numbers) < len(written):
        raise value_error("export", "step must not write to anything but its arguments", "one that writes to a tensor it holds")
    return _program(step, args, shapes, numbers) if numbers else program


def _inputs(program: ExportedProgram) -> list[str]:
    """Return the names of the leaves of the arguments other than ``None``."""
    specs = [one for one in program.graph_signature.input_specs if one.kind is InputKind.USER_INPUT]
    return [one.arg.name for one in specs if isinstance(one.arg, TensorArgument)]


def _program(step: Callable[..., Any], args: tuple[Any, ...], shapes: Any, copied: set[int]) -> ExportedProgram:
    """Trace a step; if tracing fails, prefer eager mode's error, which is clearer than torch's."""
    try:
        with torch.no_grad():
            return torch.export.export(_Root(step, copied), args, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        failed = error
    try:
        step(*tree.map(torch.clone, args))
        rule = "step must be a pure function of tensors with the given shapes that torch.export can trace"
        raise value_error("export", rule, reason_of(failed)) from failed
    finally:
        del failed  # its traceback refers to this frame


def _require_builtin(program: ExportedProgram) -> None:
    """Reject results in containers that another process lacks, such as named tuples."""
    specs = [program.call_spec.out_spec]
    for spec in specs:
        if spec is not None and not spec.is_leaf() and spec.type not in _NODES:
            raise value_error("export", "step must return a tree of dicts, tuples and lists", f"a {spec.type.__name__} in it")
        specs += [] if spec is None else spec.children()


def _write(program: ExportedProgram, path: Path, compiled: bool) -> None:
    if compiled:
        options = step_options([node.meta.get("val") for node in program.graph.nodes], [])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec", FutureWarning)  # torch uses it itself
            torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(path), inductor_configs=options)
        return
    with written_whole("export", path) as file:
        torch.export.save(program, file)


def _require_package(path: Any, compiled: bool) -> Path | None:
    if not isinstance(compiled, bool):
        raise value_error("export", "compiled must be True or False", describe(compiled))
    if path is None:
        if compiled:
            raise value_error("export", "compiled=True needs a path, where the package is written", "path=None")
        return None
    found = require_new_file("export", path)
    if found.suffix != ".pt2":
        raise value_error("export", "path must end in .pt2, as torch's loaders require", repr(os.fspath(path)))
    return found


def export(
    step: Callable[..., Any],
    args: tuple[Any, ...],
    path: str | os.PathLike[str] | None = None,
    *,
    batch: Sequence[int | str] = (),
    dynamic_shapes: Any = None,
    compiled: bool = False,
) -> ExportedProgram:
    """Export a pure function as a torch program, which runs without funcnet.

    Any function of trees of tensors can be exported: a net, ``net.inference()``, ``value_and_grads``, a whole ``train_step``. All
    its inputs are arguments: params and state go in and come out at each call, and a key determines the dropout masks. The trees
    remain dicts, tuples and lists. The program does not write to its arguments: a donated step is exported without donation.

    Another process runs the program with torch only::

        step = torch.export.load("step.pt2").module()                    # or, for a package with compiled=True:
        step = torch._inductor.aoti_load_package("step.pt2")
        params, state, value = step(params, state, x, target, key)       # a key is torch.tensor(3), a 0-d int64 tensor

    The program uses the same formulas as ``compile``. It differs from the eager step only by rounding, because optimizers use
    fused kernels in eager mode. Repeated calls return equal bits. An int seed ``rng`` is first converted to a key.

    Args:
        step: The function. A tensor that the function reads without receiving it becomes a constant of the program.
        args: Example arguments: trees of tensors and ``None``. They determine structure, dtypes and shapes; values are not read.
        path: File to write, whose name ends in ``.pt2``; ``None`` writes nothing.
        batch: Names or numbers of the arguments whose first axis is the batch, such as ``("x", "target")``; the program accepts
            any batch size for them. By default all shapes are fixed.
        dynamic_shapes: Other axes of variable size, as in ``torch.export.export``: a tuple with an entry for each argument.
        compiled: Whether to compile the program with AOTInductor and to write a package of machine code, for this kind of
            machine, instead of the program. Compiled code expects tensors with the strides of the examples.

    Returns:
        The program, as ``torch.export.export`` returns it.

    Raises:
        ValueError: If the step branches on values, as with ``LBFGS``, or holds tensors, such as a learning rate; if arguments
            contain numbers, which would become constants of the program; if results are not trees of dicts, tuples and lists; if
            torch cannot trace the step, with its reason.

    >>> import funcnet as fn
    >>> net, opt = fn.Linear(3, 2), fn.Adam(0.1)
    >>> params, x, target = net.init(0), torch.ones(4, 3), torch.zeros(4, 2)
    >>> args = (params, opt.init(params), x, target)
    >>> program = fn.export(fn.train_step(net, fn.MSE(), opt), args, batch=("x", "target"))
    >>> params, state, value = program.module()(*args[:2], x[:3], target[:3])
    >>> params["weight"].shape, state["step"]
    (torch.Size([2, 3]), tensor(1))
    """
    found = _require_package(path, compiled)
    _require_step(step)
    names = _parameters(step)
    args = _with_key(names, args)
    _require_args(args)
    places = _places(names, args, batch)
    if places and dynamic_shapes is not None:
        raise value_error("export", "batch and dynamic_shapes both say which sizes vary: pass only one", "both")
    if places:
        args, dynamic_shapes = _with_open_batch(args, places)
    shapes = None if dynamic_shapes is None else _shapes_of(args, dynamic_shapes)
    program = _traced(step, _mapped(Tensor.detach, args), shapes)  # detaching makes one tensor in two places two tensors
    _require_builtin(program)
    if found is not None:
        _write(program, found, compiled)
    return program
