"""``from_torch``: convert a torch.nn module to a net and its params."""

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.combinators.dag import Graph
from funcnet.combinators.sharing import tied
from funcnet.combinators.wiring import in_order
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.flattening import join
from funcnet.interop.torch_nn.importing.building import Imported
from funcnet.interop.torch_nn.importing.modules import Importer, PlacedError
from funcnet.interop.torch_nn.importing.unused_weights import without_unused_weights
from funcnet.interop.torch_nn.importing.values import PRECISION, Undecided
from funcnet.interop.torch_nn.importing.visible import with_visible_masks
from funcnet.wrapper import Wrapper

_LONGEST = 300


def from_torch(module: nn.Module) -> tuple[Layer, Params]:
    """Convert a torch.nn module to a net and its params.

        net(params, x)             = module(x) in training mode
        net.inference()(params, x) = module(x) in evaluation mode

    Layers of torch.nn become the funcnet layers of the same name, and ``nn.Sequential`` becomes ``serial``. The forward of any
    other class is traced with ``torch.fx``: it becomes a named ``serial``, or a ``graph`` with a node for each module and
    function. A forward that reads ``self.training`` becomes a ``by_mode`` of two graphs. A module that is called twice becomes
    one layer with one set of params.

    The forward can compute with sizes, but must not branch on the values of tensors or on their number of axes. Random numbers
    keep their distributions but come from the key, in evaluation too if the module uses them there. Activation checkpoints become
    plain calls; use ``remat`` instead.

    Args:
        module: The module, in any mode. It is not modified, and its tensors are copied.

    Returns:
        The net and its params. Their paths are the keys of the module's ``state_dict``; a tensor with several keys keeps the
        first, and the net is ``tied``. Layers whose parameters do not require gradients are frozen with ``freeze``.

        The net's input consists of the arguments of ``forward`` without a default, as a tuple if there are several. ``None``
        outputs, such as a loss without targets, are omitted. Masks follow funcnet's convention, ``True`` where attention is
        allowed, in attention and Transformers and wherever an input is used only as a mask.

    Raises:
        ValueError: If a module or a function has no counterpart, or a forward cannot be traced; the error names the class, the
            path and the function.
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
        imported = _imported(own)
    except PlacedError as error:
        raise _refusal(error) from error
    return _tied(without_unused_weights(with_visible_masks(imported.layer)), imported.params, _state(module))


def _imported(module: nn.Module) -> Imported:
    """Convert a module, and convert it again if the use of its inputs shows that they hold whole numbers."""
    floating = (one.dtype for one in module.state_dict().values() if one.is_floating_point())
    token = PRECISION.set(next(floating, None))
    try:
        inputs = tuple([Undecided() for _ in inspect.signature(module.forward).parameters])
        imported = Importer(module).convert(module, "", inputs)
        return Importer(module).convert(module, "", inputs) if any(one.are_whole for one in inputs) else imported
    except PlacedError:
        if not any(one.are_whole for one in inputs):
            raise
        return Importer(module).convert(module, "", inputs)
    finally:
        PRECISION.reset(token)


def _with_same_tensors(module: nn.Module) -> nn.Module:
    """Copy a module but share its tensors, because tracing can write to attributes."""
    held = [*module.parameters(), *module.buffers()]
    held += [one for part in module.modules() for one in vars(part).values() if isinstance(one, Tensor)]
    try:
        return copy.deepcopy(module, {id(tensor): tensor for tensor in held})
    except Exception as error:
        raise value_error(
            "from_torch", "copy.deepcopy must be able to copy module", f"{type(error).__name__}: {error}"
        ) from error


def _refusal(error: PlacedError) -> ValueError:
    where = f"{type(error.module).__name__} at {error.path!r}" if error.path else type(error.module).__name__
    said = str(error)
    return ValueError(f"from_torch: {where} cannot be converted: {said if len(said) <= _LONGEST else said[:_LONGEST] + '...'}")


def _state(module: nn.Module) -> dict[str, Any]:
    """Return the tensors of the state dict, including parameters that a hook has removed from it."""
    state = module.state_dict(keep_vars=True)
    known = {id(tensor) for tensor in state.values()}
    others = module.named_parameters(remove_duplicate=False)
    return state | {path: tensor for path, tensor in others if id(tensor) in known and path not in state}


def _require_one_place(net: Layer, groups: list[tuple[str, ...]]) -> None:
    """Refuse running statistics that several calls would have to update one after another."""
    moving = {*_moving(net, "")}
    for group in groups:
        places = [path for path in group if path.rpartition(".")[0] in moving]
        if len(places) > 1:
            rule = "a module with running statistics must be called by one name"
            raise value_error("from_torch", rule, f"calls of one as {' and '.join(place.rpartition('.')[0] for place in places)}")


def _moving(layer: Layer, path: str) -> Iterator[str]:
    """Yield the paths of layers that update running statistics, except layers that a graph does not evaluate."""
    if not layer.has_running_stats:
        return
    if not isinstance(layer, Combinator):
        yield path
        return
    live = (
        {owner for name, f, _ in in_order(layer.nodes, layer.outputs) for owner in (f if isinstance(f, str) else name,)}
        if isinstance(layer, Graph)
        else layer.children().keys()
    )
    for name, child in layer.children().items():
        if name in live:
            yield from _moving(child, path if isinstance(layer, Wrapper) else join(path, name))


def _tied(net: Layer, params: Params, state: dict[str, Any]) -> tuple[Layer, Params]:
    """Tie the leaves that are the same tensor in the module, and copy the params."""
    names = {*tree.names(params)}
    places: dict[int, list[str]] = {}
    for path, tensor in state.items():
        places.setdefault(id(tensor), []).append(path)
    groups = [tuple([path for path in paths if path in names]) for paths in places.values()]
    if not names <= state.keys() or not all(groups):
        found = {*names} ^ {paths[0] for paths in places.values()}
        raise value_error("from_torch", "the params must have the keys of the state dict", f"others: {sorted(found)[:5]}")
    groups = [group for group in groups if len(group) > 1]
    _require_one_place(net, groups)
    for _, *others in groups:
        for path in others:
            params = tree.replace(params, path, None)
    return tied(net, *groups) if groups else net, tree.map(Tensor.clone, params)
