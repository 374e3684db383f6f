"""lift: torch.nn modules as layers."""

import copy
import dataclasses
import itertools
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import funcnet as fn
from funcnet.interop.torch_nn import lift
from funcnet.interop.torch_nn.lifting.keyed_draws import KeyedDraws

torch.manual_seed(0)


class Gated(nn.Module):
    """A module with a frozen parameter, a buffer, a plain tensor attribute and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)
        self.register_buffer("table", torch.randn(4))
        self.plain = torch.randn(4)

    def forward(self, x, z):
        self.last = torch.tanh(self.inner(x) * self.scale + self.table * z) * self.frozen + self.plain
        return {"y": self.last, "sign": self.last > 0, "absent": None}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.encoder(ids))


class Noisy(nn.Module):
    def forward(self, x):
        y = (
            F.dropout(x, 0.3, self.training)
            + torch.randn(3, dtype=x.dtype, device=x.device)
            + torch.rand(3, dtype=x.dtype, device=x.device) * torch.bernoulli(x.sigmoid())
        )
        return F.alpha_dropout(y, 0.2, True) + torch.empty_like(x).uniform_(-1, 1).exponential_().bernoulli_(
            0.5, generator=None
        ).normal_(1, 2)


MODULES = {
    "mlp": (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)),
    "norms": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.LayerNorm(4)), torch.randn(5, 3)),
    "dropout": (nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(5, 3)),
    "conv": (nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.Dropout2d(0.3)), torch.randn(3, 2, 4, 4)),
    "gated": (Gated(), (torch.randn(5, 3), torch.randn(5, 4))),
    "tied": (Tied(), torch.randint(0, 7, (5, 3))),
    "noisy": (Noisy(), torch.randn(5, 3)),
    "lstm": (nn.LSTM(2, 2, 2, batch_first=True, dropout=0.5), torch.randn(3, 2, 2)),
    "transformer": (nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), torch.randn(2, 3, 4)),
    "writes to x": (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), torch.randn(5, 3)),
}
LAWS = {name: law for name, law in fn.testing.LAWS.items() if name != "value"}


@pytest.mark.parametrize("name", MODULES)
def test_the_laws_hold(name):
    """All but the ninth hold in float64, in train and eval mode; laws that do not need float64 hold in float32 too."""
    module, x = MODULES[name]
    layer, params = lift(module, x)
    for one in dict.fromkeys((layer, layer.inference())):
        for law, judge in LAWS.items():
            judge(one, x, params, 0, **{"compiled": False} if law == "transforms" else {})
        for law in ("structure", "pure", "strides", "halves"):
            LAWS[law](one, x, params, 0, dtype=torch.float32)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["norms", "gated", "dropout", "transformer"])
def test_compiled_code_gives_what_eager_code_gives(name):
    """It is one graph, with statistics, keyed noise, several inputs and attention."""
    module, x = MODULES[name]
    layer, params = lift(module, x)
    LAWS["transforms"](layer.inference() if name == "transformer" else layer, x, params, 0)


def gradients_by_autograd(module, x, gy):
    xs = [one.clone().requires_grad_() for one in (x if isinstance(x, tuple) else (x,))]
    y = module(*xs)
    y = y["y"] if isinstance(y, dict) else y
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(y, [*trained.values(), *xs], gy)
    return y, dict(zip(trained, found, strict=False)), found[len(trained) :]


@pytest.mark.parametrize("name", ["mlp", "norms", "gated"])
def test_outputs_and_gradients_are_the_modules(name):
    """They agree bit for bit, because the same kernels run; so do the statistics of a step in train mode."""
    module, x = MODULES[name]
    module = pickle.loads(pickle.dumps(module)).train()
    layer, params = lift(module, x)
    y, cache = layer.apply(params, x)
    gy = torch.randn_like(y["y"] if isinstance(y, dict) else y)
    gparams, gx = layer.vjp(params, cache, {"y": gy, "sign": None, "absent": None} if isinstance(y, dict) else gy)
    want, wanted, wanted_x = gradients_by_autograd(module, x, gy)
    assert torch.equal(y["y"] if isinstance(y, dict) else y, want)
    found = fn.tree.names(gparams)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[path], g) for path, g in wanted.items())
    assert all(torch.equal(a, b) for a, b in zip(fn.tree.leaves(gx), wanted_x, strict=True))
    moved = fn.tree.names(layer.update_stats(params, cache))
    assert all(torch.equal(moved[path], b) for path, b in module.state_dict().items() if path in moved)


def test_a_layer_of_a_module_in_train_mode_evaluates_as_in_eval_mode():
    """``inference()`` runs the module in eval mode, and changes nothing if it already is."""
    module, x = MODULES["norms"]
    layer, params = lift(module.train(), x)
    assert torch.equal(layer.inference()(params, x), module.eval()(x))
    again, _ = lift(module, x)
    module.train()
    assert not again.has_running_stats
    assert again.inference() == layer.inference() == again


def test_the_module_and_what_it_holds_stay_as_they_are():
    """Lifting, steps and inference do not write to the module, and the layer does not follow later changes."""
    module, x = MODULES["conv"]
    before = {name: leaf.clone() for name, leaf in module.state_dict().items()}
    layer, params = lift(module, x)
    y, cache = layer.apply(params, x, 0)
    layer.update_stats(layer.vjp(params, cache, y)[0], cache)
    assert all(torch.equal(leaf, before[name]) for name, leaf in module.state_dict().items())
    assert module.training
    assert all(not leaf.requires_grad for leaf in fn.tree.leaves(params))
    other = nn.Linear(3, 2)
    layer, params = lift(other, torch.ones(2, 3))
    y = layer(params, torch.ones(2, 3))
    nn.init.zeros_(other.weight)
    assert torch.equal(layer(params, torch.ones(2, 3)), y)


def test_a_layer_is_a_value():
    """Layers of equal modules have equal hashes and reprs, and can be pickled; other settings and modes differ."""
    x = torch.ones(2, 3)
    make = lambda p=0.5: lift(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(p)), x)[0]
    one = make()
    other, again = make(), pickle.loads(pickle.dumps(one))  # with other values of the parameters
    assert one == other == again
    assert len({one, other, again}) == len({map(repr, (one, other, again))}) == 1
    assert repr(one).startswith("lift(<Sequential ")
    assert one != make(0.25)
    assert one != one.inference()
    assert again.inference() == one.inference()
    assert len(pickle.dumps(lift(nn.Linear(300, 300), torch.ones(2, 300))[0])) < 5000  # it contains no tensors


def test_a_module_that_does_not_pickle_is_lifted_too():
    """Its layer equals itself and its own inference."""

    class Local(nn.Linear):
        pass

    layer, params = lift(Local(3, 2), torch.ones(2, 3))
    assert layer == layer.inference().replace(skeleton=layer.skeleton, traits=layer.traits)
    assert layer != lift(Local(3, 2), torch.ones(2, 3))[0]
    assert layer(params, torch.ones(2, 3)).shape == (2, 2)


def test_tied_parameters_are_one_leaf():
    """It has the first name, and the summed gradients of both uses."""
    module, ids = MODULES["tied"]
    layer, params = lift(module, ids)
    assert [*fn.tree.names(params)] == ["encoder.weight"]
    y, cache = layer.apply(params, ids)
    gparams, gx = layer.vjp(params, cache, torch.ones_like(y))
    (want,) = torch.autograd.grad(module(ids).sum(), [module.encoder.weight])
    assert torch.equal(gparams["encoder"]["weight"], want)
    assert gx is None


def test_noise_comes_from_the_key():
    """The same key gives the same bits; the global generator has no effect and does not change."""
    for name in ("noisy", "dropout", "lstm"):
        layer, params = lift(*MODULES[name])
        x, before = MODULES[name][1], torch.get_rng_state()
        first, other, again = (fn.tree.leaves(layer(params, x, key))[0] for key in (1, 2, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(before, torch.get_rng_state())
        with pytest.raises(ValueError, match="key"):
            layer.apply(params, x)


@pytest.mark.compiled
def test_draws_that_a_compiler_hides_are_refused_in_compiled_code():
    """They would not come from the key, as they do in eager mode."""

    class Like(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x) * torch.rand_like(x)

    layer, params = lift(Like(), X)
    assert torch.equal(layer(params, X, 1), layer(params, X, 1))
    with pytest.raises(Exception, match="compiled code must draw with functions such as"):
        torch.compile(layer, fullgraph=True, backend="eager")(params, X, fn.key(1))


def test_dropout_keeps_the_mean():
    """Each dropout drops the right fraction and scales the rest; alpha dropout preserves mean and deviation."""
    x = torch.ones(400, 50, 1, 1)
    for module in (nn.Dropout(0.3), nn.Dropout2d(0.3)):
        y = lift(module, x)[0].apply({}, x, 3)[0]
        assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
        assert float(y.mean()) == pytest.approx(1, abs=0.02)
    normal = torch.randn(400, 50)
    y = lift(nn.AlphaDropout(0.3), normal)[0].apply({}, normal, 3)[0]
    assert (float(y.mean()), float(y.std())) == pytest.approx((0, 1), abs=0.05)


def by_numpy():
    return np.random.rand()


class Dropped(nn.Module):
    """LayerDrop with the generator of Python or numpy."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x * self.draw()


