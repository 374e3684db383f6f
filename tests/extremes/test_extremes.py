"""The tables of extremes, recomputed: no NaN where a limit exists, and no error above twice the error of torch.nn."""

import math

import mpmath
import numpy as np
import pytest
import torch

import funcnet as fn
from examples.extremes.__main__ import main
from examples.extremes.activations import row
from examples.extremes.judging import Judged, judge, judge_all, ulps_off
from examples.extremes.tables import FAMILIES, rows_of, table


@pytest.mark.parametrize("family", FAMILIES)
def test_no_layer_is_nan_at_a_limit_or_twice_as_far_off_as_torch(family):
    """This covers each kind of input, values and gradients."""
    assert [fault for judged in judge_all(rows_of(family)) for fault in judged.faults()] == []


def test_ulps_are_distances_of_neighbours():
    """An ulp is the distance at the exact result, in the dtype; for subnormal numbers, at the smallest normal one."""
    assert ulps_off(torch.tensor([1 + 2**-23]), exactly(1)) == 1
    assert ulps_off(torch.tensor([2.0]), exactly(2 - mpmath.mpf(2) ** -22)) == 2
    assert ulps_off(torch.tensor([1.0], dtype=torch.bfloat16), exactly(mpmath.mpf(1.015625))) == 2
    assert ulps_off(torch.tensor([0.0]), exactly(mpmath.mpf(3 * 2**-149))) == 3
    assert ulps_off(torch.tensor([math.inf]), exactly(mpmath.mpf(10) ** 60)) == 0


def test_ulps_by_row_are_those_of_the_largest():
    """The ulp of a row along the last axis is that of its largest element."""
    found, want = torch.tensor([[1.0, 2**-23], [0.0, 2**-23]]), exactly(1, 0, 0, 2**-24).reshape(2, 2)
    assert ulps_off(found[:1], want[:1], by_row=True) == 1
    assert ulps_off(found, want, by_row=True) == 2**23


def exactly(*numbers):
    """Return an array of mpmath numbers."""
    return np.array([mpmath.mpf(number) for number in numbers], dtype=object)


@pytest.mark.parametrize(("got", "want"), [(math.inf, 1), (3e38, mpmath.mpf(10) ** 60), (-math.inf, mpmath.mpf(10) ** 60)])
def test_a_wrong_infinity_is_infinitely_far_off(got, want):
    """So is a finite number instead of an infinite one."""
    assert ulps_off(torch.tensor([got]), exactly(want)) == math.inf


def test_the_gradient_of_a_reference_has_a_hundred_digits():
    """The derivative of x² at 3, which is exact in float32, has that precision."""
    judged = judge(row(fn.Square(), lambda x: x * x, torch.square, {"three": torch.tensor([3.0])}), "three")
    assert max(*judged.ours, *judged.twin) < 1e-100


@pytest.mark.parametrize(
    ("ours", "twin", "said"),
    [
        ((math.nan, 0), (math.nan, 0), "a, b: value of nan ulps, torch nan"),
        ((0, math.nan), None, "a, b: gradient of nan ulps, torch -"),
        ((5, 0), (2, 0), "a, b: value of 5 ulps, torch 2"),
        ((0, math.inf), (0, 9), "a, b: gradient of inf ulps, torch 9"),
    ],
)
def test_a_fault_is_named(ours, twin, said):
    """The faults are NaN, with and without a twin, and an error of more than twice the twin's."""
    assert Judged("a", "b", ours, twin).faults() == [said]


@pytest.mark.parametrize(
    ("ours", "twin"), [((2, 1e9), None), ((2, 4), (0.5, 2)), ((math.inf, 0), (math.inf, 0)), ((9, 0), (math.nan, 0))]
)
def test_what_keeps_the_rule_is_no_fault(ours, twin):
    """There is nothing to compare, the error is within 2 ulps or twice the twin's, or torch returns NaN."""
    assert Judged("a", "b", ours, twin).faults() == []


def test_the_command_writes_the_page_that_it_prints(tmp_path, capsys):
    """It has a table for each requested family, and two lines for each row: the value and the gradient."""
    main(["--only", "losses", "--out", str(tmp_path / "new" / "page.md")])
    text = (tmp_path / "new" / "page.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Losses"]
    assert sum("| gradient |" in line for line in text.splitlines()) == len(rows_of("losses"))


def test_a_table_begins_where_kinds_differ():
    """A row with fewer kinds is added to the previous table; NaN and infinity are written as words."""
    nan, off = Judged("a", "x", (math.nan, 0.5), (math.inf, 1e7)), Judged("a", "y", (0.0, 1.0), None)
    text = table([nan, off, Judged("b", "x", (0.0, 0.0), None), Judged("c", "z", (0.0, 0.0), None)])
    assert text.count("| layer |") == 2
    assert "| a | value | NaN (∞) | 0.0 |" in text
    assert "|  | gradient | 0.5 (1e7) | 1.0 |" in text
    assert "| b | value | 0.0 |  |" in text
