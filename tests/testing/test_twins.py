"""The audit of twins: a layer with the name of a module of torch.nn is compared with it, and the claim is checked."""

import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from twins import TWINS, assert_twins, draw, twin_of

import funcnet as fn

OURS = {name.lower() for name in vars(fn)}
SHARED = sorted(
    name
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, nn.Module) and name.removesuffix("Loss").lower() in OURS
)
"""The modules of torch.nn with a counterpart here: losses lose the suffix, and capitals may differ."""


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Import the tests that claim to compare layers, and return which compares which."""
    for path in sorted(Path(__file__).parents[1].rglob("test_*.py")):
        if "@twin_of(" in path.read_text(encoding="utf-8"):
            monkeypatch.syspath_prepend(path.parent)
            importlib.import_module(path.stem)
    return TWINS


def test_every_layer_with_a_name_of_torch_nn_is_compared_with_it(claims: dict[str, str]) -> None:
    """Each has a test with hypothesis that fails unless it compared 20 configurations."""
    assert len(SHARED) > 100
    assert {"Linear", "MultiheadAttention", "CrossEntropyLoss"} <= set(SHARED)
    assert [name for name in SHARED if name not in claims] == []


def test_every_claimed_name_exists_in_torch_nn(claims: dict[str, str]) -> None:
    """A misspelt name, or a renamed layer, would claim nothing."""
    assert claims.keys() <= set(SHARED)


@given(st.integers(0, 9999))
def alike(seed):
    """Compare one layer on one input, and another on many."""
    assert_twins(fn.Tanh(), nn.Tanh(), draw((2, 3)))
    assert_twins(fn.Sigmoid(), nn.Sigmoid(), draw((2, 3), seed))


def test_a_claim_fails_where_too_little_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One input twenty times is one configuration, and the comparison of another layer does not count."""
    monkeypatch.setattr("twins.TWINS", {})
    twin_of("Sigmoid")(alike)()
    for name, count in {"Tanh": 1, "ReLU": 0}.items():
        with pytest.raises(AssertionError, match=rf"at least 20 configurations .*, got \{{'{name}': {count}\}}"):
            twin_of("Sigmoid", name)(alike)()


@given(st.integers(0, 9999), st.floats(0.1, 3.0))
def always_the_same(seed, slope):
    """Compare one layer with one slope, and another with two arguments, only one of which varies."""
    assert_twins(fn.LeakyReLU(0.5), nn.LeakyReLU(0.5), draw((2, 3), seed))
    assert_twins(fn.Threshold(slope, 1.0), nn.Threshold(slope, 1.0), draw((2, 3), seed))


def test_a_claim_fails_where_an_argument_is_never_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty inputs are twenty configurations, but do not test an argument that is always the same."""
    monkeypatch.setattr("twins.TWINS", {})
    for name, argument in {"LeakyReLU": "negative_slope", "Threshold": "value"}.items():
        with pytest.raises(AssertionError, match=rf"every argument must be varied, .*, got \{{'{name}': \{{'{argument}'\}}\}}"):
            twin_of(name)(always_the_same)()


@given(st.integers(1, 9), st.integers(0, 9999))
def always_batched(size, seed):
    """Compare a layer of windows only with a batch; torch.nn takes inputs without one too."""
    assert_twins(fn.AdaptiveAvgPool1d(size), nn.AdaptiveAvgPool1d(size), draw((2, 3, 4), seed))


def test_a_claim_fails_where_there_is_always_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a batch the first axis of such layers is the channels."""
    monkeypatch.setattr("twins.TWINS", {})
    with pytest.raises(AssertionError, match=r"x must be tried with a batch axis and without, .*\{'AdaptiveAvgPool1d': \{3\}\}"):
        twin_of("AdaptiveAvgPool1d")(always_batched)()


def test_a_claim_must_be_drawn_by_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of one example cannot claim it."""
    monkeypatch.setattr("twins.TWINS", {})
    with pytest.raises(AssertionError, match="draw must be drawn by hypothesis"):
        twin_of("Tanh")(draw)
