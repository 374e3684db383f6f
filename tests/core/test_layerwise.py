"""Steps that update layer by layer in the backward pass: they equal the plain step bit for bit, and keep no gradients."""

import pickle
import weakref
from typing import Any

import pytest
import torch
from cases import blocks, combinators
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.combinator import child_key
from funcnet.combinators.sequential import Serial
from funcnet.layerwise import Updater
from funcnet.optim.chaining import Chain

X = fn.random.normal(0, (8, 16))
ROWS = fn.random.normal(1, (8, 16))
LOSS, DENSE = fn.MSE(), fn.Linear(16, 16)
NOISY = fn.serial(fn.LayerNorm(16), DENSE, fn.Dropout(0.3), fn.Tanh())
NORMED = fn.serial(DENSE, fn.BatchNorm1d(16), fn.Tanh())
REVERSIBLE = fn.reversible(NOISY, fn.serial(DENSE, fn.Tanh()))
PAIRED = fn.branch(DENSE, fn.Identity())


@fn.frozen
class Doubled(fn.Combinator):
    """y = f(f(x)), whose gradient is a sum; a combinator that does not declare that it passes gradients on."""

    layer: fn.Layer

    def children(self) -> dict[str, fn.Layer]:
        return {"layer": self.layer}

    def with_children(self, children: dict[str, fn.Layer]) -> "Doubled":
        return self.replace(layer=children["layer"])

    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        key = child_key(self.layer, rng, 0)
        h, first = self.layer.apply(params["layer"], x, key)
        y, second = self.layer.apply(params["layer"], h, key)
        return y, {"layer": first, "second": second}

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        later, g = self.layer.vjp(params["layer"], cache["second"], gy)
        earlier, gx = self.layer.vjp(params["layer"], cache["layer"], g)
        return {"layer": tree.add(later, earlier)}, gx


@fn.frozen
class Clipped(Serial):
    """A serial with other gradients of params, which does not declare again that it passes them on."""

    label = "clipped"

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        gparams, gx = super().vjp(params, cache, gy)
        return tree.map(lambda g: g.clamp(-1e-3, 1e-3), gparams), gx

    def grads(self, params: Any, cache: Any, gy: Any) -> Any:
        return self.vjp(params, cache, gy)[0]


def halved(vjp: Any, x: Any, y: Any, gy: Tensor) -> Any:
    return vjp(gy / 2)


CASES = {**combinators.CASES, **blocks.CASES}

