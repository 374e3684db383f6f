"""``check_metric``: a broken metric fails with its rule; ``test_metric_contract`` checks the library's metrics."""

import itertools

import pytest
import torch

import funcnet as fn
from funcnet.testing import check_metric
from funcnet.value import frozen

Y, TARGET = fn.random.normal(0, (7, 2)), fn.random.normal(1, (7, 2))
CALLS = itertools.count()


@frozen
class Broken(fn.Metric):
    """The largest output; a test breaks one thing in it."""

    def start(self):
        return {"most": torch.tensor(-torch.inf)}

    def total_of(self, y, target):
        return {"most": y.max() if y.numel() else torch.tensor(-torch.inf)}

    def merge(self, total, other):
        return {"most": torch.maximum(total["most"], other["most"])}

    def value(self, total):
        return total["most"]


@frozen
class Sound(Broken):
    """Nothing is broken."""


@frozen
class Added(Broken):
    """Its totals do not add up."""

    def merge(self, total, other):
        return {"most": total["most"].clamp_min(0) + other["most"].clamp_min(0)}


@frozen
class Last(Broken):
    """Keeps the last batch."""

    def merge(self, total, other):
        return other if other["most"] > -torch.inf else total


@frozen
class Ordered(Broken):
    """Its totals add up, but merge by order."""

    def add(self, total, y, target):
        return Broken.merge(self, total, self.total_of(y, target))

    def merge(self, total, other):
        return total


@frozen
class Writing(Broken):
    """Writes to y."""

    def total_of(self, y, target):
        return super().total_of(y.clamp_(-1, 1), target)


@frozen
class Accumulating(Broken):
    """Writes to the total."""

    def value(self, total):
        return total["most"].abs_()


@frozen
class Random(Broken):
    """Counts its calls."""

    def value(self, total):
        return total["most"] + next(CALLS)


@frozen
class Mapped(Broken):
    """Has another value under vmap."""

    def value(self, total):
        return total["most"] + (torch._C._functorch.peek_interpreter_stack() is not None)


@frozen(eq=False)
class Identical(Broken):
    """Equals only itself."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


BROKEN = {
    Added: "2 batches must give the value of all rows, got",
    Last: "2 batches must give the value of all rows, got",
    Ordered: "merged totals must give the value of all rows, got",
    Writing: "a metric must not write to y and target: Writing()",
    Accumulating: "merge and value must not write to a total: Accumulating()",
    Random: "the same rows must give the same value, got",
    Mapped: "vmap must give the value of each, got",
    Identical: "a metric must equal its pickled copy: Identical()",
}


def test_a_sound_metric_passes():
    """Its total is not a sum."""
    check_metric(Sound(), Y.clone(), TARGET)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_metric_fails_with_the_rule_it_breaks(kind):
    """The message begins with the rule."""
    y = torch.arange(14.0).flip(0).reshape(7, 2) if kind is Last else Y.clone()
    with pytest.raises(AssertionError) as caught:
        check_metric(kind(), -y.abs() if kind is Accumulating else y, TARGET)
    assert str(caught.value).startswith(BROKEN[kind])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((fn.MSE(), Y, TARGET), "check_metric: metric must be a metric, got MSE()"),
        ((fn.R2(), Y[:2], TARGET), "check_metric: y and target must have at least 3 rows, got 2"),
    ],
)
def test_the_judge_refuses_what_it_cannot_judge(arguments, message):
    """The message says why."""
    with pytest.raises(ValueError, match=r".") as caught:
        check_metric(*arguments)
    assert str(caught.value) == message
