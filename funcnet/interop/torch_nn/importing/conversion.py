<<<<<<< HEAD
"""``from_torch``: a module of torch.nn as a net and its params."""

import copy
from typing import Any

from torch import Tensor, nn

from funcnet import tree
from funcnet.combinators.sharing import tied
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.interop.torch_nn.importing.modules import Importer, PlacedError

_LONGEST = 300


def from_torch(module: nn.Module) -> tuple[Layer, Params]:
    """Convert a module of torch.nn, or of classes that use it, to a net and its params.

        y = module(x) in training    = net(params, x)
        y = module(x) in evaluation  = net.inference()(params, x)

    Layers of torch.nn become those of funcnet with the same name, ``nn.Sequential`` becomes ``serial``, and the forward of any
    other class is traced by ``torch.fx``: it becomes a ``serial`` with names, or a ``graph`` with a node for each module and
    each function. A forward that asks ``self.training`` gives a ``by_mode`` of two graphs. A module that is called twice is one
    layer, with one set of params.

    The forward may not branch on the values of tensors, nor on their number of axes; sizes may be computed with.

    Args:
        module: The module, in any mode. It stays as it was, and its tensors are copied.

    Returns:
        The net and its params. Their paths are the keys of the module's ``state_dict``; a tensor with several keys has the
        first, and the net is ``tied``. Layers whose parameters require no gradient are frozen, by ``freeze``.

        The net takes the arguments of ``forward`` that have no default; several are a tuple. Masks are funcnet's, True for
        what may be seen: in attention and Transformers, and wherever an input is used as a mask only.

    Raises:
        ValueError: If a module or a function has no counterpart, or a forward cannot be traced. It names the class, the path
            and the function.
        TypeError: If ``module`` is not a module.

    >>> import torch
    >>> from torch import nn
    >>> net, params = from_torch(nn.Sequential(nn.Linear(2, 25), nn.Tanh(), nn.Linear(25, 1)))
    >>> net
    serial(Linear(in_features=2, out_features=25), Tanh(), Linear(in_features=25, out_features=1))
    >>> list(tree.names(params))
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    if not isinstance(module, nn.Module):
        raise TypeError(str(value_error("from_torch", "module must be a torch.nn.Module", describe(module))))
    own = _with_same_tensors(module)
    try:
        imported = Importer(own).convert(own, "")
    except PlacedError as error:
        raise _refusal(error) from error
    return _tied(imported.layer, imported.params, module.state_dict(keep_vars=True))


def _with_same_tensors(module: nn.Module) -> nn.Module:
    """Copy a module, but for its tensors: tracing may write to its attributes."""
    held = [*module.parameters(), *module.buffers()]
    held += [one for part in module.modules() for one in vars(part).values() if isinstance(one, Tensor)]
    try:
        return copy.deepcopy(module, {id(tensor): tensor for tensor in held})
    except Exception as error:
        raise value_error(
            "from_torch", "module must be one that copy.deepcopy copies", f"{type(error).__name__}: {error}"
        ) from error


def _refusal(error: PlacedError) -> ValueError:
    where = f"{type(error.module).__name__} at {error.path!r}" if error.path else type(error.module).__name__
    said = str(error)
    return value_error("from_torch", f"{where} cannot be converted", said if len(said) <= _LONGEST else said[:_LONGEST] + "...")


def _tied(net: Layer, params: Params, state: dict[str, Any]) -> tuple[Layer, Params]:
    """Tie what is one tensor in the module, and copy the params."""
    names = {*tree.names(params)}
    places: dict[int, list[str]] = {}
    for path, tensor in state.items():
        places.setdefault(id(tensor), []).append(path)
    groups = [tuple([path for path in paths if path in names]) for paths in places.values()]
    if not names <= state.keys() or not all(groups):
        found = {*names} ^ {paths[0] for paths in places.values()}
        raise value_error("from_torch", "the params must have the keys of the state dict", f"other ones: {sorted(found)[:5]}")
    groups = [group for group in groups if len(group) > 1]
    for _, *others in groups:
        for path in others:
            params = tree.replace(params, path, None)
    return tied(net, *groups) if groups else net, tree.map(Tensor.clone, params)
=======
"""What the converters of layers share: a module's tensors, its options, and the layer made from them.

A converter usually says which attributes of the module are the arguments of which layer: ``same(nn.ELU, ELU, "alpha")``.
"""

from typing import Any, TypeVar

from torch import nn

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.registry import Converted, layer
from funcnet.interop.torch_nn.importing.values import UnsupportedError

L = TypeVar("L", bound=Layer)


def tensors(module: nn.Module) -> Params:
    """Return the module's ``state_dict`` as a tree of detached tensors, which share its memory."""
    return tree.from_names(dict(module.state_dict())) if module.state_dict() else {}


def compact(option: Any) -> Any:
    """Return an option as it is usually written: (3, 3) as 3, and a list as a tuple."""
    if not isinstance(option, (list, tuple)):
        return option
    return option[0] if len({*option}) == 1 else tuple(option)


def made(target: type[L], module: nn.Module, **options: Any) -> tuple[L, Params]:
    """Return ``target(**options)`` with the module's tensors; raise ``UnsupportedError`` for options or tensors it lacks."""
    try:
        converted = target(**options)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    params = tensors(module)
    require_shapes(converted, params)
    return converted, params


def require_shapes(converted: Layer, params: Params) -> None:
    """Raise ``UnsupportedError`` unless params have the names and shapes that the layer's must have."""
    wanted, found = converted.param_shapes() or {}, {name: tuple(leaf.shape) for name, leaf in tree.names(params).items()}
    differ = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    if differ:
        name, who = differ[0], type(converted).__name__
        rule = f"have the shape {wanted[name]}" if name in wanted else "be missing"
        raise UnsupportedError(f"{name} must {rule} for {who}, got {found.get(name, 'none')}")


def same(source: type[nn.Module], target: type[Layer], *names: str, **renamed: str) -> None:
    """Register a converter for a module whose attributes are the layer's arguments.

    Args:
        source: The class of the module.
        target: The class of the layer.
        names: Attributes that are arguments with the same name.
        renamed: For other arguments, the names of the attributes.
    """
    arguments = {**dict.fromkeys(names), **renamed}
    pairs = [(ours, theirs or ours) for ours, theirs in arguments.items()]

    @layer(source)
    def convert(module: Any) -> Converted:
        return made(target, module, **{ours: compact(getattr(module, theirs)) for ours, theirs in pairs})


def require_default(module: nn.Module, why: str, **defaults: Any) -> None:
    """Raise ``UnsupportedError`` where an option has another value than its default: the layer has no such option.

    Args:
        module: The module.
        why: What the layer does instead.
        defaults: The values that the attributes must have.
    """
    for name, default in defaults.items():
        got = getattr(module, name)
        if got != default:
            raise UnsupportedError(f"{name}={got!r} has no counterpart: {why}")
>>>>>>> i16-layers
