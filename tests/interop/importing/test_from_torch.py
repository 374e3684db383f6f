"""``from_torch`` on modules as users write them: outputs, gradients, statistics and names agree."""

import copy

import pytest
import torch
from interop.importing import modules_of_users as users
from interop.importing.beside_torch import agree, compare
from torch import nn

import funcnet as fn
from funcnet.interop.torch_nn import from_torch

KEY = fn.key(5)
IMAGE, ROWS, SEQUENCE = (fn.random.normal(KEY, shape) for shape in ((2, 3, 8, 8), (5, 6), (3, 4, 6)))
TOKENS = torch.tensor([[1, 2, 3, 4, 0], [5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
HIDDEN = TOKENS == 0

CASES = {
    "residual": (users.Residual, (fn.random.normal(KEY, (2, 4, 6, 6)),)),
    "resnet": (users.ResNet, (IMAGE,)),
    "u-net": (users.UNet, (IMAGE[:, :1],)),
    "last output of an LSTM": (users.LastOutput, (TOKENS,)),
    "last states": (users.LastState, (SEQUENCE,)),
    "auxiliary output": (users.Auxiliary, (ROWS,)),
    "siamese": (users.Siamese, (ROWS, 2 * ROWS)),
    "tied": (users.Tied, (TOKENS,)),
    "everything": (users.Everything, (SEQUENCE,)),
    "own masks": (users.OwnMask, (TOKENS,)),
    "one module twice": (users.Repeated, (ROWS,)),
    "lists": (users.Dense, (ROWS,)),
    "language model": (users.GPT, (TOKENS,)),
    "tuples and sizes": (users.Pair, (ROWS,)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_net_equals_its_module(name):
    """Outputs, gradients, running statistics and names agree in both modes and two dtypes; the net is a value."""
    make, xs = CASES[name]
    net, params = agree(make, *xs)
    assert eval(repr(net), {**vars(fn), "torch": torch}) == net
    assert hash(copy.deepcopy(net)) == hash(net)
    assert all(not leaf.requires_grad for leaf in fn.tree.leaves(params))
    assert fn.tree.map(lambda leaf: leaf.shape, net.init(0)) == fn.tree.map(lambda leaf: leaf.shape, params)


@pytest.mark.parametrize("name", ["residual", "siamese", "tied", "everything", "one module twice", "last states"])
def test_the_laws_hold(name):
    """This holds for traced graphs, as for any layer."""
    make, xs = CASES[name]
    net, params = from_torch(make())
    fn.testing.check_laws(net, xs if len(xs) > 1 else xs[0], params, compiled=False)


def test_masks_that_are_inputs_have_our_meaning():
    """They are True where attention is allowed, through modules and into Transformers."""
    x = fn.random.normal(KEY, (3, 5, 8))
    agree(users.Masked, x, HIDDEN, inputs=(x, ~HIDDEN))


def test_structures_are_named_serials_and_graphs():
    """A chain is a serial, anything else a graph, with the modules' names; a repeated call names its first node."""
    net, _ = from_torch(users.ResNet())
    assert list(net.children()) == ["stem", "layers", "pool", "flatten", "fc"]
    block = fn.at(net, "layers.1")
    assert list(block.children()) == ["conv1", "bn1", "relu", "conv2", "bn2", "downsample", "add", "relu_"]
    assert isinstance(fn.at(net, "stem"), type(fn.serial()))
    assert list(from_torch(users.Siamese())[0].children()) == ["encoder", "sub", "abs_1", "scale", "matmul"]


def test_the_module_stays_as_it_was():
    """Modes, tensors and attributes do not change; params share no memory with it."""
    module = users.Auxiliary()
    module.norm.eval()
    before = copy.deepcopy(module.state_dict())
    _, params = from_torch(module)
    assert [one.training for one in module.modules()] == [True, True, False, *[True] * 5]
    assert fn.tree.equal(before, dict(module.state_dict()))
    assert {leaf.data_ptr() for leaf in fn.tree.leaves(params)}.isdisjoint({p.data_ptr() for p in module.parameters()})


def test_evaluation_does_not_depend_on_the_mode_of_the_module():
    """A module in training or evaluation mode gives the same net."""
    assert from_torch(users.Auxiliary().eval())[0] == from_torch(users.Auxiliary())[0]


def test_frozen_modules_are_frozen_layers():
    """A module without trainable parameters gets no gradients; one with some of them is refused."""
    module = users.ResNet().double()
    module.stem.requires_grad_(False)
    module.layers[0].requires_grad_(False)
    compare(module, IMAGE.double(), mode="train")
    module.fc.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="from_torch: Linear at 'fc' cannot be converted: its parameters must all require"):
        from_torch(module)


def test_a_converted_net_trains_as_its_module():
    """Five steps of SGD with momentum give the same params, including running statistics."""
    module = users.ResNet().double()
    net, params = from_torch(module)
    step, opt = None, fn.SGD(lr=0.1, momentum=0.9)
    step = fn.train_step(net, fn.CrossEntropy(), opt)
    state, theirs = opt.init(params), torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    x, labels = IMAGE.double(), torch.tensor([1, 4])
    for _ in range(5):
        params, state, _ = step(params, state, x, labels)
        theirs.zero_grad()
        nn.functional.cross_entropy(module(x), labels).backward()
        theirs.step()
    for path, tensor in module.state_dict().items():
        torch.testing.assert_close(fn.tree.at(params, path), tensor)


class FrozenNorm(nn.Module):
    """A net whose batch norm stays in evaluation mode, as in object detectors."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.norm.running_mean.fill_(0.3)
        self.inner = users.Auxiliary()

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        self.inner.eval()
        return self

    def forward(self, x):
        return self.inner(self.norm(self.linear(x)))


def test_what_train_leaves_in_evaluation_stays_there():
    """A ``train`` that keeps parts in evaluation mode is called on a copy, and the net behaves the same."""
    net, _ = agree(FrozenNorm, ROWS)
    assert not net.has_running_stats


class Stopped(nn.Module):
    """A net whose backbone gets no gradients, with a part that detaches its input."""

    class Head(nn.Module):
        """A head on a detached input."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 2)

        def forward(self, x):
            return self.linear(x.detach())

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.before, self.head, self.scale = nn.Linear(6, 6), Stopped.Head(), nn.Parameter(torch.ones(6))
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        with torch.no_grad():
            h = self.backbone(x) * self.scale
        return self.last(h) + self.head(self.before(x))


def test_what_no_gradient_reaches_is_frozen():
    """If autograd leaves gradients ``None`` (``no_grad``, before ``detach``), so does the net; statistics are still updated."""
    net, params = agree(Stopped, ROWS)
    assert net.has_running_stats
    step = fn.train_step(net, fn.MSE(), opt := fn.SGD(lr=0.1, weight_decay=0.1))
    after, *_ = step(params, opt.init(params), ROWS, torch.zeros(5, 2))
    still = [path for path, leaf in fn.tree.names(after).items() if torch.equal(leaf, fn.tree.at(params, path))]
    assert still == ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias", "scale", *BEFORE]


BEFORE = ["before.weight", "before.bias"]


class Branching(nn.Module):
    """A forward that branches on a value."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class Unknown(nn.Module):
    """A forward that calls a function without a counterpart in funcnet."""

    def forward(self, x):
        return torch.linalg.svd(x)[0]


class OnSizes(nn.Module):
    """A forward that branches on the batch size."""

    def forward(self, x):
        if x.shape[0] > 100:
            x = x + 1
        return x


class Several(nn.Module):
    """A forward with any number of inputs."""

    def forward(self, *xs):
        return xs[0]


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (Branching(), "from_torch: Branching cannot be converted: its forward cannot be traced: TraceError"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(Unknown())), r"Unknown at '1\.0' cannot be converted: .*linalg_svd"),
        (OnSizes(), "OnSizes cannot be converted: its forward cannot be traced: TraceError"),
        (Several(), r"Several cannot be converted: its forward takes \*args"),
        (nn.Sequential(nn.Tanh(), Several()), "Several at '1' cannot be converted: its arguments must be tensors or constants"),
        (nn.ModuleList([nn.Linear(2, 2)]), "ModuleList cannot be converted"),
        (nn.Sequential(nn.LazyLinear(3)), "LazyLinear at '0' cannot be converted"),
    ],
)
def test_a_refusal_says_what_and_where(module, sentence):
    """The error has the class, the path and the reason, in fewer than 500 characters."""
    with pytest.raises(ValueError, match=sentence) as raised:
        from_torch(module)
    assert len(str(raised.value)) < 500


def test_hooks_are_refused():
    """Their code would not run in a layer."""
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="Linear at '0' cannot be converted: it has hooks"):
        from_torch(module)


def test_other_things_are_refused():
    """Only modules are converted."""
    with pytest.raises(TypeError, match=r"from_torch: module must be a torch\.nn\.Module"):
        from_torch(nn.functional.relu)
