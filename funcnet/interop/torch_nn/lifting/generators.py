"""Global generators, which a module can use outside torch's random functions: in kernels, or with Python and numpy."""

import random as python_random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from funcnet.fitting.global_randomness import seeded
from funcnet.random.keys import Key


def _gpus(tensors: Iterable[Any]) -> list[int]:
    """Return the indices of the GPUs that the tensors are on."""
    return sorted({x.device.index for x in tensors if isinstance(x, Tensor) and x.is_cuda})


@contextmanager
def all_seeded(key: Key, tensors: Iterable[Any]) -> Iterator[None]:
    """Seed the global generators, and those of the tensors' GPUs, with a key, and restore their states afterwards."""
    gpus = _gpus(tensors)
    with seeded(key), torch.random.fork_rng(gpus, enabled=bool(gpus)):
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(int(key) % 2**63)
        yield


def states(tensors: Iterable[Any]) -> list[Any]:
    """Return the states of the global generators as lists, which can be compared."""
    numpy = getattr(sys.modules.get("numpy"), "random", None)
    of_torch = [torch.get_rng_state(), *[torch.cuda.get_rng_state(gpu) for gpu in _gpus(tensors)]]
    of_numpy = [] if numpy is None else [list(one) if hasattr(one, "tobytes") else one for one in numpy.get_state()]
    return [*[state.tolist() for state in of_torch], python_random.getstate(), of_numpy]
