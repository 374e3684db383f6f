"""Combinators as containers: serials, branches, graphs and blocks of native modules, and layers that are frozen or tied."""

from typing import Any

from torch import nn

from funcnet.blocks.encoder_decoder import EncoderDecoder
from funcnet.blocks.transformer_block import TransformerBlock
from funcnet.blocks.transformer_stacks import TransformerStack
from funcnet.combinators.branching import Branching
from funcnet.combinators.constants import SerialWithConstants
from funcnet.combinators.dag import Graph
from funcnet.combinators.freezing import Frozen
from funcnet.combinators.sequential import Serial
from funcnet.combinators.sharing import Tied
from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.modules import (
    BranchModule,
    Chain,
    ChainWithConstants,
    GraphModule,
    WiredModule,
    place,
    takes_one,
)
from funcnet.interop.torch_nn.exporting.registry import Convert, container
from funcnet.interop.torch_nn.exporting.ties import tied_module, with_ties


def _children(net: Any, params: Params, convert: Convert) -> dict[str, nn.Module]:
    """Convert the layers within a net, with their own entries of params."""
    entries = net.entries(params)
    return dict(zip(net.children(), net.each(lambda i, layer: convert(layer, entries[i])), strict=True))


@container(Serial, TransformerStack)
def _series(net: Serial, params: Params, convert: Convert) -> nn.Module:
    modules = _children(net, params, convert)
    is_plain = all(map(takes_one, modules.values())) and not any(hasattr(nn.Sequential(), name) for name in modules)
    return _chained(nn.Sequential() if is_plain else Chain(), modules)


@container(SerialWithConstants)
def _with_constants(net: SerialWithConstants, params: Params, convert: Convert) -> nn.Module:
    return _chained(ChainWithConstants(), _children(net, params, convert))


def _chained(chain: nn.Module, modules: dict[str, nn.Module]) -> nn.Module:
    for name, module in modules.items():
        place(chain, name, module)
    return chain


@container(Branching)
def _branches(net: Branching, params: Params, convert: Convert) -> nn.Module:
    return BranchModule(net, _children(net, params, convert))


@container(Graph)
def _graph(net: Graph, params: Params, convert: Convert) -> nn.Module:
    return GraphModule(net, _children(net, params, convert))


@container(TransformerBlock, EncoderDecoder)
def _block(net: Any, params: Params, convert: Convert) -> nn.Module:
    return WiredModule(net, _children(net, params, convert))


@container(Frozen)
def _frozen(net: Frozen, params: Params, convert: Convert) -> nn.Module:
    return convert(net.layer, params).requires_grad_(False)


@container(Tied)
def _tied(net: Tied, params: Params, convert: Convert) -> nn.Module | None:
    full = with_ties(params, net.groups)
    return tied_module(convert(net.layer, full), full, net.groups)
