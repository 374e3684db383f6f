"""A distributed table: ``vjp`` on DTensors, with one process in the mesh."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed

import funcnet as fn

pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.tensor([[1, 2, 1], [0, 5, 5]])
GY = fn.random.normal(1, (2, 3, 4))


@pytest.fixture(scope="module")
def mesh() -> Iterator[distributed.DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("layer", [fn.Embedding(6, 4), fn.Embedding(6, 4, padding_idx=1), fn.Embedding(6, 4, max_norm=1.0)])
@pytest.mark.parametrize("table", ["Shard(0)", "Shard(1)", "Replicate()"])
@pytest.mark.parametrize("batch", ["Shard(0)", "Replicate()"])
def test_a_distributed_table_has_the_gradient_of_a_whole_one(mesh, layer, table, batch) -> None:
    """Table and batch may have any layout; if the batch is in shards, each process has its part of the sum."""
    from torch.distributed import tensor as dtensors

    def spread(x: torch.Tensor, how: str) -> torch.Tensor:
        return dtensors.distribute_tensor(x, mesh, [eval(how, vars(dtensors))])

    params = layer.init(0)
    y, cache = layer.apply(params, IDS)
    want = layer.vjp(params, cache, GY)[0]["weight"]
    held = {"weight": spread(params["weight"], table)}
    got, kept = layer.apply(held, spread(IDS, batch))
    gw = layer.vjp(held, kept, spread(GY, batch))[0]["weight"]
    assert torch.equal(got.full_tensor(), y)
    torch.testing.assert_close(gw.full_tensor(), want)
    if batch == "Shard(0)":
        assert gw.placements == (dtensors.Partial("sum"),)