NETS = {
    "a layer": DENSE,
    "no params": fn.Tanh(),
    "serial": fn.serial(NORMED, NOISY, DENSE),
    "serial by names": fn.serial(a=NORMED, b=fn.serial(c=NOISY)),
    "serial after layers without params": fn.serial(fn.Tanh(), fn.Dropout(0.1), fn.serial(fn.Tanh()), NOISY),
    "residual and branch": fn.serial(fn.residual(NOISY, DENSE), fn.branch(NORMED, DENSE, fn.Tanh(), merge=fn.Add())),
    "parallel": fn.serial(PAIRED, fn.parallel(DENSE, NOISY), fn.Add()),
    "graph": fn.graph("x", a=(NORMED, "x"), s=(fn.Tanh(), "x"), b=(fn.Add(), "a", "s"), c=(NOISY, "b"), output="c"),
    "freeze": fn.serial(fn.freeze(NORMED), DENSE, fn.freeze(NORMED), NOISY),
    "nothing but frozen": fn.freeze(NORMED),
    "remat": fn.serial(fn.remat(NOISY), fn.remat(fn.serial(DENSE, NORMED, NOISY, fn.Tanh()), segments=3)),
    "reversible": fn.serial(PAIRED, REVERSIBLE, REVERSIBLE, REVERSIBLE, fn.Add()),
    "repeat": fn.repeat(fn.residual(fn.serial(NORMED, NOISY, fn.freeze(DENSE))), 3),
    "repeat of remat": fn.serial(DENSE, fn.repeat(fn.remat(fn.residual(NOISY)), 2)),
    "repeat of reversible": fn.serial(PAIRED, fn.repeat(REVERSIBLE, 3), fn.Add()),
    "repeat of odd sizes": fn.serial(fn.Linear(16, 5), fn.repeat(fn.residual(fn.Linear(5, 5)), 3), fn.Linear(5, 16)),
    "scan": fn.serial(
        fn.Unsqueeze(1), fn.branch(fn.Identity(), fn.Mean(0)), fn.scan(fn.GRUCell(16, 16), output_is_carry=True), fn.Select(0),
        fn.Squeeze(1),
    ),
    "bidirectional": fn.bidirectional(NOISY, DENSE, merge=fn.Add()),
    "transformer": fn.transformer_encoder(16, 2, num_layers=2, dropout=0.1),
    "encoder and decoder": fn.serial(PAIRED, fn.transformer(16, 2, 1, 1)),
    "repeat with constants": fn.serial(PAIRED, fn.repeat(fn.keep_constants(fn.serial(fn.Add(), NORMED)), 2), fn.Select(0)),
    "affine_coupling": fn.serial(
        fn.branch(fn.Identity(), DENSE, fn.Sum(1)), *[fn.affine_coupling(*[fn.Linear(16, 32) >> fn.Tanh() >> fn.Chunk(2)] * 2)] * 3,
        fn.Select(1),
    ),
    "with_vjp": fn.serial(fn.with_vjp(NORMED, halved), NOISY),
    "profiled": fn.profiled(fn.serial(fn.profiled(NORMED), fn.profiled(NOISY, "noisy"))),
    "shared": fn.serial(PAIRED, fn.shared(NOISY), fn.Add()),
    "tied": fn.tied(fn.serial(DENSE, fn.Tanh(), DENSE), ("0.weight", "2.weight")),
    "ensemble": fn.serial(fn.ensemble(NOISY, 3), fn.Mean(0)),
    "lora": fn.serial(fn.lora(DENSE, 2, alpha=1.0), NOISY),
    "weight_norm": fn.serial(fn.weight_norm(DENSE), NOISY),
    "cast": fn.cast(fn.serial(NORMED, NOISY), torch.bfloat16),
    "cast of a part": fn.serial(fn.remat(fn.cast(fn.serial(NORMED, fn.repeat(fn.residual(NOISY), 2)), torch.float64)), DENSE),
    "cast of a layer": fn.cast(DENSE, torch.float64),
    "wrappers": fn.serial(fn.tap(NOISY), fn.checked(DENSE), fn.straight_through(fn.serial(DENSE, fn.Sign())), fn.map_over(NOISY, 1)),
    "an own combinator": fn.serial(NOISY, Doubled(fn.serial(DENSE, NOISY))),
    "an own serial": fn.serial(NOISY, Clipped((DENSE, NOISY))),
}  # fmt: skip

SMALL_STEPS = fn.CosineSchedule(1e-2, 10)
OPTIMIZERS = [
    fn.SGD(lr=1e-2),
    fn.SGD(lr=SMALL_STEPS, momentum=0.9, weight_decay=1e-2, nesterov=True),
    fn.SGD(lr=1e-2, momentum=0.9, fused=True),
    fn.Adam(lr=1e-2, amsgrad=True),
    fn.chain(fn.ClipByValue(1e-2), fn.AdamW(lr=SMALL_STEPS)),
    fn.MasterWeights(fn.Adam(lr=1e-2)),
]


def assert_steps_alike(net: fn.Layer, opt: fn.Optimizer, dtype: torch.dtype = torch.float32) -> None:
    """Compare three steps of both kinds: their values, params and states."""
    params = tree.cast(net.init(0), dtype)
    ours = theirs = (params, opt.init(params))
    if opt.donate() == opt:
        theirs = tree.map(torch.clone, ours)
    plain, step = fn.train_step(net, LOSS, opt), fn.train_step(net, LOSS, opt, in_backward=True)
    for i in range(3):
        *ours, value = plain(*ours, X.to(dtype), ROWS.to(dtype), i)
        *theirs, got = step(*theirs, X.to(dtype), ROWS.to(dtype), i)
        assert torch.equal(got, value)
    assert tree.all_finite(ours)
    assert tree.structure(theirs) == tree.structure(ours)
    assert tree.equal(theirs, ours)


