"""Optimizers: against torch.optim step by step in float64, and the promises of the contract in funcnet/optim/optimizer.py."""

import copy
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from funcnet import tree
from funcnet.optim import base
from funcnet.optim.adam import Adam, AdamW
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.chaining import Chain, chain, donate
from funcnet.optim.clipping import ClipByGlobalNorm, ClipByValue
from funcnet.optim.schedules import CosineSchedule, LinearSchedule, StepSchedule
from funcnet.optim.sgd import SGD
from funcnet.random import fold_in, key, normal
from funcnet.tree import Tree

STEPS = 12


def leaves(seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Make params, or gradients: a matrix, a vector that fills no whole register, a 0-d leaf and an empty node."""
    shapes = {"weight": (5, 7), "bias": (5,), "scale": ()}
    drawn = {
        name: normal(fold_in(key(seed), i), shape, dtype=torch.float64).to(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return ({"weight": drawn["weight"], "bias": drawn["bias"]}, {}, {"inner": {"scale": drawn["scale"]}})


def update(optimizer: Optimizer, grads: Tree) -> tuple[Tree, State]:
    """Take one step from the first params."""
    return optimizer.update(grads, optimizer.init(leaves(0)), leaves(0))


def run(optimizer: Optimizer, params: Tree, steps: int = STEPS, state: State = None, first: int = 0) -> tuple[Tree, State]:
    """Take steps with gradients that depend on the step alone."""
    state = optimizer.init(params) if state is None else state
    dtype = tree.leaves(params)[0].dtype
    for step in range(first, first + steps):
        params, state = optimizer.update(leaves(100 + step, dtype), state, params)
    return params, state


def torch_run(
    make: Callable[..., Any], before_step: Callable[[int, Any], None] = lambda step, optimizer: None
) -> list[list[Tensor]]:
    """Take the same steps by an optimizer of torch.optim, and return the parameters after each."""
    params = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(leaves(0))]
    optimizer, trace = make(params), []
    for step in range(STEPS):
        for p, g in zip(params, tree.leaves(leaves(100 + step)), strict=True):
            p.grad = g
        before_step(step, optimizer)
        optimizer.step()
        trace.append([p.detach().clone() for p in params])
    return trace


def assert_same_trace(optimizer: Optimizer, trace: list[list[Tensor]]) -> None:
    params = leaves(0)
    state = optimizer.init(params)
    for step, expected in enumerate(trace):
        params, state = optimizer.update(leaves(100 + step), state, params)
        torch.testing.assert_close(tree.leaves(params), expected, rtol=1e-12, atol=1e-12)


def grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]


SGDS = [
    *grid(momentum=(0, 0.9), weight_decay=(0, 0.1), maximize=(False, True)),
    *grid(momentum=(0.9,), weight_decay=(0, 0.1), dampening=(0.3,), maximize=(False, True)),
    *grid(momentum=(0.9,), weight_decay=(0, 0.1), nesterov=(True,), maximize=(False, True)),
    {"momentum": 0, "dampening": 0.5},
]
ADAMS = grid(betas=((0.9, 0.999), (0.0, 0.5)), weight_decay=(0, 0.1), amsgrad=(False, True), maximize=(False, True))
ALL = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.9),
    SGD(lr=0.1, fused=True),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True),
    SGD(lr=0.1, momentum=0.9, dampening=0.2, maximize=True, fused=True),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    SGD(lr=0.1, momentum=0.9, dampening=0.2, maximize=True),
    SGD(lr=0.1, momentum=0.9, averaged=True),
    SGD(lr=CosineSchedule(0.1, STEPS), momentum=LinearSchedule(0.5, 0.9, STEPS), weight_decay=StepSchedule(0.1, 5)),
    Adam(lr=0.1),
    Adam(lr=0.1, weight_decay=0.1, amsgrad=True, maximize=True),
    AdamW(lr=CosineSchedule(0.1, STEPS), betas=(0.9, LinearSchedule(0.9, 0.99, STEPS))),
    chain(ClipByValue(1.5), ClipByGlobalNorm(2.0), AdamW(lr=0.1, amsgrad=True)),
]
each_optimizer = pytest.mark.parametrize("optimizer", ALL, ids=repr)


# Formulas


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", SGDS, ids=repr)
def test_sgd_takes_the_steps_of_torch(how: dict[str, Any], fused: bool) -> None:
    """SGD equals torch.optim.SGD after every step, its first one included."""
    assert_same_trace(SGD(lr=0.05, fused=fused, **how), torch_run(lambda params: torch.optim.SGD(params, lr=0.05, **how)))


@pytest.mark.parametrize("how", ADAMS, ids=repr)
@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_adam_takes_the_steps_of_torch(ours: Any, theirs: Any, how: dict[str, Any]) -> None:
    """Adam and AdamW equal torch.optim's after every step."""
    assert_same_trace(ours(lr=0.05, eps=1e-3, **how), torch_run(lambda params: theirs(params, lr=0.05, eps=1e-3, **how)))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SGD(), torch.optim.SGD), (Adam(), torch.optim.Adam), (AdamW(), torch.optim.AdamW)], ids=repr
)
def test_the_defaults_are_those_of_torch(ours: Optimizer, theirs: Any) -> None:
    """Without arguments the steps are those of torch.optim without arguments."""
    assert_same_trace(ours, torch_run(theirs))


