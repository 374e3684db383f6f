"""``check_optimizer``: the library's optimizers pass, and a broken one fails with the rule that it breaks."""

import pytest
import torch
from optimizer_cases import MATRICES, OPTIMIZERS, TRANSFORMS, one_of_each

import funcnet as fn
from funcnet import tree
from funcnet.testing import check_optimizer

NORMED = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2)).init(0)
TREES = {
    "a net with running statistics": NORMED,
    "names that end alike": {"weight": torch.ones(2), "a": {"weight": torch.zeros(3)}},
    "one leaf": torch.ones(3),
    "no leaf": {},
    "half precision": tree.cast(fn.Linear(3, 2).init(0), torch.bfloat16),
    "leaves without elements, and 0-d ones": {"none": torch.ones(0, 3), "scale": torch.ones(()), "weight": torch.ones(2, 3)},
    "no elements": [torch.ones(0), torch.ones(3, 0)],
}


def test_every_optimizer_and_transform_is_in_the_catalogue() -> None:
    """All public classes are there except the base classes."""
    kinds = (fn.Optimizer, fn.GradientTransform)
    public = {value for value in vars(fn).values() if isinstance(value, type) and issubclass(value, kinds)}
    tried = {type(one) for one in (*OPTIMIZERS, *MATRICES, *TRANSFORMS)}
    assert public - tried == {fn.Optimizer, fn.MomentOptimizer, fn.GradientTransform, fn.MomentTransform}


def for_matrices(params: object) -> object:
    """Return params with a matrix for each floating leaf."""
    return tree.map(lambda p: torch.ones(2, 3, dtype=p.dtype) if p.is_floating_point() else p, params)


@pytest.mark.parametrize("opt", [*OPTIMIZERS, *MATRICES], ids=repr)
def test_the_optimizers_keep_the_contract(opt: fn.Optimizer) -> None:
    """Every kind of tree is tried, and its leaves stay unchanged."""
    for params in TREES.values():
        given = for_matrices(params) if opt in MATRICES else params
        before = tree.map(torch.clone, given)
        check_optimizer(opt, given, compiled=False)
        assert tree.equal(given, before)


@pytest.mark.compiled
@pytest.mark.parametrize("opt", one_of_each([*OPTIMIZERS, *MATRICES]), ids=repr)
def test_compiled_code_is_judged_too(opt: fn.Optimizer) -> None:
    """Compilation is checked by default."""
    check_optimizer(opt, {"weight": torch.ones(2, 3).double(), "more": torch.ones(3, 2).double()})


class Broken:
    """Gradient descent whose methods a test replaces."""

    def init(self, params: object) -> object:
        return {"step": torch.zeros((), dtype=torch.int64)}

    def update(self, grads: object, state: object, params: object) -> object:
        return tree.update(lambda p, g: p - 0.1 * g, params, grads), {"step": state["step"] + 1}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Vanishing(Broken):
    """A one-liner that loses running statistics."""

    def update(self, grads, state, params):
        return tree.map(lambda p, g: p - 0.1 * g, params, grads), state


class Writing(Broken):
    """Writes to params."""

    def update(self, grads, state, params):
        tree.update(lambda p, g: p.sub_(0.1 * g), params, grads)
        return params, state


class Counting(Broken):
    """Keeps its own count, so it is not a function of its arguments."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, grads, state, params):
        self.count += 1
        return tree.update(lambda p, g: p - g / self.count, params, grads), state


class Widening(Broken):
    """Returns params in double precision."""

    def update(self, grads, state, params):
        return tree.update(lambda p, g: p - 0.1 * g.double(), params, grads), state


class Growing(Broken):
    """Adds to the state at each step."""

    def update(self, grads, state, params):
        return params, {**state, str(len(state)): torch.zeros(())}


class Decaying(Broken):
    """Decays params without a gradient."""

    def update(self, grads, state, params):
        return tree.map(lambda p: p * 0.9 if p.is_floating_point() else p, params), state


class Forgetting(Broken):
    """Decays the momentum of a leaf without a gradient."""

    def init(self, params):
        return {"momentum": tree.map(torch.ones_like, params)}

    def update(self, grads, state, params):
        return params, {"momentum": tree.map(lambda m: m * 0.9 if m.is_floating_point() else m, state["momentum"])}


class Single(Broken):
    """Returns only params."""

    def update(self, grads, state, params):
        return params


class Donated(Broken):
    """Uses another rate when donated."""

    def donate(self):
        return Decaying()


class Random(Broken):
    """Draws its first state from the global generator."""

    def init(self, params):
        return {"noise": torch.rand(2)}

    def update(self, grads, state, params):
        return params, state


class Coupled(Broken):
    """Divides by the norm of all gradients, but declares that it acts on leaves."""

    acts_on = "leaves"

    def map_state(self, f, state, *others):
        return state

    def update(self, grads, state, params):
        norm = tree.norm(grads)
        return tree.update(lambda p, g: p - g / (1 + norm), params, grads), state


class Chancy(Broken):
    """Draws from torch's generator, but does not use the draw."""

    def update(self, grads, state, params):
        torch.rand(())
        return Broken.update(self, grads, state, params)


