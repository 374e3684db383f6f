"""Modules of ``to_torch`` and ``as_module`` that are not from torch.nn, converted back to their layers."""

from typing import Any

from torch import Tensor, nn

from funcnet.combinators.branching import Branching
from funcnet.combinators.constants import serial_with_constants
from funcnet.combinators.dag import Graph
from funcnet.combinators.modes import by_mode
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer
from funcnet.interop.torch_nn.autograd.modules import NetModule
from funcnet.interop.torch_nn.exporting.embedding import Bags, PaddedEmbedding
from funcnet.interop.torch_nn.exporting.modules import (
    Applied,
    BranchModule,
    Chain,
    ChainWithConstants,
    Container,
    Detached,
    GraphModule,
    ModeModule,
    WiredModule,
    held_at,
)
from funcnet.interop.torch_nn.exporting.noise import Dropout2dModule
from funcnet.interop.torch_nn.exporting.norm import BY_RUNNING_STATS
from funcnet.interop.torch_nn.exporting.recurrent import GRUModule, LSTMModule, RNNModule
from funcnet.interop.torch_nn.importing.conversion import made, tensors
from funcnet.interop.torch_nn.importing.recurrent import call_lstm, call_recurrent
from funcnet.interop.torch_nn.importing.registry import Convert, Converted, call, container, layer
from funcnet.interop.torch_nn.importing.values import Node, Parts
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.embedding.embedding_bag import EmbeddingBag
from funcnet.layers.noise.dropout import Dropout2d
from funcnet.layers.recurrent.nets import GRU, LSTM, RNN
from funcnet.layers.shape.reshaping import Identity
from funcnet.wrapper import Wrapper

Pairs = dict[str, Converted]

_TENSOR = Identity()
_RECURRENT: dict[type, Parts] = {RNN: (None, None), GRU: (None, None), LSTM: (None, (None, None))}

call(RNNModule, GRUModule)(call_recurrent)
call(LSTMModule)(call_lstm)


def _pairs(module: nn.Module, convert: Convert) -> Pairs:
    return {name: convert(child, name) for name, child in module._modules.items() if child is not None}


def _halves(pairs: Pairs) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple([one for one, _ in pairs.values()]), tuple([params for _, params in pairs.values()])


@container(Chain)
def convert_chain(module: Chain, convert: Convert) -> Converted:
    """Convert to ``serial``, with the names of the modules unless they are numbers."""
    pairs = _pairs(module, convert)
    layers, params = _halves(pairs)
    if [*pairs] == [*map(str, range(len(pairs)))]:
        return Serial(layers), params
    return Serial(layers, tuple(pairs)), dict(zip(pairs, params, strict=True))


@container(ChainWithConstants)
def convert_chain_with_constants(module: ChainWithConstants, convert: Convert) -> Converted:
    """Convert to ``serial_with_constants``."""
    layers, params = _halves(_pairs(module, convert))
    return serial_with_constants(*layers), params


@container(BranchModule, WiredModule, GraphModule)
def convert_container(module: Container, convert: Convert) -> Converted:
    """Convert to the net, with the layers converted from its modules."""
    pairs: dict[str, tuple[Layer, Any]] = {}
    for path, one in module.net.children().items():
        held = held_at(module, path)
        pairs[path] = (one, held.detach()) if isinstance(held, Tensor) else convert(held, path)
    layers, params = _halves(pairs)
    net = module.net.with_children(dict(zip(pairs, layers, strict=True)))
    return net, net.pack(params)


@container(ModeModule)
def convert_modes(module: ModeModule, convert: Convert) -> Converted:
    """Convert to ``by_mode``."""
    net, params = convert_container(module, convert)
    layers: Any = {**module.evaluation.children(), **net.children()}  # type: ignore[attr-defined]
    own = {name: one for name, one in module.evaluation.children().items() if name in module.others}
    return by_mode(net, module.evaluation.with_children(layers | own)), params


@layer(Applied, Detached, RNNModule, LSTMModule, GRUModule)
def convert_applied(module: Any) -> Converted:
    """Return the layer that the module holds."""
    return module.layer, tensors(module)


@layer(*BY_RUNNING_STATS.values())
def convert_running(module: Any) -> Converted:
    """Convert to the norm for evaluation."""
    kind: Any = next(one for one, its_module in BY_RUNNING_STATS.items() if its_module is type(module))
    options = {"num_features": module.num_features, "eps": module.eps, "affine": module.affine}
    return made(kind, module, **options, bias=module.bias is not None or not module.affine)


@layer(PaddedEmbedding)
def convert_padded_embedding(module: PaddedEmbedding) -> Converted:
    """Convert to ``Embedding``."""
    options = {"num_embeddings": module.num_embeddings, "embedding_dim": module.embedding_dim}
    return made(Embedding, module, **options, padding_idx=module.padding_idx)


@layer(Bags)
def convert_bags(module: Bags) -> Converted:
    """Convert to ``EmbeddingBag``."""
    options = {"num_embeddings": module.num_embeddings, "embedding_dim": module.embedding_dim}
    return made(EmbeddingBag, module, **options, mode=module.mode, padding_idx=module.padding_idx)


@layer(Dropout2dModule)
def convert_dropout2d(module: Dropout2dModule) -> Converted:
    """Convert to ``Dropout2d``."""
    return Dropout2d(module.p), {}


@layer(NetModule)
def convert_net_module(module: NetModule) -> Converted:
    """Return the net of ``as_module``, and its params."""
    return module._net, module.params()


@call(Applied, Detached, BranchModule, WiredModule, GraphModule, ModeModule, Chain, ChainWithConstants, Bags, NetModule)
def call_with_inputs(module: nn.Module, converted: Any, params: Any, *xs: Any) -> Node:
    """Call a module with its inputs as separate arguments."""
    return Node(converted, xs, params, parts_of(converted))


def parts_of(converted: Layer) -> Parts:
    """Return the structure of a layer's output, if its class determines it."""
    if isinstance(converted, Wrapper):
        return parts_of(converted.layer)
    if isinstance(converted, Serial) and converted.layers:
        return parts_of(converted.layers[-1])
    if isinstance(converted, Branching):
        return tuple(map(parts_of, converted.layers)) if converted.merge is None else parts_of(converted.merge)
    if isinstance(converted, Graph):
        parts = [parts_of(converted.children().get(name, _TENSOR)) for name in converted.outputs]
        keys = converted.output_keys
        return dict(zip(keys, parts, strict=True)) if keys else parts[0] if len(parts) == 1 else tuple(parts)
    return _RECURRENT.get(type(converted))
