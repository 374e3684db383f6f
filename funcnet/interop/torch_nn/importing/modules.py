"""Modules as layers: converted by class for torch.nn's classes, else by tracing the forward."""

import inspect
from typing import Any

from attrs import define, evolve
from attrs import field as attribute
from torch import fx, nn

from funcnet.combinator import has_params
from funcnet.combinators.freezing import freeze
from funcnet.flattening import join
from funcnet.interop.torch_nn.importing.building import Builder, Imported, without_absent
from funcnet.interop.torch_nn.importing.functions.promotion import numbers_of
from funcnet.interop.torch_nn.importing.held import hold_the_rest
from funcnet.interop.torch_nn.importing.interpretation import interpret
from funcnet.interop.torch_nn.importing.layers import call_of, converter_of
from funcnet.interop.torch_nn.importing.modes import in_both_modes, kept_in_evaluation
from funcnet.interop.torch_nn.importing.registry import Converted
from funcnet.interop.torch_nn.importing.shapes import holds
from funcnet.interop.torch_nn.importing.tracing import Tracer, required_inputs, trace
from funcnet.interop.torch_nn.importing.values import (
    Arithmetic,
    Axes,
    InlineError,
    Node,
    Numbers,
    Ones,
    Ref,
    Shape,
    Size,
    UnsupportedError,
    show_whole,
)
from funcnet.interop.torch_nn.importing.writing import LostWriteError, Writes, writes_first

Constants = dict[str, Any]
_TENSORS, _SIZES = (Ref, Node), (Size, Shape, Ones, Axes, Arithmetic)


class PlacedError(UnsupportedError):
    """A reason with the module, for its class, and its path."""

    def __init__(self, module: nn.Module, path: str, reason: str) -> None:
        super().__init__(reason)
        self.module, self.path = module, path


