"""Sequence models as users write them, converted as a whole: outputs and all gradients, in both modes, with funcnet's masks."""

import pytest
import torch
from torch import Tensor, nn
from twins import CLOSE, draw

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn.importing.entry import from_torch

VOCABULARY, ROWS, LENGTH, SIZE = 7, 2, 4, 6
NESTED = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")


class Classifier(nn.Module):
    """Classes from the outputs at the last step."""

    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 3)
        self.encoder = kind(3, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.0)
        self.head = nn.Linear(8, 2)

    def forward(self, words: Tensor) -> Tensor:
        y, _ = self.encoder(self.embedding(words))
        return self.head(y[:, -1])


class LastStates(Classifier):
    """Classes from the last hidden states of both directions and the mean of the outputs."""

    def forward(self, words: Tensor) -> Tensor:
        y, state = self.encoder(self.embedding(words))
        h = state[0] if isinstance(self.encoder, nn.LSTM) else state
        return self.head(torch.cat((h[-2], h[-1]), dim=1) + y.mean(dim=1))


class FromZeros(nn.Module):
    """An LSTM with a state created in the code, which also returns the cell state."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(2, x.size(1), 4, dtype=torch.float64)
        y, (_, c) = self.rnn(x, (h, h))
        return y[-1] + c[-1]


class Cells(nn.Module):
    """Two cells, one step after the other."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTMCell(3, 4), nn.GRUCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.first(x[0])
        h, c = self.first(x[1], (h, c))
        return self.second(h, c)


class Attending(nn.Module):
    """A block with self-attention whose weights are unused, or returned."""

    def __init__(self, returned=False):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(SIZE, 2, batch_first=True), nn.LayerNorm(SIZE)
        self.returned = returned

    def forward(self, x: Tensor, padding: Tensor):
        y, weights = self.attention(x, x, x, key_padding_mask=padding)
        y = self.norm(x + y)
        return (y, weights) if self.returned else y


class FirstEntry(nn.Module):
    """The output of attention, selected by number, in a series."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(SIZE, 2, batch_first=True), nn.Linear(SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0])


class Encoding(nn.Module):
    """Words, positions, an encoder with a mask, and the mean over visible positions."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(VOCABULARY, SIZE), nn.Parameter(draw((LENGTH, SIZE)))
        layer = nn.TransformerEncoderLayer(SIZE, 2, 5, 0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(SIZE), enable_nested_tensor=False)
        self.head = nn.Linear(SIZE, 2)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        x = self.embedding(words) * SIZE**0.5 + self.positions
        return self.head(self.encoder(x, src_key_padding_mask=padding)).mean(1)


class PaddingOfWords(Encoding):
    """The same, with padding computed from the words: a mask in torch's convention inside."""

    def forward(self, words: Tensor) -> Tensor:
        return super().forward(words, words == 0)


class Translating(nn.Module):
    """Source and target words, and a causal mask as an input."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, SIZE), nn.Embedding(VOCABULARY, SIZE)
        self.transformer = nn.Transformer(SIZE, 2, 1, 1, 5, 0.0, batch_first=True)
        self.head = nn.Linear(SIZE, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor, causal: Tensor, padding: Tensor) -> Tensor:
        named = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
        return self.head(self.transformer(self.source(source), self.target(target), tgt_mask=causal, **named))


class Decoding(nn.Module):
    """A language model: a decoder with a memory."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(SIZE, 2, 5, 0.0, norm_first=True), 2)

    def forward(self, x: Tensor, memory: Tensor, causal: Tensor) -> Tensor:
        return self.decoder(x, memory, causal)


class Encoder(nn.Module):
    """An encoder that other modules call."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(SIZE, 2, 5, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class OwnMask(Encoder):
    """An encoder with a causal mask created in the code, for any length."""

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1), dtype=torch.float64)
        return self.encoder(x, mask=mask, is_causal=True)


class HeldMask(Encoder):
    """An encoder with a causal mask of -∞ in a buffer, sliced to the length."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x, self.mask[: x.size(1), : x.size(1)])


class FromNothing(nn.Module):
    """A cell whose first state is created from the number of rows."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(SIZE, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 4, dtype=torch.float64)
        for step in range(LENGTH):
            h = self.cell(x[:, step], h)
        return h


class UpTo(nn.Module):
    """A bound that depends on the values of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(2, x.max())


