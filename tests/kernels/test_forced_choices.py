"""The layers, losses and optimizers that a choice between kernels affects satisfy the laws with each of its options.

Small inputs normally use the kernels for small sizes; forcing makes them use those for large sizes.
"""

from collections.abc import Iterable
from itertools import islice

import pytest
import torch
from cases import Case
from forced_entries import FAMILIES, concerned
from kernel_calls import asked
from optim.training import leaves, run
from optimizer_cases import OPTIMIZERS

import funcnet as fn
from funcnet import random, tree
from funcnet.kernels import linear as products
from funcnet.kernels import pooling
from funcnet.kernels.choices import CHOICES, Choice, forced
from funcnet.kernels.recurrent import lstm_operators

IN_OPTIMIZERS = {"Adam", "SGD without momentum, donated", "steps of optimizers"}
IN_COMPILED_STEPS = {
    "compiled max pooling",
    "small compiled products",
    "tensors in one compiled loop",
    "threads of compiled loops",
    "calls of compiled graphs",
}
ON_DEVICES = {"CUDA graphs"}
OF_THREADS = {
    "threads of small products",
    "threads of small batch norms",
    "threads of maxima in pairs",
}  # the kernels are the same: see test_small_kernels_on_one_thread.py
IN_GRADIENTS_OF_EXAMPLES = {"memory of large results", "examples at a time", "example gradients of convolutions"}
IN_LAYERS = CHOICES.keys() - IN_OPTIMIZERS - IN_COMPILED_STEPS - IN_GRADIENTS_OF_EXAMPLES - ON_DEVICES - OF_THREADS


def options(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the choices with each option."""
    return [(name, option) for name in sorted(names) for option in CHOICES[name].options]


def other_options(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the choices with each option that small inputs do not already use."""
    return [(name, option) for name, option in options(names) if _is_other(CHOICES[name], CHOICES[name].options[option])]


def _is_other(one: Choice, value: int) -> bool:
    return value < one.automatic if one.unit else value != one.automatic


def keep_laws(name: str, option: str, one: Case, *, compiled: bool = False) -> None:
    """Check all laws on a catalogue entry with an option forced."""
    with forced(name, option):
        fn.testing.check_laws(one.layer, one.x, one.params, batched=one.batched, compiled=compiled)


@pytest.mark.parametrize(("name", "option"), other_options(IN_LAYERS))
def test_the_laws_hold_with_an_option_forced(name, option):
    """At least two entries of different classes are checked. The top of this file lists choices that do not concern layers."""
    found = [*islice(concerned(name, option), 2)]
    assert found, f"no kernel changes anywhere in the catalogue with {option!r} forced"
    for one in found:
        keep_laws(name, option, one)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(IN_LAYERS))
def test_the_laws_hold_on_every_entry_with_each_option_forced(name, family):
    """All affected entries of the catalogue are checked, and the first of each family is also compiled."""
    for option in CHOICES[name].options:
        for i, one in enumerate(concerned(name, option, [family])):
            keep_laws(name, option, one, compiled=i == 0)


def doubled(found):
    """Double every tensor that a kernel returns."""
    return tree.map(lambda leaf: leaf * 2, found)


@pytest.mark.parametrize(
    ("name", "option", "module", "kernel"),
    [
        ("matrix products", "onednn", products, "_by_onednn"),
        ("mean pooling", "slices", pooling, "tile_reduce"),
        ("LSTM", "onednn", lstm_operators, "onednn_rnn_backward"),
    ],
)
def test_a_wrong_kernel_of_an_option_breaks_a_law(name, option, module, kernel, monkeypatch):
    """The same entry satisfies the laws with another option, which does not call the broken kernel."""
    right = getattr(module, kernel)
    other = next(one for one in CHOICES[name].options if one != option)
    with forced(name, other):
        one = next(concerned(name, option))
    monkeypatch.setattr(module, kernel, lambda *given: doubled(right(*given)))
    keep_laws(name, other, one)
    with pytest.raises(AssertionError, match=r"law \d+, "):
        keep_laws(name, option, one)


@pytest.mark.parametrize(("name", "option"), options(IN_OPTIMIZERS))
def test_optimizers_keep_their_contract_with_an_option_forced(name, option):
    """The steps of each optimizer that reads the choice equal those with the other option, up to rounding."""
    tried = 0
    for opt in OPTIMIZERS:
        with asked() as names:
            want = run(opt, leaves(0, torch.float32), 3)
            run(opt.donate(), tree.map(torch.clone, leaves(0, torch.float32)), 3)
        if name in names:
            tried += 1
            with forced(name, option):
                fn.testing.check_optimizer(opt, leaves(0), compiled=False)
                fn.testing.assert_close(run(opt, leaves(0, torch.float32), 3), want, rtol=1e-4, atol=1e-5)
    assert tried


def _net() -> fn.Layer:
    return fn.serial(fn.Conv2d(3, 4, 3), fn.BatchNorm2d(4), fn.Tanh(), fn.MaxPool2d(2), fn.Flatten(), fn.Linear(16, 3))


X, LABELS = random.normal(1, (5, 3, 6, 6)), torch.arange(5) % 3


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "option"), options(IN_COMPILED_STEPS))
def test_compiled_steps_are_those_of_eager_mode_with_an_option_forced(name, option):
    """The net has running statistics, and the two steps use momentum."""
    step = fn.train_step(_net(), fn.CrossEntropy(), opt := fn.SGD(lr=0.1, momentum=0.9))
    params = step.net.init(0)
    want = got = params, opt.init(params)
    with forced(name, option):
        fast = fn.compile(step)
        for _ in range(2):
            want, got = step(*want, X, LABELS)[:2], fast(*got, X, LABELS)[:2]
    fn.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "option"), options(IN_GRADIENTS_OF_EXAMPLES))
def test_gradients_of_examples_are_those_of_a_loop_with_an_option_forced(name, option):
    """Their norms agree too."""
    net, loss = fn.serial(fn.Conv2d(3, 4, 3, padding=1), fn.Tanh(), fn.Flatten(), fn.Linear(144, 3)), fn.CrossEntropy()
    params = net.init(0)
    with forced(name, option):
        _, grads = fn.per_example_grads(net, loss)(params, X, LABELS)
        _, norms = fn.per_example_norms(net, loss)(params, X, LABELS)
    for i in range(len(X)):
        want = fn.value_and_grads(net, loss)(params, X[i : i + 1], LABELS[i : i + 1])[1]
        fn.testing.assert_close(tree.map(lambda leaf, i=i: leaf[i], grads), want, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norms[i], tree.norm(want).float(), rtol=1e-5, atol=0.0)
