"""``nn.MultiheadAttention``, converted and called: every option, and every kind of mask, separately and together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_twins import assert_called, assert_converts, called, converted
from torch import nn
from twins import draw

import funcnet as fn
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError

ROWS, QUERIES, KEYS = 2, 3, 4
MIXED = pytest.mark.filterwarnings("ignore:Support for mismatched")
"""torch.nn adds floating masks to bool ones, with a deprecation warning."""


@st.composite
def attentions(draw_from, *, options=()):
    """Draw a module, whether x has a batch axis, and query, key and value; ``options`` are the possible options."""
    flags, heads = st.booleans(), draw_from(st.integers(1, 2))
    size = heads * draw_from(st.integers(1, 2))
    given = {name: draw_from(flags) for name in ("bias", "batch_first", *options)}
    sizes = {name: draw_from(st.integers(1, 3)) for name in ("kdim", "vdim") if options and draw_from(flags)}
    module, batched = nn.MultiheadAttention(size, heads, **given, **sizes), draw_from(flags)
    return module, sequences(module, batched), batched


def sequences(module, batched):
    """Draw query, key and value."""
    widths = {"query": (QUERIES, module.embed_dim), "key": (KEYS, module.kdim), "value": (KEYS, module.vdim)}
    xs = {name: draw((*([ROWS] if batched else []), *shape), i) for i, (name, shape) in enumerate(widths.items())}
    return xs if module.batch_first or not batched else {name: x.transpose(0, 1) for name, x in xs.items()}


def hidden(shape, seed):
    """Draw a bool mask in torch.nn's convention that hides about a third of the keys, but never the first."""
    return fn.random.bernoulli(seed, shape, 0.33).index_fill(-1, torch.tensor([0]), value=False)


@given(attentions(options=("add_bias_kv", "add_zero_attn")), st.sampled_from(["none", "bool", "floating"]))
@settings(max_examples=60)
def test_attention_is_converted(case, mask):
    """Attention to another sequence is converted, with every option and funcnet's masks."""
    module, xs, batched = case
    x, shape = tuple(xs.values()), (ROWS if batched else 1, 1, QUERIES, KEYS)
    visible = ~hidden(shape, 7) if mask == "bool" else draw(shape, 7)
    heads = (ROWS if batched else 1, module.num_heads, QUERIES, KEYS)

    def call(module, x):
        of_torch = None if mask == "none" else ~x[3] if mask == "bool" else x[3]
        of_torch = None if of_torch is None else of_torch.expand(heads).flatten(0, 1)
        return module(*x[:3], attn_mask=of_torch, need_weights=False)[0]

    layer = assert_converts(module, x if mask == "none" else (*x, visible), call=call)
    assert isinstance(layer, fn.MultiHeadAttention)


@given(attentions())
@settings(max_examples=15)
def test_self_attention_is_converted(case):
    """x can come with a mask."""
    module, xs, batched = case
    x, lead = xs["query"], (ROWS, 1, 1) if batched else (1,)
    assert_converts(module, x, call=lambda m, x: m(x, x, x, need_weights=False)[0])
    visible = ~hidden((*lead, QUERIES), 7)
    padding = ~visible[:, 0, 0] if batched else ~visible[0]
    call = lambda m, x: m(x[0], x[0], x[0], key_padding_mask=padding, need_weights=False)[0]
    assert_converts(module, (x, visible), call=call)


def masks_of_torch(draw_from, heads, batched, lengths=(QUERIES, KEYS)):
    """Draw masks in all of torch.nn's forms, by argument name: bool, floating, with heads, or none."""
    given = {}
    kind, padding = (draw_from(st.sampled_from(["none", "bool", "floating"])) for _ in range(2))
    lead = ((ROWS if batched else 1) * heads,) * draw_from(st.booleans())
    if kind != "none":
        shape = (*lead, *lengths)
        given["attn_mask"] = hidden(shape, 8) if kind == "bool" else draw(shape, 8)
    if padding != "none":
        shape = (ROWS, lengths[1]) if batched else lengths[1:]
        given["key_padding_mask"] = hidden(shape, 9) if padding == "bool" else draw(shape, 9)
    return given


