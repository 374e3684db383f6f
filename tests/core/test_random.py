"""Keys and draws: the published words, the same bits everywhere, and the errors."""

import itertools
import math
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from words import GAMMA, M1, M2, WORDS, key_of_first_word

from funcnet import random

COMPILERS = ["aot_eager", *["inductor"] * bool(shutil.which("g++"))]


def unsigned(tensor):
    return [word % WORDS for word in tensor.flatten().tolist()]


def splitmix64(seed, count):
    """Draw with the published algorithm, in Python integers."""
    for i in range(1, count + 1):
        z = (seed + i * GAMMA) % WORDS
        z = (z ^ z >> 30) * M1 % WORDS
        z = (z ^ z >> 27) * M2 % WORDS
        yield z ^ z >> 31


# the generator


def test_bits_are_the_published_splitmix64():
    """The known answers for the seed 1234567 hold."""
    assert unsigned(random.bits(random.key(1234567), (3,))) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, WORDS - 1), st.integers(0, 40))
def test_bits_follow_the_algorithm(seed, count):
    """Every seed agrees with integer arithmetic modulo 2⁶⁴."""
    assert unsigned(random.bits(seed, (count,))) == [*splitmix64(seed, count)]


@given(st.integers(0, WORDS - 1))
def test_the_generator_runs_backwards(word):
    """Every word is the first draw of some key, so the tests below can request the extreme ones."""
    assert unsigned(random.bits(key_of_first_word(word), (1,))) == [word]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (3, 5), (2, 1, 3, 1)])
@pytest.mark.parametrize(
    "draw",
    [random.bits, random.uniform, random.normal, random.truncated_normal, random.gumbel, random.bernoulli],
    ids=lambda draw: draw.__name__,
)
def test_draws_have_the_shape(draw, shape):
    """Scalars, odd numbers of elements and empty shapes are included."""
    assert draw(0, shape).shape == shape


@pytest.mark.parametrize("draw", [random.bits, random.uniform, random.normal, random.bernoulli], ids=lambda draw: draw.__name__)
def test_a_draw_is_a_function_of_the_key(draw):
    """The same key draws the same, an int seed draws like its key, and another key draws differently."""
    assert torch.equal(draw(random.key(5), (50,)), draw(random.key(5), (50,)))
    assert torch.equal(draw(5, (50,)), draw(random.key(5), (50,)))
    assert not torch.equal(draw(5, (50,)), draw(6, (50,)))


def test_drawing_changes_no_state():
    """Neither the key nor torch's generator changes."""
    key, state = random.key(3), torch.get_rng_state()
    random.normal(key, (10,)), random.split(key, 3), random.fold_in(key, 1), random.permutation(key, 5)
    assert key.item() == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shape_is_a_reshaping_of_the_same_draws():
    """Element i of the flattened draw depends only on the key and i."""
    assert torch.equal(random.bits(1, (6, 4)).flatten(), random.bits(1, (24,)))
    assert torch.equal(random.uniform(1, (3, 3)).flatten(), random.uniform(1, (10,))[:9])


# the same bits everywhere


def every_draw(key):
    """Draw from everything, in sizes that do not fill a vector register, and in large ones."""
    return (
        random.bits(key),
        random.bits(key, (1000,)),
        random.uniform(key, (7, 3)),
        random.uniform(key, (1001,), -0.3, 0.4),
        random.uniform(key, (5,), dtype=torch.float64),
        random.uniform(key, (9,), dtype=torch.bfloat16),
        random.bernoulli(key, (999,), 0.3),
        random.permutation(key, 100),
        random.split(key, 65),
        random.fold_in(key, 5),
        random.fold_in(key, torch.arange(30)),
        random.fold_in(key, "dropout"),
        random.randint(key, (1001,), -3, 12),
        random.randint(key, (77,), -(2**63), 2**63 - 12345),
        random.choice(key, 9, (2, 5)),
        random.choice(key, 40, (7,), replace=False),
    )


def every_rounded_draw(key):
    normal = random.normal(key, (501,)), random.truncated_normal(key, (501,)), random.normal(key, (7,), dtype=torch.float16)
    return *normal, random.gumbel(key, (501,)), random.exponential(key, (501,), 2.0)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", COMPILERS)
def test_compiled_code_draws_the_same_bits(backend):
    """The key is an argument."""
    key = random.fold_in(7, 7)
    compiled = torch.compile(every_draw, fullgraph=True, backend=backend)
    for got, want in zip(compiled(key), every_draw(key), strict=True):
        assert torch.equal(got, want)