@define(eq=False)
class Importer:
    """Converts modules, once per way of calling them."""

    root: nn.Module
    _known: dict[Any, Imported] = attribute(factory=dict)
    _writers: set[int] = attribute(factory=set)
    _kept: set[int] = attribute(init=False)

    def __attrs_post_init__(self) -> None:
        self._kept = kept_in_evaluation(self.root)

    def convert(self, module: nn.Module, path: str, numbers: tuple[Numbers, ...] = ()) -> Imported:
        """Convert a module with one input, or the inputs that its forward requires; ``numbers`` are their kinds of numbers."""
        if converter_of(module) or _is_sequential(module):
            return self._of(module, path, ("x",), (None,), {}, numbers[:1] or (None,))
        try:
            names = required_inputs(module)
        except UnsupportedError as error:
            raise PlacedError(module, path, str(error)) from error
        missing = (None,) * len(names)
        return self._of(module, path, names, missing, {}, (*numbers, *missing)[: len(names)])

    def call(self, builder: Builder, owner: str, module: nn.Module, name: str, args: Any, kwargs: Any) -> Any:
        """Add a call of a module to a builder, and return the value; ``owner`` is the path of the calling module."""
        path = join(owner, name)
        if not converter_of(module):
            return self._add(builder, module, name, self._traced_call(module, path, name, args, kwargs))
        imported = self._of(module, path, ("x",), (None,), {}, (None,))
        convert = call_of(module)
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            show_whole(*args[:2], *[kwargs[key] for key in ("input", "offsets") if key in kwargs])
        try:
            node = (convert or _call_with_one)(module, imported.layer, imported.params, *args, **kwargs)
        except (UnsupportedError, TypeError) as error:
            raise PlacedError(module, path, str(error)) from error
        return self._add(builder, module, name, node)

    def _traced_call(self, module: nn.Module, path: str, name: str, args: Any, kwargs: Any) -> Node:
        if _is_sequential(module):
            given = {"input": args[0]} if len(args) == 1 and not kwargs else {}
        else:
            try:
                given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            except TypeError as error:
                raise PlacedError(module, path, str(error)) from error
        tensors = {key: value for key, value in given.items() if isinstance(value, _TENSORS)}
        constants = {key: value for key, value in given.items() if key not in tensors}
        if not tensors or holds(constants, (*_TENSORS, *_SIZES)):
            raise InlineError(name, UnsupportedError("its arguments must be tensors or constants"))
        try:
            parts, numbers = zip(*[(one.parts, one.numbers) for one in tensors.values()], strict=True)
            imported = self._of(module, path, tuple(tensors), parts, constants, numbers)
        except PlacedError as error:
            raise InlineError(name, error) from error
        return Node(imported.layer, tuple(tensors.values()), imported.params, imported.parts, numbers=imported.numbers)

    def _add(self, builder: Builder, module: nn.Module, name: str, value: Any) -> Any:
        """Add the result of a call: the node with the module's params, under the module's name, or its reuse in a second call."""
        main = _with_params(value) or value
        if isinstance(main, Node):
            self._add_main(builder, module, name, main)
        return builder.bound(value, f"{name.replace('.', '_')}_output")

    def _add_main(self, builder: Builder, module: nn.Module, name: str, main: Node) -> None:
        before = builder.modules.get(id(module))
        if before is None or not has_params(main.params):
            builder.add(main, name, exact=before is None)
            builder.modules[id(module)] = (name, main.layer)
        elif before[1] == main.layer:
            builder.link(main, builder.reuse(main, before[0], name))
        else:
            raise InlineError(name, UnsupportedError("its two calls need two layers with the same params"))

    def _of(self, module: nn.Module, path: str, names: Any, parts: Any, constants: Constants, numbers: Any) -> Imported:
        key = (id(module), names, parts, repr(constants), numbers)
        if key not in self._known:
            inputs = {name: Ref(name, *rest) for name, *rest in zip(names, parts, (None,) * len(names), numbers, strict=True)}
            self._known[key] = self._frozen(module, path, self._imported(module, path, inputs, constants))
        return self._known[key]

    def _imported(self, module: nn.Module, path: str, inputs: dict[str, Ref], constants: Constants) -> Imported:
        try:
            _require_plain(module)
            convert = converter_of(module)
            if convert is not None:
                return Imported(*convert(module, lambda child, name: self._pair(child, join(path, name))))
            if _is_sequential(module):
                return self._sequential(module, path, *inputs.values())
            return in_both_modes(module, lambda: self._traced(module, path, inputs, constants), self._kept)
        except PlacedError:
            raise
        except UnsupportedError as error:
            raise PlacedError(module, path, str(error)) from error
        except (ValueError, TypeError, LookupError, RuntimeError) as error:  # a layer or a graph refuses its arguments
            raise PlacedError(module, path, f"{type(error).__name__}: {error}") from error

    def _pair(self, module: nn.Module, path: str) -> Converted:
        imported = self.convert(module, path)
        return imported.layer, imported.params

    def _frozen(self, module: nn.Module, path: str, imported: Imported) -> Imported:
        """Freeze a layer if none of its params requires a gradient; a layer of torch.nn must be frozen as a whole.

        A layer that ``train`` leaves in evaluation mode is replaced with its inference form.
        """
        if id(module) in self._kept and converter_of(module):
            imported = evolve(imported, layer=imported.layer.inference())
        flags = {one.requires_grad for one in module.parameters()}
        if flags == {False} and imported.layer.trainable:
            return Imported(freeze(imported.layer), imported.params, imported.parts, imported.numbers)
        if flags == {False, True} and converter_of(module) and not [*module.children()]:
            raise PlacedError(module, path, "its parameters must all require a gradient, or none: a layer is frozen whole")
        return imported

    def _sequential(self, module: nn.Module, path: str, x: Ref) -> Imported:
        builder = Builder((x.name,), set())
        value: Any = x
        for name, child in _children(module):
            try:
                value = self.call(builder, path, child, name, (value,), {})
            except InlineError as error:
                raise error.__cause__ or PlacedError(child, join(path, name), str(error)) from None
        builder.outputs = builder.output(value)
        builder.prune()
        if writes_first([child for _, child in _children(module)], self._is_writer):
            self._writers.add(id(module))
        return builder.finish()

    def _traced(self, module: nn.Module, path: str, inputs: dict[str, Ref], constants: Constants) -> Builder:
        """Return the nodes of a forward; a module that cannot be one node is traced inline."""
        inlined: dict[str, UnsupportedError] = {}
        while True:
            try:
                return self._nodes(module, path, inputs, constants, inlined)
            except InlineError as error:
                if error.path in inlined:
                    raise inlined[error.path] from error
                inlined[error.path] = error.__cause__ if isinstance(error.__cause__, PlacedError) else error
            except UnsupportedError as error:
                placed = [one for one in inlined.values() if isinstance(one, PlacedError)]
                raise (placed[0] if placed else error) from error

    def _nodes(self, module: nn.Module, path: str, inputs: Any, constants: Constants, inlined: Any) -> Builder:
        names = tuple(inputs)
        graph = trace(module, names, constants, Tracer(_is_known, inlined))
        self._follow_writes(module, graph)
        taken = {name.partition(".")[0] for name in [*module.state_dict(), *dict(module.named_modules())]}
        refs = {name: evolve(one, name=_unlike(name, taken | inputs.keys() - {name})) for name, one in inputs.items()}
        builder = Builder(tuple([ref.name for ref in refs.values()]), taken)
        value = interpret(graph, module, refs, builder, lambda *given: self.call(builder, path, *given))
        value = without_absent(value) if module is self.root else value
        self._follow_writes(module, graph)  # by now it is known which called modules write to their inputs
        builder.outputs = builder.output(value)
        builder.prune()
        hold_the_rest(module, builder, lambda child, name: self._pair(child, join(path, name)))
        return builder

    def _follow_writes(self, module: nn.Module, graph: fx.Graph) -> None:
        """Redirect reads after a write to its result; a module that writes to a tensor that is read later is traced inline."""
        try:
            if Writes(module, self._is_writer).follow(graph):
                self._writers.add(id(module))
        except LostWriteError as error:
            if error.node.op != "call_module" or not self._is_writer(module.get_submodule(str(error.node.target))):
                raise
            raise InlineError(str(error.node.target), error) from error

    def _is_writer(self, module: nn.Module) -> bool:
        return id(module) in self._writers


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _unlike(name: str, taken: set[str]) -> str:
    """Return an unused name for an input; modules and parameters keep theirs."""
    while name in taken:
        name += "_"
    return name