def test_the_averaged_momentum_is_a_running_average_from_zero() -> None:
    """With averaged, v ← m v + (1 - m) g from v = 0, and p ← p - lr v."""
    p, v, optimizer = leaves(0), tree.zeros_like(leaves(0)), SGD(lr=0.1, momentum=0.9, averaged=True)
    for step in range(STEPS):
        v = tree.map(lambda v, g: 0.9 * v + (1 - 0.9) * g, v, leaves(100 + step))
        p = tree.map(lambda p, v: p - 0.1 * v, p, v)
    torch.testing.assert_close(tree.leaves(run(optimizer, leaves(0))[0]), tree.leaves(p), rtol=1e-12, atol=1e-12)


def test_the_first_step_is_undamped() -> None:
    """The first buffer is the gradient itself, whatever the dampening."""
    _, state = run(SGD(momentum=0.9, dampening=0.7), leaves(0), steps=1)
    assert tree.equal(state["momentum_buffer"], leaves(100))


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_rates_of_sgd_follow_schedules(nesterov: bool) -> None:
    """lr, momentum and weight_decay at a step are the schedules' values for the number of steps before."""
    rates = {"lr": CosineSchedule(0.1, 8), "momentum": LinearSchedule(0.5, 0.9, 6), "weight_decay": StepSchedule(0.1, 4)}

    def set_rates(step: int, optimizer: Any) -> None:
        optimizer.param_groups[0].update({name: schedule(step) for name, schedule in rates.items()})

    trace = torch_run(lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9, nesterov=nesterov), set_rates)
    assert_same_trace(SGD(**rates, nesterov=nesterov), trace)


def test_the_dampening_follows_a_schedule() -> None:
    """Dampening by a schedule equals torch.optim.SGD whose dampening is set before each step."""
    schedule = LinearSchedule(0.1, 0.8, 10)
    trace = torch_run(
        lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.1),
        lambda step, optimizer: optimizer.param_groups[0].update(dampening=schedule(step)),
    )
    assert_same_trace(SGD(lr=0.05, momentum=0.9, dampening=schedule), trace)


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_the_rates_of_adam_follow_schedules(ours: Any, theirs: Any) -> None:
    """lr, both betas and weight_decay at a step are the schedules' values for the number of steps before."""
    lr, beta, decay = CosineSchedule(0.1, 8), LinearSchedule(0.5, 0.9, 6), StepSchedule(0.1, 4)

    def set_rates(step: int, optimizer: Any) -> None:
        optimizer.param_groups[0].update(lr=lr(step), betas=(beta(step), 0.99), weight_decay=decay(step))

    assert_same_trace(ours(lr=lr, betas=(beta, 0.99), weight_decay=decay), torch_run(theirs, set_rates))


@pytest.mark.parametrize("optimizer", [SGD(lr=0.3, momentum=0.5), Adam(lr=0.3), AdamW(lr=CosineSchedule(0.3, 300))], ids=repr)
def test_a_quadratic_is_minimized(optimizer: Optimizer) -> None:
    """300 steps down ½ (p - c)² come to c."""
    params, goal = leaves(0), leaves(1)
    state = optimizer.init(params)
    for _ in range(300):
        params, state = optimizer.update(tree.map(torch.sub, params, goal), state, params)
    assert tree.norm(tree.map(torch.sub, params, goal)) < 0.05


