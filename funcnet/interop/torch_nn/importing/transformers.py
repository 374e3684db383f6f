"""torch.nn Transformers as blocks, and calls of them in code.

Masks follow funcnet's convention: True where a query may see a key, or floating, with a shape that broadcasts to (N, heads, L,
S), as returned by ``padding_mask`` and ``causal_mask``. The inputs of a converted net are:

    TransformerEncoderLayer, TransformerEncoder    src or (src, mask)
    TransformerDecoderLayer, TransformerDecoder    (tgt, memory), (tgt, memory, memory_mask) or (tgt, memory, memory_mask, mask)
    Transformer                                    (src, tgt), with src_mask, tgt_mask, memory_mask after it, or the first of them

Sequences have the axes of the module: (N, L, features) with ``batch_first``, else (L, N, features), or (L, features).

A torch.nn decoder is causal only through its ``tgt_mask``, and so is a converted one: pass ``causal_mask(length)`` as ``mask``,
after ``FullMask()({}, mask)`` as ``memory_mask`` if the whole memory is visible.

The blocks of a torch.nn decoder are copies, which replace an activation module with ``F.relu``, and converted blocks use ReLU
too. An activation with parameters, which would never be used, is an error.

In evaluation ``torch.nn.TransformerEncoder`` can pack padded rows (``enable_nested_tensor``), and then returns zeros at padded
positions. A converted encoder returns the same values there as in training; no other position depends on them.
"""

import functools
from typing import Any

from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's name for it)

from funcnet.blocks.encoder_decoder import EncoderDecoder
from funcnet.blocks.transformer_block import TransformerBlock
from funcnet.blocks.transformer_stacks import TransformerStack
from funcnet.combinators.constants import serial_with_constants
from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.masks import Mask, full_mask, joint_mask, up_to_last
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS, Convert, Converted, call, container
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError, require_value
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.activation.self_gated import GELU

_ACTIVATIONS: dict[Any, Layer] = {F.relu: ReLU(), F.gelu: GELU()}
"""torch.nn's functions for the names "relu" and "gelu"."""

_SEQUENCES, _KINDS = ("src", "tgt", "memory"), ("mask", "key_padding_mask", "is_causal")

_MASKS = [f"{name}_{kind}" for kind in _KINDS for name in _SEQUENCES]
"""The arguments of a ``Transformer`` after source and target, in order."""

_OPTIONAL = ("dropout", "dropout1", "dropout2", "dropout3")


