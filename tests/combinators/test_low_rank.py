"""LoRA: compared with autograd, nothing else is trained, and the error messages."""

import pytest
import torch
from torch.nn import functional
from twins import draw

import funcnet as fn
from funcnet import tree

LAYER = fn.lora(fn.Linear(3, 4), 2, alpha=6.0)


def drawn(layer):
    return tree.map(lambda leaf: draw(leaf.shape, leaf.numel()), layer.init(0))


def test_lora_has_the_gradients_of_autograd():
    """The two narrow matrices and x have gradients; the layer's params have none."""
    params, x, gy = drawn(LAYER), draw((5, 3), 1), draw((5, 4), 2)
    y, cache = LAYER.apply(params, x)
    a, b, x_ = (leaf.clone().requires_grad_() for leaf in (params["lora_A"], params["lora_B"], x))
    want = functional.linear(x_, params["layer"]["weight"], params["layer"]["bias"]) + 3.0 * (x_ @ a.T) @ b.T
    ga, gb, gx = torch.autograd.grad(want, (a, b, x_), gy)
    gparams = {"layer": {"weight": None, "bias": None}, "lora_A": ga, "lora_B": gb}
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(LAYER.vjp(params, cache, gy), (gparams, gx))


def test_a_linear_is_changed_without_its_changed_weight():
    """y, the gradients and both halves are those for the merged weight, with several axes of rows and without a bias."""
    layer = fn.lora(fn.Linear(3, 4, bias=False), 2, alpha=6.0)
    params, x, gy = drawn(layer), draw((2, 5, 3), 1), draw((2, 5, 4), 2)
    (y, cache), merged = layer.apply(params, x), layer.merged(params)
    want, kept = layer.layer.apply(merged, x)
    gmerged, gx = layer.layer.vjp(merged, kept, gy)
    ga, gb = 3.0 * params["lora_B"].mT @ gmerged["weight"], 3.0 * gmerged["weight"] @ params["lora_A"].mT
    gparams = {"layer": {"weight": None}, "lora_A": ga, "lora_B": gb}
    torch.testing.assert_close(y, want)
    torch.testing.assert_close((layer.grads(params, cache, gy), layer.input_grad(params, cache, gy)), (gparams, gx))


def test_at_first_lora_changes_nothing():
    """``lora_B`` is zeros, and ``lora_A`` is drawn within torch's bounds."""
    params, x = LAYER.init(0), draw((5, 3)).float()
    assert torch.equal(LAYER(params, x), LAYER.layer(params["layer"], x))
    assert 0 < float(params["lora_A"].abs().max()) <= 1 / 3**0.5
    assert tree.equal(params["layer"], LAYER.layer.init(fn.fold_in(0, 0)))


def test_training_moves_only_the_narrow_matrices():
    """The merged params fit a plain layer, which gives the same."""
    params, x, target = LAYER.init(0), draw((5, 3)).float(), draw((5, 4), 1).float()
    opt = fn.Adam(lr=0.1)
    held, state, losses = params["layer"], opt.init(params), []
    for _ in range(20):
        value, grads, _ = fn.value_and_grads(LAYER, fn.MSE())(params, x, target)
        params, state = opt.update(grads, state, params)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]
    assert tree.equal(params["layer"], held)
    torch.testing.assert_close(LAYER.layer(LAYER.merged(params), x), LAYER(params, x))


def test_lora_without_alpha_has_the_scale_1():
    """The default alpha is the rank."""
    assert fn.lora(fn.Linear(3, 4), 2) == fn.lora(fn.Linear(3, 4), 2, alpha=2)
    assert fn.lora(fn.Linear(3, 4), 2).inference() == fn.lora(fn.Linear(3, 4), 2)


