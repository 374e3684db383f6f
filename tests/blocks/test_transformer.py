"""Transformers compared with torch.nn's: params by name, values and all gradients, padding, causal, norm first or last."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import CLOSE, assert_twins, draw, twin_of, varied

import funcnet as fn
from funcnet import tree

LENGTHS, KEYS = 3, 5
PADDING = fn.padding_mask(torch.tensor([KEYS, 2]), KEYS)
ACTIVATIONS = {"relu": fn.ReLU(), "gelu": fn.GELU()}


@st.composite
def options(draw_from):
    """Draw options that our blocks and torch.nn's layers share: our arguments and torch's."""
    flags, seed = st.booleans(), draw_from(st.integers(0, 99))
    name, both = draw_from(st.sampled_from([*ACTIVATIONS])), {"norm_first": draw_from(flags), "bias": draw_from(flags)}
    heads = draw_from(st.integers(1, 3))
    sizes = heads * draw_from(st.integers(1, 2)) * 2, heads, draw_from(st.integers(1, 5))
    ours, theirs = {"activation": ACTIVATIONS[name]}, {"activation": name, "dropout": 0.0, "batch_first": True}
    return sizes, both | ours, both | theirs, seed


def causal(length):
    """Return torch's mask, which is True for hidden keys."""
    return ~fn.causal_mask(length)


def of_torch(mask):
    """Return torch's padding mask: (N, keys), True for padding."""
    return None if mask is None else ~mask[:, 0, 0]


def called(module, x, *, is_causal):
    """Call an encoder of torch.nn, or its layer."""
    x, mask = x if isinstance(x, tuple) else (x, None)
    kind = "mask" if isinstance(module, nn.TransformerEncoder) else "src_mask"
    return module(x, **{kind: causal(x.shape[1]) if is_causal else None}, src_key_padding_mask=of_torch(mask))


def decoded(module, x):
    """Call a decoder of torch.nn, or its layer, with a causal mask."""
    x, memory, *masks = x
    of_memory, of_x = (*masks, None, None)[:2]
    masks = {"memory_key_padding_mask": of_torch(of_memory), "tgt_key_padding_mask": of_torch(of_x)}
    return module(x, memory, tgt_mask=causal(x.shape[1]), **masks)


@given(options(), st.booleans(), st.booleans(), st.sampled_from([None, 1, 2]), st.booleans())
@settings(max_examples=40)
def test_an_encoder_is_torch_s(case, padded, is_causal, num_layers, final_norm):
    """One block or a stack of them agrees by the state_dict; every block gets the mask."""
    sizes, ours, theirs, seed = case
    module = nn.TransformerEncoderLayer(*sizes, **theirs)
    layer = fn.transformer_encoder_block(*sizes, is_causal=is_causal, **ours)
    if num_layers is not None:
        norm = nn.LayerNorm(sizes[0], bias=theirs["bias"]) if final_norm else None
        module = nn.TransformerEncoder(module, num_layers, norm, enable_nested_tensor=False)
        more = {"final_norm": final_norm, "is_causal": is_causal, **ours}
        layer = fn.transformer_encoder(*sizes[:2], num_layers, sizes[2], **more)
    x = draw((2, KEYS, sizes[0]), seed)
    assert_twins(layer, varied(module, seed), (x, PADDING) if padded else x, call=lambda m, x: called(m, x, is_causal=is_causal))


@given(options(), st.integers(0, 2), st.sampled_from([None, 1, 2]), st.booleans())
@settings(max_examples=40)
def test_a_decoder_is_torch_s(case, masks, num_layers, final_norm):
    """One block or a stack of them agrees, with the gradient of the memory, which all blocks see."""
    sizes, ours, theirs, seed = case
    module, layer = nn.TransformerDecoderLayer(*sizes, **theirs), fn.transformer_decoder_block(*sizes, **ours)
    if num_layers is not None:
        module = nn.TransformerDecoder(module, num_layers, nn.LayerNorm(sizes[0], bias=theirs["bias"]) if final_norm else None)
        layer = fn.transformer_decoder(*sizes[:2], num_layers, sizes[2], final_norm=final_norm, **ours)
    x = draw((2, LENGTHS, sizes[0]), seed), draw((2, KEYS, sizes[0]), seed + 1)
    of_x = fn.padding_mask(torch.tensor([LENGTHS, 1]), LENGTHS)
    assert_twins(layer, varied(module, seed), x + (PADDING, of_x)[:masks], call=decoded)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@twin_of("Transformer")
