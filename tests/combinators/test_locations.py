"""Where an error happened: every method of every combinator names the layer within."""

from typing import Any

import pytest
import torch
from cases import CASES, Case

import funcnet as fn
from funcnet.combinator import Combinator
from funcnet.testing.comparison import noise_like
from funcnet.testing.spies import Log, make_spy

VERBS = ("init", "apply", "__call__", "vjp", "grads", "input_grad", "update_stats", "inference", "infer")


def combinators() -> dict[str, Case]:
    """Return one case for each combinator, by its name in errors: one with as many layers as possible."""
    cases = [case for case in CASES.values() if isinstance(case.layer, Combinator) and case.layer.children()]
    cases.sort(key=lambda case: len(case.layer.children()))
    return {case.layer.label.partition(",")[0]: case for case in cases}


NETS = combinators()


class FailureError(Exception):
    """The error that a layer within raises."""


def fail(*arguments: Any, **options: Any) -> Any:
    raise FailureError


def spied(layer: Any, name: str) -> tuple[Combinator, type]:
    """Return the combinator with a spy at ``name``, and the spy's class; a layer under two names gets the same spy."""
    children = layer.children()
    spy = make_spy(children[name], name, Log())
    return layer.with_children({other: spy if one is children[name] else one for other, one in children.items()}), type(spy)


def call(net: fn.Layer, spy: type, case: Case, verb: str) -> None:
    """Call a method of a net whose spy raises an error in it."""
    p, x, rng = case.params, case.x, 0 if net.stochastic else None
    y, cache = net.apply(p, x, rng)
    for one in {verb, *FALLS_BACK_ON.get(verb, ())}:
        setattr(spy, one, fail)
    arguments: dict[str, Any] = {
        "init": (0,),
        "inference": (),
        "infer": (fn.tree.to(x, "meta"),),
        "apply": (p, x, rng),
        "__call__": (p, x, rng),
        "update_stats": (p, cache),
    }
    getattr(net, verb)(*arguments.get(verb, (p, cache, noise_like(y, 1))))


FALLS_BACK_ON = {"__call__": ["apply"], "apply": ["__call__"], "vjp": ["grads"], "grads": ["vjp"], "input_grad": ["vjp"]}
"""The method that a combinator calls instead of one that it does not define."""


def outcome(case: Case, name: str, verb: str) -> list[str] | None:
    """Return the notes of the error, innermost first; ``None`` if the layer is not called."""
    net, spy = spied(case.layer, name)
    try:
        call(net, spy, case, verb)
    except FailureError as error:
        return getattr(error, "__notes__", [])
    return None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("label", NETS)
def test_an_error_says_where_in_the_combinator(label: str, verb: str) -> None:
    """All nine methods are tried, with every layer that the method calls."""
    case = NETS[label]
    outcomes = {name: outcome(case, name, verb) for name in case.layer.children()}
    asked = {name: notes for name, notes in outcomes.items() if notes is not None}
    for name, notes in asked.items():
        assert notes, f"{label} does not say where {name} failed"
        assert notes[-1].startswith(f"  in {label}")
    layers = {id(layer) for name, layer in case.layer.children().items() if name in asked}
    assert len({str(notes) for notes in asked.values()}) >= len(layers), "two layers have one location"
    assert asked or (label, verb) in UNASKED


UNASKED = {
    ("by_mode", "inference"),
    ("uniqued", "input_grad"),
    ("freeze", "vjp"),
    ("freeze", "grads"),
    ("straight_through", "input_grad"),
    ("serial", "update_stats"),
} | {("TripletMarginWithDistance", verb) for verb in ("vjp", "grads", "update_stats", "infer")}
"""Methods that do not call the layer: integers and frozen params have no gradient, straight through passes gy itself, and a
distance has no params: only its ``input_grad`` is called. A serial moves only layers with running statistics."""


def test_a_kernel_that_a_combinator_calls_itself_is_explained_where_it_is() -> None:
    """The combinator raises its own message, the places stay, and the kernel's error is the cause."""
    net = fn.serial(fn.uniqued(fn.serial(fn.Embedding(5, 3), fn.Linear(3, 2))))
    params = net.init(0)
    cache = net.apply(params, torch.tensor([1, 2, 1, 4]))[1]
    with pytest.raises(
        ValueError, match=r"^uniqued\(.*\): gy must have the structure, shape, .* got a tensor of shape \(3, 2\)"
    ) as caught:
        net.vjp(params, cache, torch.ones(3, 2))
    assert caught.value.__notes__ == ["  in uniqued", "  in serial, layer 0"]
    assert "index_add_" in str(caught.value.__cause__)
