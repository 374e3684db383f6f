"""Pipelines: the net that is cut into stages, and the share of time in which stages wait, by formula.

With p stages, m micro-batches, and times f of a forward pass, b of the gradient by the input and w of that by the params, all of
one micro-batch and stage, a step takes

    GPipe, 1F1B     (m + p - 1) (f + b + w)            a share (p - 1) / (m + p - 1) of it is a bubble
    zero-bubble     m (f + b + w) + (p - 1) (f + b - w)

References:
    Huang et al. 2019, section 2.3; Qi et al. 2023, table 2 (ZB-H1).
"""

import time
from abc import abstractmethod
from contextlib import AbstractContextManager

from examples.benchmarks.workloads import Training

LAYERS, SIDE, BATCH, MICROBATCHES = 16, 512, 256, 4
SCHEDULES = ("gpipe", "1f1b", "zero_bubble")


class Pipeline(Training):
    """A training in stages; ``busy`` are the seconds in which this worker computes."""

    busy: float
    size = LAYERS * SIDE * (SIDE + 1)

    @abstractmethod
    def timed(self) -> AbstractContextManager[None]:
        """Add up the time that this worker computes."""

    def busy_share(self, calls: int) -> float:
        """Take steps within ``timed``, and return the share of the time in which this worker computes."""
        began = time.perf_counter()
        self.run(calls)
        return self.busy / (time.perf_counter() - began)

    def value(self) -> None:
        """Return nothing: workers have different parts of the net."""


def bubble(schedule: str, stages: int, microbatches: int, f: float = 1.0, b: float = 1.0, w: float = 1.0) -> float:
    """Return the share of a step in which a stage waits."""
    idle = (stages - 1) * (f + b - w if schedule == "zero_bubble" else f + b + w)
    return idle / (microbatches * (f + b + w) + idle)
