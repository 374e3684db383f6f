"""Updates that do not fit: refused before anything is written, or done as a whole, for every position in the trees."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from optimizer_cases import OPTIMIZERS
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
each_form = pytest.mark.parametrize("form", [lambda o: o, fn.donate], ids=["pure", "donated"])
each_time = pytest.mark.parametrize("steps", [0, 2], ids=["first step", "third step"])
nested = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR tensor support")

SHAPES = {"first": (4, 3), "inner": (5,), "last": (2, 3)}

GRADS: dict[str, Callable[[Tensor], Any]] = {
    "longer": lambda g: torch.cat([g, g]),
    "shorter": lambda g: g[:1],
    "transposed": lambda g: g.t(),
    "one element": lambda g: g[:1, :1],
    "float8": lambda g: g.to(torch.float8_e4m3fn),
    "no element": lambda g: g[:0],
    "no axis": lambda g: g.sum(),
    "another axis": lambda g: g[None],
    "float64": lambda g: g.double(),
    "half": lambda g: g.to(torch.float16 if g.dtype is torch.bfloat16 else torch.bfloat16),
    "integer": lambda g: g.long(),
    "bool": lambda g: g > 0,
    "complex": lambda g: g.to(torch.complex64),
    "meta": lambda g: g.to("meta"),
    "sparse": lambda g: g.to_sparse(),
    "sparse rows": lambda g: g.to_sparse_csr(),
    "nested": lambda g: torch.nested.nested_tensor([*g]),
    "number": lambda g: 1.0,
    "word": lambda g: "a",
    "list": lambda g: [g],
    "dict": lambda g: {"g": g},
}
PARAMS = {
    name: GRADS[name]
    for name in ("longer", "float8", "transposed", "float64", "half", "integer", "complex", "meta", "sparse", "nested")
} | {"stacked": lambda p: torch.stack([p, p]), "number": lambda p: 1.0, "list": lambda p: [p]}
NEEDS_AXES = {"longer", "transposed", "nested"}
STEPS = [None, 1, "a", torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(1, dtype=torch.int32)]


def setting(optimizer: fn.Optimizer, steps: int) -> tuple[fn.Optimizer, Tree, Tree, Tree]:
    """Return the optimizer after some steps, and gradients, state and params for the next; in bfloat16 for master weights."""
    dtype = torch.bfloat16 if isinstance(optimizer, fn.MasterWeights) else torch.float32
    draw = lambda seed: {name: fn.random.normal(seed + i, shape).to(dtype) for i, (name, shape) in enumerate(SHAPES.items())}
    params = draw(0)
    state = optimizer.init(params)
    for i in range(steps):
        params, state = optimizer.update(draw(10 * i + 10), state, params)
    return optimizer, draw(100), state, params


def refused(optimizer: fn.Optimizer, grads: Tree, state: Tree, params: Tree, match: str) -> None:
    """Require that an update raises one of our errors, and that every tensor is unchanged."""
    dense = [x for x in tree.leaves((state, params)) if isinstance(x, Tensor) and x.device.type == "cpu" and not x.is_nested]
    dense = [x for x in dense if x.layout is torch.strided]
    before = [x.clone() for x in dense]
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        optimizer.update(grads, state, params)
    assert ": " in str(caught.value)
    assert ", got " in str(caught.value)
    assert all(torch.equal(x, y) for x, y in zip(dense, before, strict=True))


def settings(optimizer: fn.Optimizer, *, pure: bool = True) -> Iterator[tuple[fn.Optimizer, Tree, Tree, Tree, str]]:
    """Yield settings at the first step and at the third, with the optimizer pure and donated, and the path of a leaf."""
    for form in (lambda o: o, fn.donate) if pure else (fn.donate,):
        for steps in (0, 2):
            for path in ("first", "last"):
                yield *setting(form(optimizer), steps), path


def looked_at(optimizer: fn.Optimizer, state: Tree, name: str) -> list[str]:
    """Return the paths in a state that end with a name, except paths that an update without an inner step does not touch."""
    waits = isinstance(optimizer, fn.MultiSteps) and int(state["step"] + 1) % optimizer.k
    return [
        path for path in tree.names(state) if path.rpartition(".")[2] == name and not (waits and path.startswith("optimizer"))
    ]


@nested
@each_optimizer
def test_a_gradient_that_does_not_fit_is_refused(optimizer: Any) -> None:
    """Its shape, dtype, device or kind is wrong."""
    for used, grads, state, params, path in settings(optimizer):
        for change in GRADS.values():
            refused(used, {**grads, path: change(grads[path])}, state, params, "grads|tree")


@nested
@each_optimizer
def test_a_param_that_does_not_fit_is_refused(optimizer: Any) -> None:
    """Gradients and moments are right."""
    for used, grads, state, params, path in settings(optimizer):
        for change in PARAMS.values():
            refused(used, grads, state, {**params, path: change(params[path])}, "must (have|match|be)|tree|must agree")


@nested
@each_optimizer
def test_a_moment_that_does_not_fit_is_refused(optimizer: Any) -> None:
    """The same holds for a master weight; every tree of the state is tried."""
    for used, grads, state, params, path in settings(optimizer):
        for place in looked_at(used, state, path):
            is_matrix = tree.at(state, place).dim() == 2 and len({*tree.at(state, place).shape}) == 2
            for change in [one for kind, one in PARAMS.items() if kind not in NEEDS_AXES or is_matrix]:
                refused(
                    used,
                    grads,
                    tree.replace(state, place, change(tree.at(state, place))),
                    params,
                    "must (have|match|be)|must agree|tree",
                )


@each_optimizer
def test_a_count_of_steps_that_is_none_is_refused(optimizer: Any) -> None:
    """The count must be a 0-d int64 tensor, even if all gradients are None."""
    for used, grads, state, params, path in settings(optimizer):
        for name in looked_at(used, state, "step"):
            for step in STEPS:
                given = tree.map(lambda g: None, grads) if path == "first" else grads
                refused(used, given, tree.replace(state, name, step), params, "state must have a 0-d int64 tensor as step")


@each_optimizer
def test_a_state_of_another_optimizer_is_refused(optimizer: Any) -> None:
    """The message says what it must be, even in ``rates``; a state with the same names counts as the same optimizer's."""
    names = lambda state: {*state} if isinstance(state, dict) else len(state)
    for used, grads, state, params, _ in settings(optimizer):
        others = [one for one in (fn.Adam().init(params), fn.SGD().init(params), (), {}) if names(one) != names(state)]
        for other in (*others, None, torch.ones(())):
            refused(used, grads, other, params, "state must be ")
        for other in (None, (), {}, torch.ones(())):
            with pytest.raises(ValueError, match=r"state must be .*, got "):
                used.rates(other)