class Wordy(Broken):
    """Keeps a string in its state."""

    def init(self, params):
        return {"step": torch.zeros((), dtype=torch.int64), "kind": "sgd"}


class Sharing(Broken):
    """Keeps the params that it returns in its state, to which a donated update would write."""

    def init(self, params):
        return {"last": tree.map(torch.clone, params)}

    def update(self, grads, state, params):
        params = Broken.update(self, grads, {"step": 0}, params)[0]
        return params, {"last": params}


class ByStride(Broken):
    """Steps in storage order, not along the axes."""

    def update(self, grads, state, params):
        along = lambda p, g: p - 0.1 * g.as_strided(g.shape, torch.empty(g.shape).stride())
        return tree.update(along, params, grads), state


class Reading(Broken):
    """Reads a number of the gradients, which vmap cannot."""

    def update(self, grads, state, params):
        big = any(g.sum().item() > 1e9 for g in tree.leaves(grads))
        return tree.update(lambda p, g: p - (0.2 if big else 0.1) * g, params, grads), state


class OnTheCpu(Broken):
    """Adds a tensor on the CPU."""

    def update(self, grads, state, params):
        return tree.update(lambda p, g: p - 0.1 * g - torch.zeros(p.shape, dtype=p.dtype), params, grads), state


class Late(Broken):
    """Divides by the gradients seen so far, which is 0 for a leaf whose first gradient comes late."""

    def init(self, params):
        return {"step": torch.zeros((), dtype=torch.int64), "sum": tree.map(torch.zeros_like, params)}

    def update(self, grads, state, params):
        first = (state["step"] == 0).float()
        seen = tree.update(lambda s, g: s + g * g, state["sum"], grads)
        scaled = lambda g, s: 0.1 * (g / ((first * g * g + (1 - first) * s) / (s > 0))).to(g.dtype)
        params = tree.update(lambda p, u: p - u, params, tree.map(scaled, grads, tree.map(lambda g, s: s, grads, state["sum"])))
        return params, {"step": state["step"] + 1, "sum": seen}


class HalfMoments(Broken):
    """Keeps moments in half precision."""

    def init(self, params):
        return {"momentum": tree.map(torch.zeros_like, params)}

    def update(self, grads, state, params):
        momentum = tree.update(lambda m, g: 0.9 * m + g, state["momentum"], grads)
        return tree.update(lambda p, m: p - 0.1 * m, params, tree.map(lambda m, g: None if g is None else m, momentum, grads)), {
            "momentum": momentum
        }


class HalfArithmetic(Broken):
    """Squares in half precision, where 1000² is infinite and 0.001² is 0."""

    def update(self, grads, state, params):
        scaled = lambda p, g: p - 0.1 * g / ((g * 1e-3).square().sqrt() * 1e3 + 1e-3).to(p.dtype)
        return tree.update(scaled, params, grads), state


class Graphless(Broken):
    """Prints a gradient's number, which breaks the graph of compiled code."""

    def update(self, grads, state, params):
        if not torch._C._functorch.peek_interpreter_stack() and not any(g.is_meta for g in tree.leaves(grads)):
            hash(tuple(float(g.sum()) for g in tree.leaves(grads)))
        return Broken.update(self, grads, state, params)


@fn.frozen
class Ours(fn.Optimizer):
    """A correct optimizer of the library's kind, whose methods the next ones replace."""

    def init(self, params):
        return {"step": torch.zeros((), dtype=torch.int64)}

    def update(self, grads, state, params):
        for path, g in tree.names(grads).items():
            p = tree.names(params)[path]
            if (g.shape, g.dtype) != (p.shape, p.dtype):
                raise ValueError(f"Ours: grads must have at {path!r} the shape of params, got {tuple(g.shape)}")
        return Broken.update(self, grads, state, params)