# Contract


@each_optimizer
def test_update_writes_to_no_argument(optimizer: Optimizer) -> None:
    """Params, gradients and state keep their values and their version counters."""
    params, grads = leaves(0), leaves(1)
    _, state = run(optimizer, params, steps=2)
    arguments = (params, grads, state)
    copies, versions = copy.deepcopy(arguments), tree.map(lambda leaf: leaf._version, arguments)
    optimizer.update(grads, state, params)
    assert tree.equal(arguments, copies)
    assert tree.map(lambda leaf: leaf._version, arguments) == versions


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_donating_changes_no_bit(optimizer: Optimizer, dtype: torch.dtype) -> None:
    """The donated optimizer's params and state are the pure one's, bit for bit."""
    assert tree.equal(run(donate(optimizer), leaves(0, dtype)), run(optimizer, leaves(0, dtype)))


@each_optimizer
def test_donating_reuses_the_memory(optimizer: Optimizer) -> None:
    """The donated optimizer's params and state lie where the ones given up lay."""
    params, state = run(optimizer, leaves(0), steps=1)
    places = tree.map(Tensor.data_ptr, (params, state))
    assert tree.map(Tensor.data_ptr, donate(optimizer).update(leaves(1), state, params)) == places


@each_optimizer
def test_donating_leaves_the_gradients(optimizer: Optimizer) -> None:
    """The gradients are not given up."""
    params, state = run(optimizer, leaves(0), steps=1)
    grads = leaves(1)
    donate(optimizer).update(grads, state, params)
    assert tree.equal(grads, leaves(1))


def test_an_optimizer_without_a_donated_form_donates_itself() -> None:
    """Donate returns an optimizer of the user's own as it is."""

    class Still(Optimizer):
        def init(self, params: Tree) -> State:
            return {}

        def update(self, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
            return params, state

    still = Still()
    assert donate(still) is still


@each_optimizer
def test_state_is_complete_at_init(optimizer: Optimizer) -> None:
    """No update changes the structure, shapes or dtypes of the state."""
    params = leaves(0, torch.float32)
    before, (_, after) = optimizer.init(params), run(optimizer, params, steps=2)
    assert tree.structure(after) == tree.structure(before)
    assert tree.map(lambda x: (x.shape, x.dtype), after) == tree.map(lambda x: (x.shape, x.dtype), before)


def test_the_moments_have_the_names_of_torch() -> None:
    """State names its moments as torch.optim's state does."""
    _, state = run(AdamW(amsgrad=True), leaves(0), steps=1)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], amsgrad=True)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    assert set(state) == set(*map(set, optimizer.state.values()))


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (SGD(), ["step"]),
        (SGD(momentum=0.9), ["step", "momentum_buffer"]),
        (SGD(momentum=LinearSchedule(0.0, 0.9, 5)), ["step", "momentum_buffer"]),
        (Adam(), ["step", "exp_avg", "exp_avg_sq"]),
        (AdamW(amsgrad=True), ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    ],
    ids=repr,
)
def test_the_state_holds_what_the_formula_needs(optimizer: Optimizer, names: list[str]) -> None:
    """State is a dict of the step and the moments in use, no others."""
    assert list(optimizer.init(leaves(0))) == names


def test_the_step_counts_the_updates() -> None:
    """State's step is a 0-d int64 tensor with the number of updates made."""
    _, state = run(Adam(), leaves(0), steps=3)
    assert torch.equal(state["step"], torch.tensor(3))


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(optimizer: Optimizer, dtype: torch.dtype) -> None:
    """Params keep their dtype, a 0-d leaf's too."""
    params, _ = run(optimizer, leaves(0, dtype), steps=2)
    assert tree.map(lambda x: x.dtype, params) == tree.map(lambda _: dtype, params)


@each_optimizer
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_low_precision_comes_close_to_float64(optimizer: Optimizer, dtype: torch.dtype, tolerance: float) -> None:
    """Three steps from the same numbers differ from float64's by rounding."""
    start = tree.cast(leaves(0, dtype), torch.float64)
    exact, rounded = [run(optimizer, tree.cast(start, kind), steps=3)[0] for kind in (torch.float64, dtype)]
    torch.testing.assert_close(tree.leaves(tree.cast(rounded, torch.float64)), tree.leaves(exact), rtol=tolerance, atol=tolerance)


