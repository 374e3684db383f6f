"""``check_vjp``: its report of a wrong gradient, and gradients that pass."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet.testing import LAWS, check_laws, check_vjp, differences, finite_difference


@fn.frozen
class Scale(fn.Layer):
    """y = s ⊙ x, a custom layer whose gradients are multiplied by ``factor`` at the ``place`` of s, or everywhere."""

    size: int = 3
    factor: float = 1.0
    place: int | None = None

    def init(self, rng: Any) -> Any:
        return {"s": fn.random.normal(rng, (self.size,)) + 3}

    def apply(self, params: Any, x: Tensor) -> Any:
        return params["s"] * x, x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        gs = (gy * cache).sum(0)
        factors = [self.factor if self.place in (i, None) else 1.0 for i in range(self.size)]
        return {"s": gs * torch.tensor(factors).to(gs)}, params["s"] * gy


@fn.frozen
class Function(fn.Layer):
    """y = f(x), with a given derivative."""

    f: Any
    df: Any

    def apply(self, params: Any, x: Tensor) -> Any:
        return self.f(x), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * self.df(cache)


def slope_at_kink(slope: float) -> fn.Layer:
    """Give ReLU another slope at 0."""
    return Function(torch.relu, lambda x: torch.where(x == 0, slope, (x > 0).to(x)))


def rows(n: int, size: int = 3) -> Tensor:
    return fn.random.normal(n, (n, size))


def test_the_message_names_layer_leaf_index_both_numbers_and_the_relative_error() -> None:
    """With one of three gradients doubled, the message has its path, its index and its two values."""
    numbers = r"params\.s at \[1\] is ([-.0-9]+) by vjp and ([-.0-9]+) by central differences, relative error ([-.0-9]+) "
    with pytest.raises(AssertionError) as caught:
        check_vjp(Scale(factor=2.0, place=1), rows(4))
    message = str(caught.value)
    found = re.search(numbers, message)
    assert found is not None
    analytic, numeric, relative = map(float, found.groups())
    assert message.startswith("the gradient of ")
    assert analytic == pytest.approx(2 * numeric, rel=1e-7)
    assert 0.1 < relative <= 0.5
    assert message.endswith(" where 1e-07 is allowed; 1 of the 3 there are wrong; in Scale(factor=2.0, place=1)")


def rejected(factor: float) -> set[int]:
    """Return the places of 16 where a gradient multiplied by the factor is rejected."""
    found = set()
    for place in range(16):
        try:
            check_vjp(Scale(16, factor, place), torch.ones(1, 16))
        except AssertionError:
            found.add(place)
    return found


@pytest.mark.parametrize("factor", [1 + 2.0**-21, 1 + 2.0**-23, 0.0])
def test_directions_find_every_error_that_single_elements_do(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are five times the tolerance, about as large, and the whole gradient; one element of 16 has it."""
    found = rejected(factor)
    monkeypatch.setattr(differences._Measure, "_quick", lambda *arguments: [])
    assert rejected(factor) == found
    assert (len(found) > 8) is (factor != 1 + 2.0**-23)


def test_the_path_leads_into_a_net() -> None:
    """A wrong gradient in a net is named by its path in the params."""
    net = fn.serial(fn.Tanh(), fn.residual(Scale(factor=1.01)), fn.Linear(3, 2))
    with pytest.raises(AssertionError, match=r"the gradient of params\.1\.0\.s at \[\d\] is"):
        check_vjp(net, rows(4))


def test_the_path_leads_into_a_tuple_of_inputs() -> None:
    """A wrong gradient of one of several inputs is named by its number."""
    wrong = fn.parallel(fn.Identity(), Function(torch.sin, torch.sin))
    with pytest.raises(AssertionError, match=r"the gradient of x\.1 at \[\d, \d\] is"):
        check_vjp(wrong, (rows(4), rows(5)))


def test_a_factor_of_1_0001_is_wrong() -> None:
    """Errors of 10⁻⁴ and of 10⁻⁶ fail."""
    for factor in (1 + 1e-4, 1 - 1e-6):
        with pytest.raises(AssertionError, match="where 1e-07 is allowed"):
            check_vjp(Scale(factor=factor), rows(4))


def test_the_tolerance_is_a_choice() -> None:
    """An error of 10⁻⁴ passes with a tolerance of 10⁻³."""
    assert check_vjp(Scale(factor=1 + 1e-4), rows(4), tolerance=1e-3)["params.s"] == pytest.approx(1e-4, rel=1e-2)


