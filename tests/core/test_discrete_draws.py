"""Draws of whole numbers, classes and choices, waiting times, and keys for words."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from words import WORDS, key_of_first_word

from funcnet import random


def chi_square(draws, probabilities):
    """Return χ² of counted draws, and its mean plus 5 σ."""
    expected = torch.as_tensor(probabilities, dtype=torch.float64) * draws.numel()
    counts = torch.bincount(draws.flatten(), minlength=len(expected)).double()
    assert (counts[expected == 0] == 0).all()
    likely, degrees = expected > 0, int((expected > 0).sum()) - 1
    return float(((counts - expected)[likely] ** 2 / expected[likely]).sum()), degrees + 5 * math.sqrt(2 * degrees)


# randint


@given(st.integers(0, WORDS - 1), st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**64))
def test_randint_is_the_upper_half_of_a_product(word, low, n):
    """Every word and range agrees with integer arithmetic."""
    high = min(low + n, 2**63)
    got = random.randint(key_of_first_word(word), (1,), low, high).item()
    assert got == low + (word * (high - low) >> 64)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-5, 7), (0, 2**32), (-(2**63), 2**63), (2**63 - 1, 2**63), (-(2**63), 3)])
def test_randint_reaches_both_ends_and_no_further(low, high):
    """The smallest word gives low, the largest the last number below high."""
    ends = [random.randint(key_of_first_word(word), (1,), low, high).item() for word in (0, WORDS - 1)]
    assert ends == [low, high - 1]


@pytest.mark.parametrize("n", [2, 7, 100])
def test_randint_is_even(n):
    """Each number gets its share of 100 000 draws."""
    draws = random.randint(1, (100_000,), 10, 10 + n)
    assert draws.dtype is torch.int64
    found, most = chi_square(draws - 10, [1 / n] * n)
    assert found < most


# categorical and choice


P = torch.tensor([0.5, 0.0, 0.2, 0.3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_categorical_follows_the_softmax(dtype):
    """Logits need not be normalized, and a logit of -∞ is never drawn."""
    logits = (torch.log(P) + 3).to(dtype)
    found, most = chi_square(random.categorical(2, logits, (50_000,)), torch.softmax(logits.double(), 0))
    assert found < most


def test_categorical_draws_one_class_for_each_row():
    """The axes of the draws come first, then the axes of logits without ``dim``; a certain class is always drawn."""
    logits = torch.full((4, 3, 2), -math.inf)
    logits[:, 1] = 0.0
    draws = random.categorical(3, logits, (5,), dim=1)
    assert draws.shape == (5, 4, 2)
    assert (draws == 1).all()


def test_rows_draw_independently():
    """Two equal rows: the probability of a pair of classes is the product of their probabilities."""
    logits = torch.log(torch.tensor([[0.3, 0.7], [0.3, 0.7]]))
    one, other = random.categorical(4, logits, (40_000,)).unbind(1)
    found, most = chi_square(2 * one + other, [0.09, 0.21, 0.21, 0.49])
    assert found < most


def test_choice_with_replacement_follows_p():
    """p need not sum to 1; without p all choices are equally likely."""
    for p, want in ((None, [0.25] * 4), (P * 3, P)):
        found, most = chi_square(random.choice(5, 4, (50_000,), p=p), want)
        assert found < most


def test_choice_without_replacement_draws_nothing_twice():
    """Pairs have the probabilities of successive draws from the remaining choices."""
    draws = torch.func.vmap(lambda key: random.choice(key, 4, (2,), replace=False, p=P))(random.split(6, 50_000))
    pairs = [[float(P[i] * P[j] / (1 - P[i])) if i != j else 0.0 for j in range(4)] for i in range(4)]
    found, most = chi_square(4 * draws[:, 0] + draws[:, 1], [p for row in pairs for p in row])
    assert found < most
    assert sorted(random.choice(7, 9, (3, 3), replace=False).flatten().tolist()) == [*range(9)]


def test_choice_takes_rows_of_a_tensor():
    """The drawn numbers are the indices of the rows."""
    rows = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(random.choice(8, rows, (2, 3)), rows[random.choice(8, 4, (2, 3))])


def categorical_draws(key):
    logits = torch.linspace(-1, 1, 7, dtype=torch.float64, device=key.device)
    return random.categorical(key, logits, (33,)), random.choice(key, 7, (5,), replace=False, p=logits.exp())


@pytest.mark.compiled
def test_compiled_classes_are_those_of_eager_mode():
    """In float64, rounding of a logarithm never changes which sum is the largest."""
    compiled = torch.compile(categorical_draws, fullgraph=True)
    for got, want in zip(compiled(random.key(3)), categorical_draws(random.key(3)), strict=True):
        assert torch.equal(got, want)


def test_classes_are_drawn_under_vmap_and_on_the_meta_device():
    """Each key draws the same as by itself, and meta tensors have the shapes."""
    keys = random.split(0, 4)
    mapped, alone = torch.func.vmap(categorical_draws)(keys), zip(*map(categorical_draws, keys), strict=True)
    assert all(torch.equal(got, torch.stack(want)) for got, want in zip(mapped, alone, strict=True))
    assert [draw.shape for draw in categorical_draws(keys[0].to("meta"))] == [(33,), (5,)]


# exponential


@pytest.mark.parametrize("rate", [0.25, 1.0, 3.0])
def test_exponential_follows_its_distribution_function(rate):
    """For 100 000 draws the largest distance is below Kolmogorov's 2.3/√n, and the mean is 1 / rate."""
    x = random.exponential(9, (100_000,), rate, torch.float64).sort().values
    distance = (1 - torch.exp(-rate * x) - torch.arange(1, 100_001) / 100_000).abs().max()
    assert distance < 2.3 / math.sqrt(100_000)
    assert x.mean().item() == pytest.approx(1 / rate, abs=5 / rate / math.sqrt(100_000))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("word", [0, WORDS - 1])
