"""Eye, Dirac, DeltaOrthogonal and Sparse: compared with ``torch.nn.init`` if deterministic, by their laws if random."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import init

import funcnet as fn
from funcnet import initializers, random

SHAPES = {fn.Eye(): (6, 4), fn.Eye(2.5): (3, 5), fn.Dirac(): (6, 4, 3), fn.Dirac(2): (6, 3, 2, 3)}
SHAPES |= {
    fn.DeltaOrthogonal(): (6, 4, 3),
    fn.DeltaOrthogonal(1.5): (4, 4, 2, 3, 4),
    fn.Sparse(0.3): (6, 4),
    fn.Sparse(0.5, 2.0): (5, 7),
}
EACH = pytest.mark.parametrize(("initializer", "shape"), SHAPES.items(), ids=map(repr, SHAPES))
sizes = st.integers(1, 6)


@given(sizes, sizes)
@settings(max_examples=15, deadline=None)
def test_eye_is_torchs(rows, columns):
    """The matrix need not be square."""
    assert torch.equal(fn.Eye()(0, (rows, columns)), init.eye_(torch.empty(rows, columns)))


@given(st.integers(1, 3), sizes, sizes, st.lists(sizes, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_dirac_is_torchs(groups, channels, columns, kernel):
    """One to three dimensions, even kernel sizes and groups are tried."""
    shape = (groups * channels, columns, *kernel)
    assert torch.equal(fn.Dirac(groups)(0, shape), init.dirac_(torch.empty(shape), groups))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_with_dirac_passes_x_on(groups):
    """Each channel is unchanged."""
    layer = fn.Conv2d(4, 4, 3, padding="same", groups=groups, initializer=fn.Dirac(groups))
    x = random.normal(0, (2, 4, 5, 5))
    assert torch.equal(layer(layer.init(0), x), x)


@given(st.integers(0, 9), sizes, sizes, st.lists(sizes, min_size=1, max_size=3), st.sampled_from([1.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_delta_orthogonal_has_orthonormal_columns_at_the_middle(seed, inputs, more, kernel, gain):
    """The middle is (k - 1) // 2, as in JAX; other taps are 0."""
    shape = (inputs + more - 1, inputs, *kernel)
    w = fn.DeltaOrthogonal(gain)(seed, shape, torch.float64)
    middle = w[(..., *[(k - 1) // 2 for k in kernel])]
    torch.testing.assert_close(middle.T @ middle, gain**2 * torch.eye(inputs, dtype=torch.float64))
    assert w.count_nonzero() == middle.count_nonzero()


def test_a_circular_convolution_with_delta_orthogonal_keeps_the_norm():
    """Any x keeps its norm."""
    layer = fn.Conv1d(3, 8, 3, padding="same", padding_mode="circular", initializer="delta_orthogonal")
    x = random.normal(0, (2, 3, 7))
    torch.testing.assert_close(layer(layer.init(0), x).norm(), x.norm())


@given(st.integers(0, 9), sizes, sizes, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_sparse_has_as_many_zeros_in_each_column_as_torchs(seed, rows, columns, sparsity):
    """The number is the fraction of the rows, rounded up."""
    zeros = (fn.Sparse(sparsity)(seed, (rows, columns)) == 0).sum(0)
    assert zeros.tolist() == [math.ceil(sparsity * rows)] * columns
    assert zeros.tolist() == (init.sparse_(torch.empty(rows, columns), sparsity) == 0).sum(0).tolist()


def test_sparse_draws_values_and_places_evenly():
    """Nonzero values are normal with the given std, and each row is 0 equally often."""
    w = fn.Sparse(0.25, std=3.0)(1, (8, 20_000), torch.float64)
    rest = w[w != 0]
    assert abs(rest.mean()) < 5 * 3 / math.sqrt(len(rest))
    assert rest.std().item() == pytest.approx(3.0, rel=5 / math.sqrt(2 * len(rest)))
    assert ((w == 0).double().mean(1) - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 20_000)
    assert not torch.equal(w, fn.Sparse(0.25, std=3.0)(2, (8, 20_000), torch.float64))


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_draws_have_the_dtype_and_the_shape(initializer, shape, dtype):
    """Narrow dtypes are supported too."""
    x = initializer(random.key(0), shape, dtype)
    assert (x.dtype, x.shape, x.is_contiguous()) == (dtype, shape, True)


@EACH
def test_draws_are_functions_of_the_key(initializer, shape):
    """Draws have torch's default dtype; under vmap each draw is the same as by itself."""
    x = initializer(random.key(7), shape)
    assert x.dtype is torch.get_default_dtype()
    assert torch.equal(x, initializer(7, shape))
    keys = random.split(1, 3)
    mapped = torch.func.vmap(lambda key: initializer(key, shape) + 0 * key)(keys)
    torch.testing.assert_close(mapped, torch.stack([initializer(key, shape) for key in keys]))


@EACH
def test_an_initializer_is_a_value(initializer, shape):
    """Its repr evaluates back, it pickles, and equal values have equal hashes."""
    again = eval(repr(initializer), vars(initializers))
    assert again == initializer == pickle.loads(pickle.dumps(initializer))
    assert hash(again) == hash(initializer)


REFUSED = {
    "Eye(): a weight must have 2 axes, (out, in), got shape (2, 3, 4)": lambda: fn.Eye()(0, (2, 3, 4)),
    "Sparse(sparsity=0.5): a weight must have 2 axes, (out, in), got shape (2,)": lambda: fn.Sparse(0.5)(0, (2,)),
    "Dirac(): a weight must have 3 to 5 axes, (out, in, *kernel), got shape (2, 3)": lambda: fn.Dirac()(0, (2, 3)),
    "Dirac(groups=2): groups=2 must divide the output channels, got shape (3, 3, 1)": lambda: fn.Dirac(2)(0, (3, 3, 1)),
    "DeltaOrthogonal(): a weight must have at most as many inputs as outputs, got shape (2, 3, 1)": lambda: fn.DeltaOrthogonal()(0, (2, 3, 1)),
    "Eye(): the shape must have fewer than 2**60 elements, got (4611686018427387904, 2)": lambda: fn.Eye()(0, (2**62, 2)),
    "Dirac(): the shape must have fewer than 2**60 elements, got (4611686018427387904, 2, 3)": lambda: fn.Dirac()(0, (2**62, 2, 3)),
    "Sparse: sparsity must be a finite number at least 0.0 and at most 1.0, got 1.5": lambda: fn.Sparse(1.5),
    "DeltaOrthogonal: gain must be a finite number above 0.0, got 0": lambda: fn.DeltaOrthogonal(0),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """The error names the initializer, the rule and the argument."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert str(caught.value) == message
