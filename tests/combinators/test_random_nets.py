"""Nested combinators drawn at random from the catalogue: values and gradients by autograd, the laws, and the algebra."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from random_nets import INPUTS, Grower, Shape, by_autograd, moved, nets
from torch import Tensor

import funcnet as fn
from funcnet import flattening, tree
from funcnet.combinator import absent
from funcnet.combinators.ensembles import Ensemble
from funcnet.contract import Layer
from funcnet.testing import check_laws
from funcnet.value import parts

KEY, INDICES = fn.key(3), torch.tensor([4, 0, 4, 1])


def drawn(net: Layer, shape: Any, seed: int = 0) -> tuple[Any, Tensor]:
    """Return params and an input; a net whose numbers are too large to compare is skipped."""
    params = moved(net.init(seed))
    x = INDICES if shape is torch.int64 else fn.random.normal(seed + 1, shape, dtype=torch.float64)
    try:
        found = tree.leaves(fn.intermediates(net, params, x, KEY))
    except FloatingPointError:
        reject()
    assume(all(float(leaf.abs().max()) < 1e4 for leaf in found if leaf.is_floating_point()))
    return params, x


def noise(y: Tensor) -> Tensor:
    return fn.random.normal(5, tuple(y.shape), dtype=torch.float64)


def check_by_autograd(net: Layer, params: Any, x: Any) -> None:
    """Compare y and every gradient with autograd through ``apply``; a gradient may be absent only if autograd finds none."""
    y, cache = net.apply(params, x, KEY)
    want_y, want = by_autograd(net, params, x, noise(y), KEY)
    got = net.vjp(params, cache, noise(y))
    torch.testing.assert_close(y, want_y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(params, x, KEY), y, rtol=1e-12, atol=1e-12)
    scale = max([1.0, *[float(g.abs().max()) for g in want if g is not None]])
    held = {name for one in parts(net) if isinstance(one, Layer) for name in one.non_trainable}
    paths = [path for path, leaf in tree.names((params, x)).items()]
    gradients = flattening.flatten_together((params, x), got)[1]
    leaves = [g for leaf, g in zip(flattening.flatten_together((params, x))[0], gradients, strict=True) if leaf is not None]
    for path, ours, theirs in zip(paths, leaves, want, strict=True):
        if ours is None:
            assert theirs is None or not theirs.any() or not held.isdisjoint(path.split(".")), path
            continue
        msg = lambda words, path=path: f"{path}: {words}"
        theirs_or_zero = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs_or_zero, rtol=1e-7, atol=1e-9 * scale, msg=msg)


def values_and_gradients(net: Layer, params: Any, x: Any) -> tuple[Any, ...]:
    """Return the results of every verb, with one key and one gy."""
    y, cache = net.apply(params, x, KEY)
    arguments = params, cache, noise(y)
    return y, *net.vjp(*arguments), net.grads(*arguments), net.input_grad(*arguments), net.update_stats(params, cache)


@st.composite
def trials(
    draw: Any, grow: Callable[[Grower, Shape, int], Layer], shapes: tuple[Shape, ...] = INPUTS, depth: int = 3
) -> tuple[Layer, Any, Tensor]:
    """Draw a net, params and x."""
    shape = draw(st.sampled_from(shapes))
    net = grow(Grower(draw), shape, draw(st.integers(1, depth)))
    return net, *drawn(net, shape)


ANY, ENDO = trials(Grower.net), trials(Grower.endo)
TWO = st.sampled_from(INPUTS).flatmap(lambda shape: st.tuples(*[trials(Grower.endo, (shape,), 2)] * 2))
"""Two nets with equal shapes."""


def check_a_net(net: Layer, shape: Any) -> None:
    check_by_autograd(net, *drawn(net, shape))


def check_laws_of(net: Layer, shape: Any, dtypes: tuple[torch.dtype, ...]) -> None:
    mapped = any(isinstance(layer, Ensemble) and layer.surrogate for _, layer in fn.walk(net))
    assume(not mapped)  # law 1 cannot read the numbers of a surrogate within vmap
    params, x = drawn(net, shape)
    check_laws(net, x, params, batched=False, compiled=False, dtypes=dtypes)


@given(nets())
@settings(max_examples=40)
def test_a_net_has_the_values_and_gradients_that_autograd_finds(net):
    """All params and x are compared, with gradient rules as declared and frozen params fixed."""
    check_a_net(*net)


@given(nets(4))
@settings(max_examples=6)
def test_a_net_keeps_the_laws(net):
    """All except rows and compiling are tried in float64."""
    check_laws_of(*net, (torch.float64,))


@pytest.mark.long
@given(nets())
@settings(max_examples=2000)
def test_many_nets_have_the_values_and_gradients_that_autograd_finds(net):
    """More nets are tried than above."""
    check_a_net(*net)


@pytest.mark.long
@given(nets(5))
@settings(max_examples=200)
def test_many_nets_keep_the_laws(net):
    """More nets are tried than above, in float32 too."""
    check_laws_of(*net, (torch.float64, torch.float32))


@given(ENDO, st.integers(1, 4))
@settings(max_examples=12)
def test_repeat_is_copies_in_series(trial, n):
    """Every verb, and init, agrees bit for bit with a serial of n copies."""
    layer, _, x = trial
    many, plain = fn.repeat(layer, n), fn.serial(*[layer] * n)
    params, each = moved(many.init(7)), plain.init(7)
    assert all(tree.equal(copy(many.init(7), i), one) for i, one in enumerate(each))
    each = tuple(copy(params, i) for i in range(n))
    assume(bool(plain(each, x, KEY).isfinite().all()))
    y, gp, gx, grads, input_grad, stats = values_and_gradients(many, params, x)
    want_y, want_gp, want_gx, *_, want_stats = values_and_gradients(plain, each, x)
    assert torch.equal(y, want_y)
    assert torch.equal(gx, want_gx)
    assert torch.equal(input_grad, want_gx)
    for i in range(n):
        assert tree.equal(copy((gp, grads, stats), i), (want_gp[i], want_gp[i], want_stats[i]))


def copy(values: Any, i: int) -> Any:
    """Return number i of a stack in its own memory: products at odd addresses differ in their last bits."""
    return tree.map(lambda leaf: leaf[i].clone(), values)


@given(ANY)
@settings(max_examples=12)
def test_remat_is_the_layer(trial):
    """Every verb agrees bit for bit with the layer, with segments or without."""
    layer, params, x = trial
    want = values_and_gradients(layer, params, x)
    cuts = range(1, len(layer) + 1) if isinstance(layer, type(fn.serial())) else ()
    for net in (fn.remat(layer), *[fn.remat(layer, segments=k) for k in cuts]):
        assert tree.equal(values_and_gradients(net, params, x), want)


@given(ANY)
@settings(max_examples=12)
def test_freeze_changes_only_gradients_of_params(trial):
    """Gradients of params are absent; everything else agrees bit for bit."""
    layer, params, x = trial
    y, gp, gx, grads, input_grad, stats = values_and_gradients(fn.freeze(layer), params, x)
    want_y, _, want_gx, _, want_input_grad, want_stats = values_and_gradients(layer, params, x)
    assert tree.equal((y, input_grad, stats), (want_y, want_input_grad, want_stats))
    assert tree.leaves((gp, grads)) == []
    assert tree.structure((gp, grads)) == tree.structure((absent(params),) * 2)
    torch.testing.assert_close(gx, want_gx, rtol=1e-9, atol=1e-9)


@given(TWO)
@settings(max_examples=12)
def test_reversible_is_its_formula(two):
    """y1 = x1 + f(x2) and y2 = x2 + g(y1) as a graph, for a single layer and a run of three; the inverse restores x."""
    (f, p, x), (g, q, z) = two
    nodes = {
        "f": (f, "x2"),
        "g": (g, "y1"),
        "y1": (fn.Add(), "x1", "f"),
        "y2": (fn.Add(), "x2", "g"),
    }  # f and g have the keys 0 and 1
    step, formula = fn.reversible(f, g), fn.graph("x1", "x2", **nodes, output=("y1", "y2"))
    assert tree.equal(step.init(3), tuple(formula.init(3)[name] for name in "fg"))
    for n in (1, 3):
        net, plain = fn.serial(*[step] * n), fn.serial(*[formula] * n)
        params, by_name = ((p, q),) * n, ({"f": p, "g": q, "y1": {}, "y2": {}},) * n
        y, cache = net.apply(params, (x, z), KEY)
        want, caches = plain.apply(by_name, (x, z), KEY)
        assume(all(float(one.abs().max()) < 1e4 for one in want))
        assert tree.equal(y, want)
        torch.testing.assert_close(net.inverse(params, y, KEY), (x, z), rtol=1e-7, atol=1e-7)
        (gp, gx), (gwant, gxwant) = net.vjp(params, cache, want), plain.vjp(by_name, caches, want)
        gwant = tuple((one["f"], one["g"]) for one in gwant)
        scale = max([1.0, *[float(leaf.abs().max()) for leaf in tree.leaves((gwant, gxwant))]])
        torch.testing.assert_close((gp, gx), (gwant, gxwant), rtol=1e-7, atol=1e-8 * scale)


@given(ANY)
@settings(max_examples=12)
def test_cast_to_float64_is_float64_rounded_once(trial):
    """With params and x in float32: y, gradients and moved statistics are those in float64, rounded."""
    layer, params, x = trial
    params, x = tree.cast((params, x), torch.float32)
    wide, gy = tree.cast((params, x), torch.float64), noise(layer(params, x, KEY)).float()
    net = fn.cast(layer, torch.float64)
    y, cache = net.apply(params, x, KEY)
    want, caches = layer.apply(*wide, KEY)
    assert tree.equal(y, want.float())
    want_gradients = tree.cast(layer.vjp(wide[0], caches, gy.double()), torch.float32)
    assert tree.equal(net.vjp(params, cache, gy), want_gradients)
    assert tree.equal(net.update_stats(params, cache), tree.cast(layer.update_stats(wide[0], caches), torch.float32))


@given(ANY)
@settings(max_examples=20)
def test_a_step_in_the_backward_pass_is_the_plain_step(trial):
    """Both kinds of steps agree bit for bit in all combinators."""
    net, params, x = trial
    opt, target = fn.Adam(lr=1e-3), torch.zeros_like(net(params, x, KEY))
    state = opt.init(params)
    plain, step = [fn.train_step(net, fn.MSE(), opt, in_backward=one)(params, state, x, target, KEY) for one in (False, True)]
    assume(tree.all_finite(plain))
    assert tree.equal(step, plain)


@given(ANY)
@settings(max_examples=20)
def test_gradients_per_example_are_those_of_each_row(trial):
    """Their norms agree too; an empty batch gives the same structure as other batches."""
    net, params, x = trial
    y, loss = net(params, x, KEY), fn.MSE()
    assume(not net.batch_dependent and y.dim() and len(y) == len(x))
    target = torch.zeros_like(y)
    try:
        rows = [
            fn.value_and_grads(net, loss)(params, x[i : i + 1], target[i : i + 1], fn.fold_in(KEY, i))[1] for i in range(len(x))
        ]
    except ValueError:
        reject()  # the first axis is not a batch for this net
    _, grads = fn.per_example_grads(net, loss)(params, x, target, KEY)
    _, norms = fn.per_example_norms(net, loss)(params, x, target, KEY)
    scale = max([1.0, *[float(leaf.abs().max()) for leaf in tree.leaves(rows)]])
    torch.testing.assert_close(grads, tree.map(lambda *leaves: torch.stack(leaves), *rows), rtol=1e-7, atol=1e-9 * scale)
    torch.testing.assert_close(norms, torch.stack([*map(tree.norm, rows)]), rtol=1e-6, atol=1e-8 * scale)
    none = fn.per_example_grads(net, loss)(params, x[:0], target[:0], KEY)[1]
    assert tree.structure(none) == tree.structure(grads)


def test_each_member_of_an_ensemble_has_its_gradient_rule():
    """gx is the sum of the members' clipped gradients, here and in the reference of these tests."""
    check_by_autograd(fn.ensemble(fn.clip_gradient(0.5), 2), {}, fn.random.normal(1, (4, 3), dtype=torch.float64))
