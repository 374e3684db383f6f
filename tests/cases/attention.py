"""Attention and positions."""

import torch

import funcnet as fn
from cases.making import case, loose, normal
from funcnet import random

SDPA, MHA = fn.ScaledDotProductAttention, fn.MultiHeadAttention


def qkv(*lead: int, steps: tuple[int, int] = (3, 4), sizes: tuple[int, int] = (2, 2), heads: int | None = None):
    """Draw q, k and v, with another number of heads for k and v if given."""
    other = lead if heads is None else (*lead[:-1], heads)
    return normal(*lead, steps[0], sizes[0]), normal(*other, steps[1], sizes[0]), normal(*other, steps[1], sizes[1])


def mask(*shape: int):
    """Draw a mask that is True for about two thirds."""
    return random.bernoulli(7, shape, 0.66)


SEES_NOTHING = mask(2, 1, 3, 4).index_fill(2, torch.tensor([1]), value=False)

PRODUCTS = {
    "SDPA": case(SDPA(), qkv(2, 2)),
    "SDPA causal": case(SDPA(is_causal=True), qkv(2, 1)),
    "SDPA causal, more queries than keys": case(SDPA(is_causal=True, scale=0.3), qkv(2, 2, steps=(5, 3))),
    "SDPA, a bool mask and rows that see nothing": case(SDPA(), (*qkv(2, 2), SEES_NOTHING)),
    "SDPA, a floating mask": case(SDPA(), (*qkv(2, 2), normal(2, 1, 3, 4))),
    "SDPA, a floating mask, causal": case(SDPA(is_causal=True), (*qkv(3, 2), normal(4))),
    "SDPA, values of another size": case(SDPA(), qkv(2, 2, sizes=(2, 3))),
    "SDPA, values of another size, masked": case(SDPA(), (*qkv(2, 2, sizes=(1, 3)), SEES_NOTHING)),
    "SDPA on 3 axes, causal": case(SDPA(is_causal=True), qkv(2)),
    "SDPA on 2 axes": loose(SDPA(), qkv()),
    "SDPA on 5 axes": case(SDPA(), qkv(2, 1, 2)),
    "SDPA, grouped": case(SDPA(enable_gqa=True), qkv(2, 4, heads=2)),
    "SDPA, grouped, values of another size": case(SDPA(enable_gqa=True), qkv(2, 4, heads=1, sizes=(2, 1))),
    "SDPA, window": case(SDPA(window=1), qkv(2, 2, steps=(5, 4))),
    "SDPA, window before, causal, mask": case(SDPA(is_causal=True, window=(1, 3)), (*qkv(2, 2, steps=(5, 4)), mask(2, 1, 1, 4))),
    "SDPA with dropout": case(SDPA(dropout_p=0.4), (*qkv(2, 2), normal(3, 4))),
    "SDPA with weights": case(SDPA(return_weights=True, enable_gqa=True), (*qkv(2, 2, heads=1), SEES_NOTHING)),
    "SDPA with weights, dropout": case(SDPA(return_weights=True, dropout_p=0.4, is_causal=True), qkv(2, 2)),
    "SDPA of one step": case(SDPA(), qkv(2, 1, steps=(1, 1))),
}

MULTIHEAD = {
    "MultiHeadAttention": case(MHA(4, 2), normal(2, 3, 4)),
    "MultiHeadAttention to others": case(MHA(4, 2), (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4))),
    "MultiHeadAttention, sizes, padding": case(
        MHA(4, 2, kdim=3, vdim=2),
        (normal(2, 3, 4), normal(2, 5, 3), normal(2, 5, 2), fn.padding_mask(torch.tensor([5, 2]), 5)),
    ),
    "MultiHeadAttention, grouped, rotary, causal": case(
        MHA(8, 4, num_kv_heads=2, is_causal=True, rotary=fn.RotaryEmbedding(2), bias=False), normal(2, 3, 8)
    ),
    "MultiHeadAttention, queries and keys normalized": case(
        MHA(8, 2, num_kv_heads=1, qk_norm=fn.RMSNorm(4), rotary=fn.RotaryEmbedding(4)), normal(2, 3, 8)
    ),
    "MultiHeadAttention, floating mask": case(MHA(4, 2, window=1), (normal(3, 2, 4), normal(2, 1, 2))),
    "MultiHeadAttention with dropout": case(MHA(2, 1, dropout=0.3, initializer="xavier_normal"), normal(2, 3, 2)),
    "MultiHeadAttention, learned key, weights": case(
        MHA(4, 2, add_bias_kv=True, need_weights=True), (normal(2, 3, 4), normal(2, 1, 3, 1))
    ),
    "MultiHeadAttention, keys added, causal, the heads' weights, dropout": case(
        MHA(4, 2, 0.3, add_bias_kv=True, add_zero_attn=True, is_causal=True, need_weights=True, average_attn_weights=False),
        (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4), mask(2, 1, 1, 5)),
    ),
    "MultiHeadAttention, a key of zeros, grouped": case(
        MHA(4, 2, add_zero_attn=True, add_bias_kv=True, num_kv_heads=1, bias=False), normal(2, 3, 4)
    ),
    "MultiHeadAttention, weights, without batch": loose(MHA(4, 2, need_weights=True), normal(3, 4)),
    "MultiHeadAttention without batch": loose(MHA(4, 2, is_causal=True), normal(3, 4)),
    "MultiHeadAttention, batch second": loose(MHA(4, 2, batch_first=False), (normal(3, 2, 4), normal(5, 2, 4), normal(5, 2, 4))),
    "MultiHeadAttention, queries and keys normalized over the batch": case(MHA(4, 2, qk_norm=fn.BatchNorm2d(2)), normal(2, 3, 4)),
    "MultiHeadAttention, queries and keys normalized by running statistics": case(
        MHA(4, 2, qk_norm=fn.RunningBatchNorm2d(2), rotary=fn.RotaryEmbedding(2)), normal(2, 3, 4)
    ),
    "MultiHeadAttention, queries and keys dropped": case(MHA(4, 2, qk_norm=fn.Dropout(0.4)), normal(2, 3, 4)),
}

