"""Calls of distributed training, each in its own process group of one worker."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from calling import Call
from calls_of_training import TREE, in_a_folder
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard

import funcnet as fn
from funcnet import distributed

X, T = torch.ones(4, 2), torch.zeros(4, 3)
NET, OPT, LOSS = fn.serial(fn.Linear(2, 3), fn.Tanh()), fn.SGD(0.1, momentum=0.9), fn.MSE()
NORMED = fn.serial(fn.Linear(2, 3), fn.BatchNorm1d(3))
PARAMS, STEP = NET.init(0), fn.train_step(NET, LOSS, OPT)
MESH = slice("the mesh of the group")
"""Placeholder for a mesh, which exists only as long as its group."""


def in_a_group(f: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function in a process group of one worker."""

    def called(**arguments: Any) -> Any:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            mesh = init_device_mesh("cpu", (1,))
            return f(**{name: mesh if value is MESH else value for name, value in arguments.items()})
        finally:
            dist.destroy_process_group()

    return called


def kept(step: Any, tree: Any, metadata: Any, keep: Any) -> Any:
    """Save a checkpoint, and load it."""
    checkpoints = distributed.Checkpoints("runs", keep)
    checkpoints.save(step, tree, metadata)
    return checkpoints.load(step)


def saved_and_loaded(path: Any, like: Any) -> Any:
    """Save a tree, and load it."""
    distributed.save("tree", TREE)
    return distributed.load(path, like)


def described(path: Any) -> Any:
    """Save a tree, and load the metadata."""
    distributed.save("tree", TREE, {"epoch": 1})
    return distributed.load_metadata(path)


def divided(params: Any, mesh: Any, placements: Any) -> Any:
    """Split params, and return the whole."""
    return distributed.unshard(distributed.shard(params, mesh, placements))


def stepped(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that creates a distributed step within its group and calls it."""
    return in_a_group(lambda **arguments: make()(**arguments))  # noqa: PLW0108


TRAINING = {"params": PARAMS, "state": OPT.init(PARAMS), "x": X, "target": T, "rng": None}
STEPS = ("train_step", "serial", "pipeline", "MSE", "SGD", "tree")
COUNTS = {"schedule": "1f1b", "stages": 2, "microbatches": 4}

CALLS = [
    Call("data_parallel", in_a_group(distributed.data_parallel), {"step": STEP, "group": None}),
    Call("DataParallel", stepped(lambda: distributed.data_parallel(STEP)), TRAINING, STEPS),
    Call("shard_optimizer", in_a_group(distributed.shard_optimizer), {"opt": OPT, "group": None}),
    Call("ShardedOptimizer", in_a_group(distributed.ShardedOptimizer), {"optimizer": OPT, "donated": False}, ("shard_optimizer",)),
    Call("shard_rows", in_a_group(distributed.shard_rows), {"batch": (X, T), "group": None}),
    Call("shard", in_a_group(divided), {"params": PARAMS, "mesh": MESH, "placements": {"*": Shard(0)}}),
    Call("unshard", in_a_group(distributed.unshard), {"params": PARAMS}, ("tree",)),
    Call("all_reduce", in_a_group(distributed.all_reduce), {"values": PARAMS, "group": None}),
    Call("sync_batch_norm", in_a_group(distributed.sync_batch_norm), {"net": NORMED, "group": None}),
    *[
        Call(kind.__name__, kind, {"num_features": 3, "eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True, "group": None})
        for kind in (distributed.SyncBatchNorm1d, distributed.SyncBatchNorm2d, distributed.SyncBatchNorm3d)
    ],
    Call("tensor_parallel_plan", in_a_group(distributed.tensor_parallel_plan), {"net": NET, "mesh": MESH}),
    Call("tensor_parallel", in_a_group(distributed.tensor_parallel), {"step": STEP, "mesh": MESH}),
    Call("TensorParallel", in_a_group(distributed.TensorParallel), {"step": STEP, "mesh": MESH}, ("tensor_parallel",)),
    Call("pipeline", distributed.pipeline, {"step": STEP, "cuts": (1,), "schedule": "1f1b", "microbatches": 2, "group": None}),
    Call("Pipeline", stepped(lambda: distributed.pipeline(STEP, (), microbatches=2)), TRAINING, STEPS),
    Call("bubble", distributed.bubble, {**COUNTS, "forward": 1.0, "input_half": 1.0, "params_half": 1.0}),
    Call("timeline", distributed.timeline, COUNTS),
    Call("save", in_a_folder(distributed.save), {"path": "tree", "tree": TREE, "metadata": {"epoch": 1}, "group": None}),
    Call("load", in_a_folder(saved_and_loaded), {"path": "tree", "like": TREE}),
    Call("load_metadata", in_a_folder(described), {"path": "tree"}),
    Call("Checkpoints", in_a_folder(kept), {"step": 3, "tree": TREE, "metadata": None, "keep": 2}, ("save",)),
]  # fmt: skip