@given(options(), st.integers(0, 2))
@settings(max_examples=30)
def test_a_transformer_is_torch_s(case, masks):
    """Encoder and decoder agree, with the gradients of source and target."""
    sizes, ours, theirs, seed = case
    module = nn.Transformer(*sizes[:2], 2, 1, sizes[2], **theirs)
    layer = fn.transformer(*sizes[:2], 2, 1, sizes[2], **ours)
    x = draw((2, KEYS, sizes[0]), seed), draw((2, LENGTHS, sizes[0]), seed + 1)
    of_target = fn.padding_mask(torch.tensor([LENGTHS, 2]), LENGTHS)

    def call(module, x):
        source, target, *masks = x
        of_source, of_target = map(of_torch, (*masks, None, None)[:2])
        keys = {"src_key_padding_mask": of_source, "memory_key_padding_mask": of_source, "tgt_key_padding_mask": of_target}
        return module(source, target, tgt_mask=causal(LENGTHS), **keys)

    assert_twins(layer, varied(module, seed), x + (PADDING, of_target)[:masks], call=call)


@pytest.mark.parametrize("make", [fn.transformer_encoder_block, fn.transformer_decoder_block])
@pytest.mark.parametrize("norm_first", [True, False])
def test_dropout_is_where_torch_has_it(make, norm_first):
    """Dropout of attention weights, within the mlp and of each branch has torch's names and its own keys; inference has none."""
    layer = make(8, 2, 5, dropout=0.3, norm_first=norm_first)
    twin = {fn.transformer_encoder_block: nn.TransformerEncoderLayer, fn.transformer_decoder_block: nn.TransformerDecoderLayer}
    module = twin[make](8, 2, 5, 0.3)
    names = [name for name, child in module.named_children() if isinstance(child, nn.Dropout)]
    assert sorted(name for name, child in layer.children().items() if isinstance(child, fn.Dropout)) == sorted(names)
    assert layer.self_attn.dropout == 0.3
    params, x = layer.init(0), torch.ones(2, 3, 8)
    x = x if make is fn.transformer_encoder_block else (x, x)
    cache = layer.apply(params, x, 0)[1]
    kept = [cache[name][0].flatten()[:30].tolist() for name in names]
    assert all(one != other for one, other in itertools.combinations(kept, 2))
    assert torch.equal(layer.inference()(params, x), make(8, 2, 5, norm_first=norm_first)(layer_params(layer, params), x))


def layer_params(layer, params):
    """Return params without the entries of dropout."""
    return {name: p for name, p in params.items() if not isinstance(layer[name], fn.Dropout)}


WAYS = {
    "plain": {},
    "norms last": {"norm_first": False},
    "rotary, grouped": {"num_kv_heads": 2, "rotary": fn.RotaryEmbedding(2)},
    "ALiBi, soft cap": {"alibi": True, "soft_cap": 0.7},
    "RMSNorm, gated, no bias": {"norm": fn.RMSNorm(8), "activation": fn.SwiGLU(), "bias": False, "qk_norm": fn.RMSNorm(2)},
    "window, dropout": {"window": 2, "dropout": 0.5},
}


def stepped(net, params, x, carry, sizes):
    """Decode some steps at a time, and return all outputs."""
    ys = []
    for part in x.split(sizes, 1):
        y, carry = net.decode(params, part, carry)
        ys.append(y)
    return torch.cat(ys, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_layers", [None, 1, 3])
def test_an_encoder_decodes_step_by_step(way, num_layers):
    """A causal block or stack gives the output for the whole sequence."""
    make, count = (fn.transformer_encoder_block, ()) if num_layers is None else (fn.transformer_encoder, (num_layers,))
    net = make(8, 4, *count, is_causal=True, **WAYS[way]).inference()
    params, x = tree.cast(net.init(0), torch.float64), draw((2, 6, 8))
    carry = net.init_carry(2, 7, dtype=torch.float64)
    first = tree.map(torch.clone, carry)
    for sizes in ([1] * 6, [3, 1, 2]):
        torch.testing.assert_close(stepped(net, params, x, carry, sizes), net(params, x), **CLOSE)
    assert tree.equal(carry, first)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["block", "decoder", "transformer"])
