"""The evaluation after each epoch of ``fit``: its metrics and data."""

from typing import Any, NamedTuple

import torch

from funcnet.contract import Layer, Params
from funcnet.errors import add_location, value_error
from funcnet.fitting.arguments import COLUMNS, NORMS
from funcnet.fitting.data import Source, source_of
from funcnet.fitting.evaluation import measured
from funcnet.losses.batch_means import LossMean
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, SeveralMetrics, columns
from funcnet.optim.base import Optimizer
from funcnet.optim.recording import Recorder

_BATCH_SIZE = 1000


class EpochEvaluation(NamedTuple):
    """The net, metrics and data of the evaluation after each epoch."""

    opt: Optimizer
    net: Layer
    source: Source
    metrics: SeveralMetrics
    mean: LossMean | None
    prefix: str

    @classmethod
    def of(
        cls, net: Layer, loss: Loss, opt: Optimizer, source: Source, validation: Any, metrics: Metrics, transform: Any
    ) -> "EpochEvaluation":
        norms = NORMS if isinstance(opt, Recorder) and validation is None else ()
        wanted = columns("fit", metrics, (*COLUMNS, *norms))
        if validation is not None:
            evaluated = source_of(validation, "fit", "validation", _BATCH_SIZE)
            return cls(opt, net.inference(), evaluated, wanted, LossMean(loss), "validation_")
        if wanted.metrics and (transform is not None or source.once):
            raise value_error("fit", "metrics need validation data if data has a transform or is an iterator", "none")
        evaluated = source_of(source.data, "fit", "data", _BATCH_SIZE) if transform is None else source
        return cls(opt, net.inference(), evaluated, wanted, None, "")

    def generators(self, source: Source) -> list[torch.Generator]:
        """Return the generators of the training data and of this data, each once."""
        found = [*source.generators(), *self.source.generators()]
        return [*{id(generator): generator for generator in found}.values()]

    @property
    def measures(self) -> bool:
        """Whether there is anything to measure."""
        return self.mean is not None or bool(self.metrics.metrics)

    def row(self, params: Params, epoch: int) -> dict[str, Any]:
        """Return the columns of an epoch."""
        try:
            return measured(self.net, params, self.source, self.metrics, self.mean, self.prefix, epoch)
        except Exception as error:
            add_location(error, f"fit, {'validation' if self.prefix else 'metrics'} after epoch {epoch + 1}")
            raise
