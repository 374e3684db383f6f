"""PReLU with mapped weights and one x for all members, as in an ensemble."""

import pytest
import torch

import funcnet as fn


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(4, 3), (3,), (), (2, 3, 4)])
def test_members_with_one_x_give_what_each_gives(shape):
    """In eager mode torch's kernel does not warn about the shape of its output."""
    net, x = fn.ensemble(fn.PReLU(), 3), fn.random.normal(1, shape)
    params = {"weight": torch.tensor([[0.1], [0.2], [0.3]])}
    y, cache = net.apply(params, x)
    gparams, _ = net.vjp(params, cache, torch.ones_like(y))
    for i in range(3):
        one = {"weight": params["weight"][i]}
        want, kept = fn.PReLU().apply(one, x)
        assert torch.equal(y[i], want)
        assert fn.tree.allclose({"weight": gparams["weight"][i]}, fn.PReLU().grads(one, kept, torch.ones_like(want)))