@each_optimizer
def test_dtypes_may_be_mixed(optimizer: Optimizer) -> None:
    """A tree of several dtypes is updated as its parts are by themselves."""
    optimizer = Chain((), optimizer.optimizer) if isinstance(optimizer, Chain) else optimizer  # clipping looks at all leaves
    parts = [{"p": leaves(i, dtype)} for i, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16])]
    grads = [{"p": leaves(9 + i, dtype)} for i, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16])]
    alone = [optimizer.update(g, optimizer.init(p), p)[0] for g, p in zip(grads, parts, strict=True)]
    together, _ = optimizer.update(tuple(grads), optimizer.init(tuple(parts)), tuple(parts))
    assert tree.equal(together, tuple(alone))


@each_optimizer
def test_a_leaf_without_gradient_is_left_untouched(optimizer: Optimizer) -> None:
    """Where the gradient is None, the parameter and all its moments are the very tensors they were."""
    params, state = run(optimizer, leaves(0), steps=2)
    grads = tree.replace(leaves(1), "0.weight", None)
    after = optimizer.update(grads, state, params)
    before = tree.names((params, state))
    same = [path for path, leaf in tree.names(after).items() if leaf is before[path]]
    assert same == [path for path in before if path.endswith("0.weight")]


@each_optimizer
def test_the_other_leaves_step_as_ever(optimizer: Optimizer) -> None:
    """A missing gradient changes nothing for the parameters that have one."""
    optimizer = optimizer.optimizer if isinstance(optimizer, Chain) else optimizer  # clipping looks at all leaves
    whole, _ = run(optimizer, leaves(0), steps=1)
    partial, _ = optimizer.update(tree.replace(leaves(100), "0.weight", None), optimizer.init(leaves(0)), leaves(0))
    assert tree.equal(tree.replace(partial, "0.weight", None), tree.replace(whole, "0.weight", None))


@each_optimizer
def test_without_any_gradient_only_the_step_moves(optimizer: Optimizer) -> None:
    """Gradients that are all None leave params and moments."""
    params, state = run(optimizer, leaves(0), steps=2)
    after, moved = optimizer.update(tree.map(lambda _: None, params), state, params)
    changed = [path for path, leaf in tree.names(moved).items() if not torch.equal(leaf, tree.names(state)[path])]
    assert tree.equal(after, params)
    assert [path.rpartition(".")[2] for path in changed] == ["step"]


@each_optimizer
def test_a_counter_among_the_params_survives(optimizer: Optimizer) -> None:
    """An integer leaf has no moments, and with its gradient None it is the very tensor it was."""
    count = torch.tensor(7)
    params = {"net": leaves(0), "num_batches_tracked": count}
    state = optimizer.init(params)
    after, _ = optimizer.update({"net": leaves(1), "num_batches_tracked": None}, state, params)
    assert after["num_batches_tracked"] is count
    assert not [path for path in tree.names(state) if path.endswith("num_batches_tracked")]


@each_optimizer
@pytest.mark.parametrize("params", [{}, (), ({}, ()), {"weight": None}, None], ids=repr)
def test_a_tree_without_tensors_comes_back(optimizer: Optimizer, params: Tree) -> None:
    """A net without params has a state and takes steps."""
    after, _ = optimizer.update(params, optimizer.init(params), params)
    assert after == params


@each_optimizer
def test_a_tensor_alone_is_a_tree(optimizer: Optimizer) -> None:
    """Params may be one tensor, and it is updated as it is within a dict."""
    p, g = normal(key(0), (3,)), normal(key(1), (3,))
    alone, _ = optimizer.update(g, optimizer.init(p), p)
    within, _ = optimizer.update({"p": g}, optimizer.init({"p": p}), {"p": p})
    assert torch.equal(alone, within["p"])


@each_optimizer
def test_layout_changes_no_bit(optimizer: Optimizer) -> None:
    """Transposed and expanded gradients give what contiguous ones give."""
    p = {"a": normal(key(0), (33, 17)), "b": normal(key(1), (33, 17))}
    transposed, expanded = normal(key(2), (17, 33)).t(), normal(key(3), (1, 17)).expand(33, 17)
    grads, dense = {"a": transposed, "b": expanded}, {"a": transposed.contiguous(), "b": expanded.contiguous()}
    state = optimizer.init(p)
    assert tree.equal(optimizer.update(grads, state, p), optimizer.update(dense, state, p))


