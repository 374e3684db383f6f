"""Networks composed of layers. Their norms are over four numbers: over two, outputs would be ±1, without a gradient."""

import torch

import funcnet as fn
from cases.making import case, normal

THREE, FOUR = fn.padding_mask(torch.tensor([3, 1]), 3), fn.padding_mask(torch.tensor([2, 4]), 4)
RMS = fn.RMSNorm(4)  # a LayerNorm over four numbers loses many digits: in float32 law 1 would need a minute of trials

CASES = {
    "mlp": case(fn.mlp([3, 4, 2], fn.Tanh(), dropout=0.2, output_activation=fn.Sigmoid()), normal(4, 3)),
    "transformer_encoder_block": case(
        fn.transformer_encoder_block(4, 2, 3, num_kv_heads=1, is_causal=True, rotary=fn.RotaryEmbedding(2)), normal(2, 3, 4)
    ),
    "transformer_encoder_block, norms last": case(
        fn.transformer_encoder_block(4, 1, 3, norm_first=False, dropout=0.1), normal(2, 3, 4)
    ),
    "transformer_decoder_block": case(fn.transformer_decoder_block(4, 2, 3, memory_dim=3), (normal(2, 3, 4), normal(2, 4, 3))),
    "transformer_decoder_block, norms last": case(
        fn.transformer_decoder_block(4, 1, 3, norm_first=False, activation=fn.ReLU()), (normal(2, 3, 4), normal(2, 2, 4))
    ),
    "resnet_block": case(fn.resnet_block(2, 3, 2, activation=fn.Tanh()), normal(2, 2, 3, 3)),
    "resnet_bottleneck": case(fn.resnet_bottleneck(4, 2, expansion=2, activation=fn.Tanh()), normal(2, 4, 3, 3)),
    "depthwise_conv2d": case(fn.depthwise_conv2d(2, 2, 2, padding="same", bias=False), normal(2, 2, 3, 2)),
    "separable_conv1d": case(fn.separable_conv1d(2, 3, 3, padding="causal", multiplier=2), normal(2, 2, 4)),
    "transformer_encoder_block, padding, gated, dropout": case(
        fn.transformer_encoder_block(4, 2, 3, activation=fn.SwiGLU(), norm=RMS, dropout=0.2, bias=False),
        (normal(2, 3, 4), THREE),
    ),
    "transformer_decoder_block, both masks": case(
        fn.transformer_decoder_block(4, 2, 3, norm=RMS, alibi=True, soft_cap=1.5, dropout=0.1),
        (normal(2, 3, 4), normal(2, 4, 4), FOUR, THREE),
    ),
    "transformer_encoder": case(fn.transformer_encoder(4, 2, 2, 3, norm=RMS), (normal(2, 3, 4), THREE)),
    "transformer_decoder": case(
        fn.transformer_decoder(4, 2, 2, 2, norm=RMS, memory_dim=2, dropout=0.1), (normal(2, 3, 4), normal(2, 4, 2), FOUR)
    ),
    "transformer, a mask of the memory": case(
        fn.transformer(4, 2, 1, 1, 2, norm=RMS), (normal(2, 4, 4), normal(2, 3, 4), FOUR, THREE, FOUR.flip(0))
    ),
    "transformer": case(fn.transformer(4, 2, 1, 1, 2, norm=RMS, dropout=0.1), (normal(2, 4, 4), normal(2, 3, 4), FOUR, THREE)),
}