def inference(leaf: Tensor) -> Tensor:
    """Return a copy made in inference mode."""
    with torch.inference_mode():
        return leaf.clone()


UNWRITABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "of inference mode": inference,
    "expanded": lambda x: x.flatten()[0].expand(x.shape),
    "overlapping": lambda x: (
        x.flatten().as_strided(x.shape, [1] * x.dim()) if min(x.shape) > 1 < x.dim() else x[:1].sum().expand(x.shape)
    ),
    "lazy zeros": lambda x: torch._efficientzerotensor(x.shape, dtype=x.dtype),
}


@each_optimizer
def test_params_that_cannot_be_written_to_are_refused(optimizer: Any) -> None:
    """The donated optimizer refuses them; the pure one gives the same result as for copies."""
    for donated, grads, state, params, path in settings(optimizer, pure=False):
        for kind in UNWRITABLE.values():
            given = {**params, path: kind(params[path])}
            refused(donated, grads, state, given, "a donated optimizer writes to params")
            copied = tree.map(torch.clone, (grads, state, given))
            assert tree.equal(optimizer.update(grads, state, given), optimizer.update(*copied))


@each_optimizer
def test_moments_that_cannot_be_written_to_are_refused(optimizer: Any) -> None:
    """A donated optimizer refuses moments or masters that cannot be written to."""
    for donated, grads, state, params, path in settings(optimizer, pure=False):
        for place in looked_at(donated, state, path):
            for kind in UNWRITABLE.values():
                if tree.at(state, place).numel() > 1:
                    given = tree.replace(state, place, kind(tree.at(state, place)))
                    refused(donated, grads, given, params, "a donated optimizer writes to ")