def test_exponential_is_finite_and_above_zero_in_the_extreme_words(dtype, word):
    """The interval of u is open."""
    x = random.exponential(key_of_first_word(word), (1,), dtype=dtype)
    assert x.dtype is dtype
    assert 0 < x.item() < 40


# words


def test_a_word_is_its_fnv_hash():
    """The published answers of FNV-1a hold, so a word gives the same key in every process."""
    for word, hashed in {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C, "foobar": 0x85944171F73967E8}.items():
        assert random.fold_in(3, word) == random.fold_in(3, hashed)
    assert len({random.fold_in(0, f"layer{i}").item() for i in range(10_000)}) == 10_000
    assert random.fold_in(0, "é") != random.fold_in(0, "e")


KEY = random.key(0)
MESSAGES = {
    "randint: low and high must be whole numbers from -2**63 to 2**63, low below high, got low=3, high=3": lambda: random.randint(0, (), 3, 3),
    "got low=0, high=1.5": lambda: random.randint(0, (), 0, 1.5),
    "got low=0, high=9223372036854775809": lambda: random.randint(0, (), 0, 2**63 + 1),
    "exponential: rate must be a finite number above 0, got 0": lambda: random.exponential(0, (), 0),
    "categorical: logits must be a floating tensor, got a tensor of shape () and dtype torch.int64": lambda: random.categorical(0, KEY),
    "categorical: logits must have classes along the axis dim=1, got a tensor of shape (2,)": lambda: random.categorical(0, torch.ones(2), dim=1),
    "categorical: logits must have classes along the axis dim=-1, got a tensor of shape (2, 0)": lambda: random.categorical(0, torch.ones(2, 0)),
    "choice: a must be a whole number above 0, or a tensor with rows, got 0": lambda: random.choice(0, 0),
    "choice: p must be a floating tensor of shape (3,), got a tensor of shape (4,)": lambda: random.choice(0, 3, p=P),
    "choice: without replacement there must be at most 3 draws, got 4": lambda: random.choice(0, 3, (4,), replace=False),
    "choice: replace must be True or False, got 1": lambda: random.choice(0, 3, replace=1),
    "random: the shape must be a tuple of whole numbers of at least 0, got 3": lambda: random.categorical(0, P, 3),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_arguments_are_refused_with_their_message(message):
    """Each message names the function, the rule with its numbers, and the argument."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
