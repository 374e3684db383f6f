"""Mixed precision: the formula bit for bit in each dtype, what stays in float32, transforms, training, and errors."""

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.testing import LAWS

NET = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.3), fn.Linear(4, 2))
X = fn.random.normal(0, (6, 3))
LOW = torch.bfloat16, torch.float16


@pytest.mark.parametrize("dtype", [*LOW, torch.float64], ids=str)
def test_all_verbs_compute_in_the_other_dtype(dtype):
    """Results have the bits of the layer with params, x and gy in that dtype, rounded to float32."""
    layer, key = fn.cast(NET, dtype), fn.key(3)
    params = layer.init(0)
    inner = tree.cast(params, dtype)
    y, cache = layer.apply(params, X, key)
    want, kept = NET.apply(inner, X.to(dtype), key)
    gy = fn.random.normal(1, tuple(y.shape))
    gradients = NET.vjp(inner, kept, gy.to(dtype))
    assert torch.equal(y, want.float())
    assert torch.equal(layer(params, X, key), want.float())
    assert tree.equal(cache[0], kept)
    assert tree.equal(layer.vjp(params, cache, gy), tree.cast(gradients, torch.float32))
    assert tree.equal(layer.grads(params, cache, gy), tree.cast(gradients[0], torch.float32))
    assert torch.equal(layer.input_grad(params, cache, gy), gradients[1].float())


@pytest.mark.parametrize("law", ["pure", "structure", "halves", "reach"])
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_a_layer_in_half_precision_keeps_the_laws_without_slopes(law, dtype):
    """With float32 outside only these laws apply; the others are tried with a cast that loses no precision."""
    LAWS[law].__wrapped__(fn.cast(NET, dtype), X, None, 0, **({} if law == "reach" else {"dtype": torch.float32}))


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_half_precision_under_vmap_and_on_meta(dtype):
    """vmap is over single examples, and meta computes nothing."""
    layer = fn.cast(fn.serial(fn.Linear(3, 4), fn.Tanh()), dtype)
    params = layer.init(0)
    mapped = torch.func.vmap(lambda x: layer.vjp(params, layer.apply(params, x)[1], torch.ones(4)))(X)
    one = layer.vjp(params, layer.apply(params, X[0])[1], torch.ones(4))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(tree.map(lambda leaf: leaf[0], mapped), one, rtol=8 * eps, atol=8 * eps)
    y, cache = layer.apply(*tree.to((params, X), "meta"))
    gparams, gx = layer.vjp(tree.to(params, "meta"), cache, y)
    assert {leaf.dtype for leaf in tree.leaves((y, gparams, gx))} == {torch.float32}


@pytest.mark.compiled
def test_a_step_in_bfloat16_compiles():
    """Results agree up to the rounding of bfloat16, which compiled code may skip for intermediate values."""
    step = fn.train_step(fn.cast(fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2)), torch.bfloat16), fn.MSE(), fn.SGD(0.1))
    params = step.net.init(0)
    state, target = step.opt.init(params), torch.zeros(6, 2)
    want, got = step(params, state, X, target), fn.compile(step)(params, state, X, target)
    torch.testing.assert_close(got[0], want[0], rtol=2e-2, atol=2e-2)


def test_running_statistics_move_in_float32():
    """Steps of a thousandth would be lost in bfloat16, which has 8 bits."""
    layer = fn.cast(fn.BatchNorm1d(3, momentum=0.001), torch.bfloat16)
    params = {**layer.init(0), "running_mean": torch.ones(3)}
    x = X.bfloat16().float() + 3
    moved = layer.update_stats(params, layer.apply(params, x)[1])
    mean = x.bfloat16().float().mean(0)
    torch.testing.assert_close(moved["running_mean"], 1 + 0.001 * (mean - 1), rtol=1e-6, atol=0.0)
    assert {leaf.dtype for name, leaf in moved.items() if name != "num_batches_tracked"} == {torch.float32}


