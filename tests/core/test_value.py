"""Values: requirements for their classes, and the allowed contents of fields."""

import inspect
import math
import pickle
from typing import Any

import attrs
import numpy
import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet.testing import law_value
from funcnet.value import parts


class Undecorated(fn.Layer):
    """A layer whose author forgot the decorator."""

    size: int = 3

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return x, ()

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return params, gy


@fn.frozen
class Holder(fn.Layer):
    """A layer that accepts anything in its field."""

    held: Any

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return x, ()

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return params, gy


@pytest.mark.parametrize("arguments", [(), (3,), (3, 4)])
def test_a_class_without_the_decorator_says_what_to_do(arguments: tuple[int, ...]) -> None:
    """The error appears for any arguments."""
    with pytest.raises(TypeError, match=r"^Undecorated must be decorated with @funcnet.frozen"):
        Undecorated(*arguments)


def test_an_undecorated_subclass_of_a_decorated_class_says_what_to_do() -> None:
    """Its own fields would be ignored, and its verbs would be unguarded."""

    class Wider(Holder):
        more: int = 3

    with pytest.raises(TypeError, match=r"^Wider must be decorated with @funcnet.frozen"):
        Wider(1)


@pytest.mark.parametrize("held", [torch.ones(2), (1, torch.ones(2)), [torch.ones(2)], {"w": (torch.ones(2),)}, {torch.ones(2)}])
def test_a_tensor_in_a_field_is_refused_with_what_to_do(held: Any) -> None:
    """The tensor may be in a container."""
    with pytest.raises(
        ValueError, match=r"^Holder: held must not hold a tensor, but numbers.*; params come from init, got .* \(2,\)"
    ):
        Holder(held)


@pytest.mark.parametrize("held", [numpy.ones((2, 1)), (numpy.ones((2, 1)),), {"a": [numpy.ones((2, 1))]}])
def test_an_array_in_a_field_is_refused_as_a_tensor_is(held: Any) -> None:
    """An array holds the same kind of data, and has no truth value either."""
    with pytest.raises(ValueError, match=r"^Holder: held must not hold an array, .*; params come from init, got .* \(2, 1\)"):
        Holder(held)


def test_a_field_holds_no_torch_module() -> None:
    """Its parameters would not be params."""
    with pytest.raises(
        ValueError, match=r"^Holder: held must not hold a torch.nn module, .*; params come from init, got Linear\("
    ):
        Holder((torch.nn.Linear(2, 3),))


@pytest.mark.parametrize(
    "held", [(), ((1, "a"), None), frozenset({1}), numpy.float64(0.5), len, torch.float16, slice(2), fn.Tanh()]
)
def test_a_field_holds_what_stays_as_it_is(held: Any) -> None:
    """numpy scalars, which are not arrays, are accepted too."""
    assert Holder(held).held == held


@pytest.mark.parametrize(
    "held", [math.inf, -math.inf, (1, (math.inf,)), numpy.float32(0.5), numpy.int64(3), (numpy.float64(2.0), True)]
)
def test_numbers_print_as_python_reads_them(held: Any) -> None:
    """Infinities and numpy scalars are included, whose own reprs would not evaluate."""
    assert eval(repr(Holder(held)), {"Holder": Holder}) == Holder(held)


def _as_numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_as_numpy, value))
    kinds = {int: numpy.int64, float: numpy.float64, bool: numpy.bool_}
    return kinds[type(value)](value) if type(value) in kinds else value


@pytest.mark.parametrize("layer", {type(case.layer): case.layer for case in CASES.values()}.values(), ids=repr)
def test_numbers_of_numpy_become_python_s(layer: fn.Layer) -> None:
    """In every field of every layer, both kinds of numbers give equal values with equal reprs."""
    names = [one.name for one in attrs.fields(type(layer)) if one.init and not one.name.startswith("_")]
    changed = {name: _as_numpy(getattr(layer, name)) for name in names}
    again = layer.replace(**changed)
    assert again == layer
    assert repr(again) == repr(layer)
    numbers = [part for part in parts(again) if isinstance(part, numpy.generic)]
    assert numbers == []


