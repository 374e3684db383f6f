"""torch.nn Transformers, converted and called: every option, and masks of each kind, in training and in evaluation."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_twins import assert_called, assert_converts, called, converted
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's name for it)
from twins import draw

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError

ROWS, LENGTH, STEPS = 2, 3, 4
ACTIVATIONS = ["relu", "gelu", F.relu, F.gelu, nn.Tanh(), nn.PReLU()]
OF_COPIES = ACTIVATIONS[:-1]
"""A torch.nn decoder uses no activation with a parameter: its blocks are copies, which replace a module with ``F.relu``."""

NESTED = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
MIXED = pytest.mark.filterwarnings("ignore:Support for mismatched")
KINDS = st.sampled_from(["none", "bool", "floating"])


@st.composite
def arguments(draw_from, activations=ACTIVATIONS):
    """Draw the arguments of an encoder or decoder layer: sizes and options, with dropout 0.

    A norm of two features always returns ±1, so its gradients are rounding errors and cannot be compared.
    """
    flags, heads = st.booleans(), draw_from(st.integers(1, 2))
    options = {name: draw_from(flags) for name in ("norm_first", "bias", "batch_first")}
    options |= {"activation": draw_from(st.sampled_from(activations)), "layer_norm_eps": draw_from(st.sampled_from([1e-5, 0.1]))}
    sizes = draw_from(st.sampled_from([4, 6])), heads, draw_from(st.integers(1, 3))
    return sizes, {**options, "dropout": 0.0}


def sequence(module_options, length, size, seed, *, batched=True):
    """Draw a sequence in the layout of a module with the given options."""
    if not batched:
        return draw((length, size), seed)
    return draw((ROWS, length, size) if module_options["batch_first"] else (length, ROWS, size), seed)


def hidden(shape, seed):
    """Draw a bool mask in torch.nn's convention that hides about a third of the keys, but never the first."""
    return fn.random.bernoulli(seed, shape, 0.33).index_fill(-1, torch.tensor([0]), value=False)


def drawn_masks(data, prefixes, heads, shapes, *, batched=True):
    """Draw masks in torch.nn's convention, by argument; ``prefixes`` are such as "src_", ``shapes`` are (queries, keys)."""
    found = {}
    for i, (prefix, (queries, keys)) in enumerate(zip(prefixes, shapes, strict=True)):
        lead = (ROWS * heads,) * (batched and data.draw(st.booleans()))
        forms = {"mask": (*lead, queries, keys), "key_padding_mask": (ROWS, keys) if batched else (keys,)}
        for name, shape in forms.items():
            kind = data.draw(KINDS)
            if kind != "none":
                found[prefix + name] = hidden(shape, 7 + i) if kind == "bool" else draw(shape, 7 + i)
    return found


def of_torch(mask):
    """Return a padding mask in torch's convention: (N, keys), True for padding."""
    return ~mask[:, 0, 0]


@given(
    arguments(), st.booleans(), st.sampled_from([None, 1, 2]), st.sampled_from([None, nn.LayerNorm, nn.RMSNorm]), st.booleans()
)
@settings(max_examples=40)
def test_an_encoder_is_converted(case, masked, num_layers, norm, training):
    """It is one block, or a stack with a final norm of several kinds; the input is x, or x and a mask."""
    sizes, options = case
    module = nn.TransformerEncoderLayer(*sizes, **options)
    if num_layers is not None:
        final = None if norm is None else norm(sizes[0])
        module = nn.TransformerEncoder(module, num_layers, final, enable_nested_tensor=False)
    x, mask = sequence(options, LENGTH, sizes[0], 1), fn.padding_mask(torch.tensor([LENGTH, 2]), LENGTH)

    def call(module, x):
        return module(x[0], src_key_padding_mask=of_torch(mask)) if masked else module(x)

    layer = assert_converts(module.train(training), (x, mask) if masked else x, call=call)
    assert type(layer) is (fn.TransformerBlock if num_layers is None else fn.TransformerStack)


