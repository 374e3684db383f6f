"""``check_schedule``: a broken schedule fails with its rule; ``test_schedules`` checks the library's schedules."""

import math

import pytest
import torch

import funcnet as fn
from funcnet.testing import check_schedule
from funcnet.value import frozen


class Broken(fn.Schedule):
    """A constant; a test breaks one thing in it."""

    def __call__(self, step):
        return torch.full((), 0.1, dtype=torch.float64, device=step.device) if isinstance(step, torch.Tensor) else 0.1


@frozen
class Whole(Broken):
    """Returns an int."""

    def __call__(self, step):
        return super().__call__(step) if isinstance(step, torch.Tensor) else 1


@frozen
class Endless(Broken):
    """Divides by zero at the last step."""

    def __call__(self, step):
        return super().__call__(step) if isinstance(step, torch.Tensor) else math.inf if step == 19 else 0.1


@frozen(eq=False)
class Counting(Broken):
    """Counts its calls."""

    calls: dict = fn.value.field(factory=dict)

    def __call__(self, step):
        self.calls[0] = self.calls.get(0, 0) + 1
        return self.calls[0] * super().__call__(step)


@frozen
class Single(Broken):
    """Computes in float32."""

    def __call__(self, step):
        return super().__call__(step).float() if isinstance(step, torch.Tensor) else 0.1


@frozen
class Numeric(Broken):
    """Returns a number for a tensor."""

    def __call__(self, step):
        return 0.1


@frozen
class Rounded(Broken):
    """Rounds to float32 on the way."""

    def __call__(self, step):
        return super().__call__(step).float().double() if isinstance(step, torch.Tensor) else 0.1


@frozen
class Writing(Broken):
    """Clamps the step in place."""

    def __call__(self, step):
        return super().__call__(step.clamp_(max=10)) if isinstance(step, torch.Tensor) else 0.1


@frozen
class Typed(Broken):
    """Accepts only Python ints."""

    def __call__(self, step):
        return super().__call__(step) if type(step) is int or isinstance(step, torch.Tensor) else None


@frozen
class Reading(Broken):
    """Reads the value of the tensor, if it has one."""

    def __call__(self, step):
        if isinstance(step, torch.Tensor) and step.is_meta:
            return torch.zeros((), dtype=torch.float64)
        return super().__call__(step)


@frozen
class Branching(Broken):
    """Has another rate under vmap."""

    def __call__(self, step):
        value = super().__call__(step)
        return value + 1 if torch._C._functorch.peek_interpreter_stack() is not None else value


@frozen
class Drawing(Broken):
    """Draws from torch's generator."""

    def __call__(self, step):
        torch.rand(())
        return super().__call__(step)


@frozen
class Asking(Broken):
    """Reads the number of a tensor, which vmap cannot."""

    def __call__(self, step):
        assert float(step) >= 0
        return super().__call__(step)


@frozen
class Failing(Broken):
    """Has no rate at step 7."""

    def __call__(self, step):
        return super().__call__(step) if int(step) != 7 else {}[7]


@frozen(eq=False)
class Identical(Broken):
    """Equals only itself."""


@frozen(eq=False)
class Nameless(Broken):
    """Equals its copies, but its repr has its address."""

    def __eq__(self, other):
        return isinstance(other, Nameless)

    def __hash__(self):
        return 0

    def __repr__(self):
        return object.__repr__(self)


BROKEN = {
    Whole: "an int must give a finite float, but step 0 gives 1: Whole()",
    Endless: "an int must give a finite float, but step 19 gives inf: Endless()",
    Counting: "the same step must give the same number, but step 19 gives 2.0, then 2.1",
    Single: "a 0-d tensor must give a 0-d float64 tensor, got a tensor of shape () and dtype torch.float32: Single()",
    Numeric: "a 0-d tensor must give a 0-d float64 tensor, got 0.1: Numeric()",
    Rounded: "a tensor must give the same number as its int, but step 0 gives 0.1 and 0.10000000149011612: Rounded()",
    Writing: "a schedule must not write to the step, step 11 became 10: Writing()",
    Typed: "a numpy number must give the same float as its int, but step 0 gives 0.1 and None: Typed()",
    Reading: "a 0-d tensor on the meta device must give a 0-d float64 tensor there, got one on cpu: Reading()",
    Branching: "vmap must agree with a loop, but step 0 gives 1.1 instead of 0.1: Branching()",
    Drawing: "a schedule must not use torch's global generator",
    Asking: "vmap must agree with a loop, got RuntimeError: vmap: It looks like you're calling .item() on a Tensor.",
    Failing: "step 7 must have a rate, got KeyError: 7: Failing()",
    Identical: "a schedule must equal its pickled copy, got Identical(): Identical()",
    Nameless: "a pickled copy must have the repr of the schedule, got <",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_schedule_fails_with_the_rule_it_breaks(kind):
    """The message begins with the rule, and says at which step."""
    with pytest.raises(AssertionError) as caught:
        check_schedule(kind(), 20)
    assert str(caught.value).startswith(BROKEN[kind])


def sound(step):
    """Return half of the step; a function is not a value."""
    return step * 0.5 if isinstance(step, int) else step.double() * 0.5 if isinstance(step, torch.Tensor) else float(step) * 0.5


def test_a_function_of_the_step_is_judged_too():
    """The rules of values are skipped."""
    check_schedule(sound)


@pytest.mark.compiled
def test_compiled_schedules_are_judged():
    """A correct one passes; one that gives other values in compiled code does not."""
    check_schedule(fn.CosineSchedule(0.1, 10), 12, compiled=True)
    odd = fn.LambdaSchedule(lambda step: step + torch.compiler.is_compiling())
    with pytest.raises(AssertionError, match=r"^compiled code must agree with eager code, but step 0 gives 1.0 instead of 0.0"):
        check_schedule(odd.__call__, 12, compiled=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1,), "check_schedule: schedule must be a function of the step, got 0.1"),
        ((sound, 0), "check_schedule: steps must be a whole number of at least 1, got 0"),
    ],
)
def test_the_judge_refuses_what_it_cannot_judge(arguments, message):
    """The message says why."""
    with pytest.raises(ValueError, match=r".") as caught:
        check_schedule(*arguments)
    assert str(caught.value) == message


def test_a_schedule_of_a_lambda_does_not_pickle():
    """The message says so by the rule."""
    with pytest.raises(AssertionError, match=r"^a schedule must pickle; a function in it must be defined with def in a module"):
        check_schedule(fn.LambdaSchedule(lambda t: 0.5**t))