@each_optimizer
@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: torch.stack([x, x], -1)[..., 0],
    ],
    ids=["permuted", "channels_last", "strided"],
)
def test_params_of_any_layout_step_alike(optimizer: Optimizer, layout: Callable[[Tensor], Tensor]) -> None:
    """Params that are not contiguous take the steps of contiguous ones, to rounding."""
    p, g = normal(key(0), (3, 5, 2, 4), dtype=torch.float64), normal(key(1), (3, 5, 2, 4), dtype=torch.float64)
    state = optimizer.init({"p": p})
    expected, _ = optimizer.update({"p": g}, state, {"p": p})
    as_laid = tree.map(lambda x: layout(x) if x.dim() else x, state)
    got, _ = optimizer.update({"p": layout(g)}, as_laid, {"p": layout(p)})
    torch.testing.assert_close(got["p"], expected["p"], rtol=1e-12, atol=1e-12)


@each_optimizer
def test_a_saved_state_continues_bit_for_bit(optimizer: Optimizer) -> None:
    """Six steps, torch.save, torch.load and six more are twelve steps without a break."""
    whole = run(optimizer, leaves(0))
    file = io.BytesIO()
    torch.save(run(optimizer, leaves(0), steps=6), file)
    file.seek(0)
    params, state = torch.load(file, weights_only=True)
    assert tree.equal(run(optimizer, params, 6, state, first=6), whole)


