"""Embeddings and bags of embeddings.

Rows longer than ``max_norm`` are rescaled as in torch.nn, which writes them to the table and computes the gradient at the new
table. Here the table does not change, and the gradient is that of the computed function.
"""

from typing import Any

from torch import Tensor, nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import made, require_default
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.embedding.embedding_bag import EmbeddingBag


@layer(nn.Embedding)
def embedding(module: nn.Embedding) -> Converted:
    """Convert a table of rows."""
    _require_plain_gradients(module)
    _require_zero_row(module.weight, module.padding_idx)
    names = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type")
    return made(Embedding, module, **{name: getattr(module, name) for name in names})


@layer(nn.EmbeddingBag)
def embedding_bag(module: nn.EmbeddingBag) -> Converted:
    """Convert a table whose rows are reduced by bags."""
    _require_plain_gradients(module)
    require_default(module, "rows are used as they are", max_norm=None)
    require_default(module, "offsets are the starts of the bags only", include_last_offset=False)
    names = ("num_embeddings", "embedding_dim", "mode", "padding_idx")
    return made(EmbeddingBag, module, **{name: getattr(module, name) for name in names})


def _require_plain_gradients(module: nn.Module) -> None:
    require_default(module, "the gradient of a row is the sum over its uses", scale_grad_by_freq=False)
    require_default(module, "gradients are dense; set module.sparse = False for the same numbers", sparse=False)


def _require_zero_row(weight: Tensor, padding_idx: int | None) -> None:
    """Raise ``UnsupportedError`` for a nonzero padding row, which the layer would replace with 0."""
    if padding_idx is not None and not weight.is_meta and weight.detach()[padding_idx].any():
        rule = f"the row padding_idx={padding_idx} of weight must be 0, as the layer returns 0 for it"
        raise UnsupportedError(f"{rule}: set it to 0, or module.padding_idx = None to train it")


@call(nn.EmbeddingBag)
def call_embedding_bag(
    module: Any,
    layer: Layer,
    params: Params,
    input: Ref | Node,  # noqa: A002 (torch's name)
    offsets: Ref | Node | None = None,
    per_sample_weights: Ref | Node | None = None,
) -> Node:
    """Apply the layer to integers, optional offsets and optional weights."""
    given = tuple([one for one in (input, offsets, per_sample_weights) if one is not None])
    return Node(layer, given, params)
