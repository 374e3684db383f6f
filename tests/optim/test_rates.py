"""Rates: every such field takes a number, a schedule and a 0-d tensor, in every optimizer and gradient transform."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import torch
from optimizer_cases import MATRICES, OPTIMIZERS, TRANSFORMS, one_of_each
from torch import Tensor
from training import leaves

import funcnet as fn
from funcnet import tree
from funcnet.value import Value, holds_tensors

Place = tuple[str, int]


def places(value: Value) -> list[Place]:
    """Return the fields that hold rates, each with its index if the field is a tuple, or -1."""
    fields = [one.name for one in attrs.fields(type(value)) if one.metadata == holds_tensors]
    lengths = {name: len(getattr(value, name)) if isinstance(getattr(value, name), tuple) else 0 for name in fields}
    return [(name, i) for name in fields for i in (range(lengths[name]) if lengths[name] else (-1,))]


def with_rate(value: Any, place: Place, rate: Any) -> Any:
    """Return the value with another rate."""
    name, i = place
    old = getattr(value, name)
    return value.replace(**{name: rate if i < 0 else (*old[:i], rate, *old[i + 1 :])})


def inner_rates(value: Any) -> Iterator[tuple[Any, Place]]:
    """Yield an optimizer and its rates; for a wrapper these are the inner rates, replaced within it."""
    yield from [(lambda rate, at=one: with_rate(value, at, rate), one) for one in places(value)]
    if isinstance(getattr(value, "optimizer", None), Value):
        for make, one in inner_rates(value.optimizer):
            yield lambda rate, make=make: value.replace(optimizer=make(rate)), one
    for i, (chooser, opt) in enumerate(getattr(value, "groups", ())):
        put = lambda new, i=i, at=chooser: value.replace(groups=(*value.groups[:i], (at, new), *value.groups[i + 1 :]))
        yield from [(lambda rate, make=make, put=put: put(make(rate)), one) for make, one in inner_rates(opt) if opt]


RATED = [one for one in one_of_each([*OPTIMIZERS, *MATRICES, *TRANSFORMS]) if [*inner_rates(one)]]
each_value = pytest.mark.parametrize("value", RATED, ids=repr)


def some(value: Any, seed: int) -> Any:
    """Return params or gradients of the shapes that it takes."""
    return {"weight": leaves(seed)[0]["weight"]} if value in MATRICES else leaves(seed)


def two_updates(value: Any, like: Any) -> Any:
    """Return the results of two updates."""
    params = some(like, 0)
    state, found = value.init(params), []
    for seed in (1, 2):
        new, state = value.update(some(like, seed), state, params)
        params = new if isinstance(value, fn.Optimizer) else params
        found.append(new)
    return found


def test_every_rate_is_tried() -> None:
    """Only optimizers without rates are left out."""
    without = {type(one).__name__ for one in one_of_each([*OPTIMIZERS, *MATRICES, *TRANSFORMS])} - {
        type(one).__name__ for one in RATED
    }
    assert not [name for name in without if "lr" in attrs.fields_dict(getattr(fn, name))]
    assert len([one for value in RATED for one in inner_rates(value)]) > 100


@each_value
def test_a_rate_is_swept_by_vmap(value: Any) -> None:
    """``vmap`` over a 0-d tensor gives what its numbers give."""
    for make, place in inner_rates(value):
        run = lambda rate, make=make: two_updates(make(rate), value)
        together = torch.func.vmap(run)(torch.tensor([0.3, 0.6], dtype=torch.float64))
        alone = tree.map(lambda *xs: torch.stack(xs), run(0.3), run(0.6))
        fn.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10), place


@each_value
def test_a_tensor_gives_the_bits_of_its_number(value: Any) -> None:
    """Changed in place, a tensor is another rate at the next update; a constant schedule gives the same bits too."""
    for make, place in inner_rates(value):
        rate = torch.tensor(0.25, dtype=torch.float64)
        assert tree.equal(two_updates(make(rate), value), two_updates(make(0.25), value)), place
        changed = make(rate)
        rate.fill_(0.5)
        assert tree.equal(two_updates(changed, value), two_updates(make(0.5), value)), place
        if not isinstance(value, fn.Rprop):  # its only rate is the initial size of all steps
            assert tree.equal(two_updates(make(fn.ConstantSchedule(0.25)), value), two_updates(make(0.25), value)), place


@each_value
def test_a_rate_follows_a_schedule(value: Any) -> None:
    """``rates`` returns the rates of the next update, and a bad value is refused."""
    for make, place in inner_rates(value):
        if isinstance(value, fn.Rprop):
            continue
        moving, params = make(lambda step: 0.25 / (1 + step)), some(value, 0)
        state = moving.init(params)
        for _ in range(getattr(value, "k", 1)):
            _, state = moving.update(some(value, 1), state, params)
        assert 0.125 in tree.leaves(moving.rates(state)), place
        broken = make(lambda step: -1.0)
        state = broken.init(params)
        for _ in range(getattr(value, "k", 1) - 1):
            _, state = broken.update(some(value, 1), state, params)
        with pytest.raises(ValueError, match="a schedule must return a finite number of at least 0"):
            broken.update(some(value, 1), state, params)


@pytest.mark.compiled
@each_value
def test_compiled_code_reads_a_tensor_at_each_call(value: Any) -> None:
    """All rates change in place, and the same compiled code uses the new numbers."""
    rates, rated = [], value
    for place in places(value):
        rates.append(torch.tensor(0.25, dtype=torch.float64))
        rated = with_rate(rated, place, rates[-1])
    if not rates:
        return
    torch._dynamo.reset()
    params, grads = (
        {"weight": some(value, seed)[0]["weight"]} if value not in MATRICES else some(value, seed) for seed in (0, 1)
    )
    state = rated.init(params)
    compiled = torch.compile(rated.update, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in (0.25, 0.5):
            for rate in rates:
                rate.fill_(number)
            fn.testing.assert_close(compiled(grads, state, params), rated.update(grads, state, params), rtol=1e-10, atol=1e-10)


def test_a_rate_is_traced() -> None:
    """``torch.func.grad`` differentiates by a rate."""
    g = {"w": torch.arange(3.0)}

    def after(rate: Tensor) -> Tensor:
        transform = fn.ScaleByLearningRate(rate)
        return transform.update(g, transform.init(g), g)[0]["w"].sum()

    assert torch.func.grad(after)(torch.tensor(2.0)) == 3