@each_optimizer
@pytest.mark.parametrize("form", [lambda o: o, donate], ids=["pure", "donated"])
def test_update_compiles_whole(optimizer: Optimizer, form: Callable[[Optimizer], Optimizer]) -> None:
    """One graph, without breaks and without a new one per step, gives the eager steps to rounding."""
    torch._dynamo.reset()
    step, (params, state) = (
        torch.compile(form(optimizer).update, fullgraph=True, backend="aot_eager"),
        run(optimizer, leaves(0), 0),
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i in range(4):
            params, state = step(leaves(100 + i), state, params)
    expected = tree.leaves(run(optimizer, leaves(0), steps=4))
    torch.testing.assert_close(tree.leaves((params, state)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", ALL[:3], ids=repr)
def test_compiled_sgd_is_bit_equal(optimizer: Optimizer) -> None:
    """Compiled without fusion, SGD with numbers for rates computes what it computes in eager mode."""
    torch._dynamo.reset()
    params, grads = leaves(0, torch.float32), leaves(1, torch.float32)
    state = optimizer.init(params)
    compiled = torch.compile(optimizer.update, fullgraph=True, backend="aot_eager")
    assert tree.equal(compiled(grads, state, params), optimizer.update(grads, state, params))


@each_optimizer
def test_update_works_under_vmap(optimizer: Optimizer) -> None:
    """Mapped over members with params, gradients and states of their own, update equals a loop over them."""
    members = [leaves(i) for i in range(3)]
    states = [run(optimizer, member, steps=i)[1] for i, member in enumerate(members)]
    alone = [optimizer.update(leaves(9 + i), state, p) for i, (state, p) in enumerate(zip(states, members, strict=True))]
    stacked = [tree.map(lambda *xs: torch.stack(xs), *trees) for trees in ([leaves(9 + i) for i in range(3)], states, members)]
    together = torch.func.vmap(optimizer.update)(*stacked)
    expected = tree.map(lambda *xs: torch.stack(xs), *alone)
    torch.testing.assert_close(tree.leaves(together), tree.leaves(expected), rtol=1e-12, atol=1e-12)


@each_optimizer
def test_meta_tensors_take_steps(optimizer: Optimizer) -> None:
    """On the meta device update gives the shapes and dtypes of params and state."""
    params, grads = tree.to(leaves(0, torch.float32), "meta"), tree.to(leaves(1, torch.float32), "meta")
    state = optimizer.init(params)
    after = optimizer.update(grads, state, params)
    assert tree.map(lambda x: (x.shape, x.dtype), after) == tree.map(lambda x: (x.shape, x.dtype), (params, state))


@each_optimizer
def test_steps_can_be_differentiated(optimizer: Optimizer) -> None:
    """Autograd's derivative of two steps by their gradients equals a central difference."""
    _, state = run(optimizer, leaves(0), steps=2)

    def after(t: Tensor) -> Tensor:
        params, now = leaves(0), state
        for step in (1, 2):
            params, now = optimizer.update(tree.map(lambda g, d: g + t * d, leaves(step), leaves(9)), now, params)
        return tree.ravel(params).sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(after(t), t)
    with torch.no_grad():
        difference = (after(t + 1e-6) - after(t - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-8)


# Values


@each_optimizer
def test_optimizers_are_values(optimizer: Optimizer) -> None:
    """Repr evaluates back, equal ones hash alike, and pickle keeps them; donated ones too."""
    for one in (optimizer, donate(optimizer)):
        names = {kind.__name__: kind for kind in (SGD, Adam, AdamW, Chain, ClipByValue, ClipByGlobalNorm)}
        again = eval(repr(one), names | {kind.__name__: kind for kind in (CosineSchedule, LinearSchedule, StepSchedule)})
        assert again == one == pickle.loads(pickle.dumps(one))
        assert hash(again) == hash(one)


def test_donating_makes_another_value() -> None:
    """The donated optimizer is not equal to the pure one."""
    assert donate(Adam()) != Adam()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SGD(lr=-1), "SGD: lr must be a finite number at least 0.0, got -1"),
        (lambda: SGD(lr=float("nan")), "SGD: lr must be a finite number at least 0.0, got nan"),
        (lambda: SGD(lr="0.1"), "SGD: lr must be a finite number at least 0.0, got '0.1'"),
        (lambda: SGD(momentum=-0.1), "SGD: momentum must be a finite number at least 0.0, got -0.1"),
        (lambda: SGD(weight_decay=-1), "SGD: weight_decay must be a finite number at least 0.0, got -1"),
        (lambda: SGD(dampening=float("inf")), "SGD: dampening must be a finite number at least 0.0, got inf"),
        (
            lambda: SGD(nesterov=True),
            "SGD: nesterov needs a momentum above 0 and no dampening, got momentum=0.0 and dampening=0.0",
        ),
        (
            lambda: SGD(momentum=0.9, dampening=0.1, nesterov=True),
            "SGD: nesterov needs a momentum above 0 and no dampening, got momentum=0.9 and dampening=0.1",
        ),
        (
            lambda: SGD(momentum=0.9, dampening=0.1, averaged=True),
            (
                "SGD: averaged, which sets the dampening to the momentum, goes without nesterov and dampening, "
                "got nesterov=False and dampening=0.1"
            ),
        ),
        (lambda: SGD(maximize=1), "SGD: maximize must be True or False, got 1"),
        (lambda: Adam(lr=-1), "Adam: lr must be a finite number at least 0.0, got -1"),
        (lambda: AdamW(eps=-1.0), "AdamW: eps must be a finite number at least 0.0, got -1.0"),
        (
            lambda: Adam(betas=(0.9, 1.0)),
            "Adam: betas must be a tuple of two numbers of at least 0 and below 1, or schedules, got (0.9, 1.0)",
        ),
        (
            lambda: AdamW(betas=[0.9, 0.99]),
            "AdamW: betas must be a tuple of two numbers of at least 0 and below 1, or schedules, got [0.9, 0.99]",
        ),
        (chain, "chain: its last part must be an optimizer, got no parts"),
        (
            lambda: chain(ClipByValue(1.0)),
            "chain: its last part must be an optimizer, got ClipByValue(clip_value=1.0)",
        ),
        (
            lambda: chain(SGD(), ClipByValue(1.0)),
            "chain: its last part must be an optimizer, got ClipByValue(clip_value=1.0)",
        ),
        (
            lambda: chain(SGD(), SGD()),
            "Chain: transforms must be gradient transforms, all before the optimizer, got SGD()",
        ),
    ],
)
def test_a_wrong_argument_is_refused_by_sentence(make: Callable[[], Any], sentence: str) -> None:
    """The error says which field of which value breaks which rule, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == sentence


# Errors of update


def misfit(grads: Tree = None, state: State = None, params: Tree = None, optimizer: Optimizer | None = None) -> ValueError:
    """Update with something that does not fit, and return the error."""
    optimizer = optimizer or SGD(momentum=0.9)
    with pytest.raises(ValueError, match=r".") as caught:
        optimizer.update(grads or leaves(1), state or optimizer.init(leaves(0)), params or leaves(0))
    return caught.value


def test_gradients_of_another_structure_are_refused_with_the_path() -> None:
    """The error has the first path where the trees disagree, and says which trees and whose."""
    error = misfit(grads=({"weight": torch.ones(5, 7, dtype=torch.float64)}, {}, {"inner": {"scale": None}}))
    assert str(error) == (
        "tree: the trees must agree, and at '0' one has a dict with the keys 'weight', 'bias', "
        "got a dict with the keys 'weight' in the other"
    )
    assert error.__notes__ == ["  in SGD(momentum=0.9), update: params against grads, momentum_buffer"]


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_gradient_of_another_shape_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """A gradient that would only broadcast to its parameter is refused."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(1, dtype=torch.float64))
    assert str(misfit(grads=grads, optimizer=optimizer)) == (
        f"{optimizer}: grads must have at '0.bias' what params has, a tensor of shape (5,) and dtype torch.float64, "
        "got a tensor of shape (1,) and dtype torch.float64"
    )


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=repr)
def test_what_fits_is_told_from_what_does_not_whatever_came_before(optimizer: Optimizer) -> None:
    """Leaves are compared with the last ones first: after updates that fit, and of nets of as many leaves, nothing else passes."""
    other, wide = tree.map(lambda leaf: leaf.unsqueeze(0).float(), leaves(0)), leaves(0, torch.float32)
    grads = tree.replace(leaves(1), "0.weight", leaves(1)[0]["weight"].t().contiguous().t())
    for _ in range(3):
        for params in (leaves(0), other, wide):
            optimizer.update(params, optimizer.init(params), params)
        assert tree.equal(update(optimizer, grads), update(optimizer, leaves(1)))
        for wrong in (other, wide):
            assert "what params has" in str(misfit(grads=wrong, optimizer=optimizer))


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_gradient_of_another_dtype_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """A gradient that would promote its parameter is refused."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(5))
    assert "grads must have at '0.bias' what params has" in str(misfit(grads=grads, optimizer=optimizer))


def test_a_gradient_on_another_device_is_refused_with_the_path() -> None:
    """The error names the devices where they differ."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(5, dtype=torch.float64, device="meta"))
    assert str(misfit(grads=grads)).endswith("got a tensor of shape (5,) and dtype torch.float64 on meta")


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_state_of_another_net_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """Moments that have not the shapes of params are refused."""
    other = tree.replace(leaves(0), "0.weight", torch.ones(1, 7, dtype=torch.float64))
    message = str(misfit(state=optimizer.init(other), optimizer=optimizer))
    assert "at '0.weight' what params has, a tensor of shape (5, 7)" in message


