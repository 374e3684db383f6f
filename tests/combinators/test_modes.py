"""``by_mode``: another layer for inference, which rewrites reach too."""

import torch

import funcnet as fn

TRAINING = fn.graph("x", body=(fn.Linear(3, 3), "x"), aux=(fn.Linear(3, 2), "body"), output=("body", "aux"))
EVALUATION = fn.graph("x", body=(fn.Linear(3, 3), "x"), aux=(fn.Linear(3, 2),), output="body")
NET = fn.by_mode(TRAINING, EVALUATION)


def test_inference_takes_the_other_layer_with_the_same_params():
    """A net with an auxiliary output loses it in inference; the params stay."""
    params, x = NET.init(0), fn.random.normal(fn.key(1), (4, 3))
    y, aux = NET(params, x)
    assert aux.shape == (4, 2)
    torch.testing.assert_close(NET.inference()(params, x), y)
    assert NET.inference() == EVALUATION


def test_rewrites_reach_both_layers():
    """``map_layers`` and ``replace`` change what both have at one path, and leave what only one has."""
    wide = fn.replace(NET, "body", fn.serial(fn.Linear(3, 3), fn.Tanh()))
    assert wide.inference()["body"] == fn.serial(fn.Linear(3, 3), fn.Tanh())
    lean = fn.map_layers(lambda layer: layer.replace(bias=False) if isinstance(layer, fn.Linear) else layer, NET)
    assert [lean["aux"].bias, lean.inference()["body"].bias, lean.inference()["aux"].bias] == [False, False, False]
    assert fn.map_layers(lambda layer: layer, NET) is NET


def test_it_is_a_value():
    """Its repr is the call that makes it."""
    assert eval(repr(NET), vars(fn)) == NET
    assert [path for path, _ in fn.walk(NET)] == ["", "", "body", "aux"]