@MIXED
@given(attentions(options=("add_bias_kv", "add_zero_attn")), st.data(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_attention_is_called(case, data, need_weights, average_attn_weights):
    """Masks are torch.nn's, with gradients if floating; weights are returned or not."""
    module, xs, batched = case
    given = {**xs, **masks_of_torch(data.draw, module.num_heads, batched)}
    fixed = {"need_weights": need_weights, "average_attn_weights": average_attn_weights}
    assert_called(module, given, lambda **x: x | fixed, rewrite=lambda node: node if need_weights else left_alone(node))


def left_alone(pair):
    """Return the node for y, which comes with ``None`` instead of weights."""
    node, weights = pair
    assert weights is None
    return node


@MIXED
@given(attentions(), st.data())
@settings(max_examples=15)
def test_self_attention_is_called(case, data):
    """With one input for all three, a single product computes queries, keys and values."""
    module, xs, batched = case
    given = {"x": xs["query"], **masks_of_torch(data.draw, module.num_heads, batched, (QUERIES, QUERIES))}

    def arrange(x, **masks):
        return {"query": x, "key": x, "value": x, **masks}

    assert_called(module, given, arrange)
    node = called(module, **arrange(**{name: Ref(name) for name in given}))
    assert node.inputs[0] == Ref("x")
    assert len(node.inputs) == 1 + (len(given) > 1)


def test_options_are_those_of_the_layer():
    """The layer's options show no further arguments, or every size."""
    assert converted(nn.MultiheadAttention(4, 2, batch_first=True))[0] == fn.MultiHeadAttention(4, 2)
    sizes = {"kdim": 3, "vdim": 4}
    assert converted(nn.MultiheadAttention(4, 2, **sizes))[0] == fn.MultiHeadAttention(4, 2, kdim=3, batch_first=False)


def test_evaluation_on_the_fast_path():
    """Torch's fast kernel for evaluation without gradients returns the same."""
    module = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True).double().eval()
    layer, params = converted(module)
    x, padding = draw((2, 5, 4)), hidden((2, 5), 3)
    with torch.no_grad():
        want = module(x, x, x, key_padding_mask=padding, need_weights=False)[0]
    got = layer.inference()(params, (x, ~padding[:, None, None]))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert layer.dropout == 0.5


def visible(layer, x):
    """Return the result of a layer for a mask in funcnet's convention."""
    return layer.replace(hidden=False)({}, x)


def test_masks_that_are_ours_already():
    """Padding is (N, S) or from ``padding_mask``; attention masks are (L, S), (heads, L, S), (N heads, L, S) or have 4 axes."""
    padding, attention = fn.padding_mask(torch.tensor([3, 1]), 3), fn.causal_mask(3)
    assert torch.equal(visible(fn.VisibleMask("padding"), padding), padding)
    assert torch.equal(visible(fn.VisibleMask("padding"), padding[:, 0, 0]), padding)
    assert torch.equal(visible(fn.VisibleMask("attention", 2), attention), attention)
    heads = attention.repeat(4, 1, 1)
    assert torch.equal(visible(fn.VisibleMask("attention", 2), heads[:2]), heads[:2])
    assert torch.equal(visible(fn.VisibleMask("attention", 2), heads), heads.reshape(2, 2, 3, 3))


REFUSALS = {
    "is_causal must come with the attention mask that it describes, as in torch.nn": {"is_causal": True},
    "need_weights and average_attn_weights must be True or False in the code": {"need_weights": Ref("flag")},
    "a mask must be a tensor that the code gets or computes, got Tensor": {"attn_mask": torch.ones(2, 2)},
    "key must be a tensor that the code gets or computes, got NoneType": {"key": None},
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusals(sentence):
    """Examples are arguments that torch.nn refuses too, and values known only at run time."""
    x = Ref("x")
    with pytest.raises(UnsupportedError) as raised:
        called(nn.MultiheadAttention(4, 2), **{"query": x, "key": x, "value": x, **REFUSALS[sentence]})
    assert str(raised.value) == sentence


def test_a_causal_hint_needs_its_mask_only():
    """With ``is_causal`` the mask decides, as in torch.nn if the hint is correct."""
    x, mask = Ref("x"), Ref("mask")
    node, _ = called(nn.MultiheadAttention(4, 2), x, x, x, None, False, mask, is_causal=True)
    assert isinstance(node, Node)
    assert isinstance(node.inputs[1].layer, fn.VisibleMask)
