"""``check_transform``: a correct transform passes, and a broken one fails with the rule that it breaks."""

from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.kernels.optim import wide
from funcnet.testing import check_transform

PARAMS = {"a": torch.ones(2, 3), "b": torch.zeros(3), "count": torch.tensor(1)}


class Halving:
    """Half of each gradient, and a running sum of them; a test replaces its methods."""

    acts_on = "elements"

    def init(self, params: Any) -> Any:
        sums = tree.map(lambda p: torch.zeros_like(p, dtype=wide(p.dtype)) if p.is_floating_point() else None, params)
        return {"step": torch.zeros((), dtype=torch.int64), "sum": sums}

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        return tree.map(lambda g: g / 2, grads), self.after(grads, state)

    def after(self, grads: Any, state: Any) -> Any:
        """Return the next state."""
        return {"step": state["step"] + 1, "sum": tree.update(lambda s, g: s + g, state["sum"], grads)}

    def map_state(self, f: Any, state: Any) -> Any:
        """Return the state of a part."""
        return {"step": state["step"], "sum": f(state["sum"])}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Filling(Halving):
    """Replaces absent gradients by zeros."""

    def update(self, grads, state, params):
        new = tree.map_with_path(
            lambda path, p: torch.zeros_like(p) if tree.at(grads, path) is None else tree.at(grads, path), params
        )
        return new, self.after(grads, state)


class Widening(Halving):
    """Returns float64."""

    def update(self, grads, state, params):
        return tree.map(lambda g: g.double(), grads), self.after(grads, state)


class Writing(Halving):
    """Writes to the gradients."""

    def update(self, grads, state, params):
        return tree.map(lambda g: g.mul_(0.5), grads), self.after(grads, state)


class Drawing(Halving):
    """Draws from torch's generator."""

    def update(self, grads, state, params):
        return tree.map(lambda g: g + torch.rand(()), grads), self.after(grads, state)


class Counting(Halving):
    """Returns something else each time."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, grads, state, params):
        self.count += 1
        return tree.map(lambda g: g / self.count, grads), self.after(grads, state)


class Wordy(Halving):
    """Keeps a string in its state."""

    def init(self, params):
        return {"kind": "halving"}

    def after(self, grads, state):
        return state


class ByStride(Halving):
    """Works in storage order, not along the axes."""

    def update(self, grads, state, params):
        along = lambda g: g.as_strided(g.shape, torch.empty(g.shape).stride()) / 2
        return tree.map(along, grads), self.after(grads, state)


class Reading(Halving):
    """Reads a number of the gradients, which vmap cannot."""

    def update(self, grads, state, params):
        big = any(g.sum().item() > 1e9 for g in tree.leaves(grads))
        return tree.map(lambda g: g / (2 + big), grads), self.after(grads, state)


class OnTheCpu(Halving):
    """Adds a tensor on the CPU."""

    def update(self, grads, state, params):
        return tree.map(lambda g: g / 2 + torch.zeros(g.shape, dtype=g.dtype), grads), self.after(grads, state)


class Late(Halving):
    """Divides by the sum so far, which is 0 for a leaf whose first gradient comes late."""

    def update(self, grads, state, params):
        first = (state["step"] == 0).float()
        sums = tree.map(lambda g, s: s, grads, state["sum"])
        return tree.map(lambda g, s: (g / (first + (1 - first) * s)).to(g.dtype), grads, sums), self.after(grads, state)


class HalfState(Halving):
    """Keeps sums in half precision."""

    def init(self, params):
        sums = tree.map(lambda p: torch.zeros_like(p) if p.is_floating_point() else None, params)
        return {"step": torch.zeros((), dtype=torch.int64), "sum": sums}


class HalfArithmetic(Halving):
    """Squares in half precision, where 0.001² is 0."""

    def update(self, grads, state, params):
        return tree.map(lambda g: (g * 1e-3).square().sqrt() * 1e3, grads), self.after(grads, state)


class Graphless(Halving):
    """Prints a gradient's number, which breaks the graph of compiled code."""

    def update(self, grads, state, params):
        if not torch._C._functorch.peek_interpreter_stack() and not any(g.is_meta for g in tree.leaves(grads)):
            hash(tuple(float(g.sum()) for g in tree.leaves(grads)))
        return Halving.update(self, grads, state, params)


