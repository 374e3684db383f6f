"""Assertions about trees: trees that pass, and the messages for others."""

import pytest
import torch

from funcnet.testing import assert_close

WANT = {"0": {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": None}, "step": 3}


def changed(**leaves):
    return {"0": {**WANT["0"], **leaves}, "step": 3}


def test_close_trees_pass():
    """Trees pass within the dtype's tolerance, in any order of keys; NaN equals NaN if that is allowed."""
    assert_close({"step": 3, "0": {"bias": None, "weight": WANT["0"]["weight"] + 1e-6}}, WANT)
    assert_close(changed(weight=WANT["0"]["weight"] + 0.1), WANT, rtol=0.0, atol=0.2)
    assert_close({"x": torch.tensor(torch.nan)}, {"x": torch.tensor(torch.nan)}, equal_nan=True)
    assert_close((), ())


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (changed(weight=WANT["0"]["weight"] + 1), r"differ at '0\.weight'\n(.|\n)*Mismatched elements: 4 / 4"),
        (changed(weight=torch.ones(2)), r"differ at '0\.weight'\n(.|\n)*shape"),
        (changed(weight=WANT["0"]["weight"].double()), r"differ at '0\.weight'\n(.|\n)*dtype"),
        (changed(bias=torch.ones(1)), r"differ at '0\.bias'\ngot a tensor of shape \(1,\).*, want None"),
        (changed(weight=None), r"differ at '0\.weight'\ngot None, want a tensor"),
        ({**WANT, "step": 4}, r"differ at 'step'\ngot 4, want 3"),
        ({"0": WANT["0"]}, r"assert_close: .*step"),
        (torch.ones(2), r"assert_close: "),
    ],
)
def test_the_first_leaf_that_differs_is_named(got, message):
    """The message is torch's, or has the value and the expected value."""
    with pytest.raises(AssertionError, match=message):
        assert_close(got, WANT)


def test_one_tolerance_needs_the_other():
    """torch.testing requires it too."""
    with pytest.raises(ValueError, match="rtol"):
        assert_close(WANT, WANT, rtol=0.1)