@pytest.mark.parametrize("module", [nn.RReLU(), Dropped(random.random), Dropped(by_numpy)], ids=["kernel", "python", "numpy"])
def test_other_draws_are_seeded_by_the_key(module):
    """Random numbers of kernels, Python and numpy are repeatable, and the global generators keep their states."""
    x = -torch.ones(50, 3)
    layer, params = lift(module, x)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first, other, again = (layer(params, x, key) for key in (1, 2, 1))
    assert layer.stochastic
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


CALLS = []


class Counted(nn.Linear):
    def forward(self, x):
        CALLS.append(x)
        return super().forward(x)


def test_a_step_calls_the_module_once():
    """This holds in inference mode too; a copied cache gives the same bits with a second call, and caches are reusable."""
    x = torch.randn(4, 3)
    layer, params = lift(Counted(3, 2), x)
    for mode in (True, False):
        with torch.inference_mode(mode):
            CALLS.clear()
            y, cache = layer.apply(params, x)
            first, second = (layer.vjp(params, cache, torch.ones_like(y)) for _ in range(2))
            assert len(CALLS) == 1
            assert not y.requires_grad
            copied = layer.vjp(params, fn.tree.map(lambda leaf: leaf.detach().clone(), cache), torch.ones_like(y))
            assert len(CALLS) == 2
        assert fn.tree.equal(first, second)
        assert fn.tree.equal(first, copied)
    CALLS.clear()
    layer(params, x)
    assert len(CALLS) == 1