@each_optimizer
@pytest.mark.parametrize("steps", [2])
def test_a_count_made_in_inference_mode_is_refused_outside(optimizer: Any, steps: int) -> None:
    """A loop of steps in inference mode makes the count, and the donated update comes after it."""
    with torch.inference_mode():
        optimizer, grads, state, params = setting(fn.donate(optimizer), steps)
    refused(optimizer, grads, state, params, "inference")
    with torch.inference_mode():
        optimizer.update(grads, state, params)


SHARED: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "one tensor": lambda x: (x[:4],) * 2,
    "two views": lambda x: (x[:4], x.t()[:3, :4].t()),
    "shifted": lambda x: (x.flatten()[:12].view(4, 3), x.flatten()[11:23].view(4, 3)),
}


@each_optimizer
def test_params_that_share_memory_are_refused(optimizer: Any) -> None:
    """A donated optimizer refuses them, even if it met other params of these shapes before."""
    for kind in SHARED:
        shared_params_are_refused(optimizer, kind)


def shared_params_are_refused(optimizer: fn.Optimizer, kind: str) -> None:
    """Require an error for params that share memory in one of the ways."""
    optimizer, _, _, params = setting(fn.donate(optimizer), 0)
    pair = dict(zip(("first", "last"), SHARED[kind](torch.ones(8, 3, dtype=params["first"].dtype)), strict=True))
    like = {name: torch.ones(4, 3, dtype=params["first"].dtype) for name in pair}
    for _ in range(2):
        like, _ = optimizer.update(tree.map(torch.clone, like), optimizer.init(like), like)
    refused(optimizer, tree.map(torch.ones_like, like), optimizer.init(like), pair, "no two elements may share memory")


@each_optimizer
@pytest.mark.parametrize("steps", [2])
def test_params_cut_from_one_tensor_are_taken(optimizer: Any, steps: int) -> None:
    """The params share a storage but no element, even if one lies between the elements of the other."""
    dtype = torch.bfloat16 if isinstance(optimizer, fn.MasterWeights) else torch.float32
    whole = fn.random.normal(0, (4, 6)).to(dtype)
    cut = {"a": whole[:, ::2], "b": whole[:, 1::2]}
    apart, grads = tree.map(torch.clone, cut), tree.map(torch.sin, tree.map(torch.clone, cut))
    states, donated = (optimizer.init(cut), optimizer.init(apart)), fn.donate(optimizer)
    for _ in range(steps + 1):
        cut, one = donated.update(grads, states[0], cut)
        apart, other = optimizer.update(grads, states[1], apart)
        states = one, other
    assert tree.equal(cut, apart)
    assert torch.equal(whole[:, ::2], apart["a"])


def by_grad(x: Tensor) -> Tensor:
    """Return a tensor that requires grad and is no leaf of its graph."""
    return x.clone().requires_grad_() * 1


TAKEN: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "gradient requires grad": lambda g, p: (by_grad(g), p),
    "param requires grad": lambda g, p: (g, p.clone().requires_grad_()),
    "Parameter": lambda g, p: (g, torch.nn.Parameter(p)),
    "both": lambda g, p: (by_grad(g), by_grad(p)),
    "negated gradient": lambda g, p: (torch.complex(g.float(), -g.float()).conj().imag.to(g.dtype), p),
    "lazy gradient": lambda g, p: (torch._efficientzerotensor(g.shape, dtype=g.dtype), p),
    "expanded gradient": lambda g, p: (g[:1].expand(g.shape), p),
    "gradient of inference mode": lambda g, p: (inference(g), p),
    "gradient is the param": lambda g, p: (p, p),
    "gradient is a view of the param": lambda g, p: (p.flip(0).as_strided(p.shape, p.stride()), p),
    "gradient in the param's memory": lambda g, p: (p.detach(), p),
}