def test_smooth_layers_reach_nine_digits() -> None:
    """Right gradients pass with digits to spare."""
    net = fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.BatchNorm1d(5), fn.Linear(5, 2), fn.LogSoftmax())
    errors = check_vjp(net, rows(6))
    assert max(error for error in errors.values() if error is not None) < 1e-9


def test_the_result_says_what_was_not_judged() -> None:
    """Running statistics have no gradient, and so no error."""
    errors = check_vjp(fn.BatchNorm1d(3), rows(4))
    assert [path for path, error in errors.items() if error is None] == [
        "params.running_mean",
        "params.running_var",
        "params.num_batches_tracked",
    ]


@pytest.mark.parametrize("element", [0, 137, 599])
def test_one_wrong_element_of_a_large_leaf_is_found(element: int) -> None:
    """A random direction fails, and bisection finds the only wrong element of 600."""
    with pytest.raises(AssertionError, match=rf"params\.s at \[{element}\] is .*; 1 of the 600 there are wrong"):
        check_vjp(Scale(600, 1.001, element), rows(2, 600))


def test_a_large_leaf_wrong_throughout_is_not_searched_throughout() -> None:
    """The search stops after some wrong elements."""
    with pytest.raises(AssertionError, match="16 or more of the 600 there are wrong"):
        check_vjp(Scale(600, 1.001), rows(2, 600))


@pytest.mark.parametrize("distance", [0.0, 1e-12, -1e-9, 1e-7, -1e-5, 3e-4])
def test_relu_passes_however_near_its_kink(distance: float) -> None:
    """Steps become shorter until they do not cross the kink, and on it either slope passes."""
    check_vjp(fn.ReLU(), torch.tensor([[distance, 1.0], [-1.0, distance]], dtype=torch.float64))


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_on_a_kink_any_slope_between_those_of_its_sides_passes(slope: float) -> None:
    """At 0 the slope of ReLU may be that from the left, that from the right, or between."""
    check_vjp(slope_at_kink(slope), torch.tensor([0.0, 1.0, -1.0]))


@pytest.mark.parametrize("slope", [-0.01, 1.01])
def test_on_a_kink_other_slopes_fail(slope: float) -> None:
    """A slope outside the range of the two sides fails."""
    with pytest.raises(AssertionError, match=r"the gradient of x at \[0\] is"):
        check_vjp(slope_at_kink(slope), torch.tensor([0.0, 1.0, -1.0]))


def test_a_kink_excuses_no_other_element() -> None:
    """Half of a large leaf lies on kinks, and one wrong element among the others is found."""
    x = rows(20, 5).clamp_min(0.0)
    wrong = Function(torch.relu, lambda x: (x > 0).to(x) * torch.where(x == x.max(), 1.001, 1.0))
    with pytest.raises(AssertionError, match="1 of the 100 there are wrong"):
        check_vjp(wrong, x)


def test_ties_of_a_maximum_pass() -> None:
    """If two elements are the largest, the gradient may go to either one."""
    largest = Function(lambda x: x.amax(0, keepdim=True).expand(x.shape) * 1.0, torch.zeros_like)
    first = fn.layer(apply=lambda _, x: (x.max(0).values, x), vjp=lambda p, x, gy: (p, torch.stack((gy, 0 * gy))))
    check_vjp(first, torch.ones(2, 3))
    with pytest.raises(AssertionError):
        check_vjp(largest, torch.ones(2, 3) * torch.tensor([[1.0], [2.0]]))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_steps_fit_the_size_of_x(size: float) -> None:
    """1/x has another curvature at each size, and passes at all of them."""
    check_vjp(Function(torch.reciprocal, lambda x: -1 / x**2), size * torch.tensor([1.0, -1.5, 3.0]))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e8])
def test_errors_are_found_whatever_the_size_of_x(size: float) -> None:
    """An error of 10⁻⁶ does not vanish in the rounding of large numbers."""
    x = size * torch.tensor([1.0, -1.5, 3.0])
    check_vjp(Function(torch.square, lambda x: 2 * x), x)
    with pytest.raises(AssertionError, match=r"the gradient of x at \[\d\]"):
        check_vjp(Function(torch.square, lambda x: 2 * x * (1 + 1e-6)), x)


def test_the_edge_of_a_domain_is_not_stepped_over() -> None:
    """√x is not a number below 0, where a long step would go."""
    check_vjp(Function(torch.sqrt, lambda x: 0.5 / x.sqrt()), torch.tensor([1e-4, 1e-3, 1.0]))


def test_nan_is_wrong() -> None:
    """A NaN gradient always fails."""
    with pytest.raises(AssertionError, match="is nan by vjp"):
        check_vjp(Function(torch.sin, lambda x: x / 0 * 0), torch.tensor([1.0]))


