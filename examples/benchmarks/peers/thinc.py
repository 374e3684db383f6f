"""The nets for which thinc has all layers: it lacks Tanh and convolutions, and its Adam adds ε to the uncorrected √v.

thinc uses numpy's arrays and blis's products, on one thread.
"""

import importlib
from functools import partial
from typing import Any

from examples.benchmarks.workloads import SIZES, Contender, Training, Workload

WIDTHS = {"mlp_adam": [wide for _, wide in SIZES], "bigmlp": [1024, 1024, 10]}


class ThincTraining(Training):
    """A model trained with thinc's backpropagation."""

    def __init__(self, workload: Workload) -> None:
        """Make the model and draw the batch."""
        from thinc.api import Adam, CategoricalCrossentropy, Relu, Softmax, chain, fix_random_seed  # pyright: ignore[reportMissingImports]

        fix_random_seed(0)
        (x, target), widths = workload.draw(), WIDTHS[workload.name]
        self.x, self.target = x.numpy(), target.numpy()
        self.model: Any = chain(*[Relu(wide) for wide in widths[:-1]], Softmax(widths[-1]))
        self.model.initialize(X=self.x)
        settings = workload.optimizer[1]
        plain: dict[str, Any] = {"grad_clip": 0.0, "use_averages": False, "L2_is_weight_decay": True}
        self.optimizer = Adam(settings["lr"], L2=settings.get("weight_decay", 0.0), **plain)
        self.loss = CategoricalCrossentropy()
        self.size = sum(node.get_param(name).size for node in self.model.walk() for name in node.param_names)

    def run(self, calls: int) -> None:
        """Run forward, backward and the optimizer; the loss itself is not computed."""
        for _ in range(calls):
            self.y, backward = self.model.begin_update(self.x)
            backward(self.loss.get_grad(self.y, self.target))
            self.model.finish_update(self.optimizer)

    def value(self) -> float | None:
        """Return the mean of -log p, where p is the probability of the label."""
        import numpy as np

        return float(-np.log(self.y[np.arange(len(self.target)), self.target]).mean())


def contenders(workload: Workload, ways: tuple[str, ...] = ("thinc",)) -> list[Contender]:
    """Return one contender, or none if layers are missing; raise ``ImportError`` if thinc is missing."""
    importlib.import_module("thinc")
    return [Contender("thinc", "thinc", partial(ThincTraining, workload))] * (workload.name in WIDTHS)


def start(contender: Contender) -> None:
    """Do nothing: thinc initializes itself when it is imported."""