def test_someone_elses_autograd_goes_through():
    """First and second derivatives of a layer whose params require grad work."""
    module, x = MODULES["mlp"]
    layer, params = lift(module, x)
    leaves = fn.tree.map(lambda leaf: leaf.requires_grad_(), params)
    y, cache = layer.apply(leaves, x)
    (found,) = torch.autograd.grad(y.sum(), [leaves[0]["weight"]])
    (want,) = torch.autograd.grad(module(x).sum(), [module[0].weight])
    assert torch.equal(found, want)
    gw = layer.grads(leaves, cache, torch.ones_like(y).requires_grad_())[0]["weight"]
    (found,) = torch.autograd.grad(gw.square().sum(), [leaves[2]["weight"]])
    (gw,) = torch.autograd.grad(module(x).sum(), [module[0].weight], create_graph=True)
    (want,) = torch.autograd.grad(gw.square().sum(), [module[2].weight])
    torch.testing.assert_close(found, want)


def test_what_forward_stores_is_forgotten():
    """An attribute set on the module in a call is missing in the next call."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.seen = 0, {}

        def forward(self, x):
            self.calls += 1
            self.kept = x
            return x * self.calls

    layer, params = lift(Counting(), torch.ones(2, 3))
    assert torch.equal(layer(params, torch.ones(2, 3)), layer(params, torch.ones(2, 3)))
    assert not hasattr(layer.skeleton.module, "kept")


class Logging(nn.Linear):
    """A module that writes to a list and a dict, which affect its output."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.seen, self.last = [], {}

    def forward(self, x):
        y = super().forward(x) * (1 + len(self.seen))
        self.seen.append(y)
        self.last["y"] = y
        return y