@given(arguments(OF_COPIES), st.sampled_from([0, 1, 2]), st.sampled_from([None, 1, 2]), st.booleans())
@settings(max_examples=40)
def test_a_decoder_is_converted(case, masks, num_layers, training):
    """It is causal if and only if there is a causal mask."""
    sizes, options = case
    module = nn.TransformerDecoderLayer(*sizes, **options)
    module = module if num_layers is None else nn.TransformerDecoder(module, num_layers, nn.LayerNorm(sizes[0]))
    xs = sequence(options, LENGTH, sizes[0], 1), sequence(options, STEPS, sizes[0], 2)
    ours = (fn.padding_mask(torch.tensor([STEPS, 2]), STEPS), fn.causal_mask(LENGTH))[:masks]

    def call(module, x):
        named = {"memory_key_padding_mask": of_torch(ours[0])} if masks else {}
        return module(*x[:2], **named, **({"tgt_mask": ~ours[1]} if masks == 2 else {}))

    assert_converts(module.train(training), (*xs, *ours), call=call)


def transformer(sizes, options):
    """Return a transformer with two encoder blocks and one decoder block."""
    return nn.Transformer(*sizes[:2], 2, 1, sizes[2], **options)


@NESTED
@given(arguments(OF_COPIES), st.integers(0, 3))
@settings(max_examples=30)
def test_a_transformer_is_converted(case, masks):
    """Source and target have masks; the memory can have its own instead of the source's."""
    sizes, options = case
    module = transformer(sizes, options)
    xs = sequence(options, STEPS, sizes[0], 1), sequence(options, LENGTH, sizes[0], 2)
    source, memory = (fn.padding_mask(torch.tensor([STEPS, n]), STEPS) for n in (2, 1))
    ours = (source, fn.causal_mask(LENGTH), memory)[:masks]

    def call(module, x):
        named = {"src_key_padding_mask": of_torch(source), "tgt_mask": ~fn.causal_mask(LENGTH)}
        named = dict([*named.items()][:masks])
        of_memory = {"memory_key_padding_mask": of_torch(memory if masks == 3 else source)} if masks else {}
        return module(*x[:2], **named, **of_memory)

    layer = assert_converts(module, (*xs, *ours), call=call)
    assert type(layer) is fn.EncoderDecoder


@MIXED
@given(arguments(), st.booleans(), st.data())
@settings(max_examples=50)
def test_an_encoder_is_called(case, batched, data):
    """Both masks are drawn from every kind, for one block and a stack."""
    sizes, options = case
    module, prefix = nn.TransformerEncoderLayer(*sizes, **options), "src_"
    x = {"src": sequence(options, LENGTH, sizes[0], 1, batched=batched)}
    masks = drawn_masks(data, [prefix], sizes[1], [(LENGTH, LENGTH)], batched=batched)
    if data.draw(st.booleans()):
        module = nn.TransformerEncoder(module, 2, enable_nested_tensor=False)
        masks = {{"src_mask": "mask"}.get(name, name): mask for name, mask in masks.items()}
    assert_called(module, x | masks)


@MIXED
@given(arguments(OF_COPIES), st.booleans(), st.data())
@settings(max_examples=50)
def test_a_decoder_is_called(case, batched, data):
    """Up to four masks are drawn from every kind, for one block and a stack."""
    sizes, options = case
    module = nn.TransformerDecoderLayer(*sizes, **options)
    module = nn.TransformerDecoder(module, 2) if data.draw(st.booleans()) else module
    x = {"tgt": sequence(options, LENGTH, sizes[0], 1, batched=batched)}
    x["memory"] = sequence(options, STEPS, sizes[0], 2, batched=batched)
    shapes = [(LENGTH, LENGTH), (LENGTH, STEPS)]
    assert_called(module, x | drawn_masks(data, ["tgt_", "memory_"], sizes[1], shapes, batched=batched))


@NESTED
@MIXED
@given(arguments(OF_COPIES), st.data())
@settings(max_examples=50)
def test_a_transformer_is_called(case, data):
    """Up to six masks are drawn from every kind."""
    sizes, options = case
    x = {"src": sequence(options, STEPS, sizes[0], 1), "tgt": sequence(options, LENGTH, sizes[0], 2)}
    shapes = [(STEPS, STEPS), (LENGTH, LENGTH), (LENGTH, STEPS)]
    masks = drawn_masks(data, ["src_", "tgt_", "memory_"], sizes[1], shapes)
    assert_called(transformer(sizes, options), x | masks)


