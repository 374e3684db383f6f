"""Draws: each distribution against its formulas."""

import math

import pytest
import torch
from words import WORDS, key_of_first_word

from funcnet import random

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


# uniform


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 2.0), (0.1, 0.3), (-3.0, -2.5), (1000.0, 1001.0), (5.0, 5.0)]
)
@pytest.mark.parametrize("word", [0, WORDS - 1])
def test_uniform_keeps_its_bounds_in_the_extreme_words(dtype, low, high, word):
    """For words with all bits 0 or all bits 1: low is included, high is not, although the largest draw may round up to it."""
    x = random.uniform(key_of_first_word(word), (2,), low, high, dtype)
    low, high = torch.tensor([low, high], dtype=dtype)
    assert x.dtype is dtype
    assert (x[:1] >= low).all()
    assert (x[:1] < high).all() or low == high


@pytest.mark.parametrize("dtype", FLOATING)
def test_uniform_draws_every_digit(dtype):
    """Each binary digit of the dtype is one in half of the draws, and there are no other digits."""
    digits = DIGITS[dtype]
    scaled = random.uniform(1, (40_000,), dtype=dtype).double() * 2**digits
    assert torch.equal(scaled, scaled.round())
    ones = ((scaled.long()[:, None] >> torch.arange(digits)) & 1).double().mean(0)
    assert (ones - 0.5).abs().max() < 5 * 0.5 / 200


@pytest.mark.parametrize("dtype", FLOATING)
def test_uniform_has_the_moments(dtype):
    """The mean is ½ and the variance 1/12, and the two 32-bit halves of a word are independent."""
    u = random.uniform(2, (100_000,), dtype=dtype).double()
    width = 2.0 ** -DIGITS[dtype]
    assert u.mean().item() == pytest.approx(0.5 - width / 2, abs=5 * math.sqrt(1 / 12 / 100_000))
    assert u.var().item() == pytest.approx((1 - width**2) / 12, abs=5 * math.sqrt(1 / 180 / 100_000))
    assert ((u[::2] - 0.5) * (u[1::2] - 0.5)).mean().abs() < 5 / 12 / math.sqrt(50_000)


def test_uniform_is_even():
    """Each hundredth of the range gets its share of a million draws: χ² with 99 degrees is below its mean plus 5 σ."""
    counts = torch.histc(random.uniform(3, (1_000_000,), -2.0, 3.0), 100, -2.0, 3.0)
    chi2 = ((counts - 10_000) ** 2 / 10_000).sum()
    assert abs(chi2 - 99) < 5 * math.sqrt(2 * 99)


@pytest.mark.parametrize(
    "draw", [random.uniform, random.normal, random.truncated_normal, random.gumbel], ids=lambda draw: draw.__name__
)
def test_draws_have_torchs_default_dtype(draw):
    """Another floating dtype may be requested."""
    assert draw(0, (2,)).dtype is torch.get_default_dtype()
    assert all(draw(0, (2,), dtype=dtype).dtype is dtype for dtype in FLOATING)