def test_a_decoder_decodes_step_by_step(way, kind):
    """Keys and values of the memory are computed once, for padded and whole memories."""
    make = {"block": fn.transformer_decoder_block, "decoder": fn.transformer_decoder, "transformer": fn.transformer}[kind]
    net = make(8, 4, *{"block": (), "decoder": (2,), "transformer": (1, 2)}[kind], **WAYS[way]).inference()
    params = tree.cast(net.init(0), torch.float64)
    x, memory = draw((2, 6, 8)), draw((2, KEYS, 8), 1)
    name, pair = ("source", (memory, x)) if kind == "transformer" else ("memory", (x, memory))
    for masks in ((), (PADDING,)):
        carry = net.init_carry(2, 6, params=params, **{name: (memory, *masks) if masks else memory})
        torch.testing.assert_close(stepped(net, params, x, carry, [1, 2, 3]), net(params, pair + masks), **CLOSE)


@pytest.mark.compiled
def test_decoding_compiles():
    """One graph serves every step of a stack with a memory, with the numbers of eager mode."""
    net = fn.transformer_decoder(8, 2, 2, rotary=fn.RotaryEmbedding(4))
    params, x, memory = net.init(0), draw((2, 3, 8)).float(), draw((2, KEYS, 8), 1).float()
    carry = net.init_carry(2, 4, params=params, memory=(memory, PADDING))
    step = torch.compile(net.decode, fullgraph=True, backend="aot_eager")
    ys = []
    for i in range(3):
        y, carry = step(params, x[:, i : i + 1], carry)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), net(params, (x, memory, PADDING)))


@pytest.mark.parametrize(
    "net", [fn.transformer_encoder(8, 2, 2), fn.transformer_encoder(8, 2, 2, norm_first=False)], ids=["first", "last"]
)
def test_padding_changes_nothing(net):
    """Padded steps do not affect others, have no gradient, and may be cut off."""
    params, x = tree.cast(net.init(0), torch.float64), draw((2, KEYS, 8))
    y, cache = net.apply(params, (x, PADDING))
    other = net(params, (x.masked_fill(~PADDING[:, 0, 0, :, None], 7.0), PADDING))
    assert torch.equal(y[0], other[0])
    assert torch.equal(y[1, :2], other[1, :2])
    torch.testing.assert_close(y[1:, :2], net(params, x[1:, :2]), **CLOSE)
    gx, gmask = net.input_grad(params, cache, y * PADDING[:, 0, 0, :, None])
    assert gmask is None
    assert not gx[1, 2:].any()


def test_a_mask_of_scores_has_the_sum_of_its_gradients():
    """A floating mask that all blocks see, such as a learned bias of positions, gets the sum of their gradients."""
    net = fn.transformer_encoder(4, 2, 3)
    params, x = tree.cast(net.init(0), torch.float64), (draw((2, 3, 4)), draw((2, 1, 3), 1))
    fn.testing.check_vjp(net, x, params)


def test_layers_are_found_and_replaced_by_their_paths():
    """Paths are torch.nn's, down to the heads; a replaced layer is used, and the repr is the net's code."""
    net = fn.transformer(8, 2, 2, 1)
    path = "encoder.layers.0.self_attn"
    assert fn.at(net, path) == fn.MultiHeadAttention(8, 2)
    other = fn.replace(net, path, fn.MultiHeadAttention(8, 4))
    assert fn.at(other, "encoder.layers.0").self_attn.num_heads == 4
    assert fn.at(other, "encoder.layers.1").self_attn.num_heads == 2
    assert eval(repr(other), vars(fn)) == other
    assert net["encoder"]["layers"][1] == fn.transformer_encoder_block(8, 2)
    thin = fn.map_layers(
        lambda layer: layer.replace(p=0.0) if isinstance(layer, fn.Dropout) else layer,
        fn.transformer_encoder(8, 2, 2, dropout=0.1),
    )
    assert {layer.p for _, layer in fn.walk(thin) if isinstance(layer, fn.Dropout)} == {0.0}
    params = net.init(0)
    assert [*fn.intermediates(net, params, (torch.ones(1, 3, 8), torch.ones(1, 2, 8)))][-1] == "decoder.norm"