def test_what_forward_writes_to_lists_is_forgotten():
    """A call does not see earlier ones, and no tensor remains in the layer or the module."""
    module, x = Logging(), torch.randn(5, 3)
    layer, params = lift(module, x)
    y = layer(params, x)
    assert all(torch.equal(layer.apply(params, x)[0], y) for _ in range(3))
    assert [module.seen, module.last, layer.skeleton.module.seen, layer.skeleton.module.last] == [[], {}, [], {}]
    assert layer == pickle.loads(pickle.dumps(layer)) == lift(Logging(), x)[0]


@pytest.mark.compiled
def test_what_forward_writes_to_lists_is_forgotten_in_compiled_code():
    """Compiled code would otherwise repeat the traced writes."""
    x = torch.randn(5, 3)
    layer, params = lift(Logging(), x)
    compiled = torch.compile(layer.__call__, fullgraph=True, backend="aot_eager")
    assert all(torch.allclose(compiled(params, x), layer(params, x)) for _ in range(2))
    assert not layer.skeleton.module.seen


def test_a_module_made_in_inference_mode_is_lifted():
    """Torch does not count writes to tensors in that mode."""
    with torch.inference_mode():
        layer, params = lift(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(5, 3))
    assert layer.has_running_stats
    assert not layer.traits.writes_to_x
    y, cache = layer.apply(params, torch.randn(5, 3))
    assert layer.vjp(params, cache, y)[1].shape == (5, 3)


@pytest.mark.parametrize("name", ["norms", "dropout", "lstm"])
def test_a_module_on_the_meta_device_is_lifted(name):
    """It has only shapes, like a net that is too large for this machine; random numbers are on its device too."""
    module, x = MODULES[name]
    layer, params = lift(copy.deepcopy(module).to("meta"), x.to("meta"))
    key = fn.key(0).to("meta") if layer.stochastic else None
    y, cache = layer.apply(params, x.to("meta"), key)
    assert fn.tree.structure(layer.vjp(params, cache, y)[0]) == fn.tree.structure(params)


def test_it_works_among_other_layers(tmp_path):
    """Examples are a serial, fit with statistics and dropout, saving and loading, a summary, and an ensemble."""
    lifted, params = lift(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1)), torch.randn(6, 4))
    net = fn.serial(fn.Linear(3, 4), lifted, fn.Linear(8, 1))
    x = fn.random.normal(0, (64, 3))
    start = fn.tree.replace(net.init(0), "1", params)
    done = fn.fit(
        net,
        fn.MSE(),
        fn.Adam(lr=0.01),
        (x, x.sum(1, keepdim=True)),
        epochs=30,
        batch_size=16,
        key=0,
        params=start,
        progress=False,
    )
    assert done.history["loss"][-1] < 0.3 * done.history["loss"][0]
    assert int(fn.tree.at(done.params, "1.1.num_batches_tracked")) == 120
    fn.save(tmp_path / "net", done.params)
    assert fn.tree.equal(fn.load(tmp_path / "net", like=net.init(0)), done.params)
    assert fn.summary(net, x).total.params == sum(leaf.numel() for leaf in fn.tree.leaves(start))
    members = fn.ensemble(lifted, 3)
    assert members.inference()(members.init(0), torch.randn(6, 4)).shape == (3, 6, 8)
    assert fn.infer_sizes(fn.serial(lifted, fn.Linear(None, 2)), torch.randn(6, 4))[1].in_features == 8


def test_fresh_parameters_are_drawn_as_the_modules_draw_them():
    """The key determines the bits; params without a reset keep their mean and deviation, and tables their values."""
    for name in ("norms", "gated", "transformer", "tied"):
        module, x = MODULES[name]
        layer, params = lift(module, x)
        one, again, other = (fn.tree.names(layer.init(key)) for key in (0, 0, 1))
        assert one.keys() == fn.tree.names(params).keys()
        assert all(torch.equal(leaf, again[path]) for path, leaf in one.items())
        assert any(not torch.equal(leaf, other[path]) for path, leaf in one.items())
        assert all(
            one[path].dtype == leaf.dtype and one[path].shape == leaf.shape for path, leaf in fn.tree.names(params).items()
        )
    layer, params = lift(*MODULES["gated"])
    fresh = layer.init(3)
    assert torch.equal(fresh["table"], params["table"])
    assert torch.equal(fresh["frozen"], params["frozen"])
    assert not torch.equal(fresh["scale"], params["scale"])
    bound = 3**-0.5
    assert float(fresh["inner"]["weight"].abs().max()) <= bound
    assert not torch.equal(fresh["inner"]["weight"], params["inner"]["weight"])