class Counted(nn.Module):
    """A number of elements, which a kernel must not treat as a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(0, x.numel())


WORDS = torch.tensor([[1, 4, 2, 6], [3, 5, 0, 0]])
PADDING, CAUSAL = WORDS == 0, ~fn.causal_mask(LENGTH)
X = draw((ROWS, LENGTH, SIZE))
MASKS = (PADDING.data_ptr(), CAUSAL.data_ptr())

MODELS = {
    "classifier, LSTM": (lambda: Classifier(nn.LSTM), (WORDS,)),
    "classifier, GRU": (lambda: Classifier(nn.GRU), (WORDS,)),
    "classifier, RNN": (lambda: Classifier(nn.RNN), (WORDS,)),
    "last states, LSTM": (lambda: LastStates(nn.LSTM), (WORDS,)),
    "last states, RNN": (lambda: LastStates(nn.RNN), (WORDS,)),
    "last states, GRU": (lambda: LastStates(nn.GRU), (WORDS,)),
    "from zeros": (FromZeros, (draw((LENGTH, ROWS, 3)),)),
    "cells": (Cells, (draw((2, ROWS, 3)),)),
    "attending": (Attending, (X, PADDING)),
    "attending, with weights": (lambda: Attending(returned=True), (X, PADDING)),
    "first entry": (FirstEntry, (X,)),
    "encoding": (Encoding, (WORDS, PADDING)),
    "encoding, padding of words": (PaddingOfWords, (WORDS,)),
    "translating": (Translating, (WORDS, WORDS.flip(0), CAUSAL, PADDING)),
    "decoding": (Decoding, (X.transpose(0, 1), draw((3, ROWS, SIZE), 2), CAUSAL)),
    "own mask": (OwnMask, (X,)),
    "held mask": (HeldMask, (X,)),
    "from nothing": (FromNothing, (X,)),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(SIZE, 2, 5, 0.0), 2), (X,)),
    "transformer": (lambda: nn.Transformer(SIZE, 2, 1, 1, 5, dropout=0.0), (X, X.flip(1))),
    "series": (lambda: nn.Sequential(nn.Linear(SIZE, SIZE), nn.TransformerEncoderLayer(SIZE, 2, 5, 0.0)), (X,)),
}


def assert_same(net, params, module, inputs):
    """Check outputs and all gradients."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    want = tree.leaves(module(*leaves))
    ours = as_input(inputs)
    y, cache = net.apply(params, ours)
    gys = [draw(one.shape, 3) for one in want]
    gparams, gx = net.vjp(params, cache, tuple(gys) if isinstance(y, tuple) else gys[0])
    named = dict(module.named_parameters())
    floating = [x for x in leaves if x.requires_grad]
    grads = torch.autograd.grad(want, [*floating, *named.values()], gys, allow_unused=True, materialize_grads=True)
    found = tree.names(gparams)
    gxs = [g for g in (gx if len(inputs) > 1 else (gx,)) if g is not None]
    got = [*tree.leaves(y), *gxs, *[found[path] for path in named]]
    for one, other in zip(got, [*want, *grads], strict=True):
        torch.testing.assert_close(one, other.detach(), **CLOSE)


@NESTED
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_converted(name):
    """The same params work in both modes, and their paths are those of the state dict."""
    make, inputs = MODELS[name]
    module = make().double()
    net, params = from_torch(module)
    assert {*tree.names(params)} == {*module.state_dict()}
    assert_same(net, params, module, inputs)
    assert_same(net.inference(), params, module.eval(), inputs)
    assert eval(repr(net), {**vars(fn), "torch": torch}) == net


def as_input(inputs):
    """Return the inputs of a net from those of a module."""
    ours = tuple([~x if x.data_ptr() in MASKS else x for x in inputs])
    return ours if len(ours) > 1 else ours[0]


@NESTED
@pytest.mark.parametrize("name", ["attending, with weights", "first entry", "last states, RNN"])
def test_the_laws_hold(name):
    """This includes outputs picked from tuples and translated masks."""
    make, inputs = MODELS[name]
    fn.testing.check_laws(from_torch(make())[0], as_input(inputs), compiled=False)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["encoding, padding of words", "cells"])
def test_converted_nets_compile(name):
    """A step of value and gradients is one graph."""
    make, inputs = MODELS[name]
    net, params = from_torch(make().double())

    def step(params, x):
        y, cache = net.apply(params, x)
        return y, net.grads(params, cache, torch.ones_like(y))

    want = step(params, as_input(inputs))
    got = torch.compile(step, fullgraph=True)(params, as_input(inputs))
    for one, other in zip(tree.leaves(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(one, other)


def attentions(net):
    """Return the attention layers of a net."""
    return [layer for _, layer in fn.walk(net) if isinstance(layer, fn.MultiHeadAttention)]


def test_weights_that_nobody_uses_are_not_computed():
    """This holds in a graph and in a series; returned weights are computed."""
    for module in (Attending(), FirstEntry()):
        (attention,) = attentions(from_torch(module)[0])
        assert not attention.need_weights
    (attention,) = attentions(from_torch(Attending(returned=True))[0])
    assert attention.need_weights


def test_frozen_attention():
    """Attention that does not require gradients is frozen, whatever its options are."""
    module = Attending(returned=True).double()
    module.attention.requires_grad_(requires_grad=False)
    net, params = from_torch(module)
    y, cache = net.apply(params, (X, ~PADDING))
    grads = net.grads(params, cache, tree.map(torch.ones_like, y))
    assert grads["attention"]["in_proj_weight"] is None
    assert grads["norm"]["weight"] is not None
    want = module(X, PADDING)
    for one, other in zip(y, want, strict=True):
        torch.testing.assert_close(one, other.detach(), **CLOSE)


@pytest.mark.parametrize(("module", "sentence"), [(UpTo(), "torch.zeros"), (Counted(), "Tensor.numel: numel\\(\\) depends on")])
def test_numbers_that_depend_on_values(module, sentence):
    """They are refused, since kernels that treat a traced value as a tensor would read invalid memory."""
    with pytest.raises(ValueError, match=f"from_torch: {type(module).__name__} cannot be converted: {sentence}"):
        from_torch(module)
