"""Embeddings of integers."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

IDS, BAGS = torch.tensor([[0, 3, 3], [1, 0, 2]]), torch.tensor([[0, 3, 3, 1], [1, 1, 1, 1], [2, 1, 0, 1]])
OFFSETS = torch.tensor([0, 1, 1])

CASES = {
    "Embedding": case(fn.Embedding(5, 3), torch.tensor([4, 0, 4, 2])),
    "Embedding on 2 axes, int32": case(fn.Embedding(4, 2), IDS.int()),
    "Embedding of one integer": loose(fn.Embedding(4, 3), torch.tensor(2)),
    "Embedding with padding": case(fn.Embedding(5, 3, padding_idx=-1, initializer="xavier_normal"), IDS),
    "Embedding of the padding row": case(fn.Embedding(5, 3, padding_idx=3), IDS),
    "Embedding of the padding row, bounded": case(fn.Embedding(5, 3, padding_idx=-5, max_norm=1.0), IDS),
    "Embedding of bounded rows": case(fn.Embedding(5, 3, max_norm=1.5), torch.tensor([4, 0, 4, 2, 1, 3])),
    "Embedding of rows bounded by another norm": case(fn.Embedding(5, 2, -1, max_norm=1.4, norm_type=3), IDS),
    "HashEmbed": case(fn.HashEmbed(5, 3), torch.tensor([7, -12345678901, 7, 0])),
    "HashEmbed of one hash": case(fn.HashEmbed(7, 2, seed=3, num_hashes=1), IDS),
    "SinusoidalEmbedding": case(fn.SinusoidalEmbedding(6), normal(4)),
    "SinusoidalEmbedding of two axes, another base": case(fn.SinusoidalEmbedding(2, 100.0), normal(3, 2)),
    "SinusoidalEmbedding of large numbers": case(fn.SinusoidalEmbedding(4), normal(3, 1) * 50),
    "SinusoidalEmbedding of a number": loose(fn.SinusoidalEmbedding(4), normal()),
    "EmbeddingBag": case(fn.EmbeddingBag(4, 3), BAGS),
    "EmbeddingBag mean with padding": case(fn.EmbeddingBag(4, 3, padding_idx=1), BAGS),
    "EmbeddingBag sum": case(fn.EmbeddingBag(4, 3, mode="sum", padding_idx=-1), BAGS),
    "EmbeddingBag weighted": case(fn.EmbeddingBag(4, 3, mode="sum", padding_idx=1), (BAGS, normal(3, 4))),
    "EmbeddingBag by offsets": loose(fn.EmbeddingBag(4, 3, padding_idx=1), (BAGS[0], OFFSETS)),
    "EmbeddingBag weighted, by offsets": loose(fn.EmbeddingBag(4, 3, mode="sum"), (BAGS[0], OFFSETS, normal(4))),
    "EmbeddingBag max, by offsets": loose(fn.EmbeddingBag(4, 3, mode="max"), (BAGS[0], OFFSETS)),
    "EmbeddingBag max": case(fn.EmbeddingBag(4, 3, mode="max"), BAGS),
    "EmbeddingBag max with padding": case(fn.EmbeddingBag(4, 3, mode="max", padding_idx=1), BAGS),
}