def test_weight_decay_leaves_scales_and_buffers_alone():
    """This matches funcnet's own layers."""
    layer, params = lift(*MODULES["norms"])
    mask = fn.tree.names(fn.decay_mask(fn.serial(layer), (params,)))
    assert [path for path, decays in mask.items() if decays] == ["0.0.weight"]


def test_derived_weights_are_computed_in_each_call():
    """These are parametrized weights, whose originals are the params."""
    x = torch.randn(4, 3)
    module = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    layer, params = lift(module, x)
    y, cache = layer.apply(params, x)
    assert torch.equal(y, module(x))
    trained = [*module.parameters()]
    want = torch.autograd.grad(module(x).sum(), trained)
    found = fn.tree.names(layer.grads(params, cache, torch.ones_like(y)))
    assert all(torch.allclose(found[name], g) for (name, _), g in zip(module.named_parameters(), want, strict=True))


def test_threads_may_share_a_layer():
    """Each call has its own params."""
    layer, params = lift(nn.Linear(64, 64, bias=False), torch.ones(2, 64))
    found: list[bool] = []

    def work(c: float) -> None:
        scaled = fn.tree.scale(params, c)
        want = layer(scaled, torch.ones(2, 64))
        found.append(all(torch.equal(layer(scaled, torch.ones(2, 64)), want) for _ in range(50)))

    threads = [threading.Thread(target=work, args=(float(c),)) for c in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_inference_mode_serves_a_step():
    """``fit`` and compiled steps use it this way."""
    layer, params = lift(*MODULES["norms"])
    x = MODULES["norms"][1]
    with torch.inference_mode():
        assert fn.tree.equal(layer.init(0), fn.tree.map(torch.clone, layer.init(0)))
        y, cache = layer.apply(params, x)
        inside = layer.vjp(params, cache, torch.ones_like(y))
    y, cache = layer.apply(params, x)
    assert fn.tree.equal(inside, layer.vjp(params, cache, torch.ones_like(y)))


def test_attention_written_out_is_torchs():
    """This covers every kind of mask, extra keys, separate projections, and the weights of each head or their mean."""
    for bias, zero, sep, batched, mask in itertools.product((False, True), (False, True), (4, 3), (False, True), range(4)):
        module = nn.MultiheadAttention(4, 2, add_bias_kv=bias, add_zero_attn=zero, kdim=sep, vdim=sep, batch_first=batched)
        q, k, pad = torch.randn(3, 2, 4), torch.randn(3, 5, sep), torch.arange(5) > torch.tensor([[2], [4], [3]])
        masks = [None, torch.randn(2, 5), torch.arange(5) > torch.tensor([[0], [2]]), torch.randn(6, 2, 5)]
        masks[3] = masks[3] if batched else masks[3][:2]
        given = (q, k, k) if batched else (q[0], k[0], k[0])
        pad = torch.where(pad if batched else pad[0], -torch.inf, 0.0) if mask in (1, 3) else pad if batched else pad[0]
        options = {"attn_mask": masks[mask], "key_padding_mask": pad, "average_attn_weights": zero}
        want = module(*given, **options)
        with KeyedDraws(None, writes_out=True):
            found = module(*given, **options)
        torch.testing.assert_close(found, want)


def test_scaled_dot_products_written_out_are_torchs():
    """This covers both kinds of masks, causal attention, a scale, and grouped queries."""
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 3, 8)
    options = [
        {"attn_mask": torch.randn(3, 3)},
        {"attn_mask": torch.ones(3, 3).tril().bool()},
        {"is_causal": True},
        {"scale": 0.3},
    ]
    for more in options:
        want = F.scaled_dot_product_attention(q, k, k, enable_gqa=True, **more)
        with KeyedDraws(None, writes_out=True):
            torch.testing.assert_close(F.scaled_dot_product_attention(q, k, k, enable_gqa=True, **more), want)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_recurrence_written_out_is_torchs():
    """This covers all four kinds, both directions, several layers, a projection, and no biases."""
    kinds = [(nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.GRU, {}), (nn.LSTM, {}), (nn.LSTM, {"proj_size": 2})]
    for (kind, more), bias, layers, both in itertools.product(kinds, (False, True), (1, 2), (False, True)):
        module = kind(3, 4, layers, bias=bias, bidirectional=both, batch_first=both, **more)
        x = torch.randn(3, 2, 3)
        want = module(x)
        with KeyedDraws(None, writes_out=True):
            torch.testing.assert_close(module(x), want)


