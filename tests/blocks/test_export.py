"""``torch.export`` of nets for any batch size: the program gives the outputs of the net."""

import pytest
import torch
from torch import nn
from torch.export import Dim

import funcnet as fn

pytestmark = pytest.mark.compiled

NETS = {
    "encoder": (fn.transformer_encoder_block(8, 2, dropout=0.1), (5, 8)),
    "encoder, norms last": (fn.transformer_encoder_block(8, 2, norm_first=False, is_causal=True), (5, 8)),
    "mlp": (fn.mlp([8, 16, 2], fn.Tanh()), (8,)),
    "resnet": (fn.resnet_block(3, 6, 2), (3, 8, 8)),
    "operands": (fn.branch(fn.Identity(), fn.Tanh(), fn.Sigmoid(), merge=fn.Mul()), (8,)),
    "map_over": (fn.map_over(fn.Linear(8, 3)), (5, 8)),
}


class Net(nn.Module):
    """A module with a net and its params for ``torch.export``."""

    def __init__(self, net: fn.Layer) -> None:
        super().__init__()
        self.net, self.params = net.inference(), net.init(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.params, x)


@pytest.mark.parametrize("name", NETS)
def test_a_net_exports_for_any_batch(name: str) -> None:
    """The net is traced with 3 rows; 2, 7 and 2000 rows agree, the last beyond the sizes at which kernels change."""
    layer, shape = NETS[name]
    net = Net(layer)
    example = fn.random.normal(1, (3, *shape))
    program = torch.export.export(net, (example,), dynamic_shapes={"x": {0: Dim("batch")}}, strict=False).module()
    for n in (2, 7, 2000):
        x = fn.random.normal(n, (n, *shape))
        torch.testing.assert_close(program(x), net(x))