@fn.frozen
class Nameless(Ours):
    """Its repr is another call."""

    lr: float = 0.1

    def __repr__(self) -> str:
        return "Nameless(lr=0.2)"


@fn.frozen
class Rateless(Ours):
    """Claims that its rate is infinite."""

    def rates(self, state):
        return {"lr": float("inf")}


@fn.frozen
class Credulous(Ours):
    """Accepts misfits."""

    def update(self, grads, state, params):
        return Broken.update(self, grads, state, params)


@fn.frozen
class Hasty(Ours):
    """When donated, it writes leaf by leaf, and finds a misfit only when it gets there."""

    donated: bool = False

    def donate(self):
        return self.replace(donated=True)

    def update(self, grads, state, params):
        if not self.donated:
            return Ours.update(self, grads, state, params)
        state["step"].add_(1)
        after = Ours.update(self, grads, {"step": state["step"] - 1}, params)
        return tree.map(lambda p, q: p.copy_(q), params, after[0]), state


BROKEN = {
    Chancy: "update must not use torch's global generator",
    Wordy: "state must be a tree of tensors, something else at 'kind'",
    Sharing: "params and state must share no memory, since donate writes to both, but 'params.0.weight' does",
    ByStride: "equal gradients must give equal bits whatever their strides, others from transposed ones",
    Reading: "update must run under vmap",
    OnTheCpu: "update must run on the meta device",
    Late: "params must stay finite if the first gradient of a leaf comes late",
    HalfMoments: "state must be in float32 for params in torch.bfloat16, torch.bfloat16 at 'momentum.0.weight'",
    HalfArithmetic: "a step in torch.float16 must equal the step in float32, rounded",
    Graphless: "update must compile as one graph",
    Nameless: "eval(repr) must reproduce the optimizer, Nameless(lr=0.2)",
    Rateless: "rates must be finite numbers, lr = inf",
    Credulous: "invalid arguments must raise an error, a gradient of another shape at '0.weight'",
    Hasty: "an update that raises must not have written to its arguments, params or state written to after a gradient of another shape",
    Vanishing: "update must keep the leaves of params, '1.num_batches_tracked' vanished; tree.update(f, params, grads) keeps what has no gradient: Vanishing()",
    Writing: "update must not write to its arguments",
    Counting: "the same arguments must give the same bits",
    Widening: "update must keep shapes, dtypes and devices of params, but '0.weight' was a tensor of shape (4, 3) and dtype torch.float32",
    Growing: "update must keep the structure of state",
    Coupled: "with acts_on = 'leaves', a part of params must get the same update alone as in the whole, but 0 alone gets another",
    Decaying: "a leaf whose gradient is None must not change, but '0.weight' changed",
    Forgetting: "a leaf whose gradient is None must not change, nor its state, but 'momentum.0.weight' changed",
    Single: "update must return a pair, params and state",
    Donated: "the donated optimizer must give the same bits",
    Random: "init must give the same state for the same params",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_optimizer_fails_with_the_rule_it_breaks(kind: type) -> None:
    """The message begins with the rule."""
    with pytest.raises(AssertionError) as caught:
        check_optimizer(kind(), NORMED, compiled=kind is Graphless)
    assert str(caught.value).startswith(BROKEN[kind])


def test_a_sound_optimizer_of_a_user_need_not_be_a_value() -> None:
    """Two methods are enough."""
    check_optimizer(Broken(), NORMED, compiled=False)


@fn.frozen
class Sign(fn.GradientTransform):
    """The sign of the gradient, with the name of a layer of funcnet."""

    def init(self, params):
        return {}

    def update(self, grads, state, params):
        return tree.map(torch.sign, grads), state


def test_a_custom_part_may_have_the_name_of_one_of_ours():
    """``eval(repr)`` uses the classes of the parts."""
    check_optimizer(fn.chain(Sign(), fn.SGD(0.1)), {"w": torch.ones(2)}, compiled=False)


@pytest.mark.compiled
def test_what_was_compiled_before_does_not_count() -> None:
    """Neither another optimizer's update, which has the same code, nor other shapes count."""
    opt, params = fn.Adam(0.1), {"w": torch.ones(4, 3)}
    torch.compile(opt.update, backend="aot_eager")(params, opt.init(params), params)
    check_optimizer(fn.SGD(0.1, momentum=0.9), {"w": torch.ones(2, 3)})
