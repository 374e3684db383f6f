"""The judge of gradient transforms: a sound one passes, and each broken one is told what it breaks."""

import itertools
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.testing import check_transform

COUNT = itertools.count()
PARAMS = {"a": torch.ones(2, 3), "b": torch.zeros(3), "count": torch.tensor(1)}


class Halving:
    """Half of each gradient, and a running sum of them; a test replaces its methods."""

    acts_on = "elements"

    def init(self, params: Any) -> Any:
        sums = tree.map(lambda p: torch.zeros_like(p) if p.is_floating_point() else None, params)
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
    """Makes zeros of gradients that are absent."""

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
    """Is another each time."""

    def update(self, grads, state, params):
        return tree.map(lambda g: g + next(COUNT), grads), self.after(grads, state)


class Growing(Halving):
    """Has another state afterwards."""

    def after(self, grads, state):
        return {**super().after(grads, state), "more": torch.zeros(())}


class Remembering(Halving):
    """Changes the state of a leaf that has no gradient."""

    def after(self, grads, state):
        return {"step": state["step"] + 1, "sum": tree.map(lambda s: s + 1, state["sum"])}


class Norming(Halving):
    """Acts on the whole tree, and says that it does not."""

    def update(self, grads, state, params):
        norm = tree.norm(grads).float()
        return tree.map(lambda g: g / norm, grads), self.after(grads, state)


class Starting(Halving):
    """Has another first state each time."""

    def init(self, params):
        return {**super().init(params), "step": torch.randint(1 << 40, ())}


class Alone(Halving):
    """Returns the gradients without a state."""

    def update(self, grads, state, params):
        return grads


BREAKS = {
    Filling: "a gradient that is None must stay None, and 'a' has one",
    Widening: "update must keep shapes, dtypes and devices of grads",
    Writing: "update must not write to its arguments",
    Drawing: "the same arguments must give the same bits",
    Growing: "update must keep the structure of state",
    Remembering: "the state of a leaf whose gradient is None must stay as it is",
    Norming: "with acts_on = 'elements', a part of params must get the update that it gets in the whole",
    Starting: "init must give the same state for the same params",
    Alone: "update must return a pair, grads and state",
}


def test_a_sound_transform_passes() -> None:
    """Of no class of ours too."""
    check_transform(Halving(), PARAMS)
    check_transform(fn.ClipByGlobalNorm(1.0), PARAMS)


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_transform_is_told_what_it_breaks(kind: type) -> None:
    """By the rule, with which the message begins."""
    with pytest.raises(AssertionError, match=f"^({BREAKS[kind]}).*{kind.__name__}"):
        check_transform(kind(), PARAMS)
