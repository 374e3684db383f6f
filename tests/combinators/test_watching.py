"""The errors of ``checked`` and the calls of ``tap``."""

import math
import re
from typing import Any

import pytest
import torch

import funcnet as fn

NET = fn.serial(enc=fn.serial(fn.Linear(2, 2), fn.Exp()), out=fn.residual(fn.serial(fn.Tanh(), fn.Linear(2, 2))))
X = torch.ones(3, 2)


def params(**leaves: float) -> Any:
    """Return params of the net, with some leaves filled."""
    p = fn.tree.map(torch.zeros_like, NET.init(0))
    for name, value in leaves.items():
        path = name.replace("__", ".")
        p = fn.tree.replace(p, path, torch.full_like(fn.tree.at(p, path), value))
    return p


def test_a_finite_net_passes_with_its_own_bits():
    """Forward and backward agree bit for bit; infinities that occur only in a cache are accepted."""
    p = NET.init(0)
    y, cache = fn.checked(NET).apply(p, X)
    want, inner = NET.apply(p, X)
    assert torch.equal(y, want)
    assert fn.tree.equal(fn.checked(NET).vjp(p, cache, X), NET.vjp(p, inner, X))
    softmax = fn.serial(fn.Identity(), fn.Softmax())
    masked = torch.tensor([[1.0, -math.inf]])
    assert torch.equal(fn.checked(fn.Softmax())({}, masked), softmax(({}, {}), masked))


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        ({"enc__0__bias": 1000.0}, "checked: forward, the output of layer 'enc.1', Exp(), has"),
        ({"enc__0__weight": math.nan}, "checked: forward, the output of layer 'enc.0', Linear("),
        ({"out__0__1__bias": math.inf}, "checked: forward, the output of layer 'out.0.1', Linear("),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named_forward(leaves: dict[str, float], words: str):
    """The error has the path, even if later layers map an infinity to a finite number."""
    with pytest.raises(FloatingPointError, match=re.escape(words)):
        fn.checked(NET).apply(params(**leaves), X)
    squashed = fn.serial(fn.Exp(), fn.Sigmoid())
    with pytest.raises(FloatingPointError, match="layer '0', Exp"):
        fn.checked(squashed).apply(({}, {}), torch.tensor([1000.0]))


def test_the_first_layer_that_is_not_finite_is_named_backward():
    """The error has the path in all three verbs: the slope of √x at 0 is infinite."""
    net = fn.serial(fn.Tanh(), fn.elementwise(torch.sqrt, half_rsqrt), fn.Scale(2))
    p, x = net.init(0), torch.zeros(3, 2)
    layer = fn.checked(net)
    cache = layer.apply(p, x)[1]
    for verb in (layer.vjp, layer.input_grad):
        with pytest.raises(FloatingPointError, match="checked: backward, a gradient of layer '1', elementwise"):
            verb(p, cache, X)
    assert fn.tree.all_finite(layer.grads(p, cache, X))
    with pytest.raises(FloatingPointError, match="checked: backward, the gradient of the output of serial"):
        layer.grads(p, cache, X * math.nan)


def half_rsqrt(x: torch.Tensor) -> torch.Tensor:
    """Return the derivative of √x."""
    return 0.5 * x.rsqrt()


def test_the_error_passes_combinators_as_it_is():
    """A FloatingPointError in a scan has a note that says where it was."""
    net = fn.scan(fn.checked(fn.GRUCell(2, 2)), output_is_carry=True)
    with pytest.raises(FloatingPointError, match="forward, the output of GRUCell") as error:
        net.apply(net.init(0), (torch.full((4, 1, 2), math.nan), torch.zeros(1, 2)))
    assert any("scan" in note for note in error.value.__notes__)


