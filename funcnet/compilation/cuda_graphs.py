"""CUDA graphs: a compiled step on a GPU as one recording, which is replayed without launching each kernel.

Inductor runs the first call as usual, records the second, and replays the recording from the third on. A recording has its own
memory: each replay copies all inputs into it and overwrites the outputs of the previous one. Outputs are therefore copied
immediately, so that they keep their values and can be passed to the next call as params and state.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.private_names import foreach_copy_, is_key_in_tls

Kernel = Callable[..., Sequence[Any]]
Compile = Callable[[dict[str, Any]], Kernel]

GRAPHS = choice("CUDA graphs", {"replayed": NEVER, "launched": 0}, lambda processor: 1 << 26, "bytes of inputs")
"""Number of bytes of inputs from which kernels are launched one by one instead of replayed.

Copying 64 MiB in and out moves 256 MiB, which takes 0.1 ms at 3 TB/s; launching a kernel takes about 5 µs. From this size on, a
step of 20 kernels gains nothing. This is an estimate, not a measurement.
"""

REPLAYED = {"triton.cudagraphs": True}
"""Inductor's options for a recording; it is incompatible with ``cpp_wrapper``."""


def is_on_gpu(values: Sequence[Any]) -> bool:
    """Return whether any tensor among the values of a graph's nodes is on a CUDA device."""
    return any(isinstance(value, Tensor) and value.is_cuda for row in values for value in tree.leaves(row))


def kernel_on_gpu(compile_with: Compile, inputs: Sequence[Any]) -> Kernel:
    """Compile for a GPU, as a recording if that is possible and faster."""
    return Replayed(compile_with) if may_replay(inputs) else compile_with({})


def may_replay(inputs: Sequence[Any]) -> bool:
    """Return whether to replay a graph with these inputs.

    All sizes must be fixed, and all inputs on one GPU or 0-d tensors in main memory. The step must not write to its inputs, as a
    donated step does, since a recording would write to its copies.
    """
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    devices = {x.device for x in tensors if x.is_cuda}
    elsewhere = [x for x in tensors if not (x.is_cuda or (x.is_cpu and not x.dim()))]
    sizes = [n for x in tensors for n in x.shape] + [x for x in inputs if isinstance(x, torch.SymInt)]
    written = [x for x in tensors if not x.is_inference() and x._version]
    if len(devices) != 1 or elsewhere or written or not all(type(n) is int for n in sizes):
        return False
    return sum(x.numel() * x.element_size() for x in tensors) < GRAPHS.value


class Replayed:
    """A kernel that is replayed and returns copies of its outputs.

    Torch keeps recordings for the thread that imported ``torch._inductor.cudagraph_trees``. Calls from other threads launch the
    kernels, which are compiled again for them.
    """

    def __init__(self, compile_with: Compile) -> None:
        self._compile_with, self._lock = compile_with, threading.Lock()
        self._replayed = compile_with(REPLAYED)
        self._launched: Kernel | None = None

    def __call__(self, *inputs: Any) -> Sequence[Any]:
        if not is_key_in_tls("tree_manager_containers"):
            return self._others()(*inputs)
        return copied_out(self._replayed(*inputs), inputs)

    def _others(self) -> Kernel:
        """Return the kernel for other threads, which their first call compiles."""
        with self._lock:
            if self._launched is None:
                self._launched = self._compile_with({})
            return self._launched


def copied_out(outputs: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Copy the outputs that are in a recording's memory; inputs, numbers and CPU tensors are returned unchanged."""
    given = {*map(id, inputs)}
    places = [i for i, x in enumerate(outputs) if isinstance(x, Tensor) and x.is_cuda and id(x) not in given]
    copies = [torch.empty_like(outputs[i]) for i in places]
    if copies:
        foreach_copy_(copies, [outputs[i] for i in places])
    found = [*outputs]
    for i, copy in zip(places, copies, strict=True):
        found[i] = copy
    return found