def draws_of_all_sizes(key):
    """Draw from a key argument, and from an int in the code, with which a compiler may compute ahead."""
    return [
        draw
        for count in (1, 2, 1000, 100_003)
        for draw in (random.bits(key, (count,)), random.bits(3, (count,)), random.fold_in(key, torch.arange(count)))
    ]


@pytest.mark.compiled
@pytest.mark.parametrize("simdlen", [None, 1])
@pytest.mark.parametrize("backend", COMPILERS[1:])
def test_inductor_draws_the_same_bits_at_every_size(backend, simdlen):
    """Bits agree with and without vector instructions: in C++ signed overflow is undefined and may end a loop early."""
    compiled = torch.compile(draws_of_all_sizes, fullgraph=True, backend=backend, options={"cpp.simdlen": simdlen})
    key = random.key(-17)
    for got, want in zip(compiled(key), draws_of_all_sizes(key), strict=True):
        assert torch.equal(got, want)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", COMPILERS)
def test_compiled_normal_draws_are_the_same_to_rounding(backend):
    """Each compiler has its own erf⁻¹."""
    compiled = torch.compile(every_rounded_draw, fullgraph=True, backend=backend)
    for got, want in zip(compiled(random.key(3)), every_rounded_draw(random.key(3)), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-6, atol=2e-6 if got.dtype is torch.float32 else 2e-3)


@pytest.mark.compiled
def test_a_compiled_function_takes_changing_numbers():
    """A step counter and a seed compile to symbols after the first change."""
    torch.compiler.reset()
    compiled = torch.compile(lambda key, step: random.fold_in(key, step) ^ random.key(step), fullgraph=True, backend="aot_eager")
    key = random.key(0)
    steps = [0, 1, 2, 3, -4, 2**40, 2**63 - 1, -(2**63)]
    assert [compiled(key, step).item() for step in steps] == [
        (random.fold_in(key, step) ^ random.key(step)).item() for step in steps
    ]


def test_vmap_draws_the_same_as_each_key_by_itself():
    """``vmap`` maps over a vector of keys."""
    keys = random.split(0, 4)
    alone = zip(*[every_draw(key) + every_rounded_draw(key) for key in keys], strict=True)
    mapped = torch.func.vmap(lambda key: every_draw(key) + every_rounded_draw(key))(keys)
    for got, want in zip(mapped, alone, strict=True):
        assert torch.equal(got, torch.stack(want))


def test_draws_work_on_the_meta_device():
    """Draws there have shapes and dtypes without values."""
    draws = every_draw(random.key(0).to("meta"))
    assert [(draw.shape, draw.dtype, draw.device.type) for draw in draws] == [
        (draw.shape, draw.dtype, "meta") for draw in every_draw(random.key(0))
    ]


# keys


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1, -(2**63), 10**30])
def test_a_seed_is_read_modulo_two_to_the_64(seed):
    """Any whole number is a seed, and the key is a 0-d int64 tensor."""
    key = random.key(seed)
    assert (key.dtype, key.shape) == (torch.int64, ())
    assert key.item() % WORDS == seed % WORDS
    assert torch.equal(key, random.key(seed + WORDS))


def test_as_key_returns_a_key_as_it_is():
    """The result is the same object."""
    key = random.key(1)
    assert random.as_key(key) is key


WRONG_KEYS = {
    "bool": (True, "True"),
    "float": (0.5, "0.5"),
    "integral float": (3.0, "3.0"),
    "None": (None, "None"),
    "string": ("0", "'0'"),
    "vector of keys": (torch.zeros(2, dtype=torch.int64), "a tensor of shape (2,) and dtype torch.int64"),
    "float tensor": (torch.tensor(0.5), "a tensor of shape () and dtype torch.float32"),
    "int32 tensor": (torch.tensor(1, dtype=torch.int32), "a tensor of shape () and dtype torch.int32"),
    "bool tensor": (torch.tensor(True), "a tensor of shape () and dtype torch.bool"),
    "generator": ((generator := torch.Generator()), repr(generator)),
}


@pytest.mark.parametrize(("rng", "words"), WRONG_KEYS.values(), ids=WRONG_KEYS)
@pytest.mark.parametrize(
    "draw",
    [
        random.as_key,
        random.bits,
        random.uniform,
        random.split,
        lambda rng: random.fold_in(rng, 0),
        lambda rng: random.bernoulli(rng, (), 1.0),
    ],
)
def test_what_is_no_key_is_refused_with_its_message(draw, rng, words):
    """The error explains the term key, and has the argument."""
    with pytest.raises(ValueError, match="must be a key") as caught:
        draw(rng)
    assert str(caught.value) == f"rng: it must be a key, fn.key(seed), or an int seed, got {words}"


