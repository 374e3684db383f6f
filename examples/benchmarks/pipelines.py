"""Pipelines: the net that is cut into stages, and how long stages wait."""

from abc import abstractmethod
from collections.abc import Sequence

from examples.benchmarks.workloads import Training

LAYERS, SIDE, BATCH, MICROBATCHES = 16, 512, 256, 4
SCHEDULES = ("gpipe", "1f1b", "zero_bubble")

Span = tuple[float, float]
"""When an action of a stage began and ended, in seconds of ``time.perf_counter``, which processes share."""


class Pipeline(Training):
    """A training in stages."""

    size = LAYERS * SIDE * (SIDE + 1)

    @abstractmethod
    def traced(self) -> list[Span]:
        """Take a step; return what this worker computes in it, without the optimizer's update."""

    def value(self) -> None:
        """Return nothing: workers have different parts of the net."""


def idle_share(stages: Sequence[Sequence[Span]]) -> float:
    """Return the fraction of the time from the first start to the last end in which stages wait."""
    first, last = min(row[0][0] for row in stages), max(row[-1][1] for row in stages)
    return 1 - sum(end - start for row in stages for start, end in row) / (len(stages) * (last - first))
