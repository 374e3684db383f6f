"""The lower limit of a step's time: only its kernels, called in order, without layers, trees and checks.

During one step of funcnet every kernel is recorded with its arguments; a call of the floor repeats them in order. The rest of a
step's time is overhead of the library. Kernels are called through ``torch.ops``, which costs up to half a µs per call more than
the names that the library uses, so the limit for a step of many small kernels is slightly too high.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from examples.benchmarks.workloads import Training


class Recording(TorchDispatchMode):
    """A mode that adds every kernel with its arguments to ``calls``."""

    def __init__(self) -> None:
        """Start with no calls."""
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record the call and make it."""
        self.calls.append((kernel, args, kwargs or {}))
        return kernel(*args, **kwargs or {})


class KernelsAlone(Training):
    """The kernels of one step of another training, repeated."""

    def __init__(self, training: Any) -> None:
        """Record the step."""
        training.run(2)
        with Recording() as recording:
            training.run(1)
        self.calls, self.size = recording.calls, training.size

    def run(self, calls: int) -> None:
        """Call all kernels a number of times."""
        with torch.inference_mode():
            for _ in range(calls):
                for kernel, args, kwargs in self.calls:
                    kernel(*args, **kwargs)

    def value(self) -> None:
        """Return nothing: the arguments are always the same, so the loss does not change."""
        return
