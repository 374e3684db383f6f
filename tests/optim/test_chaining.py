"""Chains: their parts in order, their state, and their errors."""

import pytest
import torch
from training import leaves, misfit, run

from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.adam import Adam
from funcnet.optim.base import GradientTransform, State
from funcnet.optim.chaining import chain
from funcnet.optim.clipping import ClipByGlobalNorm, ClipByValue
from funcnet.optim.sgd import SGD
from funcnet.value import frozen

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
    """A chain is an optimizer, so it may be the last part of another chain."""
    inner = chain(ClipByGlobalNorm(0.5), SGD(lr=0.1))
    nested, flat = chain(ClipByValue(0.3), inner), chain(ClipByValue(0.3), ClipByGlobalNorm(0.5), SGD(lr=0.1))
    assert tree.equal(run(nested, leaves(0))[0], run(flat, leaves(0))[0])


def test_a_chain_threads_the_state_of_its_transforms() -> None:
    """A transform with a state gets its own state back at every step."""

    @frozen
    class Growing(GradientTransform):
        def init(self, params: Tree) -> State:
            return {"n": torch.zeros(())}

        def update(self, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
            return tree.scale(grads, state["n"]), {"n": state["n"] + 1}

    _, state = run(chain(Growing(), SGD(lr=0.1)), leaves(0), steps=3)
    assert state[0]["n"] == 3


def test_a_state_that_is_not_the_chains_is_refused() -> None:
    """The error says how many states there must be, and what it got."""
    optimizer = chain(ClipByValue(1.0), SGD())
    assert "state must be a tuple of 2, one for each part, got a dict with the keys 'step'" in str(
        misfit(state=SGD().init(leaves(0)), optimizer=optimizer)
    )


def test_an_error_says_which_part_of_the_chain() -> None:
    """A note names the number of the part."""
    optimizer = chain(ClipByValue(1.0), SGD())
    error = misfit(grads=tree.replace(leaves(1), "0.bias", torch.ones(5)), optimizer=optimizer)
    assert error.__notes__ == ["  in chain, part 1"]


@pytest.mark.parametrize("gradient", [torch.ones(2), torch.ones(3, dtype=torch.float64)])
def test_what_was_given_up_is_as_it_was_where_the_gradients_do_not_fit(gradient) -> None:
    """A refused update does not change the count of steps either."""
    optimizer = SGD(lr=0.1, momentum=0.9).donate()
    params = {"weight": torch.ones(3)}
    state = optimizer.init(params)
    before = tree.map(torch.clone, (params, state))
    with pytest.raises(ValueError, match="grads at 'weight' must match params"):
        optimizer.update({"weight": gradient}, state, params)
    assert tree.equal((params, state), before)