def test_a_state_of_another_optimizer_is_refused() -> None:
    """The error says what the state must hold, and what came."""
    assert str(misfit(state=SGD().init(leaves(0)))) == (
        "SGD(momentum=0.9): state must be a dict of step, momentum_buffer, as init makes it, got a dict with the keys 'step'"
    )


def test_a_moment_too_many_is_refused() -> None:
    """State of SGD with momentum does not pass for that of SGD without."""
    state = SGD(momentum=0.9).init(leaves(0))
    assert "SGD(): state must be a dict of step, as init makes it" in str(misfit(state=state, optimizer=SGD()))


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=repr)
def test_a_gradient_for_a_counter_is_refused(optimizer: Optimizer) -> None:
    """An integer leaf takes no gradient but None."""
    params, grads = {"n": torch.tensor(3)}, {"n": torch.tensor(1)}
    assert "grads must have None at 'n', where params has a tensor of shape () and dtype torch.int64" in str(
        misfit(grads, optimizer.init(params), params, optimizer)
    )


def test_a_gradient_for_an_absent_parameter_is_refused() -> None:
    """Where params has None, grads must have None."""
    params, grads = {"w": None}, {"w": torch.ones(2)}
    assert "grads must have None at 'w', where params has None" in str(misfit(grads, SGD().init(params), params, SGD()))


# Chains


def test_a_chain_applies_its_parts_in_order() -> None:
    """Clipping by value and then by norm equals doing both by hand before the optimizer."""
    first, second, last = ClipByValue(0.5), ClipByGlobalNorm(0.8), Adam(lr=0.1)
    params, grads = leaves(0), leaves(1)
    by_hand = second.update(first.update(grads, {}, params)[0], {}, params)[0]
    expected, state = last.update(by_hand, last.init(params), params)
    whole = chain(first, second, last)
    assert tree.equal(whole.update(grads, whole.init(params), params), (expected, ({}, {}, state)))


