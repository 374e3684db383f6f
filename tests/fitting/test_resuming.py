"""Exact resume: a training interrupted anywhere and started again with the same call ends like an uninterrupted one."""

import itertools
import random
import warnings

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import funcnet as fn

NET = fn.serial(fn.Linear(4, 8), fn.BatchNorm1d(8), fn.ReLU(), fn.Dropout(0.3), fn.Linear(8, 3))
X, LABELS = fn.random.normal(1, (40, 4)), (fn.random.uniform(2, (40,)) * 3).long()
OPT = fn.AdamW(lr=fn.CosineSchedule(0.05, 30), weight_decay=0.1)


class Noisy(Dataset):
    """Rows with noise from the three global generators, like augmentations."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] + torch.randn(4) * 0.1 + random.random() + float(numpy.random.rand()), LABELS[i]


def epochs(epoch):
    """Return the batches of an epoch, each epoch in another order."""
    order = fn.random.permutation(fn.random.fold_in(5, epoch), 40)
    return ((X[rows], LABELS[rows]) for rows in order.split(8))


def own_generator(**options):
    """Return a loader with its own generator, which continues from epoch to epoch."""
    return DataLoader(TensorDataset(X, LABELS), 8, shuffle=True, generator=torch.Generator().manual_seed(3), **options)


def weighted():
    """Return a loader with another sampler, which has a generator."""
    sampler = WeightedRandomSampler(torch.arange(40.0), 40, generator=torch.Generator().manual_seed(4))
    return DataLoader(TensorDataset(X, LABELS), 8, sampler=sampler)


PERSISTENT = {"num_workers": 2, "persistent_workers": True}


def shuffled(**options):
    """Return validation data with a random order that leaves out the last rows."""
    return DataLoader(TensorDataset(X, LABELS), 7, shuffle=True, drop_last=True, **options)


SOURCES = {
    "rows": lambda: ((X, LABELS), {"batch_size": 8}),
    "rows, and validation that draws": lambda: ((X, LABELS), {"batch_size": 8, "validation": shuffled()}),
    "rows, and validation with a generator": lambda: (
        (X, LABELS),
        {"batch_size": 8, "validation": shuffled(generator=torch.Generator().manual_seed(7))},
    ),
    "rows with a transform that draws": lambda: (
        (X, LABELS),
        {"batch_size": 8, "transform": lambda batch, key: (batch[0] + torch.rand(4) + fn.random.normal(key, (4,)), batch[1])},
    ),
    "a loader": lambda: (DataLoader(Noisy(), 8, shuffle=True), {}),
    "two workers": lambda: (DataLoader(Noisy(), 8, shuffle=True, num_workers=2), {}),
    "workers that persist": lambda: (DataLoader(TensorDataset(X, LABELS), 8, shuffle=True, **PERSISTENT), {}),
    "workers that persist and a generator": lambda: (own_generator(**PERSISTENT), {}),
    "its own generator": lambda: (own_generator(), {}),
    "another sampler": lambda: (weighted(), {}),
    "a function of the epoch": lambda: (epochs, {}),
    "a list": lambda: ([*epochs(0)], {}),
}


class KilledError(Exception):
    """The error that ends a training in a test."""


@fn.frozen
class Killer(fn.Callback):
    """Raise after a step; draw numbers that must not matter."""

    at: int

    def on_step(self, step):
        torch.rand(3), random.random(), numpy.random.rand()
        if step.number == self.at:
            raise KilledError


SEEDS = itertools.count()


def trained(name, folder=None, *, callbacks=(), every=3, **more):
    """Return the training on a source."""
    data, options = SOURCES[name]()
    seed = next(SEEDS)  # no two trainings find the global generators in the same state
    torch.manual_seed(seed), random.seed(seed), numpy.random.seed(seed)
    kept = folder and fn.Checkpoints(folder, every=every)
    early = fn.EarlyStopping(patience=50, monitor="validation_loss")
    return fn.fit(
        NET, fn.CrossEntropy(), OPT, data, epochs=3, key=0, metrics=[fn.accuracy], norms=True, progress=False,
        callbacks=[early, *callbacks], checkpoints=kept, **{"validation": (X, LABELS), **options}, **more,
    )  # fmt: skip


def without_seconds(history):
    """Return the columns that do not measure time."""
    return {name: column for name, column in history.items() if name != "seconds"}


@pytest.mark.parametrize("name", SOURCES)
def test_an_interrupted_training_ends_as_one_that_was_not(name, tmp_path):
    """Params, state and history agree bit for bit after three interruptions, within epochs and at their ends."""
    whole = trained(name)
    for at in (1, 5, 9):
        with pytest.raises(KilledError):
            trained(name, tmp_path, callbacks=[Killer(at)])
    found = trained(name, tmp_path)
    assert fn.tree.equal(found[:2], whole[:2])
    assert without_seconds(found.history) == without_seconds(whole.history)
    with warnings.catch_warnings(action="error"):
        again = trained(name, tmp_path)  # there is nothing left to do
    assert fn.tree.equal(again[:2], whole[:2])
    assert again.history == found.history


@fn.frozen
class Stopper(fn.Callback):
    """Stop the training after a step."""

    at: int

    def on_step(self, step):
        return fn.stop if step.number == self.at else None


def test_a_training_stopped_within_an_epoch_and_killed_then_ends_that_epoch(tmp_path):
    """The checkpoint of the last step is followed by the row of its epoch, and by nothing else."""
    want = trained("rows", callbacks=[Stopper(7)])
    with pytest.raises(KilledError):
        trained("rows", tmp_path, callbacks=[Stopper(7), killing], every=1)
    assert fn.Checkpoints(tmp_path).load()["stopped"]
    for _ in range(2):
        found = trained("rows", tmp_path, callbacks=[Stopper(7)], every=1)
        assert without_seconds(found.history) == without_seconds(want.history)
        assert fn.tree.equal(found[:2], want[:2])


def killing(epoch):
    """Raise after the second epoch."""
    if epoch.number == 2:
        raise KilledError