def test_sizes_are_inferred_and_summed_up():
    """A norm without sizes gets its sizes in each place; a summary and a drawing name the layers."""
    net = fn.transformer_encoder(8, 2, 2, 16, qk_norm=fn.RMSNorm(None))
    sized = fn.infer_sizes(net, (torch.ones(2, 3, 8), torch.ones(1, 3, dtype=torch.bool)))
    assert sized == fn.transformer_encoder(8, 2, 2, 16, qk_norm=fn.RMSNorm(4))
    rows = fn.summary(sized, torch.ones(2, 3, 8)).rows
    assert [row.path for row in rows][:3] == ["layers.0.norm1", "layers.0.self_attn", "layers.0.norm2"]
    assert fn.summary(sized, torch.ones(2, 3, 8)).total.params == tree.size(sized.init(0))
    drawn = fn.draw(fn.transformer_encoder_block(8, 2)).mermaid
    assert [line.strip() for line in drawn.splitlines() if "-->" in line] == [
        *("x --> n1", "n1 --> n2", "x --> n3", "n2 --> n3", "n3 --> n4", "n4 --> n5", "n5 --> n6"),
        *("x --> y", "n2 --> y", "n6 --> y"),
    ]


def test_a_gated_activation_doubles_its_features():
    """``hidden`` is therefore the input size of the last layer."""
    layer = fn.transformer_encoder_block(4, 2, 6, activation=fn.GEGLU())
    params, x = layer.init(0), draw((2, 3, 4)).float()
    assert params["linear1"]["weight"].shape == (12, 4)
    assert params["linear2"]["weight"].shape == (4, 6)
    assert layer(params, x).shape == x.shape


def test_blocks_repeat_with_their_mask():
    """As a loop over stacked params, they give the numbers of the stack."""
    stack = fn.transformer_encoder(4, 2, 3, final_norm=False)
    params, x = tree.cast(stack.init(0), torch.float64), (draw((2, 3, 4)), fn.padding_mask(torch.tensor([3, 1]), 3))
    net = fn.serial(fn.repeat(fn.keep_constants(fn.transformer_encoder_block(4, 2)), 3), fn.Select(0))
    stacked = (tree.map(lambda *leaves: torch.stack(leaves), *params["layers"]), {})
    (y, cache), (of_stack, cache_of_stack) = net.apply(stacked, x), stack.apply(params, x)
    assert torch.equal(y, of_stack)
    grads, gx = net.vjp(stacked, cache, y)
    want, gx_of_stack = stack.vjp(params, cache_of_stack, y)
    assert torch.equal(gx[0], gx_of_stack[0])
    assert tree.equal(grads[0], tree.map(lambda *leaves: torch.stack(leaves), *want["layers"]))