def test_a_number_in_single_precision_stays_the_number_it_is() -> None:
    """0.1 in float32 is not 0.1; a learning rate prints its exact value."""
    assert repr(fn.SGD(lr=numpy.float32(0.1))) == "SGD(lr=0.10000000149011612)"
    assert repr(fn.Linear(numpy.int64(3), 2)) == "Linear(in_features=3, out_features=2)"
    assert fn.LSTM(numpy.int64(3), 4).init(0)["weight_ih_l0"].shape == (16, 3)


MADE = [
    fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(lr=0.1)),
    fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam(lr=fn.CosineSchedule(0.1, 10))).donate(),
    fn.train_step(fn.serial(fn.Linear(2, 3), fn.Tanh()), fn.MSE(), fn.SGD(0.1)),
    fn.value_and_grads(fn.Linear(2, 3), fn.CrossEntropy()),
    fn.MSE().as_layer(),
]


@pytest.mark.parametrize("made", MADE, ids=repr)
def test_what_functions_make_prints_as_their_call(made: Any) -> None:
    """Its private class does not appear."""
    assert eval(repr(made), vars(fn)) == made


def test_compiled_steps_print_as_the_call_that_makes_them() -> None:
    """Compiled functions equal only themselves, so the prints are compared."""
    step = fn.train_step(fn.Linear(2, 3), fn.MSE(), fn.SGD(0.1))
    for made in (fn.compile(step), fn.scan_steps(step, 2)):
        assert repr(eval(repr(made), vars(fn))) == repr(made)


def test_nan_prints_as_python_reads_it() -> None:
    """NaN equals nothing, so the prints are compared."""
    assert repr(Holder(math.nan)) == "Holder(held=float('nan'))"


def test_a_tensor_never_reaches_a_validator_that_would_compare_it() -> None:
    """The error of a number field names the tensor, not an ambiguous truth value."""
    with pytest.raises(ValueError, match=r"^Linear: in_features must not hold a tensor"):
        fn.Linear(torch.tensor([3, 4]), 2)
    with pytest.raises(
        ValueError, match=r"^SGD: lr must be a number, a schedule, or a real 0-d tensor, got a tensor of shape \(2,\)"
    ):
        fn.SGD(lr=torch.tensor([0.1, 0.2]))


def test_frozen_decorates_classes_only() -> None:
    """For a layer, the error names ``freeze``."""
    with pytest.raises(
        TypeError, match=r"^frozen: it decorates classes, got Tanh\(\); to freeze the params of a layer, use freeze"
    ):
        fn.frozen(fn.Tanh())


def test_the_signature_has_the_types_of_the_fields() -> None:
    """Converters accept anything, but ``help`` and editors show the field's type."""
    arguments = inspect.signature(fn.Dropout).parameters
    assert arguments["p"].annotation is float
    assert arguments["broadcast_dims"].annotation == tuple[int, ...]


def test_a_class_in_place_of_a_value_is_named_with_what_to_do() -> None:
    """The most common slip: the parentheses are missing."""
    with pytest.raises(ValueError, match=r"got the class Tanh; make a value of it, Tanh\(\.\.\.\)$"):
        fn.serial(fn.Linear(2, 2), fn.Tanh)
    with pytest.raises(ValueError, match=r"^train_step: loss must be .*got the class MSE; make a value of it"):
        fn.train_step(fn.Tanh(), fn.MSE, fn.SGD())


def test_a_class_is_decorated_once() -> None:
    """Its fields already exist."""
    with pytest.raises(TypeError, match=r"^frozen: Linear must be decorated once, got a class that is frozen already"):
        fn.frozen(fn.Linear)


def test_a_lambda_in_a_layer_breaks_the_law_of_values_with_what_to_do() -> None:
    """A lambda has no name, so it cannot be printed, pickled or looked up."""
    with pytest.raises(AssertionError, match=r"law 9, value: .*must not hold a lambda.*use a function defined with def"):
        law_value(fn.elementwise(lambda x: x, torch.ones_like), torch.ones(2))


def test_the_guards_do_not_show() -> None:
    """A guarded verb keeps the name, docstring and signature of its definition, and values pickle."""
    assert fn.Linear.apply.__qualname__ == "Linear.apply"
    assert fn.Linear.vjp.__doc__ == fn.Linear.vjp.__wrapped__.__doc__
    assert pickle.loads(pickle.dumps(fn.Linear(2, 3))) == fn.Linear(2, 3)