@pytest.mark.parametrize(
    "draw", [random.uniform, random.normal, random.truncated_normal, random.gumbel], ids=lambda draw: draw.__name__
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_draws_refuse_a_dtype_that_is_not_floating(draw, dtype):
    """The error lists the floating dtypes."""
    with pytest.raises(ValueError, match=r"random: the dtype must be one of torch.float64, .*torch.bfloat16, got torch"):
        draw(0, (2,), dtype=dtype)


# normal


def cumulative(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("word", [0, WORDS - 1])
def test_normal_is_finite_and_symmetric_in_the_extreme_words(dtype, word):
    """The interval of u is open, so erf⁻¹ never sees ±1: the extremes are beyond 5 σ, or 8 in float64, with opposite signs."""
    smallest, largest = (random.normal(key_of_first_word(w), (1,), dtype=dtype).item() for w in (word, WORDS - 1 - word))
    assert math.isfinite(smallest)
    assert smallest == -largest
    assert 8 * (dtype is torch.float64) < abs(smallest) < 8.5
    assert abs(smallest) > 5


@pytest.mark.parametrize("dtype", FLOATING)
def test_normal_has_the_moments(dtype):
    """Mean 0, variance 1, third moment 0 and fourth moment 3 hold within 5 standard errors, up to the dtype's rounding."""
    x = random.normal(4, (200_000,), dtype=dtype).double()
    n = len(x)
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert (x**power).mean().item() == pytest.approx(moment, abs=5 * math.sqrt(variance / n) + 1e-4)


def test_normal_takes_mean_and_std():
    """Mean and std shift and scale the same draws."""
    torch.testing.assert_close(random.normal(5, (99,), 3.0, 0.5), 3 + 0.5 * random.normal(5, (99,)))


def test_normal_follows_its_distribution_function():
    """For 100 000 draws the largest distance is below Kolmogorov's 2.3/√n (exceeded once in 10⁵ by chance)."""
    x = random.normal(6, (100_000,), dtype=torch.float64).sort().values
    distance = (cumulative(x) - torch.arange(1, 100_001) / 100_000).abs().max()
    assert distance < 2.3 / math.sqrt(100_000)


# truncated_normal

TRUNCATED = [
    (0.0, 1.0, -2.0, 2.0),
    (1.0, 2.0, 0.0, 3.0),
    (0.0, 1.0, 3.0, 4.0),
    (0.0, 1.0, -1e3, 1e3),
    (0.0, 0.02, -2.0, 2.0),
    (0.0, 1.0, 6.0, 8.0),
]


@pytest.mark.parametrize(("mean", "std", "low", "high"), TRUNCATED)
def test_truncated_normal_stays_between_its_bounds(mean, std, low, high):
    """None of 50 000 draws equals a bound, as some would if the tails were clamped."""
    x = random.truncated_normal(7, (50_000,), mean, std, low, high, torch.float64)
    assert (x > low).all()
    assert (x < high).all()


@pytest.mark.parametrize(("mean", "std", "low", "high"), TRUNCATED)
def test_truncated_normal_has_the_moments(mean, std, low, high):
    """With α, β the bounds in units of std and Z = Φ(β) - Φ(α): mean + std (φ(α) - φ(β)) / Z, and the variance likewise."""
    a, b = (low - mean) / std, (high - mean) / std
    density = [math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi) for bound in (a, b)]
    z = (math.erfc(a / math.sqrt(2)) - math.erfc(b / math.sqrt(2))) / 2
    shift = (density[0] - density[1]) / z
    variance = std**2 * (1 + (a * density[0] - b * density[1]) / z - shift**2)
    x = random.truncated_normal(8, (100_000,), mean, std, low, high)
    assert x.mean().item() == pytest.approx(mean + std * shift, abs=5 * math.sqrt(variance / 100_000))
    assert x.double().var().item() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("word", [0, WORDS - 1])
def test_truncated_normal_keeps_its_bounds_in_the_extreme_words(dtype, word):
    """The bounds may be so wide that their distribution function rounds to 0 and 1."""
    x = random.truncated_normal(key_of_first_word(word), (1,), low=-50.0, high=50.0, dtype=dtype)
    assert x.abs().item() < 9


# gumbel


def test_gumbel_follows_its_distribution_function():
    """For 100 000 draws the largest distance is below Kolmogorov's 2.3/√n (exceeded once in 10⁵ by chance)."""
    x = random.gumbel(6, (100_000,), dtype=torch.float64).sort().values
    distance = (torch.exp(-torch.exp(-x)) - torch.arange(1, 100_001) / 100_000).abs().max()
    assert distance < 2.3 / math.sqrt(100_000)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("word", [0, WORDS - 1])
def test_gumbel_is_finite_in_the_extreme_words(dtype, word):
    """The interval of u is open, so that no logarithm sees 0."""
    assert random.gumbel(key_of_first_word(word), (1,), dtype=dtype).isfinite().all()


# bernoulli


@pytest.mark.parametrize("word", [0, WORDS - 1, 2**31, 2**31 - 1])
@pytest.mark.parametrize(("p", "drawn"), [(0, False), (0.0, False), (1, True), (1.0, True)])
def test_bernoulli_of_zero_and_one_is_certain(p, drawn, word):
    """The result is the same for every word, including the extreme ones."""
    assert random.bernoulli(key_of_first_word(word), (2,), p).tolist()[0] is drawn
    assert (random.bernoulli(0, (10_000,), p) == drawn).all()


@pytest.mark.parametrize("p", [0.3, 0.5, 1e-3, 1 - 1e-3])
def test_bernoulli_is_true_with_probability_p(p):
    """The frequency in 10⁶ draws is within 5 standard errors, in both halves of the words."""
    draw = random.bernoulli(9, (1_000_000,), p)
    assert draw.dtype is torch.bool
    for half in (draw[::2], draw[1::2]):
        assert half.double().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 500_000))