@container(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
def convert_block(module: Any, convert: Convert) -> Converted:
    """Convert to ``TransformerBlock``; dropout with p = 0 is omitted."""
    inner = {name: child for name, child in module.named_children() if not _is_idle(name, child)}
    own, shown = inner.pop("activation", None), module.activation
    if own is not shown and own is not None and [*own.parameters()]:
        raise UnsupportedError(f"it computes {shown.__name__}, as copies of a decoder layer do, and not its activation {own}")
    children = {name: convert(child, name) for name, child in inner.items()}
    children["activation"] = convert(shown, "activation") if isinstance(shown, nn.Module) else _activation(shown)
    layers = {name: made for name, (made, _) in children.items()}
    block = TransformerBlock(**layers, norm_first=bool(module.norm_first))
    return block, {name: children[name][1] for name in block.children()}


def _is_idle(name: str, child: nn.Module) -> bool:
    return name in _OPTIONAL and isinstance(child, nn.Dropout) and child.p == 0


def _activation(function: Any) -> Converted:
    """Convert one of torch's activation functions; further arguments can be bound with ``functools.partial``."""
    if function in _ACTIVATIONS:
        return _ACTIVATIONS[function], {}
    call_of = function if isinstance(function, functools.partial) else functools.partial(function)
    x, convert = Ref("x"), FUNCTIONS.get(call_of.func)
    node = None if convert is None else convert(x, *call_of.args, **call_of.keywords)
    if not isinstance(node, Node) or node.inputs != (x,):
        name = getattr(call_of.func, "__name__", call_of.func)
        raise UnsupportedError(f"the activation {name} has no counterpart; use a torch function or a module, such as nn.GELU()")
    return node.layer, node.params


@container(nn.TransformerEncoder, nn.TransformerDecoder)
def convert_stack(module: Any, convert: Convert) -> Converted:
    """Convert to ``TransformerStack``."""
    if not len(module.layers):
        raise UnsupportedError("there must be at least one layer")
    blocks = [convert(child, f"layers.{i}") for i, child in enumerate(module.layers)]
    layers: list[Layer] = [serial_with_constants(*[made for made, _ in blocks])]
    params: dict[str, Params] = {"layers": tuple([p for _, p in blocks])}
    if module.norm is not None:
        norm, params["norm"] = convert(module.norm, "norm")
        layers.append(norm)
    return TransformerStack(tuple(layers), tuple(params)), params


@container(nn.Transformer)
def convert_transformer(module: nn.Transformer, convert: Convert) -> Converted:
    """Convert to ``EncoderDecoder``."""
    (encoder, first), (decoder, second) = convert(module.encoder, "encoder"), convert(module.decoder, "decoder")
    return EncoderDecoder(encoder, decoder), {"encoder": first, "decoder": second}


def _heads(module: Any) -> int | None:
    """Return the number of heads, which attention masks with 3 axes need, or ``None`` for other layers."""
    block = module.layers[0] if hasattr(module, "layers") else module
    heads: int | None = getattr(getattr(block, "self_attn", None), "num_heads", None)
    return heads


@call(nn.TransformerEncoderLayer)
def call_encoder_layer(
    module: Any,
    net: Layer,
    params: Params,
    src: Any,
    src_mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: Any = False,
) -> Node:
    """Apply the block to the sequence and the combined mask."""
    mask = joint_mask(src_mask, src_key_padding_mask, is_causal, _heads(module))
    return Node(net, (require_value("src", src), *up_to_last(mask)), params)


@call(nn.TransformerEncoder)
def call_encoder(
    module: Any,
    net: Layer,
    params: Params,
    src: Any,
    mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: Any = None,
) -> Node:
    """Apply the stack to the sequence and the combined mask."""
    return call_encoder_layer(module, net, params, src, mask, src_key_padding_mask, is_causal)


@call(nn.TransformerDecoderLayer, nn.TransformerDecoder)
def call_decoder(
    module: Any,
    net: Layer,
    params: Params,
    tgt: Any,
    memory: Any,
    tgt_mask: Any = None,
    memory_mask: Any = None,
    tgt_key_padding_mask: Any = None,
    memory_key_padding_mask: Any = None,
    tgt_is_causal: Any = None,
    memory_is_causal: Any = False,
) -> Node:
    """Apply the block or stack to target, memory and the combined mask of each."""
    of_memory = joint_mask(memory_mask, memory_key_padding_mask, memory_is_causal, _heads(module))
    of_target = joint_mask(tgt_mask, tgt_key_padding_mask, tgt_is_causal, _heads(module))
    xs = require_value("tgt", tgt), require_value("memory", memory)
    return Node(net, (*xs, *up_to_last(of_memory, of_target)), params)


def _mask_of(given: dict[str, Any], name: str, heads: int) -> Mask:
    """Return the combined mask of a sequence."""
    attention, padding, is_causal = [given.get(f"{name}_{kind}") for kind in _KINDS]
    return joint_mask(attention, padding, is_causal, heads)


@call(nn.Transformer)
def call_transformer(module: Any, net: Layer, params: Params, src: Any, tgt: Any, *masks: Any, **named: Any) -> Node:
    """Apply the net to source, target and the combined masks of source, target and memory."""
    given = dict(zip(_MASKS[: len(masks)], masks, strict=True)) | named
    of_source, of_target, of_memory = [_mask_of(given, name, module.nhead) for name in _SEQUENCES]
    xs = require_value("src", src), require_value("tgt", tgt)
    if all(given.get(f"src_{kind}") == given.get(f"memory_{kind}") for kind in _KINDS[:2]):
        return Node(net, (*xs, *up_to_last(of_source, of_target)), params)
    of_memory = full_mask(of_source) if of_memory is None else of_memory
    return Node(net, (*xs, *up_to_last(of_source, of_target, of_memory)), params)
