"""Modules to nets and back, and nets to modules and back: the same values and the same keys."""

import pytest
import torch
from module_comparison import CLOSE, assert_module_agrees, assert_same, in_double, run
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

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
    """Blocks in a list, one of them used twice, a parameter of its own, dropout and a function of its mode."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("offset", torch.rand(4, 1, 1))
        self.head = nn.Sequential(nn.Linear(4, 6), nn.Hardswish(), nn.Linear(6, 3))

    def forward(self, x):
        """Return logits, and in training the features too."""
        x = self.stem(x)
        for block in (*self.blocks, self.blocks[0]):
            x = block(x) * self.scale + self.offset
        features = F.dropout(x.mean((2, 3)), 0.5, self.training)
        y = self.head(torch.flatten(features, 1))
        return y + y.detach().mean() if self.training else y


class Words(nn.Module):
    """A language model whose table is its last weight too."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 2, enable_nested_tensor=False)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        """Return logits of the next words."""
        return self.out(self.encoder(self.table(x)))


class Sequences(nn.Module):
    """A classifier of the last output of an LSTM."""

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
    """In evaluation, with its gradients; the first key of a tie is that of the pair."""
    kind, x = MODULES[name]
    torch.manual_seed(0)
    module, x = kind().double().eval(), in_double(x)
    net, params = from_torch(module)
    back = to_torch(net, params).eval()
    assert [*back.state_dict()] == [*dict.fromkeys(path for path, _ in _first_keys(module))] or {*back.state_dict()} == {
        path for path, _ in _first_keys(module)
    }
    torch.testing.assert_close(back(x), module(x), **CLOSE)
    for one in (module, back):
        one(x).square().sum().backward()
    got = {path: leaf.grad for path, leaf in back.named_parameters()}
    assert_same("gradients", got, {path: leaf.grad for path, leaf in module.named_parameters()})


def _first_keys(module):
    seen = {}
    for path, leaf in module.state_dict(keep_vars=True).items():
        seen.setdefault(id(leaf), (path, leaf))
    return seen.values()
