"""The training that faults hit: a conv net with batch norm and dropout, AdamW with a schedule, and many checkpoints."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import field
from torch.utils.data import DataLoader, TensorDataset

import funcnet as fn
from examples.faults.children import Report

ROWS, BATCH, EPOCHS, EVERY, KEEP = 72, 8, 4, 2, 3
STEPS = EPOCHS * ROWS // BATCH

net = fn.serial(
    fn.Conv2d(1, 4, 3, bias=False),
    fn.BatchNorm2d(4),
    fn.ReLU(),
    fn.MaxPool2d(2),
    fn.Flatten(),
    fn.Dropout(0.2),
    fn.Linear(36, 10),
)
schedule = fn.WarmupCosineSchedule(1e-2, 5, STEPS)
opt = fn.AdamW(lr=schedule)


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of noise, and labels."""
    return fn.random.normal(1, (ROWS, 1, 8, 8)), fn.random.randint(2, (ROWS,), 0, 10)


def loader(dataset: Any = None) -> DataLoader[Any]:
    """Return the data in shuffled batches, loaded by two worker processes."""
    order = torch.Generator().manual_seed(3)
    return DataLoader(dataset or TensorDataset(*tensors()), BATCH, shuffle=True, num_workers=2, generator=order)


def fresh_params() -> fn.tree.Tree:
    """Return the initial params of every training."""
    return net.init(5)


@fn.frozen
class ReportingCheckpoints(fn.Checkpoints):
    """Checkpoints that report each save as soon as it is complete."""

    report: Report = field(default=print, kw_only=True)

    def save(self, step: int, tree: Any, metadata: Any = None) -> None:
        super().save(step, tree, metadata)
        if not self.background:
            self.report(f"saved {step}")


def train(
    folder: Path,
    report: Report = print,
    data: Any = None,
    *,
    opt: fn.Optimizer = opt,
    params: Any = None,
    callbacks: Iterable[Callable[..., Any]] = (),
    epochs: int = EPOCHS,
    background: bool = False,
) -> fn.Fit:
    """Train with checkpoints in a folder, from the newest one on, and report a digest of the result."""
    checkpoints = ReportingCheckpoints(folder, KEEP, every=EVERY, background=background, report=report)
    data, params = tensors() if data is None else data, fresh_params() if params is None else params
    options = {
        "epochs": epochs,
        "key": 0,
        "params": params,
        "callbacks": callbacks,
        "checkpoints": checkpoints,
        "progress": False,
    }
    report("started")
    made = fn.fit(net, fn.CrossEntropy(), opt, data, batch_size=BATCH if isinstance(data, tuple) else None, **options)
    report(f"digest {digest(made)}")
    return made


def digest(made: fn.Fit) -> str:
    """Return a hash of the bits of params and state, and of the history without times."""
    found = hashlib.sha256()
    for leaf in (*fn.tree.leaves(made.params), *fn.tree.leaves(made.state)):
        found.update(leaf.contiguous().numpy().tobytes())
    found.update(repr({name: column for name, column in made.history.items() if name != "seconds"}).encode())
    return found.hexdigest()


def newest(folder: Path) -> int | None:
    """Return the step of the newest checkpoint, or ``None`` if there is none; a damaged checkpoint raises an error."""
    checkpoints = fn.Checkpoints(folder)
    for step in checkpoints.steps():
        checkpoints.load(step)
    return checkpoints.latest()


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files that a killed save leaves in a folder."""
    return [path.name for path in folder.glob(".*.tmp")]