@each_optimizer
def test_what_is_taken_is_taken_whole(optimizer: Any) -> None:
    """The step matches a step with plain copies, bit for bit, and no returned tensor requires grad."""
    for used, *given, path in settings(optimizer):
        for kind, change in TAKEN.items():
            grads, state, params = tree.map(torch.clone, tuple(given))
            grads[path], params[path] = change(grads[path], params[path])
            want = optimizer.update(*tree.map(lambda x: x.detach().clone(), (grads, state, params)))
            got = used.update(grads, state, params)
            assert tree.equal(got, want), kind
            assert not [name for name, leaf in tree.names(got).items() if leaf.requires_grad], kind


@each_optimizer
@pytest.mark.parametrize("steps", [0])
def test_a_gradient_across_two_params_is_taken_whole(optimizer: Any, steps: int) -> None:
    """The gradient begins in one param and ends in the next, so a kernel would stop after half of the step."""
    used, _, _, params = setting(fn.donate(optimizer), steps)
    flat = fn.random.normal(5, (24,)).to(params["first"].dtype)
    params, grads = {"a": flat[:12], "b": flat[12:]}, {"a": flat[6:18], "b": flat[:12]}
    want = optimizer.update(*tree.map(torch.clone, (grads, optimizer.init(params), params)))
    assert tree.equal(used.update(grads, used.init(params), params), want)


@each_form
@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, momentum=0.9), fn.Adam(0.1)], ids=repr)
def test_the_parameters_of_a_module_train_without_a_graph(optimizer: Any, form: Any) -> None:
    """``named_parameters`` train in the four lines as their detached copies do, and no step keeps its graph."""
    net, loss, module = fn.Linear(3, 2), fn.MSE(), torch.nn.Linear(3, 2)
    x, target = fn.random.normal(0, (4, 3)), fn.random.normal(1, (4, 2))
    used, ends = form(optimizer), []
    for start in (tree.map(lambda p: p.detach().clone(), dict(module.named_parameters())), dict(module.named_parameters())):
        params, state = start, used.init(start)
        for _ in range(3):
            y, cache = net.apply(params, x)
            params, state = used.update(net.grads(params, cache, loss.value_and_grad(y, target)[1]), state, params)
            assert not any(leaf.requires_grad for leaf in tree.leaves((params, state)))
        ends.append((params, state))
    assert tree.equal(*ends)


RATES = [
    None,
    "a",
    math.nan,
    math.inf,
    -0.1,
    1j,
    True,
    torch.ones(2),
    torch.ones((), device="meta"),
    torch.tensor(math.nan),
    torch.tensor(-1.0),
    [0.1],
    1e39,
    10**39,
]
SCHEDULED: list[Callable[[Any], fn.Optimizer]] = [
    fn.SGD,
    lambda rate: fn.SGD(rate, momentum=0.9, fused=True),
    lambda rate: fn.SGD(0.1, momentum=rate),
    lambda rate: fn.SGD(0.1, momentum=0.9, dampening=rate),
    lambda rate: fn.SGD(0.1, weight_decay=rate),
    fn.Adam,
    lambda rate: fn.Adam(0.1, betas=(rate, 0.9)),
    lambda rate: fn.AdamW(0.1, betas=(0.9, rate)),
    lambda rate: fn.AdamW(0.1, weight_decay=rate),
    lambda rate: fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam(rate)),
    lambda rate: fn.MasterWeights(fn.Adam(rate)),
]


@each_form
@each_time
@pytest.mark.parametrize("make", SCHEDULED)
def test_a_schedule_that_gives_no_rate_is_refused(make: Any, form: Any, steps: int) -> None:
    """Neither the count of steps, moments nor params have changed, at the first step and later."""
    for rate in RATES:
        optimizer, grads, state, params = setting(form(make(lambda step, rate=rate: rate if step == steps else 0.1)), steps)
        refused(optimizer, grads, state, params, "a schedule must return a finite number of at least 0")


