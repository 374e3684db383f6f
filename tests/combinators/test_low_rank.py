"""LoRA: against autograd, that nothing else is trained, and the errors by their sentences."""

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
    """Of the two narrow matrices and of x; the layer's own are absent."""
    params, x, gy = drawn(LAYER), draw((5, 3), 1), draw((5, 4), 2)
    y, cache = LAYER.apply(params, x)
    a, b, x_ = (leaf.clone().requires_grad_() for leaf in (params["lora_A"], params["lora_B"], x))
    want = functional.linear(x_, params["layer"]["weight"], params["layer"]["bias"]) + 3.0 * (x_ @ a.T) @ b.T
    ga, gb, gx = torch.autograd.grad(want, (a, b, x_), gy)
    gparams = {"layer": {"weight": None, "bias": None}, "lora_A": ga, "lora_B": gb}
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(LAYER.vjp(params, cache, gy), (gparams, gx))


def test_a_linear_is_changed_without_its_changed_weight():
    """y, the gradients and both halves are those by the merged weight, for rows of more axes and without a bias."""
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


def test_training_moves_the_narrow_matrices_alone():
    """And the merged params are those of a plain layer that does the same."""
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
    """So that its value shows what it does."""
    assert fn.lora(fn.Linear(3, 4), 2) == fn.lora(fn.Linear(3, 4), 2, alpha=2)
    assert fn.lora(fn.Linear(3, 4), 2).inference() == fn.lora(fn.Linear(3, 4), 2)


MESSAGES = {
    "lora: rank must be a whole number of at least 1, got 0": lambda: fn.lora(fn.Linear(3, 4), 0),
    "lora: alpha must be a finite number, got nan": lambda: fn.lora(fn.Linear(3, 4), 1, float("nan")),
    "lora: the layer's params must have a weight of two axes at least, got an empty dict": lambda: fn.lora(fn.Tanh(), 1).init(0),
    "lora: the layer's params must have a weight of two axes at least, got a dict with the keys 'weight', 'bias'": lambda: fn.lora(fn.LayerNorm(3), 1).init(0),
    "lora: params must be a dict with the keys layer, lora_A, lora_B, got a dict with the keys 'weight', 'bias'": lambda: LAYER(fn.Linear(3, 4).init(0), torch.ones(2, 3)),
    "lora: lora_A must have the shape (2, 3), and lora_B (4, 2), got (2, 3) and (1, 2)": lambda: LAYER({**LAYER.init(0), "lora_B": torch.ones(1, 2)}, torch.ones(2, 3)),
    "the last axis of x must be in_features=3, got x of shape (2, 4)": lambda: LAYER(LAYER.init(0), torch.ones(2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MESSAGES)
def test_wrong_use_is_refused_with_its_sentence(sentence):
    """Each message says who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[sentence]()
    assert sentence in str(caught.value)


def test_batch_norms_fold_beside_an_adapted_layer():
    """Folding does not change the adapted layer or its params."""
    net = fn.serial(fn.lora(fn.Linear(3, 3), 2), fn.Linear(3, 3), fn.BatchNorm1d(3))
    params = net.init(0)
    folded, folded_params = fn.fold_batch_norm(net, params)
    assert len(folded) == 2
    x = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(folded(folded_params, x), net.inference()(params, x))