@fn.frozen
class Ours(fn.GradientTransform):
    """A transform of the library's kind that accepts everything."""

    def update(self, grads, state, params):
        return grads, state


@fn.frozen
class Credulous(Ours):
    """Refuses the states of others, but accepts gradients of every kind."""

    def update(self, grads, state, params):
        if state != {}:
            raise ValueError(f"Credulous: state must be {{}}, got {state}")
        return grads, state


@fn.frozen
class Nameless(Ours):
    """Its repr is another call."""

    factor: float = 2.0

    def __repr__(self) -> str:
        return "Nameless(factor=3.0)"


@fn.frozen
class Rateless(Ours):
    """Claims that its rate is infinite."""

    def rates(self, state):
        return {"factor": float("inf")}


class Growing(Halving):
    """Its state has another structure afterwards."""

    def after(self, grads, state):
        return {**super().after(grads, state), "more": torch.zeros(())}


class Remembering(Halving):
    """Changes the state of a leaf that has no gradient."""

    def after(self, grads, state):
        return {"step": state["step"] + 1, "sum": tree.map(lambda s: s + 1, state["sum"])}


class Norming(Halving):
    """Acts on the whole tree, but declares that it does not."""

    def update(self, grads, state, params):
        norm = tree.norm(grads).float()
        return tree.map(lambda g: g / norm, grads), self.after(grads, state)


class Starting(Halving):
    """Its first state differs each time."""

    def init(self, params):
        return {**super().init(params), "step": torch.randint(1 << 40, ())}


class Alone(Halving):
    """Returns the gradients without a state."""

    def update(self, grads, state, params):
        return grads


BREAKS = {
    Filling: "a gradient that is None must stay None, but 'a' has one",
    Widening: "update must keep shapes, dtypes and devices of grads",
    Writing: "update must not write to its arguments",
    Drawing: "update must not use torch's global generator",
    Counting: "the same arguments must give the same bits",
    Wordy: "state must be a tree of tensors, something else at 'kind'",
    ByStride: "equal gradients must give equal bits whatever their strides, others from transposed ones",
    Reading: "update must run under vmap",
    OnTheCpu: "update must run on the meta device",
    Late: "grads must stay finite if the first gradient of a leaf comes late",
    HalfState: "state must be in float32 for params in torch.bfloat16, torch.bfloat16 at 'sum.a'",
    HalfArithmetic: "a step in torch.float16 must equal the step in float32, rounded, another at 'a'",
    Graphless: "update must compile as one graph",
    Ours: "invalid arguments must raise an error, a state of another kind",
    Credulous: "invalid arguments must raise an error, a complex gradient at 'a'",
    Nameless: r"eval\(repr\) must reproduce the optimizer, Nameless\(factor=3.0\)",
    Rateless: "rates must be finite numbers, factor = inf",
    Growing: "update must keep the structure of state",
    Remembering: "the state of a leaf whose gradient is None must not change",
    Norming: "with acts_on = 'elements', a part of params must get the same update alone as in the whole",
    Starting: "init must give the same state for the same params",
    Alone: "update must return a pair, grads and state",
}


def test_a_sound_transform_passes() -> None:
    """Transforms that do not use our classes pass too."""
    check_transform(Halving(), PARAMS, compiled=False)
    check_transform(fn.ClipByGlobalNorm(1.0), PARAMS, compiled=False)


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_transform_fails_with_the_rule_it_breaks(kind: type) -> None:
    """The message begins with the rule."""
    with pytest.raises(AssertionError, match=f"^({BREAKS[kind]}).*{kind.__name__}"):
        check_transform(kind(), PARAMS, compiled=kind is Graphless)