@NESTED
def test_a_transformer_called_as_its_authors_do():
    """Floating masks of -∞ from ``generate_square_subsequent_mask``, and one padding mask for source and memory, work."""
    options = {"batch_first": True, "dropout": 0.0}
    module = transformer((4, 2, 3), options)
    x = {"src": draw((ROWS, STEPS, 4), 1), "tgt": draw((ROWS, LENGTH, 4), 2)}
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
    inputs = {**x, "causal": causal, "padding": hidden((ROWS, STEPS), 3)}

    def arrange(src, tgt, causal, padding):
        paddings = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
        return {"src": src, "tgt": tgt, "tgt_mask": causal, "tgt_is_causal": True, **paddings}

    assert_called(module, inputs, arrange, constants=("causal",))  # torch uses another kernel for it, and has no gradient
    node = called(module, Ref("src"), Ref("tgt"), None, Ref("causal"))
    assert [type(one.layer) for one in node.inputs[2:]] == [fn.FullMask, fn.VisibleMask]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_evaluation_with_nested_tensors():
    """In evaluation torch packs padded rows; visible positions agree, and torch's others are zeros."""
    options = {"batch_first": True, "dropout": 0.3}
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 3, **options), 2).double().eval()
    layer, params = converted(module)
    x, mask = draw((ROWS, LENGTH, 4)), fn.padding_mask(torch.tensor([LENGTH, 1]), LENGTH)
    with torch.no_grad():
        want = module(x, src_key_padding_mask=of_torch(mask))
    got = layer.inference()(params, (x, mask))
    seen = mask[:, 0, 0].unsqueeze(-1)
    assert bool((want == 0).any())
    torch.testing.assert_close(torch.where(seen, got, 0.0), want, rtol=1e-10, atol=1e-10)


def test_modules_of_other_kinds_within():
    """A custom norm, a custom activation, and dropout everywhere keep their names."""
    module = nn.TransformerEncoderLayer(4, 2, 3, 0.25, nn.PReLU(3), batch_first=True)
    module.norm2 = nn.RMSNorm(4)
    layer, params = converted(module)
    assert (layer.norm2, layer.activation, layer.dropout1) == (fn.RMSNorm(4), fn.PReLU(3), fn.Dropout(0.25))
    assert layer.self_attn.dropout == 0.25
    assert {*tree.names(params)} == {*module.state_dict()}


def test_a_copy_of_a_decoder_layer_computes_a_relu():
    """The blocks of a torch.nn decoder are copies, which replace an activation module with ``F.relu``."""
    module = nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 3, activation=nn.Tanh()), 1)
    assert converted(module)[0].layers[0].layers[0].activation == fn.ReLU()
    assert converted(nn.TransformerDecoderLayer(4, 2, 3, activation=nn.Tanh()))[0].activation == fn.Tanh()


def test_activations_that_are_functions(monkeypatch):
    """They are the ones in the table of functions, also with further arguments."""
    made = lambda x, approximate="none": Node(fn.GELU(approximate), (x,))
    monkeypatch.setitem(FUNCTIONS, F.gelu, made)
    partial = functools.partial(F.gelu, approximate="tanh")
    module = nn.TransformerEncoderLayer(4, 2, 3, activation=partial, dropout=0.0, batch_first=True)
    assert converted(module)[0].activation == fn.GELU("tanh")
    assert_converts(module, draw((2, 3, 4)))


def test_a_converted_net_is_a_value():
    """``eval(repr(net))`` equals the net."""
    module = nn.Transformer(4, 2, 1, 1, 3, batch_first=True)
    layer = converted(module)[0]
    assert eval(repr(layer), vars(fn)) == layer == converted(module)[0]


def twice(x):
    """Double x, as an unknown function."""
    return 2 * x


def with_activation(function):
    """Return a layer with an activation."""
    return nn.TransformerEncoderLayer(4, 2, 3, activation=function)


REFUSALS = {
    "it computes relu, as copies of a decoder layer do, and not its activation PReLU(num_parameters=1)": lambda: converted(
        nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, activation=nn.PReLU()), 1)
    ),
    "the activation twice has no counterpart; use a torch function or a module, such as nn.GELU()": lambda: converted(
        with_activation(twice)
    ),
    "there must be at least one layer": lambda: converted(nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2), 0)),
    "is_causal must come with the attention mask that it describes, as in torch.nn": lambda: called(
        with_activation("relu"), Ref("x"), is_causal=True
    ),
    "memory must be a tensor that the code gets or computes, got NoneType": lambda: called(
        nn.TransformerDecoderLayer(4, 2), Ref("x"), None
    ),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusals(sentence):
    """The examples have no counterpart, or torch.nn rejects them too."""
    with pytest.raises(UnsupportedError) as raised:
        REFUSALS[sentence]()
    assert str(raised.value) == sentence