def test_a_chain_of_an_optimizer_alone_is_that_optimizer() -> None:
    """chain(opt) takes the steps of opt."""
    assert tree.equal(run(chain(Adam()), leaves(0))[0], run(Adam(), leaves(0))[0])


def test_a_chain_may_end_in_a_chain() -> None:
    """A chain is an optimizer, so it may stand last in another."""
    inner = chain(ClipByGlobalNorm(0.5), SGD(lr=0.1))
    nested, flat = chain(ClipByValue(0.3), inner), chain(ClipByValue(0.3), ClipByGlobalNorm(0.5), SGD(lr=0.1))
    assert tree.equal(run(nested, leaves(0))[0], run(flat, leaves(0))[0])


def test_a_chain_threads_the_state_of_its_transforms() -> None:
    """A transform with a state gets its own state back at every step."""

    class Growing(GradientTransform):
        def init(self, params: Tree) -> State:
            return {"n": torch.zeros(())}

        def update(self, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
            return tree.scale(grads, state["n"]), {"n": state["n"] + 1}

    _, state = run(chain(Growing(), SGD(lr=0.1)), leaves(0), steps=3)
    assert state[0]["n"] == 3


def test_a_state_that_is_not_the_chains_is_refused() -> None:
    """The error says how many states there must be, and what came."""
    optimizer = chain(ClipByValue(1.0), SGD())
    assert "state must be a tuple of 2, one for each part, got a dict with the keys 'step'" in str(
        misfit(state=SGD().init(leaves(0)), optimizer=optimizer)
    )


def test_an_error_says_which_part_of_the_chain() -> None:
    """An error within a chain carries the number of the part as a note."""
    optimizer = chain(ClipByValue(1.0), SGD())
    error = misfit(grads=tree.replace(leaves(1), "0.bias", torch.ones(5)), optimizer=optimizer)
    assert error.__notes__ == ["  in chain, part 1"]


@pytest.mark.parametrize("gradient", [torch.ones(2), torch.ones(3, dtype=torch.float64)])
def test_what_was_given_up_is_as_it_was_where_the_gradients_do_not_fit(gradient) -> None:
    """The count of steps too: the update that is refused was none."""
    optimizer = SGD(lr=0.1, momentum=0.9).donate()
    params = {"weight": torch.ones(3)}
    state = optimizer.init(params)
    before = tree.map(torch.clone, (params, state))
    with pytest.raises(ValueError, match="grads must have at 'weight' what params has"):
        optimizer.update({"weight": gradient}, state, params)
    assert tree.equal((params, state), before)


def test_nets_that_alternate_do_not_make_guards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two param trees through one optimizer, with as many leaves in each: right, and one guard for each tree."""
    made, guard = [], base.tensor_guard
    monkeypatch.setattr(base, "tensor_guard", lambda tensors: made.append(len(tensors)) or guard(tensors))
    optimizer = SGD(0.1, momentum=0.9)
    nets = [leaves(0), tree.map(lambda x: torch.stack([x, 2 * x]), leaves(1))]
    runs = [(params, optimizer.init(params)) for params in nets]
    for step in range(4):
        for i, (params, state) in enumerate(runs):
            runs[i] = optimizer.update(tree.map(lambda x, step=step: x * step, nets[i]), state, params)
    assert made == [3, 3]
    for (params, _), first in zip(runs, nets, strict=True):
        alone, state = first, SGD(0.1, momentum=0.9).init(first)
        for step in range(4):
            alone, state = SGD(0.1, momentum=0.9).update(tree.map(lambda x, step=step: x * step, first), state, alone)
        assert tree.equal(params, alone)


def test_guards_are_bounded_and_no_part_of_the_value() -> None:
    """An optimizer that took steps equals, hashes, prints, pickles and copies as a new one."""
    optimizer, new = SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    for n in range(1, 20):
        params = {"weight": torch.zeros(n)}
        optimizer.update(params, optimizer.init(params), params)
    assert len(optimizer._guards.guards) == base._GUARDS
    assert (optimizer, hash(optimizer), repr(optimizer)) == (new, hash(new), repr(new))
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer), optimizer.replace(lr=0.1)):
        assert other == optimizer
        assert other._guards.guards == ()
