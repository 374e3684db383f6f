"""Modules to nets and back, and nets to modules and back: the same values and the same keys."""

import pytest
import torch
from module_comparison import assert_same, in_double
from torch import nn

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import as_module, from_torch, to_torch

X = fn.random.normal(1, (5, 3))


class Block(nn.Module):
    """A residual block."""

    def __init__(self, features):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        """Add the block's output to x."""
        return self.relu(x + self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Pictures(nn.Module):
    """A list of blocks, one of which is used twice, a direct parameter, and a second output in training."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("offset", torch.rand(4, 1, 1))
        self.drop = nn.Dropout(0.0)
        self.head = nn.Sequential(nn.Linear(4, 6), nn.Hardswish(), nn.Linear(6, 3))

    def forward(self, x):
        """Return logits, and in training probabilities too."""
        x = self.stem(x)
        for block in (*self.blocks, self.blocks[0]):
            x = block(x) * self.scale + self.offset
        y = self.head(self.drop(torch.flatten(x.mean((2, 3)), 1)))
        return (y, torch.sigmoid(y)) if self.training else y


class Words(nn.Module):
    """A language model whose embedding is also its last weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 2, enable_nested_tensor=False
        )
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        """Return logits of the next words."""
        return self.out(self.encoder(self.table(x)))


class Sequences(nn.Module):
    """A classifier that uses the last output of an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        """Return logits."""
        y, _ = self.lstm(x)
        return self.out(y[:, -1])


MODULES = {
    "pictures": (Pictures, fn.random.normal(2, (3, 2, 6, 5))),
    "words": (Words, torch.arange(12).reshape(3, 4) % 11),
    "sequences": (Sequences, fn.random.normal(3, (3, 5, 3))),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_comes_back_with_its_keys_and_values(name):
    """Gradients and running statistics agree in both modes; tied parameters have their first key."""
    kind, x = MODULES[name]
    torch.manual_seed(0)
    module, x = kind().double(), in_double(x)
    back = to_torch(*from_torch(module))
    assert {*back.state_dict()} == _first_keys(module)
    for mode in (True, False):
        module.train(mode)
        back.train(mode)
        got, want = back(x), module(x)
        assert_same("y", got, want)
        sum(leaf.square().sum() for leaf in tree.leaves(got)).backward()
        sum(leaf.square().sum() for leaf in tree.leaves(want)).backward()
        grads = {path: leaf.grad for path, leaf in back.named_parameters()}
        assert_same("gradients", grads, {path: leaf.grad for path, leaf in module.named_parameters()})
        assert_same("state", dict(back.state_dict()), {path: module.state_dict()[path] for path in back.state_dict()})


def _first_keys(module):
    paths = {id(leaf): path for path, leaf in reversed(module.state_dict(keep_vars=True).items())}
    return {*paths.values()}


NETS = {
    "serial of all kinds": fn.serial(
        a=fn.BatchNorm1d(3).inference(),
        b=fn.residual(fn.serial(fn.Linear(3, 3), fn.Scale(3))),
        c=fn.graph("x", f=(fn.Linear(3, 3), "x"), g=("f", "f"), y=(fn.Mul(), "f", "g")),
        d=fn.serial(fn.Unsqueeze(1), fn.GRU(3, 4, batch_first=True), fn.Select(0), fn.Sin()),
    ),
    "several inputs": fn.serial(
        fn.parallel(fn.Linear(3, 2), fn.Linear(3, 2)), fn.branch(fn.Add(), fn.Sub(), merge=fn.Concat(-1))
    ),
    "a transformer": fn.serial(fn.Unsqueeze(0), fn.transformer_encoder(3, 1, 2)),
    "constants": fn.serial_with_constants(fn.serial(fn.Mul(), fn.Linear(3, 3)), fn.Add()),
    "tied": fn.tied(fn.serial(fn.Linear(3, 3), fn.Tanh(), fn.Linear(3, 3)), ("0.weight", "2.weight")),
    "frozen": fn.serial(fn.freeze(fn.serial(fn.Linear(3, 3), fn.Tanh())), fn.Linear(3, 2)),
    "images without a batch": fn.serial(fn.Unsqueeze(0), fn.Dropout2d(0.5), fn.Linear(3, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_comes_back_with_its_keys_and_values(name):
    """The module is from ``to_torch`` or ``as_module``."""
    net = NETS[name]
    params = in_double(net.init(0))
    x = (X.double(), X.double().flip(0)) if name in ("several inputs", "constants") else X.double()
    for convert in (to_torch, as_module):
        again, same = from_torch(convert(net, params))
        assert_same("params", same, params)
        assert_same("y", again.inference()(same, x), net.inference()(params, x))
        assert again.stochastic == net.stochastic
        assert again.has_running_stats == net.has_running_stats


@pytest.mark.parametrize(
    ("table", "ids"), [(fn.Embedding(5, 3, padding_idx=1), [[4, 1]]), (fn.EmbeddingBag(5, 3, "sum"), [[4, 1]])]
)
def test_embeddings_come_back(table, ids):
    """These are a table with a nonzero padding row, and one with bags."""
    params = {"weight": table.init(0)["weight"] + 1}
    again, same = from_torch(to_torch(table, params))
    assert torch.equal(again(same, torch.tensor(ids)), table(params, torch.tensor(ids)))


def test_a_module_of_modules_that_were_exported_is_traced():
    """They are called with separate arguments."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            pair, merge = fn.parallel(fn.Linear(3, 2), fn.Scale(3)), fn.residual(fn.Linear(2, 2))
            self.pair, self.merge = to_torch(pair, pair.init(0)), to_torch(merge, merge.init(0))

        def forward(self, x):
            return self.merge(self.pair(x, x)[0])

    module = Sum()
    net, params = from_torch(module)
    assert {*tree.names(params)} == {*module.state_dict()}
    torch.testing.assert_close(net(params, X), module(X))