def test_a_tap_calls_once_in_each_verb():
    """``on_apply`` gets y in ``apply`` and ``__call__``; ``on_vjp`` gets gy in ``vjp``, ``grads`` and ``input_grad``."""
    seen: list[tuple[str, Any]] = []
    layer = fn.tap(fn.Linear(2, 2), lambda y: seen.append(("y", y)), lambda gy: seen.append(("gy", gy)))
    p = layer.init(0)
    y, cache = layer.apply(p, X)
    layer(p, X)
    for verb in (layer.vjp, layer.grads, layer.input_grad):
        verb(p, cache, X)
    assert [name for name, _ in seen] == ["y", "y", "gy", "gy", "gy"]
    assert seen[0][1] is y
    assert all(gy is X for _, gy in seen[2:])
    assert torch.equal(fn.tap(fn.Tanh())({}, X), X.tanh())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fn.tap(fn.Tanh(), 3), "tap: on_apply must be a function, or None, got 3"),
        (lambda: fn.tap(torch.tanh), "layer must be a layer"),
        (lambda: fn.checked(torch.tanh), "layer must be a layer"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, words: str):
    """The message has the rule, and what it got."""
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_attention_with_norms_is_named_as_a_whole():
    """Its norm is one layer in two places, which cannot hold two different layers."""
    net = fn.checked(fn.serial(fn.Exp(), fn.MultiHeadAttention(4, 2, qk_norm=fn.LayerNorm(2))))
    params = fn.tree.map(lambda leaf: leaf * torch.inf, net.init(0))
    for run in (net.apply, net):
        with pytest.raises(FloatingPointError, match=r"forward, the output of layer '1', MultiHeadAttention"):
            run(params, torch.ones(2, 3, 4))


def test_prediction_is_watched_too():
    """A call of the net is checked and calls ``on_apply``, without making a cache."""
    seen = []
    fn.tap(fn.Tanh(), seen.append)({}, torch.ones(2))
    assert len(seen) == 1
    with pytest.raises(FloatingPointError, match=r"checked: forward, the output of layer '0', Exp\(\)"):
        fn.checked(fn.serial(fn.Exp(), fn.Identity()))(({}, {}), torch.tensor([1000.0]))


def test_a_tap_is_not_called_where_there_are_no_numbers():
    """Sizes are inferred and a summary is made, although the functions read numbers."""
    seen = []
    net = fn.serial(
        fn.Linear(None, 3), fn.tap(fn.Tanh(), lambda y: seen.append(y.mean().item()), lambda gy: seen.append(gy.mean().item()))
    )
    sized = fn.infer_sizes(net, (2, 4))
    assert fn.summary(sized, (2, 4)).total.params == 15
    assert seen == []
    y, cache = sized.apply(sized.init(0), torch.ones(2, 4))
    sized.grads(sized.init(0), cache, y)
    assert len(seen) == 2


def test_an_inspected_net_raises_the_same_error():
    """Code that inspects a net replaces its layers with substitutes, and still finds the error."""
    net = fn.checked(NET)
    for look in (net, lambda p, x: fn.intermediates(net, p, x)):
        with pytest.raises(FloatingPointError, match=r"checked: forward, the output of layer 'enc\.1', Exp\(\), has"):
            look(params(enc__0__bias=1000.0), X)


def test_tapped_layers_stay_invertible():
    """A serial of them keeps one output, and restores in the backward pass without calling again."""
    half, seen = fn.serial(fn.Linear(2, 2), fn.Tanh()), []
    plain = fn.serial(*[fn.reversible(half, half)] * 3)
    net = fn.serial(*[fn.tap(layer, seen.append, seen.append) for layer in plain])
    params, x = net.init(0), (X, X)
    (y, cache), (want, kept) = net.apply(params, x), plain.apply(params, x)
    assert fn.tree.nbytes(cache) == fn.tree.nbytes(kept)
    assert fn.tree.equal((y, net.vjp(params, cache, y)), (want, plain.vjp(params, kept, y)))
    assert len(seen) == 6
    assert fn.tree.equal(net.inverse(params, y), plain.inverse(params, y))
