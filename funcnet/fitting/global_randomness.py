"""Global random numbers: a key determines the random numbers of a DataLoader, its dataset and a transform in an epoch."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from funcnet.random.keys import Key


@contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed the global generators of torch (on the CPU), Python and numpy with a key, and restore their states afterwards."""
    numpy = getattr(sys.modules.get("numpy"), "random", None)
    states = torch.get_rng_state(), random.getstate(), numpy and numpy.get_state()
    seed = int(key) % 2**63
    torch.default_generator.manual_seed(seed)  # only the CPU's generator; torch.manual_seed would seed GPUs too
    random.seed(seed)
    if numpy:
        numpy.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        if numpy:
            numpy.set_state(states[2])