X, M = torch.ones(2, 3, 4), torch.ones(2, 5, 4)
ENCODER, DECODER = fn.transformer_encoder(4, 2, 2, is_causal=True), fn.transformer_decoder_block(4, 2)
P = ENCODER.init(0)
TWISTED = fn.replace(ENCODER, "layers.0.self_attn", fn.serial(fn.MultiHeadAttention(4, 2)))
MESSAGES = {
    "TransformerBlock: x must be (x, memory) or (x, memory, memory_mask) or (x, memory, memory_mask, mask), got a tensor of shape (2, 3, 4)": lambda: DECODER(DECODER.init(0), X),
    "TransformerBlock: x must be x or (x, mask), got": lambda: ENCODER(P, (X, X, X)),
    "TransformerBlock: params must be a dict with the keys norm1, self_attn, norm2, linear1, activation, linear2, got": lambda: ENCODER({"layers": ({}, {}), "norm": {}}, X),
    "TransformerBlock: norm3 must come with multihead_attn, and only with it, got": lambda: DECODER.replace(norm3=None),
    "TransformerBlock: init_carry must be given params and memory for a block with multihead_attn, and only then, got None": lambda: DECODER.init_carry(1, 2),
    "TransformerBlock: to decode, self_attn must have init_carry and decode, like MultiHeadAttention, got": lambda: TWISTED.init_carry(1, 2),
    "TransformerStack: to decode, every block must have init_carry and decode, got Tanh()": lambda: fn.replace(ENCODER, "layers.0", fn.Tanh()).init_carry(1, 2),
    "decode needs one tensor, and a layer with is_causal=True": lambda: fn.transformer_encoder(4, 2, 1).decode(fn.transformer_encoder(4, 2, 1).init(0), X, ENCODER.init_carry(2, 3)[:1]),
    "TransformerStack: carry must be a tuple of 2, one entry per block, from init_carry, got an empty dict": lambda: ENCODER.decode(P, X, {}),
    "carry must be from init_carry or decode, with k and v (2, 2, max_length, 2) in torch.float32, got a tensor of shape (3, 2, 9, 2)": lambda: ENCODER.decode(P, X, ENCODER.init_carry(3, 9)),
    "the carry has room for at most 2 steps, got": lambda: ENCODER.decode(P, X, ENCODER.init_carry(2, 2)),
    "TransformerBlock: init_carry must be given params and memory for a block with multihead_attn, and only then, got a tensor": lambda: DECODER.init_carry(2, 2, memory=M),
    "TransformerStack: carry must be a tuple of 2, one entry per block, from init_carry, got a tuple of 1": lambda: ENCODER.decode(P, X, ENCODER.init_carry(2, 3)[:1]),
    "TransformerBlock: carry must be a dict with the keys self_attn, from init_carry, got an empty dict": lambda: ENCODER.decode(P, X, ({}, {})),
    "TransformerBlock: carry must be a dict with the keys self_attn, multihead_attn, from init_carry, got": lambda: DECODER.decode(DECODER.init(0), X, ENCODER.init_carry(2, 3)[0]),
    "TransformerStack: params must be a dict with the keys layers, norm, got an empty dict": lambda: ENCODER.decode({}, X, ENCODER.init_carry(2, 3)),
    "carry must be from init_carry or decode, with k and v (2, 2, max_length, 2) in torch.float32, got a tensor of shape (3, 2, 4, 2)": lambda: ENCODER.decode(P, X, ENCODER.init_carry(3, 4)),
    "(2, 2, max_length, 2) in torch.float32, got a tensor of shape (2, 2, 4, 2) and dtype torch.bfloat16": lambda: ENCODER.decode(P, X, ENCODER.init_carry(2, 4, dtype=torch.bfloat16)),
    "batch (or None) and max_length must be whole numbers of at least 0, got -1 and 'a'": lambda: ENCODER.init_carry(-1, "a"),
    "EncoderDecoder: to decode, the decoder must have init_carry and decode, got Select(index=0)": lambda: fn.EncoderDecoder(ENCODER, fn.Select(0)).decode({}, X, ()),
    "transformer_encoder: num_layers must be a whole number of at least 1, and of at most 1048576, got 0": lambda: fn.transformer_encoder(4, 2, 0),
    "transformer_decoder: final_norm must be True or False, got 1": lambda: fn.transformer_decoder(4, 2, 1, final_norm=1),
    "transformer: num_decoder_layers must be a whole number of at least 1": lambda: fn.transformer(4, 2, 1, True),
    "transformer_decoder_block: hidden must be a whole number of at least 1, or None for 4 embed_dim, got 2.5": lambda: fn.transformer_decoder_block(4, 2, 2.5),
    "keep_constants: gy must be a tuple with as many entries as x if x is a tuple, and no tuple otherwise, got": lambda: fn.keep_constants(fn.Add()).input_grad({}, fn.Add().apply({}, (X, X))[1], X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_an_error_says_where():
    """Notes have the names, forward and backward, and in decoding."""
    place = [
        "  in TransformerBlock, layer 'self_attn'",
        "  in serial_with_constants, layer 1",
        "  in TransformerStack, layer 'layers'",
    ]
    cache = ENCODER.apply(P, X)[1]
    bad = tree.map(lambda leaf: leaf, P)
    bad["layers"][1]["self_attn"]["out_proj"]["weight"] = torch.ones(3)
    carry = ENCODER.init_carry(2, 3)
    for attempt in (lambda: ENCODER(bad, X), lambda: ENCODER.grads(bad, cache, X)):
        with pytest.raises(ValueError, match=r"out_proj") as caught:
            attempt()
        assert caught.value.__notes__ == place
    odd = (carry[0], {"self_attn": {}})
    with pytest.raises(ValueError, match=r"carry must be from init_carry") as caught:
        ENCODER.decode(P, X, odd)
    assert caught.value.__notes__ == place


def test_unknown_fields_are_refused():
    """Python raises its own error."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        fn.transformer_encoder(4, 2, 1, colour=3)
