"""The steps of an epoch: batches fetched, moved and transformed, steps made, losses watched, positions saved."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.errors import add_location, value_error
from funcnet.fitting.callbacks import Callbacks, Step
from funcnet.fitting.data import Rows, Source, as_pair, as_tensors, device_of, moved
from funcnet.fitting.divergence import add_layer, cause, diverged, skips_steps
from funcnet.fitting.global_randomness import seeded
from funcnet.fitting.position import Position, as_tree
from funcnet.flattening import Tree
from funcnet.losses.batch_means import LossMean
from funcnet.optim.base import Optimizer
from funcnet.optim.recording import Recorder
from funcnet.random.keys import Key
from funcnet.saving.checkpoints import Checkpoints
from funcnet.train import TrainStep

Transform = Callable[[Any, Key], tuple[Any, Any]]
_MOST_REPEATED = 1000
"""Steps repeated at most to find where a NaN came from; after more the report says what is not finite at the end."""


class Training(NamedTuple):
    """What stays the same from step to step.

    Args:
        step: The step; it may write to its params and state.
        pure: The same step, which writes to nothing.
        mean: The means of the loss over batches.
        source: The batches.
        transform: What makes (x, target) of a batch and a key, or ``None``.
        order: The key of the orders of rows.
        noise: The key of random layers and transforms.
        callbacks: The callbacks.
        kept: Where positions are saved, or ``None``.
        call: The call of ``fit`` in numbers and words.
        weigh: Makes, once, what weighs batches of rows for each part of the loss, where the targets of all rows are known:
            nothing is weighed at a step then. ``None`` elsewhere.
    """

    step: TrainStep
    pure: TrainStep
    mean: LossMean
    source: Source
    transform: Transform | None
    order: Key
    noise: Key
    callbacks: Callbacks
    kept: Checkpoints | None
    call: dict[str, Any]
    weigh: Callable[[], Callable[[Any], list[list[float]]]] | None

    def epoch(self, at: Position, tick: Callable[[], None]) -> Position:
        """Take the steps left in an epoch, and return the position after them, in tensors that nothing writes to.

        In inference mode, which saves a tenth of a small step, unless a callback looks at steps.
        """
        _restore(self.source, at.generators)
        run = _Run(self, at)
        with self._mode(), self.randomness(at.epoch, "data"), run.located():
            for x, target in () if run.stopped else self._batches(at.epoch, at.step):
                run.take(x, target)
                tick()
                if run.stopped:
                    break
            run.require_finite()
        end = run.position()
        return end._replace(params=tree.map(_as_normal, end.params), state=tree.map(_as_normal, end.state))

    def weights(self, at: Position) -> Any:
        """Return what each batch of an epoch counts for, a list for each part of the loss."""
        if self.weigh:
            rows: Any = self.source
            return self.weigh()(rows.cut(random.fold_in(self.order, at.epoch))[: len(at.losses)])
        return [*zip(*at.weights, strict=True)]

    def save(self, at: Position) -> None:
        """Save a position as a checkpoint; within an epoch a copy, which no step writes to while a thread saves it."""
        if self.kept is None:
            return
        if at.step and self.kept.background:
            at = at._replace(params=tree.map(torch.clone, at.params), state=tree.map(torch.clone, at.state))
        self.kept.save(at.steps, as_tree(at, self.call), {"epoch": at.epoch, "step": at.step, "stopped": at.stopped, **self.call})

    @property
    def weighs_rows(self) -> bool:
        """Whether the targets of all rows are known."""
        return self.weigh is not None

    def _mode(self) -> Any:
        return torch.no_grad() if self.callbacks.of_steps else torch.inference_mode()

    def randomness(self, epoch: int, word: str) -> Any:
        """Seed the global generators where code of the user may draw from them."""
        return nullcontext() if self.weighs_rows else seeded(random.fold_in(random.fold_in(self.order, epoch), word))

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Any, Any]]:
        """Yield (x, target) from step ``start`` on.

        The batches before are made again where they may draw random numbers, which those after go on from.
        """
        first = start if self.weighs_rows else 0
        keys = None if self.transform is None else random.fold_in(random.fold_in(self.noise, epoch), "transform")
        order = random.fold_in(self.order, epoch) if isinstance(self.source, Rows) else None
        name = "a batch" if self.transform is None else "what transform returns"
        for i, batch in enumerate(self.source.batches(epoch, order, first), first):
            made = batch if keys is None else self._transformed(batch, random.fold_in(keys, i))
            if i >= start:
                yield made if self.weighs_rows else as_pair(made, "fit", name)

    def _transformed(self, batch: Any, key: Key) -> Any:
        assert self.transform is not None
        with torch.inference_mode(False):
            return self.transform(as_tensors(tuple(batch) if isinstance(batch, list) else batch), key)

    def with_keys(self, at: Position, count: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield (x, target, key) of ``count`` steps from a position on, once more."""
        _restore(self.source, at.generators)
        noise = random.fold_in(self.noise, at.epoch)
        device = device_of(at.params)
        with self.randomness(at.epoch, "data"):
            for i, (x, target) in enumerate(islice(self._batches(at.epoch, at.step), count), at.step):
                yield moved(x, device), moved(target, device), random.fold_in(noise, i)


