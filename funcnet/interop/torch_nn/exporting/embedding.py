"""Embeddings as torch.nn modules."""

from typing import Any

from torch import Tensor, nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.registry import filled, native
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.embedding.embedding_bag import EmbeddingBag


class PaddedEmbedding(nn.Embedding):
    """``nn.Embedding`` that returns zeros for ``padding_idx``, whatever its row in the table."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Look up rows."""
        return super().forward(input).masked_fill(input.eq(self.padding_idx).unsqueeze(-1), 0.0)  # type: ignore[arg-type]


class Bags(nn.EmbeddingBag):
    """``nn.EmbeddingBag`` that accepts x like funcnet's layer: offsets only for integers with one axis."""

    def forward(self, *xs: Any) -> Tensor:
        """Reduce the rows of each bag."""
        ids, *rest = xs if len(xs) > 1 else xs[0] if isinstance(xs[0], tuple) else xs
        offsets = rest.pop(0) if ids.dim() == 1 else None
        return super().forward(ids, offsets, rest[0] if rest else None)


@native(Embedding)
def _embedding(layer: Embedding, params: Params) -> Any:
    """Convert a table without ``max_norm``, with which torch writes to the table."""
    if layer.max_norm is not None:
        return None
    sizes = {"num_embeddings": layer.num_embeddings, "embedding_dim": layer.embedding_dim, "padding_idx": layer.padding_idx}
    module = filled(nn.Embedding, layer, params, **sizes)
    is_zero = layer.padding_idx is None or module.weight.is_meta or not module.weight[layer.padding_row].any()
    return module if is_zero else filled(PaddedEmbedding, layer, params, **sizes)


@native(EmbeddingBag)
def _embedding_bag(layer: EmbeddingBag, params: Params) -> Any:
    sizes = {"num_embeddings": layer.num_embeddings, "embedding_dim": layer.embedding_dim}
    return filled(Bags, layer, params, **sizes, mode=layer.mode, padding_idx=layer.padding_idx)
