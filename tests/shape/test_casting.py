"""Changes of dtype: dtypes of y and of the gradient, all laws except those that measure derivatives, and the errors."""

import pytest
import torch

import funcnet as fn
from funcnet.testing import LAWS

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
X = fn.random.normal(0, (4, 3))


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("given", DTYPES)
def test_y_has_the_dtype_and_the_gradient_that_of_x(given, to):
    """Numbers are rounded once in each direction."""
    x = X.to(given)
    y, cache = fn.Cast(to).apply({}, x)
    assert torch.equal(y, x.to(to))
    assert y.dtype is to
    gx = fn.Cast(to).vjp({}, cache, y)[1]
    assert torch.equal(gx, y.to(given))
    assert gx.dtype is given


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_become_numbers_without_a_gradient(dtype):
    """An example is the bytes of an image."""
    x = torch.tensor([0, 1, 1]).to(dtype)
    y, cache = fn.Cast(torch.float32).apply({}, x)
    assert torch.equal(y, torch.tensor([0.0, 1.0, 1.0]))
    assert fn.Cast(torch.float32).vjp({}, cache, y) == ({}, None)


@pytest.mark.parametrize("law", ["structure", "pure", "rows", "strides", "halves"])
@pytest.mark.parametrize("to", DTYPES)
def test_the_laws_that_measure_no_slopes_hold_for_every_dtype(law, to):
    """Each pair of dtypes is tried; differences of rounded numbers are not slopes."""
    for given in DTYPES:
        LAWS[law](fn.Cast(to), X, dtype=given)
    LAWS[law](fn.serial(fn.Tanh(), fn.Cast(to)), X)


def test_only_a_declared_dtype_is_right():
    """A layer that does not declare the change breaks the law of structure."""
    undeclared = fn.layer(apply=lambda params, x: (x.float(), ()), vjp=lambda params, cache, gy: (params, gy.double()))
    with pytest.raises(AssertionError, match=r"law 4, structure: y must be torch.float64, got torch.float32"):
        LAWS["structure"](undeclared, X)


MESSAGES = {
    "Cast: dtype must be a floating dtype, got torch.int64": lambda: fn.Cast(torch.int64),
    "Cast(dtype=torch.float32): x must be a tensor of real numbers, got a tensor of shape (4, 3) and dtype torch.complex64": lambda: fn.Cast(torch.float32)({}, X + 0j),
    "Cast(dtype=torch.float64): gy must be a dense tensor with the dtype and device of y, torch.float64 on cpu": lambda: fn.Cast(torch.float64).vjp({}, fn.Cast(torch.float64).apply({}, X)[1], X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