@each_form
@pytest.mark.parametrize("place", [0, 1])
def test_a_beta_of_one_is_refused_at_the_step_where_it_comes(form: Any, place: int) -> None:
    """The correction of the moments would divide by 0."""
    betas = [0.9, 0.99]
    betas[place] = lambda step: 1.0 if step == 1 else 0.9
    optimizer, grads, state, params = setting(form(fn.Adam(0.1, betas=tuple(betas))), 1)
    refused(optimizer, grads, state, params, "of at least 0 and below 1.0, or a 0-d tensor, got 1.0")


@each_form
def test_the_error_of_a_schedule_stays_what_it_was(form: Any) -> None:
    """Nothing is written."""

    def fails(step: int) -> float:
        if step == 1:
            raise KeyError("no rate")
        return 0.1

    optimizer, grads, state, params = setting(form(fn.Adam(fails)), 1)
    before = tree.map(torch.clone, (state, params))
    with pytest.raises(KeyError, match="no rate"):
        optimizer.update(grads, state, params)
    assert tree.equal((state, params), before)


@each_form
def test_a_rate_that_is_a_tensor_gives_the_bits_of_its_number(form: Any) -> None:
    """The tensor may require grad."""
    got = []
    for rate in (0.125, torch.tensor(0.125), torch.tensor(0.125, requires_grad=True)):
        optimizer, grads, state, params = setting(form(fn.Adam(lambda step, rate=rate: rate, weight_decay=0.1)), 2)
        got.append(optimizer.update(grads, state, params))
    assert tree.equal(got[0], got[1])
    assert tree.equal(got[0], got[2])
    assert not any(leaf.requires_grad for leaf in tree.leaves(got))


@pytest.mark.compiled
@each_form
@pytest.mark.parametrize("path", ["first", "last"])
@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, momentum=0.9), fn.Adam(0.1), fn.MasterWeights(fn.Adam(0.1))], ids=repr)
def test_a_compiled_update_refuses_before_it_writes(optimizer: Any, form: Any, path: str) -> None:
    """The update refuses at the first call and after others, with the error of eager mode."""
    optimizer, grads, state, params = setting(form(optimizer), 1)
    compiled = fn.compile(optimizer.update)
    for kind in ("longer", "float64"):
        before = tree.map(torch.clone, (state, params))
        with pytest.raises(ValueError, match="grads at "):
            compiled({**grads, path: GRADS[kind](grads[path])}, state, params)
        assert tree.equal((state, params), before)
        params, state = compiled(grads, state, params)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["shifted", "two views"])
def test_a_compiled_step_refuses_params_that_share_memory_at_its_first_call(kind: str) -> None:
    """A donated step refuses them; the pure step gives the same result as for copies."""
    net, opt = fn.serial(fn.Linear(3, 4, bias=False), fn.Tanh(), fn.Linear(4, 3, bias=False)), fn.SGD(0.1, momentum=0.9)
    whole = fn.random.normal(0, (25,))
    params = (
        {"weight": whole[:12].view(4, 3)},
        {},
        {"weight": whole[11:23].view(3, 4) if kind == "shifted" else whole[:12].view(4, 3).t()},
    )
    x, target = fn.random.normal(1, (1, 3)).expand(5, 3), fn.random.normal(2, (5, 3))
    donated = fn.compile(fn.train_step(net, fn.MSE(), fn.donate(opt)))
    state, before = opt.init(params), whole.clone()
    with pytest.raises(ValueError, match="compile: a step that writes to its arguments, as a donated one does, must get params"):
        donated(params, state, x, target)
    assert torch.equal(whole, before)
    assert not any(leaf.any() for leaf in tree.leaves(state))
    step = fn.train_step(net, fn.MSE(), opt)
    got, want = fn.compile(step)(params, state, x, target), step(*tree.map(torch.clone, (params, state)), x, target)
    torch.testing.assert_close(got, want)
