"""Combinators as containers: serials, branches, graphs and blocks of native modules, and frozen or tied layers."""

from typing import Any

from torch import Tensor, nn

from funcnet.blocks.encoder_decoder import EncoderDecoder
from funcnet.blocks.transformer_block import TransformerBlock
from funcnet.blocks.transformer_stacks import TransformerStack
from funcnet.combinators.branching import Branching
from funcnet.combinators.constants import SerialWithConstants
from funcnet.combinators.dag import Graph
from funcnet.combinators.freezing import Frozen
from funcnet.combinators.modes import ByMode
from funcnet.combinators.sequential import Serial
from funcnet.combinators.sharing import Tied
from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.interop.torch_nn.exporting.modules import (
    BranchModule,
    Chain,
    ChainWithConstants,
    GraphModule,
    ModeModule,
    WiredModule,
    accepts_one_argument,
    place,
)
from funcnet.interop.torch_nn.exporting.registry import Convert, container
from funcnet.interop.torch_nn.exporting.ties import tied_module, with_ties
from funcnet.layers.shape.sources import Parameter

Held = dict[str, nn.Module | Tensor]


def _held(net: Any, params: Params, convert: Convert) -> Held:
    """Convert the layers of a net with their entries of params; a ``Parameter`` becomes a parameter or a buffer."""
    entries = net.entries(params)
    return dict(zip(net.children(), net.each(lambda i, layer: _converted(layer, entries[i], convert)), strict=True))


def _converted(layer: Any, entry: Params, convert: Convert) -> nn.Module | Tensor:
    one = layer.layer if isinstance(layer, Frozen) else layer
    if not isinstance(one, Parameter):
        return convert(layer, entry)
    if not isinstance(entry, Tensor) or entry.shape != one.shape:
        raise value_error(one, f"params must be one tensor of shape {one.shape}", describe(entry))
    leaf = entry.detach().clone()
    return nn.Parameter(leaf, requires_grad=one is layer) if one.trainable and leaf.is_floating_point() else leaf


def _modules(net: Any, params: Params, convert: Convert) -> dict[str, nn.Module] | None:
    """Convert the layers of a net; return ``None`` if the params of one are a tensor."""
    held = _held(net, params, convert)
    return None if any(isinstance(one, Tensor) for one in held.values()) else held  # type: ignore[return-value]


@container(Serial, TransformerStack)
def _series(net: Serial, params: Params, convert: Convert) -> nn.Module | None:
    modules = _modules(net, params, convert)
    if modules is None:
        return None
    is_plain = all(map(accepts_one_argument, modules.values())) and not any(hasattr(nn.Sequential(), name) for name in modules)
    return _chained(nn.Sequential() if is_plain else Chain(), modules)


@container(SerialWithConstants)
def _with_constants(net: SerialWithConstants, params: Params, convert: Convert) -> nn.Module | None:
    modules = _modules(net, params, convert)
    return None if modules is None else _chained(ChainWithConstants(), modules)


def _chained(chain: nn.Module, modules: dict[str, nn.Module]) -> nn.Module:
    for name, module in modules.items():
        place(chain, name, module)
    return chain


@container(Branching)
def _branches(net: Branching, params: Params, convert: Convert) -> nn.Module | None:
    modules = _modules(net, params, convert)
    return None if modules is None else BranchModule(net, modules)


@container(Graph)
def _graph(net: Graph, params: Params, convert: Convert) -> nn.Module:
    return GraphModule(net, _held(net, params, convert))


@container(ByMode)
def _by_mode(net: ByMode, params: Params, convert: Convert) -> nn.Module | None:
    """Convert two graphs; other layers with params are wrapped."""
    graphs: Any = net.layer, net.evaluation
    if any(type(graph) is not Graph for graph in graphs) or graphs[0].children().keys() != graphs[1].children().keys():
        return None
    layers, entries = graphs[0].children(), dict(zip(graphs[1].children(), graphs[1].entries(params), strict=True))
    others = {name: layer for name, layer in graphs[1].children().items() if layer != layers[name]}
    if any(entries[name] != {} for name in others):
        return None
    made = {name: convert(layer, {}) for name, layer in others.items()}
    return ModeModule(graphs[0], _held(graphs[0], params, convert), graphs[1], made)


@container(TransformerBlock, EncoderDecoder)
def _block(net: Any, params: Params, convert: Convert) -> nn.Module | None:
    modules = _modules(net, params, convert)
    return None if modules is None else WiredModule(net, modules)


@container(Frozen)
def _frozen(net: Frozen, params: Params, convert: Convert) -> nn.Module:
    return convert(net.layer, params).requires_grad_(False)


@container(Tied)
def _tied(net: Tied, params: Params, convert: Convert) -> nn.Module | None:
    full = with_ties(params, net.groups)
    return tied_module(convert(net.layer, full), full, net.groups)
