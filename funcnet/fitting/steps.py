"""The steps of an epoch: fetch, transform and move each batch, make a step, check the loss, save the position."""

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
from funcnet.fitting.divergence import add_layer, cause, diverged, skips_steps, stays_finite
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
"""Most steps that are repeated to find the origin of a NaN; after more steps the error only names the bad leaf at the end."""


class Training(NamedTuple):
    """The constants of a training run.

    Args:
        step: The step, which can write to its params and state.
        pure: The same step without donation, which writes to nothing.
        mean: The means of the loss over batches.
        source: The batches.
        transform: The function (batch, key) → (x, target), or ``None``.
        order: The key for the orders of rows.
        noise: The key for random layers and transforms.
        callbacks: The callbacks.
        kept: The checkpoints for positions, or ``None``.
        call: The arguments of ``fit`` as numbers and strings.
        generators: The generators of the data and the validation data.
        weigh: Returns the cached function that computes the weights of batches for each part of the loss, if the targets of all
            rows are known; then steps need not compute weights. ``None`` otherwise.
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
    generators: list[torch.Generator]
    weigh: Callable[[], Callable[[Any], list[list[float]]]] | None

    def weights(self, at: Position) -> Any:
        """Return the weights of the batches of an epoch, a list for each part of the loss."""
        if self.weigh:
            rows: Any = self.source
            return self.weigh()(rows.cut(random.fold_in(self.order, at.epoch))[: len(at.losses)])
        return [*zip(*at.weights, strict=True)]

    def save(self, at: Position) -> None:
        """Save a position; a background save within an epoch gets a copy, because the next steps write to the params."""
        if self.kept is None:
            return
        if at.step and self.kept.background:
            self.kept.wait()  # so that the previous copy is released
            at = at._replace(params=tree.map(torch.clone, at.params), state=tree.map(torch.clone, at.state))
        self.kept.save(at.steps, as_tree(at, self.call), {"epoch": at.epoch, "step": at.step, "stopped": at.stopped, **self.call})

    @property
    def weighs_rows(self) -> bool:
        """Whether the weights of all rows are known, so that steps need not compute them."""
        return isinstance(self.source, Rows) and self.transform is None

    @property
    def strict(self) -> bool:
        """Whether a non-finite loss ends training, because the optimizer skips no steps."""
        return not skips_steps(self.step.opt)

    def mode(self) -> Any:
        return torch.no_grad() if self.callbacks.of_steps else torch.inference_mode()

    def randomness(self, epoch: int, word: str, is_fixed: bool) -> Any:
        """Seed the global generators, unless the key already determines all batches."""
        return nullcontext() if is_fixed else seeded(random.fold_in(random.fold_in(self.order, epoch), word))

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Any, Any]]:
        """Yield (x, target) from step ``start`` on.

        Earlier batches are fetched again if that can consume random numbers, because later batches continue the sequence.
        """
        made = first = start if self.weighs_rows else 0
        keys = None if self.transform is None else random.fold_in(random.fold_in(self.noise, epoch), "transform")
        order = random.fold_in(self.order, epoch) if isinstance(self.source, Rows) else None
        name = "a batch" if self.transform is None else "the result of transform"
        for i, batch in enumerate(self.source.batches(epoch, order, first), first):
            pair = batch if keys is None else self._apply_transform(batch, random.fold_in(keys, i))
            if i >= start:
                yield pair if self.weighs_rows else as_pair(pair, "fit", name)
            made = i + 1
        if made < start:
            raise value_error("fit", f"data must repeat the {start} batches of this epoch that were done before", made)

    def _apply_transform(self, batch: Any, key: Key) -> Any:
        assert self.transform is not None
        batch = as_tensors(tuple(batch) if isinstance(batch, list) else batch)
        try:
            with torch.inference_mode(False):
                return self.transform(batch, key)
        except Exception as error:
            add_location(error, "transform(batch, key)")
            raise

    def with_keys(self, at: Position, count: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield (x, target, key) for ``count`` steps from a position on."""
        _restore(self.generators, at.generators)
        noise = random.fold_in(self.noise, at.epoch)
        device = device_of(at.params)
        with self.randomness(at.epoch, "data", self.weighs_rows):
            for i, (x, target) in enumerate(islice(self.batches(at.epoch, at.step), count), at.step):
                yield moved(x, device), moved(target, device), random.fold_in(noise, i)