def test_integers_are_left_alone() -> None:
    """Labels are not changed, and have no error."""
    pick = fn.layer(
        apply=lambda _, x: (x[0].gather(1, x[1]), x[1]),
        vjp=lambda p, labels, gy: (p, (torch.zeros(4, 3, dtype=gy.dtype).scatter(1, labels, gy), None)),
    )
    errors = check_vjp(pick, (rows(4), torch.tensor([[0], [2], [1], [1]])))
    assert errors["x.1"] is None
    assert errors["x.0"] is not None


def test_a_gradient_of_another_shape_is_reported_as_such() -> None:
    """The shapes are compared first."""
    with pytest.raises(AssertionError, match=r"the gradient of x must have its shape \(4, 3\), got \(3,\)"):
        check_vjp(fn.layer(apply=lambda _, x: (x.sum(0), ()), vjp=lambda p, _, gy: (p, gy)), rows(4))


def test_given_params_are_those_that_are_judged() -> None:
    """A gradient that is right only at fresh params fails at others."""
    forgetful = fn.layer(
        init=lambda _: {"s": torch.ones(())}, apply=lambda p, x: (p["s"] * x, x), vjp=lambda p, x, gy: ({"s": (gy * x).sum()}, gy)
    )
    check_vjp(forgetful, rows(4))
    with pytest.raises(AssertionError, match="the gradient of x at"):
        check_vjp(forgetful, rows(4), {"s": torch.tensor(2.0)})


def test_stochastic_layers_are_judged_with_the_key() -> None:
    """The same key drops the same elements at every step of a difference."""
    check_vjp(fn.serial(fn.Linear(3, 8), fn.Dropout(0.5)), rows(4), rng=fn.key(7))


def test_finite_difference_is_of_fourth_order() -> None:
    """Half the step gives a sixteenth of the error, on both sides."""
    one = torch.ones((), dtype=torch.float64)
    for side in (-1, 0, 1):
        errors = [abs(float(finite_difference(torch.exp, one, one, step, side)) - torch.e) for step in (0.1, 0.05)]
        assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)


def test_finite_difference_goes_along_trees() -> None:
    """Where the direction is absent, the tree is not changed."""
    x = {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor(3.0, dtype=torch.float64)}
    slope = finite_difference(lambda t: (t["a"] * t["b"]).sum(), x, {"a": torch.tensor([1.0, 0.5]), "b": None})
    assert float(slope) == pytest.approx(4.5)


def test_check_laws_names_the_first_law_that_is_broken() -> None:
    """The check stops at the first broken law, with its number and name."""
    with pytest.raises(AssertionError, match=r"^law 1, transpose: the gradient of .*; in Scale\(factor=1.1\)$"):
        check_laws(Scale(factor=1.1), rows(4))


@pytest.mark.compiled
def test_check_laws_passes_nets_of_users_layers() -> None:
    """A net with a user's own layer keeps all laws, including its name in the repr."""
    check_laws(fn.residual(fn.serial(Scale(), fn.Tanh())), rows(4))


@pytest.mark.compiled
def test_check_laws_leaves_out_rows_where_there_is_no_batch() -> None:
    """Channels in front are not rows, and only the caller can know."""
    layer, x = fn.Conv1d(2, 2, 3), rows(2, 6)
    check_laws(layer, x, batched=False)
    with pytest.raises(AssertionError, match="law 5, rows"):
        check_laws(layer, x)


@pytest.mark.parametrize("dtypes", [torch.float32, [torch.float32], (torch.int32,), ("float32",)])
def test_dtypes_are_a_tuple_of_floating_ones(dtypes: Any) -> None:
    """Other values are refused before a law is tried."""
    with pytest.raises(ValueError, match=r"^check_laws: dtypes must be a tuple of floating dtypes, got "):
        check_laws(fn.Tanh(), rows(4), dtypes=dtypes)


def test_laws_that_depend_on_no_dtype_are_tried_in_any_case() -> None:
    """Such laws are tried once, whatever the dtypes; the others are tried in each dtype."""
    with pytest.raises(AssertionError, match=r"^law 9, value: a layer must not hold a lambda"):
        check_laws(slope_at_kink(0.0), rows(4), compiled=False, dtypes=(torch.float32,))


def test_there_are_eleven_laws() -> None:
    """The laws have the order of the contract."""
    names = ["transpose", "linear", "pure", "structure", "rows", "strides", "halves", "transforms", "value", "reach"]
    assert list(LAWS) == [*names, "second order"]
