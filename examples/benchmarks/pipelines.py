"""Pipelines: the net that is divided into stages, and the time that stages wait."""

from abc import abstractmethod
from collections.abc import Sequence

from examples.benchmarks.workloads import Training

LAYERS, SIDE, BATCH, MICROBATCHES = 16, 512, 256, 4
SCHEDULES = ("gpipe", "1f1b", "zero_bubble")

Span = tuple[float, float]
"""The start and end of an action of a stage, in seconds of ``time.perf_counter``, which all processes share."""


class Pipeline(Training):
    """A training in stages."""

    size = LAYERS * SIDE * (SIDE + 1)

    @abstractmethod
    def traced(self) -> list[Span]:
        """Take a step; return the spans in which this worker computes, without the optimizer's update."""

    def value(self) -> None:
        """Return nothing: workers have different parts of the net."""


def idle_share(stages: Sequence[Sequence[Span]]) -> float:
    """Return the fraction of the time from the first start to the last end in which stages wait."""
    first, last = min(row[0][0] for row in stages), max(row[-1][1] for row in stages)
    return 1 - sum(end - start for row in stages for start, end in row) / (len(stages) * (last - first))