class Run:
    """A training run in progress: the only mutable object in ``fit``.

    The steps of all epochs write to the same tensors, so a donated optimizer checks them only once. ``at``, the position after
    each epoch, contains copies; the copies of the previous epoch are released first.
    """

    __slots__ = (
        *("at", "began", "device", "given", "losses", "noise", "params"),
        *("state", "stochastic", "stopped", "training", "weights"),
    )

    def __init__(self, training: Training, at: Position) -> None:
        self.training, self.at, self.given = training, at, (None, None)
        self.stochastic = training.step.net.stochastic

    def epoch(self, tick: Callable[[], None]) -> None:
        """Make the remaining steps of an epoch, and set ``at`` to the position after them, with tensors that no step writes to.

        Inference mode saves a tenth of the time of a small step; it is off if a callback sees steps.
        """
        one = self.training
        self._begin()
        with one.mode(), one.randomness(self.at.epoch, "data", one.weighs_rows), self.located():
            for x, target in () if self.stopped else one.batches(self.at.epoch, self.at.step):
                self.take(x, target)
                tick()
                if self.stopped:
                    break
            self.require_finite()
        self.at, self.given = self.position(), (None, None)
        self.given = tree.map(torch.clone, (self.params, self.state))
        self.at = self.at._replace(params=self.given[0], state=self.given[1])

    def _begin(self) -> None:
        at = self.at
        _restore(self.training.generators, at.generators)
        if at.params is not self.given[0] or at.state is not self.given[1]:
            self.params, self.state = tree.map(torch.clone, (at.params, at.state))
        self.stopped = at.stopped
        self.losses, self.weights = list(at.losses), list(at.weights)
        self.noise = random.fold_in(self.training.noise, at.epoch)
        self.device: torch.device | None = None
        self.began = time.perf_counter()

    def take(self, x: Any, target: Any) -> None:
        """Make a step with a batch."""
        one, i = self.training, len(self.losses)
        if self.device is None:
            self._set_device(x)
        if self.device is not None and self.device.type != "cpu":
            x, target = moved(x, self.device), moved(target, self.device)
        rng = random.fold_in(self.noise, i) if self.stochastic else None
        self.params, self.state, value = one.step(self.params, self.state, x, target, rng)
        if value.device.type == "cpu" and not math.isfinite(value.item() if not value.dim() else value.sum().item()):
            self._check_loss(value, x)
        self.losses.append(value)
        if not one.weighs_rows:
            self.weights.append(one.mean.weigh(x, target))
        if one.callbacks.of_steps:
            self._notify(value)
        if one.kept and one.kept.every and len(self.losses) % one.kept.every == 0:
            self.require_finite()
            one.save(self.position())

    def position(self) -> Position:
        """Return the position after the last step."""
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
        """Raise ``FloatingPointError`` for non-finite params, and for non-finite losses on a GPU, which no step reads."""
        watched = not self.losses or self.losses[-1].device.type == "cpu"
        if not stays_finite(self.params, self.at.params):
            raise self._diverged("params with a NaN or an infinity", len(self.losses))
        if not watched and self.training.strict:
            finite = torch.stack(self.losses).reshape(len(self.losses), -1).isfinite().all(1)
            if not finite.all():
                raise self._diverged("a loss of NaN or infinity", 1 + int((~finite).nonzero()[0]))

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add the epoch and the step to an error."""
        try:
            yield
        except BaseException as error:
            hint = self.training.source.hint(len(self.losses)) if isinstance(error, Exception) else ""
            add_location(error, f"fit, epoch {self.at.epoch + 1}, step {len(self.losses) + 1}{hint}")
            raise

    def _set_device(self, x: Any) -> None:
        """Set the device of all batches to that of the params; raise for batches on a GPU with params on the CPU."""
        self.device, of_data = device_of(self.params), device_of(x)
        if self.device.type == "cpu" != of_data.type:
            rule = f"params must be on the device of the batches, {of_data}; pass params=tree.to(net.init(key), {str(of_data)!r})"
            raise value_error("fit", rule, "params on the CPU")
        if self.device.type == "meta":
            raise value_error("fit", "params must have values", "params on the meta device")

    def _check_loss(self, value: Tensor, x: Any) -> None:
        """Raise ``FloatingPointError`` for a non-finite loss, unless the optimizer has skipped the step."""
        if value.isfinite().all() or not tree.size(x):  # only the sum overflowed, or it is the mean of no rows
            return
        if self.training.strict or not stays_finite(self.params, self.at.params):
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

    def _notify(self, value: Tensor) -> None:
        at = self.at
        step = Step(
            at.steps + len(self.losses) - at.step, at.epoch + 1, self.params, own_state(self.training.step.opt, self.state), value
        )
        with self.training.randomness(at.epoch, f"callbacks {len(self.losses)}", self.training.weighs_rows):
            self.stopped = self.training.callbacks.on_step(step)


def own_state(opt: Optimizer, state: Tree) -> Tree:
    """Return the state of the user's optimizer, without recorded norms."""
    return state["optimizer"] if isinstance(opt, Recorder) else state


def states_of(generators: list[torch.Generator]) -> tuple[Tensor, ...]:
    """Return the states of generators."""
    return tuple([generator.get_state() for generator in generators])


def _restore(generators: list[torch.Generator], states: tuple[Tensor, ...]) -> None:
    """Set generators to their states at the start of an epoch; the generators of new validation data do not change."""
    for generator, state in zip(generators[: len(states)], states[: len(generators)], strict=True):
        generator.set_state(state)