VARLEN, LENGTHS = fn.VarlenAttention, torch.tensor([1, 0, 3, 2])


def rows(queries: int, keys: int, heads: tuple[int, int] = (2, 2), sizes: tuple[int, int] = (2, 2)):
    """Draw q, k and v of concatenated sequences."""
    return normal(queries, heads[0], sizes[0]), normal(keys, heads[1], sizes[0]), normal(keys, heads[1], sizes[1])


PACKED = {
    "VarlenAttention": loose(VARLEN(), (*rows(6, 6), LENGTHS)),
    "VarlenAttention, causal, rows to spare": loose(VARLEN(is_causal=True, scale=0.3), (*rows(8, 7), LENGTHS.int())),
    "VarlenAttention to others, grouped, window": loose(
        VARLEN(enable_gqa=True, window=(1, 0)), (*rows(6, 5, (4, 2), (2, 3)), LENGTHS, torch.tensor([1, 2, 2, 0]))
    ),
    "VarlenAttention of one head and step": loose(VARLEN(), (*rows(1, 1, (1, 1), (1, 1)), LENGTHS[:1])),
}

POOLS = {
    "AttentionPool": case(fn.AttentionPool(3), normal(2, 4, 3)),
    "AttentionPool, lengths, more axes": case(fn.AttentionPool(2), (normal(2, 2, 3, 2), torch.tensor([[2, 0], [1, 3]]))),
    "AttentionPool, a mask, without batch": loose(fn.AttentionPool(1, "normal"), (normal(4, 1), mask(4))),
}

POSITIONS = {
    "RotaryEmbedding": case(fn.RotaryEmbedding(4), normal(2, 3, 4)),
    "RotaryEmbedding of neighbours": case(fn.RotaryEmbedding(4, base=10.0, interleaved=True, offset=2), normal(2, 2, 3, 4)),
    "RotaryEmbedding at given steps": case(fn.RotaryEmbedding(2), (normal(2, 3, 2), torch.tensor([[0, 1, 5], [2, 1, 0]]))),
    "SinusoidalPositions": case(fn.SinusoidalPositions(offset=1), normal(2, 3, 4)),
    "SinusoidalPositions, odd": loose(fn.SinusoidalPositions(base=10.0), normal(3, 5)),
    "LearnedPositions": case(fn.LearnedPositions(5, 3), normal(2, 4, 3)),
    "LearnedPositions of one sequence": loose(fn.LearnedPositions(4, 3), normal(4, 3)),
}

SCORES = {
    "SDPA, ALiBi, causal": case(SDPA(alibi=True, is_causal=True), qkv(2, 3)),
    "SDPA, ALiBi, a floating mask, values of another size": case(
        SDPA(alibi=True), (*qkv(2, 2, sizes=(2, 3)), normal(2, 1, 3, 4))
    ),
    "SDPA, ALiBi on 2 axes": loose(SDPA(alibi=True), qkv()),
    "SDPA, soft cap, rows that see nothing": case(SDPA(soft_cap=0.7), (*qkv(2, 2), SEES_NOTHING)),
    "SDPA, soft cap, a floating mask, grouped": case(
        SDPA(soft_cap=1.5, enable_gqa=True), (*qkv(2, 4, heads=2), normal(2, 1, 3, 4))
    ),
    "SDPA, soft cap, ALiBi, weights, dropout, window": case(
        SDPA(soft_cap=0.9, alibi=True, return_weights=True, dropout_p=0.3, window=2), qkv(2, 2)
    ),
    "MultiHeadAttention, ALiBi, soft cap, causal": case(MHA(6, 3, alibi=True, soft_cap=2.0, is_causal=True), normal(2, 3, 6)),
    "MultiHeadAttention, ALiBi, padding": case(
        MHA(4, 2, alibi=True), (normal(2, 3, 4), fn.padding_mask(torch.tensor([3, 1]), 3))
    ),
}

MASKS = {
    "VisibleMask": case(fn.VisibleMask(), mask(2, 4)),
    "VisibleMask of a floating padding, one row": loose(fn.VisibleMask("padding"), normal(4)),
    "VisibleMask of heads, floating": loose(fn.VisibleMask("attention", 2), normal(4, 3, 5)),
    "VisibleMask, axes only": case(fn.VisibleMask("attention", 2, hidden=False), normal(2, 3)),
    "JointMask": loose(fn.JointMask(), (mask(2, 1, 1, 4), mask(3, 4))),
    "JointMask of floating ones": case(fn.JointMask(), (normal(2, 1, 1, 4), normal(2, 2, 3, 1))),
    "FullMask": loose(fn.FullMask(), mask(3, 4)),
    "FullMask of a floating one": loose(fn.FullMask(), normal(3, 4)),
}

CASES = {**PRODUCTS, **MULTIHEAD, **PACKED, **POOLS, **POSITIONS, **SCORES, **MASKS}