@pytest.mark.parametrize("opt", [OPTIMIZERS[1], OPTIMIZERS[3].donate()], ids=repr)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_every_net_takes_the_steps_of_the_plain_step(net: fn.Layer, opt: fn.Optimizer) -> None:
    """Bits agree, including running statistics, noise and frozen layers."""
    assert_steps_alike(net, opt)


@pytest.mark.parametrize("name", CASES)
def test_every_combinator_of_the_catalogue_is_updated_as_a_whole(name: str) -> None:
    """Whether or not it passes gradients on, params and state are those after its whole backward pass."""
    net, x, params = CASES[name].layer, CASES[name].x, CASES[name].params
    opt = fn.Adam(lr=1e-2)
    state = opt.init(params)
    y, cache = net.apply(params, x, fn.key(3))
    gy = tree.map(lambda leaf: torch.sin(torch.arange(leaf.numel())).reshape(leaf.shape).to(leaf), y)
    want = opt.update(net.grads(params, cache, gy), state, params)
    found = Updater(net, opt)(params, params, state, cache, gy)
    assert tree.structure(tuple(found)) == tree.structure(want)
    assert tree.equal(tuple(found), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("opt", [*OPTIMIZERS, *map(fn.donate, OPTIMIZERS)], ids=repr)
@pytest.mark.parametrize("name", ["serial", "repeat"])
def test_every_optimizer_takes_its_own_steps(name: str, opt: fn.Optimizer, dtype: torch.dtype) -> None:
    """Donated and plain optimizers are tried, in every precision."""
    assert_steps_alike(NETS[name], opt, dtype)


@pytest.mark.parametrize("name", NETS)
def test_a_step_writes_to_nothing(name: str) -> None:
    """The exception is a donated optimizer."""
    net, opt = NETS[name], OPTIMIZERS[3]
    params = net.init(0)
    given = (params, opt.init(params))
    copies, versions = tree.map(torch.clone, given), [leaf._version for leaf in tree.leaves(given)]
    fn.train_step(net, LOSS, opt, in_backward=True)(*given, X, ROWS, 0)
    assert tree.equal(given, copies)
    assert [leaf._version for leaf in tree.leaves(given)] == versions


@pytest.mark.parametrize("name", ["serial", "graph", "reversible", "remat", "repeat", "repeat of odd sizes", "an own combinator"])
def test_a_donated_step_reuses_the_memory(name: str) -> None:
    """Params and moments keep their memory; running statistics and counts are new."""
    net, opt = NETS[name], fn.donate(fn.Adam(lr=1e-2))
    params = net.init(0)
    state = opt.init(params)
    moments = {path for path, leaf in tree.names((params, state)).items() if leaf.is_floating_point() and "running" not in path}
    places = {path: leaf.data_ptr() for path, leaf in tree.names((params, state)).items() if path in moments}
    new = fn.train_step(net, LOSS, opt, in_backward=True)(params, state, X, ROWS, 0)[:2]
    assert {path: leaf.data_ptr() for path, leaf in tree.names(new).items() if path in moments} == places


ALIVE: list[Any] = []
MOST: list[int] = []


@fn.frozen
class Counted(fn.Layer):
    """A factor for each column, which counts how many gradients of similar layers are alive."""

    def init(self, rng: Any) -> Any:
        return {"weight": torch.ones(16)}

    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        return params["weight"] * x, x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        gradient = (gy * cache).sum_to_size(16)
        ALIVE.append(weakref.ref(gradient))
        MOST.append(sum(one() is not None for one in ALIVE))
        return {"weight": gradient}, params["weight"] * gy


def counting(layer: fn.Layer) -> fn.Layer:
    """Return another layer for those in a transformer block: only the mlp's layers have gradients, which are counted."""
    if isinstance(layer, (fn.LayerNorm, fn.MultiHeadAttention)):
        return fn.freeze(layer)
    return Counted() if isinstance(layer, fn.Linear) else layer


COUNTED = {
    "serial": fn.serial(*[Counted()] * 6),
    "nested": fn.serial(fn.residual(fn.serial(*[Counted()] * 3)), fn.remat(fn.serial(Counted(), Counted())), Counted()),
    "graph": fn.graph("x", **{f"n{i}": (Counted(), f"n{i - 1}" if i else "x") for i in range(6)}),
    "reversible": fn.serial(fn.branch(*[fn.Identity()] * 2), *[fn.reversible(Counted(), Counted())] * 3, fn.Add()),
    "repeat": fn.repeat(Counted(), 6),
    "cast": fn.cast(fn.serial(*[Counted()] * 6), torch.bfloat16),
    "profiled": fn.profiled(fn.serial(*[fn.profiled(Counted())] * 6)),
    "constants": fn.serial(
        fn.branch(*[fn.Identity()] * 2), *[fn.keep_constants(fn.serial(fn.Add(), Counted()))] * 3,
        fn.serial_with_constants(*[fn.serial(fn.Add(), Counted())] * 3),
    ),
    "transformer": fn.map_layers(counting, fn.transformer_encoder(16, 2, num_layers=3, hidden=16, final_norm=False)),
}  # fmt: skip


@pytest.mark.parametrize("opt", [fn.SGD(lr=0.1), fn.donate(fn.Adam()), fn.chain(fn.ClipByValue(1.0), fn.Adam())], ids=repr)
@pytest.mark.parametrize("net", COUNTED.values(), ids=COUNTED)
def test_one_gradient_is_alive_at_a_time(net: fn.Layer, opt: fn.Optimizer) -> None:
    """The plain step has all six."""
    params = net.init(0)
    for in_backward, count in ((True, 1), (False, 6)):
        ALIVE.clear()
        MOST.clear()
        fn.train_step(net, LOSS, opt, in_backward=in_backward)(params, opt.init(params), X, ROWS)
        assert max(MOST) == count
        assert len(MOST) == 6


@fn.frozen
class Halving(fn.Optimizer):
    """A custom optimizer with its own state."""

    def init(self, params: Any) -> Any:
        return {"step": torch.zeros((), dtype=torch.int64), "sum": tree.zeros_like(params)}

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        total = tree.update(torch.add, state["sum"], grads)
        there = tree.map(lambda g, s: s, grads, total)
        return tree.update(lambda p, s: p - s / 200, params, there), {"step": state["step"] + 1, "sum": total}


@fn.frozen
class Separate(Halving):
    """An optimizer that declares that it steps leaf by leaf."""

    acts_on = "leaves"


@fn.frozen
class Listed(Separate):
    """An optimizer whose state is not a dict."""

    def init(self, params: Any) -> Any:
        return (super().init(params),)

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        params, inner = super().update(grads, state[0], params)
        return params, (inner,)


@fn.frozen
class Scaled(fn.GradientTransform):
    """A custom transform."""

    acts_on = "elements"

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        return tree.scale(grads, 0.1), state


@pytest.mark.parametrize("name", ["serial", "repeat", "shared"])
def test_a_custom_optimizer_may_say_that_it_acts_on_leaves(name: str) -> None:
    """Its state, a dict of counts and trees like params, is split by layer, even in a chain with a custom transform."""
    assert_steps_alike(NETS[name], fn.chain(Scaled(), Separate()))


REFUSED = {
    "got ClipByGlobalNorm(max_norm=1.0), which acts on the whole tree": fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD()),
    "acts_on must be \"leaves\" or \"elements\", got Halving(), which acts on the whole tree": fn.chain(fn.ClipByValue(1.0), Halving()),
    "train_step: in_backward=True updates each layer before": fn.MasterWeights(Halving()),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_an_optimizer_that_needs_all_gradients_is_refused(message: str) -> None:
    """The constructor of the step raises the error, which names the part."""
    with pytest.raises(ValueError, match=r".") as caught:
        fn.train_step(DENSE, LOSS, REFUSED[message], in_backward=True)
    assert message in str(caught.value)


def test_a_state_that_cannot_be_parted_is_refused() -> None:
    """The optimizer must define the split."""
    params = DENSE.init(0)
    step = fn.train_step(DENSE, LOSS, Listed(), in_backward=True)
    with pytest.raises(ValueError, match=r"Listed\(\): a class whose state is not a dict of counts"):
        step(params, (Separate().init(params),), X, ROWS)


@fn.frozen
class Failing(fn.Layer):
    """A layer whose backward pass fails."""

    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        return x, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        raise ValueError("no way back")


def error_of(step: Any, *arguments: Any) -> str:
    """Return the message of an error, and its location."""
    with pytest.raises(ValueError, match=r".") as caught:
        step(*arguments)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def test_an_error_says_where_in_the_net_it_happened() -> None:
    """The location is the same as in the plain step."""
    inner = fn.residual(fn.serial(DENSE, Failing()))
    net, opt = fn.serial(DENSE, fn.graph("x", a=(fn.repeat(inner, 2), "x")), NOISY), fn.SGD()
    params = net.init(0)
    errors = [
        error_of(fn.train_step(net, LOSS, opt, in_backward=one), params, opt.init(params), X, ROWS, 0) for one in (False, True)
    ]
    assert errors[0] == errors[1]
    assert "repeat, copy 1" in errors[1]
    assert "in serial, layer 1" in errors[1]


def misfits(params: Any, state: Any) -> dict[str, Any]:
    """Return states and params that do not fit each other."""
    shared = ({**params[0], "weight": params[2]["weight"]}, *params[1:])
    cut = tree.map_with_path(lambda path, leaf: leaf[:1] if path == "exp_avg.0.bias" else leaf, state)
    return {
        "a moment of another shape": (params, cut),
        "a moment missing": (params, {name: one for name, one in state.items() if name != "exp_avg"}),
        "another structure": (params, {**state, "exp_avg": state["exp_avg"][:1]}),
        "no count": (params, {**state, "step": torch.zeros(2)}),
        "an entry too many": (params, {**state, "more": torch.zeros(())}),
        "shared memory": (shared, state),
    }


@pytest.mark.parametrize("opt", [fn.Adam(), fn.MasterWeights(fn.Adam())], ids=repr)
def test_a_state_with_an_entry_too_many_is_refused(opt: fn.Optimizer) -> None:
    """The error is the same as in the plain step; splitting the state would otherwise have dropped the entry."""
    params = DENSE.init(0)
    state = {**opt.init(params), "more": torch.zeros(())}
    errors = [error_of(fn.train_step(DENSE, LOSS, opt, in_backward=one), params, state, X, ROWS) for one in (False, True)]
    assert errors[0] == errors[1]
    assert "state must be a dict of" in errors[1]


@pytest.mark.parametrize("opt", [fn.donate(fn.Adam()), fn.donate(fn.chain(fn.ClipByValue(1.0), fn.Adam()))], ids=repr)
@pytest.mark.parametrize("case", misfits(({}, {}, {"weight": 0}), {"exp_avg": ()}))
def test_a_donated_step_that_is_refused_has_written_to_nothing(case: str, opt: fn.Optimizer) -> None:
    """The first layer's mismatch is found before the last one is updated; the error is the same as in the plain step."""
    net = fn.serial(DENSE, fn.Tanh(), DENSE)
    params = net.init(0)
    adam = fn.Adam().init(params)
    params, state = misfits(params, adam)[case]
    state = ({}, state) if isinstance(opt, Chain) else state
    before = tree.map(torch.clone, (params, state))
    errors = [error_of(fn.train_step(net, LOSS, opt, in_backward=one), params, state, X, ROWS) for one in (False, True)]
    assert tree.equal((params, state), before)
    assert errors[1].splitlines()[0] == errors[0].splitlines()[0]


def test_a_donated_master_weight_is_not_shared() -> None:
    """Sharing is found before any update, not after half of the step."""
    opt = fn.donate(fn.MasterWeights(fn.Adam()))
    net = fn.serial(DENSE, DENSE)
    params = tree.cast(net.init(0), torch.bfloat16)
    state = opt.init(params)
    state["masters"][0]["weight"] = state["masters"][1]["weight"]
    before = tree.map(torch.clone, (params, state))
    error = error_of(fn.train_step(net, LOSS, opt, in_backward=True), params, state, X.bfloat16(), ROWS.bfloat16())
    assert "in which no two elements may share memory" in error
    assert tree.equal((params, state), before)


def test_it_is_a_value() -> None:
    """A layerwise step compares, prints, evaluates and pickles."""
    step = fn.train_step(fn.serial(DENSE, fn.Tanh()), LOSS, fn.Adam(), in_backward=True)
    assert step != fn.train_step(step.net, LOSS, step.opt)
    assert eval(repr(step), vars(fn)) == step == pickle.loads(pickle.dumps(step)) == step.replace()
    assert step.replace(in_backward=False) == fn.train_step(step.net, LOSS, step.opt)
    with pytest.raises(ValueError, match=r"in_backward must be True or False, got 1"):
        fn.train_step(DENSE, LOSS, fn.Adam(), in_backward=1)


def test_it_works_under_vmap_and_on_the_meta_device() -> None:
    """Three members match separate plain steps, and a step on the meta device has the shapes."""
    net, opt = fn.serial(NOISY, fn.repeat(fn.residual(DENSE), 2), DENSE), fn.Adam(lr=1e-2)
    params = [net.init(i) for i in range(3)]
    stacks = tree.map(lambda *leaves: torch.stack(leaves), *[(p, opt.init(p)) for p in params])
    ours, theirs = [
        torch.func.vmap(fn.train_step(net, LOSS, opt, in_backward=one), (0, 0, None, None, None))(*stacks, X, ROWS, fn.key(0))
        for one in (True, False)
    ]
    assert tree.equal(ours, theirs)
    meta = tree.map(lambda leaf: leaf.to("meta"), (params[0], opt.init(params[0]), X, ROWS, fn.key(0)))
    new = fn.train_step(net, LOSS, opt, in_backward=True)(*meta)
    assert tree.map(lambda leaf: leaf.shape, new[:2]) == tree.map(lambda leaf: leaf.shape, meta[:2])


COMPILED = {
    "in a scan": (fn.serial(DENSE, fn.BatchNorm1d(16), fn.Dropout(0.3), DENSE), lambda step: fn.scan_steps(step, 2)),
    "in a loop": (fn.serial(PAIRED, fn.repeat(fn.reversible(DENSE, fn.Tanh()), 4), fn.Add()), fn.compile),
}


@pytest.mark.compiled
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_step_is_the_plain_step(name: str) -> None:
    """One graph gives the eager step's numbers up to rounding; only one of the two is compiled, to save time."""
    net, compiled = COMPILED[name]
    opt = fn.donate(fn.Adam(lr=1e-2, eps=1e-3))  # for gradients near 0 a smaller eps would show only their rounding
    params = net.init(0)
    batch = tree.map(lambda leaf: leaf.expand(2, -1, -1), (X, ROWS)) if name == "in a scan" else (X, ROWS)
    plain = fn.train_step(net, LOSS, opt)
    found = [
        step(*tree.map(torch.clone, (params, opt.init(params))), *batch, fn.key(0))
        for step in (compiled(plain.replace(in_backward=True)), compiled(plain).__wrapped__)
    ]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_rate_that_is_a_tensor_may_change_in_place() -> None:
    """The copies of the optimizer hold the same tensor."""
    net, lr = fn.serial(fn.Linear(3, 4), fn.Linear(4, 2)), torch.tensor(0.1, dtype=torch.float64)
    params, x, target = net.init(0), torch.ones(5, 3), torch.zeros(5, 2)
    steps = [fn.train_step(net, fn.MSE(), fn.Adam(lr=lr), in_backward=in_backward) for in_backward in (False, True)]
    for value in (0.1, 0.3):
        lr.fill_(value)
        plain, layerwise = (step(params, step.opt.init(params), x, target) for step in steps)
        fixed = fn.train_step(net, fn.MSE(), fn.Adam(lr=value))(params, steps[0].opt.init(params), x, target)
        assert tree.equal(plain, fixed)
        assert tree.equal(layerwise, fixed)