@pytest.mark.parametrize("seed", [True, 0.5, None, "0", torch.tensor(1)])
def test_key_refuses_what_is_no_whole_number(seed):
    """A seed is a number, not a key already."""
    with pytest.raises(ValueError, match="key: the seed must be a whole number, got "):
        random.key(seed)


def test_split_keys_unpack():
    """By default there are two, and each is a key."""
    one, other = random.split(0)
    assert random.as_key(one) is one
    assert one != other
    assert random.split(0, 0).shape == (0,)


@pytest.mark.parametrize("n", [-1, 1.5, True, None])
def test_split_refuses_what_is_no_count(n):
    """The error has the rule and the argument."""
    with pytest.raises(ValueError, match=f"split: n must be a whole number of at least 0, got {n}"):
        random.split(0, n)


@pytest.mark.parametrize("data", [1.5, True, None, torch.tensor(0.5)])
def test_fold_in_refuses_what_is_no_whole_number(data):
    """A float would be truncated silently."""
    with pytest.raises(ValueError, match="fold_in: data must be a whole number, a string or an integer tensor, got "):
        random.fold_in(0, data)


def test_fold_in_takes_numbers_and_tensors_alike():
    """An int64 tensor gives a key for each number; numbers count modulo 2⁶⁴."""
    data = [0, 1, -1, 2**62]
    assert torch.equal(random.fold_in(3, torch.tensor(data)), torch.stack([random.fold_in(3, number) for number in data]))
    assert torch.equal(random.fold_in(3, torch.tensor(7, dtype=torch.int32)), random.fold_in(3, 7))
    assert torch.equal(random.fold_in(3, 2**64 - 1), random.fold_in(3, -1))


def test_keys_made_from_keys_are_all_different():
    """Keys are split and folded two levels deep, singly and several at once: 40 000 words are all different."""
    roots = [random.key(seed) for seed in range(-5, 15)]
    grown = [random.split(key, 500) for key in roots] + [random.fold_in(key, torch.arange(500)) for key in roots]
    deeper = [
        make(key)
        for keys in grown
        for key in keys[:3]
        for make in (lambda key: random.split(key, 50), lambda key: random.fold_in(key, torch.arange(50)))
    ]
    words = torch.cat([torch.stack(roots), *grown, *deeper, *[random.bits(key, (400,)) for key in roots]])
    assert len(words) > 40_000
    assert len(words.unique()) == len(words)


def test_fold_in_is_not_commutative():
    """The order of levels counts."""
    assert random.fold_in(random.fold_in(0, 1), 2) != random.fold_in(random.fold_in(0, 2), 1)


def bit_table(words):
    return (words[..., None] >> torch.arange(64)) & 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (random.fold_in(3, torch.arange(4096)), random.fold_in(3, torch.arange(4096) ^ 1)),
        (random.fold_in(3, torch.arange(4096)), random.fold_in(2, torch.arange(4096))),
        (random.split(3, 4096), random.split(2, 4096)),
        (random.split(3, 4096), random.fold_in(3, torch.arange(4096))),
        (random.bits(3, (4096,)), random.bits(2, (4096,))),
    ],
    ids=["data", "folded key", "split key", "split and folded", "seed"],
)
def test_neighbours_differ_in_half_their_bits(one, other):
    """Each of the 64 bits flips in half of the cases when one input bit flips: 32 ± 5 σ of 4096 flips."""
    flips = bit_table(one ^ other).double().mean(0)
    assert (flips - 0.5).abs().max() < 5 * 0.5 / math.sqrt(4096)


def test_words_of_a_split_are_not_correlated():
    """No bit of one key's first draw predicts a bit of the next key's: all 64² correlations are noise."""
    first = torch.func.vmap(random.bits)(random.split(9, 20_001))
    table = bit_table(first).double() - 0.5
    correlation = 4 * table[:-1].T @ table[1:] / 20_000
    assert correlation.abs().max() < 5.5 / math.sqrt(20_000)


# permutation


@given(st.integers(0, 50), st.integers(0, WORDS - 1))
def test_a_permutation_has_every_number_once(n, seed):
    """A permutation has the numbers 0 to n - 1, as int64."""
    order = random.permutation(seed, n)
    assert order.dtype is torch.int64
    assert sorted(order.tolist()) == [*range(n)]


def test_every_permutation_is_as_likely():
    """The 24 orders of 4 items in 24 000 draws have χ² with 23 degrees below its mean plus 5 σ."""
    orders = torch.func.vmap(lambda key: random.permutation(key, 4))(random.split(10, 24_000))
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.stack([(code == 64 * a + 16 * b + 4 * c + d).sum() for a, b, c, d in itertools.permutations(range(4))])
    assert counts.sum() == 24_000
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 23 + 5 * math.sqrt(2 * 23)