MESSAGES = {
    "lora: rank must be a whole number of at least 1, got 0": lambda: fn.lora(fn.Linear(3, 4), 0),
    "lora: alpha must be a finite number, got nan": lambda: fn.lora(fn.Linear(3, 4), 1, float("nan")),
    "lora: the layer's params must have a weight with at least two axes, got an empty dict": lambda: fn.lora(fn.Tanh(), 1).init(0),
    "lora: the layer's params must have a weight with at least two axes, got a dict with the keys 'weight', 'bias'": lambda: fn.lora(fn.LayerNorm(3), 1).init(0),
    "lora: params must be a dict with the keys layer, lora_A, lora_B, got a dict with the keys 'weight', 'bias'": lambda: LAYER(fn.Linear(3, 4).init(0), torch.ones(2, 3)),
    "lora: lora_A must have the shape (2, 3), and lora_B (4, 2), got (2, 3) and (1, 2)": lambda: LAYER({**LAYER.init(0), "lora_B": torch.ones(1, 2)}, torch.ones(2, 3)),
    "the last axis of x must be in_features=3, got x of shape (2, 4)": lambda: LAYER(LAYER.init(0), torch.ones(2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_batch_norms_fold_beside_an_adapted_layer():
    """Folding does not change the adapted layer or its params."""
    net = fn.serial(fn.lora(fn.Linear(3, 3), 2), fn.Linear(3, 3), fn.BatchNorm1d(3))
    params = net.init(0)
    folded, folded_params = fn.fold_batch_norm(net, params)
    assert len(folded) == 2
    x = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(folded(folded_params, x), net.inference()(params, x))


NETS = {
    "a layer": fn.Linear(3, 4),
    "a serial": fn.serial(fn.Linear(3, 4, bias=False), fn.Tanh(), fn.Linear(4, 2)),
    "by name": fn.serial(a=fn.Linear(3, 4), b=fn.freeze(fn.serial(fn.Linear(4, 4), fn.Tanh()))),
    "branches": fn.residual(fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3)), fn.Linear(3, 3)),
    "a graph": fn.graph("x", h=(fn.Linear(3, 4), "x"), y=(fn.Mul(), "h", "h")),
    "copies": fn.serial(fn.repeat(fn.serial(fn.Linear(3, 3), fn.Tanh()), 3), fn.ensemble(fn.Linear(3, 2), 2)),
}


def moved(params):
    return tree.map(lambda leaf: leaf + draw(leaf.shape, leaf.numel()) / 4 if leaf.is_floating_point() else leaf, params)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_adapters_come_and_go(net):
    """Adding changes no output; merging gives the old net with the predictions of the adapted one."""
    params, x = tree.cast(net.init(0), torch.float64), draw((5, 3))
    adapted, params_adapted = fn.add_lora(net, params, 2, rng=1)
    assert tree.structure(params_adapted) == tree.structure(adapted.init(0))
    assert {leaf.dtype for leaf in tree.leaves(params_adapted)} - {torch.int64} == {torch.float64}
    torch.testing.assert_close(adapted.inference()(params_adapted, x), net.inference()(params, x), rtol=0, atol=0)
    trained = moved(params_adapted)
    merged, params_merged = fn.merge_lora(adapted, trained)
    assert merged == net
    assert tree.structure(params_merged) == tree.structure(params)
    y = adapted.inference()(trained, x)
    torch.testing.assert_close(merged.inference()(params_merged, x), y, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(net.inference()(params, x), y)


def test_where_says_which_layers_are_adapted():
    """``where`` selects by path and layer, convolutions too; existing adapters keep their trained values."""
    net = fn.serial(fn.Conv1d(2, 3, 2), fn.Flatten(), fn.lora(fn.Linear(9, 4), 1), fn.Linear(4, 2))
    params = moved(net.init(0))
    adapted, params_adapted = fn.add_lora(net, params, 2, 1, alpha=6.0, where=lambda _, layer: isinstance(layer, fn.Conv1d))
    assert adapted == fn.serial(fn.lora(net[0], 2, 6.0), *net[1:])
    assert tree.equal(params_adapted[1:], params[1:])
    assert params_adapted[0]["lora_A"].shape == (2, 4)
    by_path, _ = fn.add_lora(net, params, 1, 1, where=lambda path, _: path == "3")
    assert by_path == fn.serial(*net[:3], fn.lora(net[3], 1))
    x = draw((5, 2, 4))
    assert fn.merge_lora(adapted, params_adapted)[0] == fn.serial(net[0], net[1], fn.Linear(9, 4), net[3])
    torch.testing.assert_close(adapted(params_adapted, x), net(params, x))


def test_only_adapters_train_beside_a_frozen_rest():
    """``add_lora`` draws each adapter with its own key, and only the adapters get gradients."""
    net = fn.serial(fn.freeze(fn.Linear(3, 3)), fn.Linear(3, 3), fn.Linear(3, 3))
    adapted, params = fn.add_lora(net, net.init(0), 2, 1, where=lambda path, _: path in ("1", "2"))
    assert not torch.equal(params[1]["lora_A"], params[2]["lora_A"])
    y, cache = adapted.apply(params, draw((5, 3)).float())
    grads = adapted.grads(params, cache, torch.ones_like(y))
    assert [name for name, g in tree.names(grads).items() if g is not None] == ["1.lora_A", "1.lora_B", "2.lora_A", "2.lora_B"]


def test_adapters_that_do_not_fit_are_refused():
    """A layer without a weight, params without one, and a value that is no net are refused."""
    with pytest.raises(ValueError, match="the layer's params must have a weight with at least two axes"):
        fn.add_lora(fn.Tanh(), {}, 1, 0, where=lambda *_: True)
    with pytest.raises(LookupError, match=r"nothing at '0\.weight'"):
        fn.add_lora(fn.serial(fn.Linear(3, 4)), ({},), 1, 0)
    for call in (lambda: fn.add_lora(torch.tanh, {}, 1, 0), lambda: fn.merge_lora(torch.tanh, {})):
        with pytest.raises(ValueError, match="a layer is required"):
            call()
    with pytest.raises(ValueError, match="lora: params must be a dict with the keys layer, lora_A, lora_B"):
        fn.merge_lora(LAYER, fn.Linear(3, 4).init(0))
