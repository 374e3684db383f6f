"""``from_torch`` on idioms of published models: whole numbers, mixed dtypes, noise, unknown numbers of axes, odd outputs."""

import math
from collections import namedtuple

import pytest
import torch
from interop.importing.beside_torch import agree, compare
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import funcnet as fn
from funcnet.interop.torch_nn import from_torch, to_torch

KEY = fn.key(7)
TOKENS = torch.tensor([[1, 2, 3, 4, 0], [5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
LENGTHS = torch.tensor([4, 3, 5])
ROWS, SEQUENCE, IMAGE = (fn.random.normal(KEY, shape) for shape in ((4, 6), (3, 5, 8), (2, 3, 8, 8)))
Named = namedtuple("Named", "logits hidden")


class Buckets(nn.Module):
    """Attention with a bias by buckets of relative positions."""

    def __init__(self):
        super().__init__()
        self.qk, self.bias = nn.Linear(8, 16), nn.Embedding(8, 1)

    @staticmethod
    def bucket(distance):
        found = (distance < 0).to(torch.long) * 4
        distance = torch.abs(distance)
        large = 2 + (torch.log(distance.float() / 2) / math.log(4) * 2).to(torch.long)
        large = torch.min(large, torch.full_like(large, 3))
        found += torch.where(distance < 2, distance, large)
        return found

    def forward(self, x):
        n = x.size(1)
        q, k = self.qk(x).chunk(2, -1)
        places = torch.arange(n)
        bias = self.bias(self.bucket(places[:, None] - places[None, :])).squeeze(-1)
        return functional.softmax(q @ k.mT + bias, -1)


class Fields(nn.Module):
    """Categories of several fields in one table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 4)
        self.register_buffer("offsets", torch.tensor([0, 1, 2, 3, 4]))

    def forward(self, tokens):
        return (
            self.table(tokens + self.offsets)
            + self.table(2 * tokens // 2)
            + self.table(torch.cat([tokens % 7, tokens], 1)[:, 5:])
        )


class Pooled(nn.Module):
    """Means and last outputs of sequences with lengths, and multiplication with a padding mask."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(20, 4, padding_idx=0), nn.Linear(4, 2)

    def forward(self, tokens, lengths):
        x = self.embedding(tokens)
        seen = torch.arange(tokens.size(1))[None, :] < lengths[:, None]
        mask = (tokens != 0).float().unsqueeze(-1)
        mean = (x * seen.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1) + (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return self.linear(mean + x[torch.arange(x.size(0)), lengths - 1])


class Causal(nn.Module):
    """Attention with floating masks in torch's default dtype, and sinusoidal positions."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        n = x.shape[1]
        speeds = torch.exp(torch.arange(4) * -0.5)
        angles = torch.arange(n)[:, None] * speeds[None, :]
        x = x + torch.cat([angles.sin(), angles.cos()], -1)
        return self.attention(x, x, x, attn_mask=torch.full((n, n), -math.inf).triu(1), need_weights=False)[0]


class Heads(nn.Module):
    """Views to shapes that are concatenated and unpacked with a star."""

    def split(self, x):
        sizes = x.size()[:-1] + (2, 4)  # noqa: RUF005 (as people write it)
        return x.view(*sizes).permute(0, 2, 1, 3)

    def forward(self, x):
        first, *_ = x.shape
        y = self.split(x).contiguous()
        return nn.Softmax(dim=-1)(y.view(first, *((1,) * (x.ndim - 2)), -1)), y.new_zeros(*x.shape[:2]) + x.sum(-1) * len(x)


class Parts(nn.Module):
    """Loops over parts, and over a list returned by another module."""

    class Levels(nn.Module):
        """A list of outputs."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

        def forward(self, x):
            found = []
            for layer in self.layers:
                x = torch.tanh(layer(x))
                found.append(x)
            return found

    def __init__(self):
        super().__init__()
        self.levels = Parts.Levels()
        self.small = nn.ModuleList([nn.Linear(2, 3) for _ in range(4)])
        self.heads = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x):
        y = torch.cat([layer(part) for layer, part in zip(self.small, x.chunk(4, dim=-1), strict=True)], -1)
        return [y, *[self.heads[-1](self.heads[:2](level)) for level in self.levels(x)]]


class NamedOutput(nn.Module):
    """A module that returns a named tuple."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        return Named(logits=self.b(hidden), hidden=hidden)


class Fielded(nn.Module):
    """A module that reads the fields of a named tuple."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = NamedOutput(), nn.Linear(7, 3)

    def forward(self, x):
        found = self.inner(x)
        return self.out(torch.cat([found.logits, found.hidden], -1))


class Called(nn.Module):
    """A module that is called once with tensors only, and once with a number."""

    class Scaled(nn.Module):
        """A module with a context and a scale."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x, context=None, scale=1.0):
            return self.linear(x if context is None else context) * scale

    def __init__(self):
        super().__init__()
        self.scaled = Called.Scaled()

    def forward(self, x):
        return self.scaled(x, context=x * 2, scale=0.5) + self.scaled(x) + self.scaled(x, scale=3.0)


class Frozen(nn.Module):
    """A frozen parameter and module, and a parameter that is only read for its dtype."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6), requires_grad=False)
        self.lstm = nn.LSTM(6, 3)

    def forward(self, x):
        weight = next(self.lstm.parameters())
        states = weight.new_zeros(1, 3), weight.new_zeros(1, 3)
        return self.lstm(x * self.scale, states)[0]


CASES = {
    "relative positions": (Buckets, (SEQUENCE,)),
    "offsets of fields": (Fields, (TOKENS,)),
    "lengths": (Pooled, (TOKENS, LENGTHS)),
    "causal masks": (Causal, (SEQUENCE,)),
    "shapes with a star": (Heads, (SEQUENCE,)),
    "loops over parts": (Parts, (SEQUENCE,)),
    "named tuples": (NamedOutput, (ROWS,)),
    "fields of named tuples": (Fielded, (ROWS,)),
    "calls of two kinds": (Called, (ROWS,)),
    "frozen parameters": (Frozen, (ROWS,)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_net_equals_its_module(name):
    """This holds in both modes and two dtypes; the net is a value, and converts back."""
    make, xs = CASES[name]
    net, params = agree(make, *xs)
    assert eval(repr(net), {**vars(fn), "torch": torch}) == net
    back = to_torch(net, params)
    one = back(*xs)
    want = net(params, xs if len(xs) > 1 else xs[0])
    assert all(torch.allclose(a, b) for a, b in zip(fn.tree.leaves(one), fn.tree.leaves(want), strict=True))
    assert {**back.state_dict()}.keys() == {**fn.tree.names(params)}.keys()


def test_a_frozen_parameter_goes_back_as_one():
    """It has ``requires_grad=False``, and no gradient."""
    back = to_torch(*from_torch(Frozen()))
    assert not dict(back.named_parameters())["scale"].requires_grad


class Loss(nn.Module):
    """A model that returns (logits, loss), the second only with targets."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x, targets=None):
        return self.linear(x), None if targets is None else functional.cross_entropy(self.linear(x), targets)


def test_outputs_that_are_none_are_left_out():
    """A net returns only tensors."""
    module = Loss()
    net, params = from_torch(module)
    torch.testing.assert_close(net(params, ROWS), module(ROWS)[0].detach())


def drop_path(x, p, training):
    """Drop rows, like timm."""
    if not training:
        return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept = x.new_empty(shape).bernoulli_(1 - p)
    kept.div_(1 - p)
    return x * kept


class Dropping(nn.Module):
    """Stochastic depth with any number of axes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return drop_path(self.linear(x), 0.5, self.training)


def test_rows_are_dropped_with_any_number_of_axes():
    """Whole rows are dropped, equally many in expectation, and none in evaluation."""
    x = torch.ones(2000, 2, 8)
    net, params = from_torch(Dropping())
    y, plain = net(params, x, KEY), net.inference()(params, x)
    rows = (y != 0).flatten(1).any(1)
    torch.testing.assert_close(y[rows], 2 * plain[rows])
    assert 900 < int(rows.sum()) < 1100
    compare(Dropping(), x[:3], mode="eval")


class Autoencoder(nn.Module):
    """A variational autoencoder that samples in training."""

    def __init__(self):
        super().__init__()
        self.encoder, self.mean, self.log_variance, self.decoder = (nn.Linear(6, n) for n in (6, 2, 2, 6))
        self.decoder = nn.Linear(2, 6)

    def forward(self, x):
        h = torch.relu(self.encoder(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance) if self.training else mean
        return self.decoder(z), mean, log_variance


def test_a_sample_is_drawn_from_the_key():
    """Mean and variance have gradients; evaluation returns the mean."""
    module = Autoencoder().double()
    net, params = from_torch(module)
    compare(module, ROWS.double(), mode="eval")
    number = [*net.layer.children().values()].index(fn.RandomTensor())
    z = fn.random.normal(fn.fold_in(KEY, number), (4, 2), dtype=torch.float64)
    y, mean, log_variance = net(params, ROWS.double(), KEY)
    want = module.decoder(mean + z * torch.exp(0.5 * log_variance)).detach()
    torch.testing.assert_close(y, want)


class TwoNames(nn.Module):
    """One batch norm that is called by two names."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.body = nn.Sequential(self.norm, nn.Tanh())

    def forward(self, x):
        return self.norm(self.body(x))


def test_statistics_with_two_names_are_refused():
    """Each call would update separate ones; a module that merely has two names converts."""
    with pytest.raises(ValueError, match=r"from_torch: a module with running statistics must be called by one name, got .* norm"):
        from_torch(TwoNames())


class Checkpointed(nn.Module):
    """Activation checkpoints in training, of a module and of a method."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)

    def middle(self, x, scale):
        return torch.sin(x) * scale

    def forward(self, x):
        if not self.training:
            return self.last(self.middle(self.first(x), 2.0))
        x = checkpoint(self.first, x, use_reentrant=True)
        return self.last(checkpoint(self.middle, x, 2.0, use_reentrant=False, preserve_rng_state=False))


def test_checkpoints_are_plain_calls():
    """The values are the same; use ``remat`` instead. Torch's function is restored afterwards."""
    agree(Checkpointed, ROWS)
    assert checkpoint is torch.utils.checkpoint.checkpoint
    assert torch.autograd.Function.apply.__func__ is torch.autograd.Function.__dict__["apply"].__func__


class Doubled(torch.autograd.Function):
    """A function with a custom backward pass."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gy):
        return gy


class Applying(nn.Module):
    """A forward that applies the custom function."""

    def forward(self, x):
        return Doubled.apply(x)


def test_functions_of_autograd_are_refused():
    """Their backward is code, which a lifted module would run; tracing leaves them usable."""
    with pytest.raises(ValueError, match=r"Applying cannot be converted: Doubled is a torch\.autograd\.Function, .* use lift"):
        from_torch(Applying())
    assert torch.equal(Doubled.apply(ROWS), 2 * ROWS)


def test_sums_without_gradient_are_of_whole_numbers():
    """Floating tensors would silently get a gradient of 0."""
    with pytest.raises(ValueError, match="x must hold integers: for floating numbers add has a gradient"):
        fn.NoGradient("add", (fn.InputTensor(0), 1))({}, ROWS)