def test_training_keeps_float32_params_and_learns():
    """There are a thousand small steps, most of which params in bfloat16 would lose."""
    net = fn.cast(fn.Linear(3, 1), torch.bfloat16)
    step, target = fn.train_step(net, fn.MSE(), fn.SGD(0.01)), X @ torch.tensor([[1.0], [-2.0], [0.5]])
    params = net.init(0)
    state = step.opt.init(params)
    for _ in range(1000):
        params, state, value = step(params, state, X, target)
    assert {leaf.dtype for leaf in tree.leaves(params)} == {torch.float32}
    assert value < 1e-3


def test_y_has_the_dtype_of_x_or_else_of_the_params():
    """An x of indices has no floating dtype."""
    table = fn.cast(fn.Embedding(5, 3), torch.bfloat16)
    assert table(table.init(0), torch.tensor([1])).dtype is torch.float32
    linear = fn.cast(fn.Linear(3, 2), torch.float64)
    assert linear(linear.init(0), X.bfloat16()).dtype is torch.bfloat16


def test_the_judge_computes_as_precisely_as_it_measures():
    """The dtype is raised to the trial's dtype, and never lowered."""
    net = fn.serial(fn.cast(fn.Tanh(), torch.bfloat16), fn.Tanh())
    assert fn.map_layers(lambda one: one.in_precision(torch.float64), net)[0].dtype is torch.float64
    assert fn.cast(fn.Tanh(), torch.float64).in_precision(torch.float16).dtype is torch.float64
    assert fn.Tanh().in_precision(torch.float64) == fn.Tanh()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.cast(fn.Tanh(), torch.int64), "cast: dtype must be a floating dtype, got torch.int64"),
        (lambda: fn.cast(fn.Tanh(), "bfloat16"), "cast: dtype must be a floating dtype, got 'bfloat16'"),
        (lambda: fn.cast(3, torch.bfloat16), "cast: layer must be a layer"),
    ],
)
def test_what_cannot_be_cast_is_refused(call, message):
    """Only a layer and a floating dtype are accepted."""
    with pytest.raises(ValueError, match=message):
        call()


def test_errors_of_the_layer_get_a_note():
    """A gy of another dtype than y is refused, although it could be cast."""
    layer = fn.cast(fn.Linear(3, 2), torch.bfloat16)
    params = layer.init(0)
    with pytest.raises(ValueError, match="must be in_features=3, got x of shape") as error:
        layer(params, torch.ones(4, 5))
    assert error.value.__notes__ == ["  in cast"]
    with pytest.raises(ValueError, match=r"cast: gy must have the dtype of y, torch\.float32, got a tensor of shape"):
        layer.grads(params, layer.apply(params, X)[1], torch.ones(6, 2, dtype=torch.bfloat16))


@pytest.mark.parametrize("verb", ["vjp", "grads"])
@pytest.mark.parametrize("bias", [None, torch.zeros(2, dtype=torch.int64)], ids=str)
def test_gradients_have_a_floating_leaf_to_mirror(verb, bias):
    """An absent or integer leaf has no gradient to round to its dtype."""
    layer = fn.cast(fn.Linear(3, 2), torch.bfloat16)
    params = layer.init(0)
    y, cache = layer.apply(params, X)
    with pytest.raises(ValueError, match="cast: a leaf with a gradient must be a floating tensor, got "):
        getattr(layer, verb)({**params, "bias": bias}, cache, y)


@pytest.mark.parametrize("argument", ["params", "x"])
def test_sparse_tensors_are_refused(argument):
    """Other kernels would compute them, or they would become dense."""
    layer = fn.cast(fn.Linear(3, 2, bias=False), torch.bfloat16)
    arguments = {"params": layer.init(0), "x": X}
    with pytest.raises(ValueError, match="params and x must be trees of dense tensors on one device, got a tensor of layout"):
        layer(**{**arguments, argument: tree.map(lambda leaf: leaf.to_sparse(), arguments[argument])})