class Writes(nn.Linear):
    def forward(self, x):
        with torch.no_grad():
            self.weight.clamp_(-1, 1)
        return super().forward(x)


class Holds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.all = [torch.ones(2)]

    def forward(self, x):
        return x + self.all[0]


class Worded(nn.Module):
    def forward(self, x):
        return x, "words"


class Ordered(nn.Module):
    """A module that draws from a private, unseeded NumPy generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        return x * self.generator.random()


@dataclasses.dataclass
class Both:
    y: torch.Tensor


class Boxed(nn.Module):
    def forward(self, x):
        return Both(x)


class Checkpointed(nn.Linear):
    """Computes a module again in the backward pass."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.inner = nn.Linear(3, 2)

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("module", "example", "said"),
    [
        (nn.Linear, X, "lift: module must be a torch.nn.Module"),
        (nn.Linear(4, 2), X, r"lift\(Linear\): the module must accept the example in train mode, got RuntimeError: mat1"),
        (Writes(3, 2), X, r"lift\(Writes\): forward must not write to parameters, got one that writes to weight"),
        (Holds(), X, r"lift\(Holds\): tensors must be parameters, buffers or attributes of a module.*got list all"),
        (Worded(), X, r"lift\(Worded\): the output must be a tensor, or a dict, tuple or list of tensors, got 'words'"),
        (nn.Linear(3, 2), X.to_sparse(), r"example must be a dense tensor.* got a tensor of layout torch.sparse_coo"),
        (nn.Linear(3, 2), (X, 3), r"lift\(Linear\): example must be a dense tensor, or a tuple or tree of these, got 3"),
        (Boxed(), X, r"lift\(Boxed\): the output must be a tensor, or a dict, tuple or list of tensors, got a Both$"),
        (Checkpointed(), X, r"lift\(Checkpointed\): the backward pass must not call modules again.*got calls of Linear"),
        (
            Ordered(),
            X,
            r"lift\(Ordered\): forward must return equal outputs for equal inputs.*got a different output in a second call",
        ),
        (
            nn.Sequential(nn.LazyLinear(2)),
            X,
            r"lift\(Sequential\): parameters must have values; call a lazy.*got none at 0.weight",
        ),
        (torch.jit.trace(nn.Tanh(), X), X, r"lift\(TopLevelTracedModule\): the module must be a Python module"),
    ],
)
def test_what_cannot_be_lifted_is_refused(module, example, said):
    """The error has the class and the reason."""
    with pytest.raises(ValueError, match=said):
        lift(module, example)


def test_errors_of_a_layer_name_the_class_of_the_module():
    """This holds for params, x and gy that do not match."""
    layer, params = lift(nn.Linear(3, 2), X)
    y, cache = layer.apply(params, X)
    who = r"lift\(<Linear [0-9a-f]{8}>\): "
    with pytest.raises(ValueError, match=who + "params and x must fit each other, got x of shape"):
        layer.apply(params, torch.ones(2, 4))
    with pytest.raises(
        ValueError, match=who + r"params must be those that lift returned, got missing \['bias'\] and unknown \['more'\]"
    ):
        layer.apply({"weight": params["weight"], "more": X}, X)
    with pytest.raises(ValueError, match=who + r"bias must have the shape \(2,\)"):
        layer.apply({**params, "bias": torch.ones(1)}, X)
    with pytest.raises(ValueError, match=who + "gy must have the shape of y"):
        layer.vjp(params, cache, torch.ones(2, 1))
    with pytest.raises(ValueError, match=who + "gy must"):
        layer.vjp(params, cache, (y, y))