def test_bernoulli_splits_the_words_at_p():
    """Words below p 2³² give ``True``, counted from the smallest int32: for p = ½ the negative ones."""
    draws = [random.bernoulli(key_of_first_word(word), (1,), 0.5).item() for word in (0, 2**31 - 1, 2**31, 2**32 - 1)]
    assert draws == [False, False, True, True]


@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan, True, "1"])
def test_bernoulli_refuses_what_is_no_probability(p):
    """The error has the bounds and the argument."""
    with pytest.raises(ValueError, match=f"bernoulli: p must be a number from 0 to 1, got {p!r}"):
        random.bernoulli(0, (2,), p)


@pytest.mark.parametrize("shape", [(-1,), (-2, -2), (2.0,), 3, [2], ("2",), (True,), None])
def test_what_is_no_shape_is_refused(shape):
    """Every draw requires a tuple of whole numbers of at least 0."""
    for draw in (random.bits, random.uniform, random.normal, random.truncated_normal, random.bernoulli):
        with pytest.raises(ValueError, match=r"random: the shape must be a tuple of whole numbers of at least 0, got"):
            draw(0, shape)


SPREADS = [(math.nan, 1.0), (math.inf, 1.0), (0.0, -1.0), (0.0, math.nan), ("0", 1.0), (True, 1.0)]


@pytest.mark.parametrize(("mean", "std"), SPREADS)
@pytest.mark.parametrize("name", ["normal", "truncated_normal"])
def test_a_normal_draw_refuses_what_is_no_spread(name, mean, std):
    """Mean and std must be finite, and std must not be negative."""
    with pytest.raises(
        ValueError, match=rf"{name}: mean and std must be finite numbers, std .* 0, got mean={mean!r}, std={std!r}"
    ):
        getattr(random, name)(0, (2,), mean, std)


def test_a_truncated_draw_refuses_an_std_of_0():
    """The draw divides by std; the normal one returns the mean."""
    with pytest.raises(ValueError, match=r"std above 0, got mean=0.0, std=0.0"):
        random.truncated_normal(0, (2,), 0.0, 0.0)
    assert random.normal(0, (2,), 3.0, 0.0).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf), ("0", 1.0), (False, 1.0)])
@pytest.mark.parametrize(
    "draw", [random.uniform, lambda rng, shape, low, high: random.truncated_normal(rng, shape, 0.0, 1.0, low, high)]
)
def test_a_draw_between_bounds_refuses_others(draw, low, high):
    """The bounds must be finite and in order."""
    with pytest.raises(
        ValueError, match=rf"low and high must be finite numbers, low at most high, got low={low!r}, high={high!r}"
    ):
        draw(0, (2,), low, high)


@pytest.mark.parametrize("n", [-1, 2.0, True, "3"])
def test_a_permutation_refuses_what_is_no_count(n):
    """The length must be a whole number of at least 0."""
    with pytest.raises(ValueError, match=rf"permutation: n must be a whole number of at least 0, got {n!r}"):
        random.permutation(0, n)


def test_a_range_wider_than_the_largest_number_is_drawn_from_evenly():
    """The difference of its bounds never becomes infinite."""
    for dtype, bound in ((torch.float32, 3e38), (torch.float16, 6e4), (torch.float64, 1.5e308)):
        draws = random.uniform(0, (4000,), -bound, bound, dtype).double() / bound
        assert draws.isfinite().all()
        assert abs(draws.mean()) < 0.05
        assert abs(draws.abs().mean() - 0.5) < 0.03


@pytest.mark.parametrize(("low", "high"), [(7.9, 1e6), (-1e6, -7.9), (5.0, 5.5), (30.0, 31.0)])
def test_the_tail_of_a_normal_is_drawn_from_its_own_end(low, high):
    """Means match the density over the range, and no draw equals a bound."""
    draws = random.truncated_normal(0, (200_000,), low=low, high=high, dtype=torch.float64)
    a, b = sorted((abs(low), abs(high)))
    z = torch.linspace(a, min(b, a + 10), 2_000_001, dtype=torch.float64)
    density = torch.exp(-(z - a) * (z + a) / 2)
    assert draws.abs().mean().item() == pytest.approx(((z * density).sum() / density.sum()).item(), rel=1e-3)
    assert ((draws > low) & (draws < high)).all()


def test_a_range_without_probability_is_refused():
    """Otherwise every draw would equal a bound."""
    with pytest.raises(ValueError, match="truncated_normal: a bound must be within 37 std of the mean, got bounds 40 std off"):
        random.truncated_normal(0, (3,), low=40.0, high=50.0)