class _Run:
    """The steps of an epoch while they are made: the only thing in ``fit`` that changes."""

    __slots__ = ("at", "began", "device", "losses", "noise", "params", "state", "stopped", "strict", "training", "weights")

    def __init__(self, training: Training, at: Position) -> None:
        self.training, self.at, self.stopped = training, at, at.stopped
        self.params, self.state = tree.map(torch.clone, (at.params, at.state))
        self.losses, self.weights = list(at.losses), list(at.weights)
        self.noise = random.fold_in(training.noise, at.epoch)
        self.device: torch.device | None = None
        self.strict = not skips_steps(training.step.opt)
        self.began = time.perf_counter()

    def take(self, x: Any, target: Any) -> None:
        """Make a step with a batch."""
        one, i = self.training, len(self.losses)
        if self.device is None:
            self._settle(x)
        if self.device is not None and self.device.type != "cpu":
            x, target = moved(x, self.device), moved(target, self.device)
        rng = random.fold_in(self.noise, i) if one.step.net.stochastic else None
        self.params, self.state, value = one.step(self.params, self.state, x, target, rng)
        if value.device.type == "cpu" and not math.isfinite(value.item() if not value.dim() else value.sum().item()):
            self._judge(value)
        self.losses.append(value)
        if not one.weighs_rows:
            self.weights.append(one.mean.weigh(x, target))
        if one.callbacks.of_steps:
            self._tell(value)
        if one.kept and one.kept.every and len(self.losses) % one.kept.every == 0:
            self.require_finite()
            one.save(self.position())

    def position(self) -> Position:
        """Return the position after the steps made."""
        made = len(self.losses) - self.at.step
        return self.at._replace(
            step=len(self.losses),
            steps=self.at.steps + made,
            params=self.params,
            state=self.state,
            losses=tuple(self.losses),
            weights=tuple(self.weights),
            seconds=self.at.seconds + time.perf_counter() - self.began,
            stopped=self.stopped,
        )

    def require_finite(self) -> None:
        """Raise ``FloatingPointError`` for params that are not finite; for losses too, which only a CPU watches at each step."""
        watched = not self.losses or self.losses[-1].device.type == "cpu"
        if not tree.all_finite(self.params):
            raise self._diverged("params that are not", len(self.losses))
        if not watched and self.strict:
            finite = torch.stack(self.losses).reshape(len(self.losses), -1).isfinite().all(1)
            if not finite.all():
                raise self._diverged("a loss that is not", 1 + int((~finite).nonzero()[0]))

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add the place in the training to an error."""
        try:
            yield
        except BaseException as error:
            hint = self.training.source.hint(len(self.losses)) if isinstance(error, Exception) else ""
            add_location(error, f"fit, epoch {self.at.epoch + 1}, step {len(self.losses) + 1}{hint}")
            raise

    def _settle(self, x: Any) -> None:
        """Take the device of the params for all batches; refuse batches on a GPU for params on the CPU."""
        self.device, of_data = device_of(self.params), device_of(x)
        if self.device.type == "cpu" != of_data.type:
            rule = f"params must be on the device of the batches, {of_data}; give params=tree.to(net.init(key), {str(of_data)!r})"
            raise value_error("fit", rule, "params on the CPU")

    def _judge(self, value: Tensor) -> None:
        """Raise ``FloatingPointError`` for a loss that is not finite, unless the optimizer has skipped the step."""
        if self.strict or not tree.all_finite(self.params):
            raise self._diverged(f"a loss of {value.tolist()}", len(self.losses) + 1)

    def _diverged(self, what: str, step: int) -> FloatingPointError:
        made = step - self.at.step
        repeatable = made <= _MOST_REPEATED and not self.training.source.once
        batches = self.training.with_keys(self.at, made) if repeatable else ()
        bad, after, layer = cause(self.training.pure, (self.at.params, self.at.state), batches, self.params)
        when = f"step {step} of epoch {self.at.epoch + 1}"
        error = diverged(what, when, bad if after is None else f"{bad}, at step {self.at.step + after + 1}")
        add_layer(error, layer)
        return error

    def _tell(self, value: Tensor) -> None:
        at = self.at
        step = Step(
            at.steps + len(self.losses) - at.step, at.epoch + 1, self.params, own_state(self.training.step.opt, self.state), value
        )
        self.stopped = self.training.callbacks.on_step(step)


def own_state(opt: Optimizer, state: Tree) -> Tree:
    """Return the state of the optimizer that the caller gave, without what is recorded beside it."""
    return state["optimizer"] if isinstance(opt, Recorder) else state


def states_of(source: Source) -> tuple[Tensor, ...]:
    """Return the states of a DataLoader's generators."""
    return tuple([generator.get_state() for generator in source.generators()])


def _restore(source: Source, states: tuple[Tensor, ...]) -> None:
    """Set the generators of a DataLoader to where they were at the start of an epoch."""
    for generator, state in zip(source.generators(), states, strict=True):
        generator.set_state(state)


def _as_normal(leaf: Tensor) -> Tensor:
    """Return a tensor that autograd takes: a copy of one made in inference mode."""
    return leaf.clone() if leaf.is_inference() else leaf