def _is_known(module: nn.Module) -> bool:
    return converter_of(module) is not None


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _with_params(value: Any) -> Node | None:
    """Return the node with params among a value, its entries, and their inputs."""
    if isinstance(value, Node) and has_params(value.params):
        return value
    inner = value.inputs if isinstance(value, Node) else value if isinstance(value, tuple) else ()
    return next((found for found in map(_with_params, inner) if found is not None), None)


def _call_with_one(module: nn.Module, layer: Any, params: Any, *args: Any, **kwargs: Any) -> Node:
    """Call a module of one tensor."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    more = {name: value for name, value in [*given.items()][1:] if value is not None}
    if more:
        raise UnsupportedError(f"it must be called with one tensor, got {', '.join(more)} too")
    (x,) = [*given.values()][:1]
    if not isinstance(x, _TENSORS):
        raise UnsupportedError("it must be called with a tensor")
    return Node(layer, (x,), params, numbers=numbers_of(layer, (x,)))


def _require_plain(module: nn.Module) -> None:
    """Raise ``UnsupportedError`` for hooks, which run code outside the forward, and for unknown sizes."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = [name for name in hooks if getattr(module, name, None)]
    if found:
        raise UnsupportedError(f"it has hooks ({', '.join(name.strip('_') for name in found)}), which a layer cannot have")
    if any(nn.parameter.is_lazy(one) for one in [*module.parameters(recurse=False), *module.buffers(recurse=False)]):
        raise UnsupportedError("its sizes are unknown before the first batch: call it once")
