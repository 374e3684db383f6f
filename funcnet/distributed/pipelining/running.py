"""Running: one worker's part of the loss of a whole batch and of its gradient, action by action in the schedule's order.

    F    y, c   = stage's apply(p, x)      x from the previous stage, y to the next one; the last stage computes the loss
    B    gp, gx = stage's vjp(p, c, gy)    gy from the next stage, gx to the previous one
    W    gp                                if the schedule computes it later than gx

The gradient of each micro-batch is that of its share in the value of the whole batch, so gradients are simply added up.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Cache, Grads, Params
from funcnet.distributed.pipelining.cutting import CutNet, changed, merged
from funcnet.distributed.pipelining.messages import Form, Kind, Mail, form_of
from funcnet.distributed.pipelining.schedules import Action, Timed, actions_of, has_halves
from funcnet.distributed.pipelining.stages import Later, Stage
from funcnet.distributed.replicas.shares import Batch, Share, number, or_one, value_and_gy, weights_of
from funcnet.distributed.workers import Workers, broadcast_from, close_messages, gather_objects
from funcnet.errors import value_error
from funcnet.flattening import flatten_together, unflatten
from funcnet.losses.loss import Loss
from funcnet.precision import in_single, rounded
from funcnet.transforms.accumulation import Accumulated, keys_of


class DiffersError(ValueError):
    """Raised on all workers before they send anything."""


class StageGradient:
    """The value and the gradient of the whole batch, of which this worker computes its stage's part.

    It replaces ``accumulate`` in a step; its params and gradients are trees with ``None`` at other stages' leaves.
    """

    def __init__(self, who: str, cut: CutNet, one: Accumulated, schedule: str, workers: Workers) -> None:
        self.who, self.cut, self.one, self.schedule, self.workers = who, cut, one, schedule, workers
        self.stage = Stage(cut, workers.rank, halves=has_halves(schedule))
        self.known: dict[Any, Form] = {}
        self.trace: list[Timed] | None = None
        self.has_told_forms = False
        self.meet: Callable[[], None] | None = None
        """Function to call before the first message."""

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Params, Params]:
        """Return the value, the gradient of ``scale`` times it, and the stage's running statistics after the last micro-batch."""
        if rng is None and self.one.step.net.stochastic:
            raise value_error(self.who, "a stochastic net needs a key, rng", "None")
        batches = self.one.micro_batches(x, target)
        try:
            return self._run(params, batches, rng, scale)
        except BaseException as error:
            if self.workers.size > 1 and not isinstance(error, DiffersError):  # all raise this one before any message
                close_messages(self.workers, error)
            raise

    def _run(self, params: Params, batches: list[Batch], rng: Any, scale: Tensor | None) -> tuple[Tensor, Params, Params]:
        run = Run(self, params, batches, rng, scale)
        actions = actions_of(self.schedule, self.workers.size, len(run.batches))[self.workers.rank]
        run.go(actions, self.trace)
        grads = self._rounded(run.summed_over_uses(), params)
        run.mail.finish()
        return self._value(run), grads, run.moved

    def update_stats(self, params: Params, moved: Params) -> Params:
        """Return the params with the new running statistics computed by ``scaled``."""
        made: Params = params if moved is None else merged(moved, params)
        return made

    def begin(self) -> None:
        """Check once that all workers make the same step."""
        if self.meet is not None:
            meet, self.meet = self.meet, None
            meet()

    def _rounded(self, grads: Grads, params: Params) -> Params:
        """Return the gradients in the dtypes of params."""
        pairs = zip(*flatten_together(grads, params), strict=True)
        made: Params = unflatten(grads, iter([None if g is None else rounded(g, p) for g, p in pairs]))
        return made

    def _value(self, run: "Run") -> Tensor:
        """Return the last stage's value on every worker, at least in float32."""
        sent = torch.zeros(2, dtype=torch.float64, device=run.mail.device)
        if self.stage.is_last:
            sent = torch.stack([run.value(), torch.full_like(run.value(), run.is_double)])
        if self.workers.size > 1:
            sent = broadcast_from(self.workers, sent, self.workers.size - 1).wait()
        value: Tensor = sent[0]
        return value if sent[1] else value.float()


class Run:
    """One pass of a batch through a stage."""

    def __init__(self, of: StageGradient, params: Params, batches: list[Batch], rng: Any, scale: Tensor | None) -> None:
        self.of, self.stage, self.loss, self.batches, self.scale = of, of.stage, of.one.step.loss, batches, scale
        self.params = params
        self.filled = of.cut.filled(params, self.stage.number)
        self.inside = self.stage.inside(self.filled)
        self.keys = keys_of(rng, len(batches))
        self.shares = shares_of(self.loss, batches) if self.stage.is_last else []
        self.mail = Mail(of.who, of.workers, _device(params, batches), of.known)
        self.kinds = [_kind(one) for one in batches]
        self.caches: dict[int, Cache] = {}
        self.gys: dict[int, Any] = {}
        self.later: dict[int, Later] = {}
        self.values: list[list[Tensor]] = []
        self.is_double = False
        self.grads: Any = None
        self.moved: Any = None

    def go(self, actions: tuple[Action, ...], trace: list[Timed] | None) -> None:
        """Run all actions; during each, receive messages for the next two."""
        ahead = 2 if self.mail.device.type == "cpu" else 1  # NCCL would wait forever for a message batched with its dependency
        for k, action in enumerate(actions):
            source = self._source(action)
            if source:
                self.of.begin()
            got = self.mail.take(*source) if source else None
            start = perf_counter()
            result = self._do(action, got)
            if trace is not None:
                trace.append(Timed(action, start, perf_counter()))
            self.of.begin()
            self._send(action, result)
            for following in actions[k + 1 : k + 1 + ahead]:
                source = self._source(following)
                if source and not self.mail.ask(*source):
                    break
            self.mail.flush()

    def _source(self, action: Action) -> tuple[int, Kind, Any] | None:
        """Return the message that an action needs: the worker that sends it, its kind, and its label."""
        kind, i = action
        if kind == "F" and not self.stage.is_first:
            return self.stage.number - 1, ("y", self.kinds[i]), ("y", i)
        if kind == "B" and not self.stage.is_last:
            return self.stage.number + 1, ("gy", self.kinds[i]), ("gy", i)
        return None

    def _send(self, action: Action, result: Any) -> None:
        """Send the result of an action, and release messages that the other side must have received by now."""
        (kind, i), here = action, self.stage.number
        if kind == "F" and not self.stage.is_last:
            self.mail.put(here + 1, ("y", self.kinds[i]), ("y", i), result)
        if kind == "B" and not self.stage.is_last:
            self.mail.arrived(here + 1, ("y", i))
        if kind == "B" and not self.stage.is_first:
            self.mail.put(here - 1, ("gy", self.kinds[i]), ("gy", i), result)
            self.mail.arrived(here - 1, ("gy", i - self.of.workers.size))

    def _do(self, action: Action, got: Any) -> Any:
        does: dict[str, Callable[[int, Any], Any]] = {"F": self._forward, "B": self._back, "W": self._params_half}
        return does[action.kind](action.batch, got)

    def _forward(self, i: int, got: Any) -> Any:
        y, cache = self.stage.forward(self.inside, self.batches[i][0] if self.stage.is_first else got, self.keys[i])
        self.caches[i] = cache
        if self.stage.has_running_stats and i == len(self.batches) - 1:
            self.moved = self.of.cut.without_copies(changed(self.stage.update_stats(self.filled, cache), self.filled))
        if self.stage.is_last:
            self.gys[i] = self._loss_of(i, y)
        return y

    def _loss_of(self, i: int, y: Any) -> Any:
        """Return the gradient of the last stage's y, and store the value."""
        x, target = self.batches[i]
        if self.of.cut.dtype is not None:
            y = tree.cast(y, _dtype_outside(x, self.params, y))
        value, gy = value_and_gy(self.loss, y, target, self.shares[i], self.scale)
        self.values.append(value)
        self.is_double = any([leaf.dtype is torch.float64 for leaf in tree.leaves(y)])  # noqa: C419 (as elsewhere)
        return self.stage.inside(gy)

    def _back(self, i: int, got: Any) -> Any:
        gy = self.gys.pop(i) if self.stage.is_last else got
        gx, gparams, later = self.stage.back(self.inside, self.caches.pop(i), gy)
        if later is None:
            self._add(gparams)
        else:
            self.later[i] = later
        return gx

    def _params_half(self, i: int, _: Any) -> None:
        self._add(self.stage.params_half(self.inside, self.later.pop(i)))

    def _add(self, gparams: Params) -> None:
        grads = tree.map(in_single, self.stage.gradients(gparams, self.filled))
        self.grads = grads if self.grads is None else tree.add(self.grads, grads)

    def summed_over_uses(self) -> Grads:
        """Return the gradients of the stage's params; those of tied params are summed over the stages that use them."""
        grads, here = self.of.cut.gathered(self.grads), self.stage.number
        shared = [(path, stages) for path, stages in self.of.cut.shared.items() if here in stages]
        self._tell_forms({path: tree.at(grads, path) for path, _ in shared})
        for path, stages in shared:
            for other in stages:
                if other != here:
                    self.mail.put(other, ("shared", path), ("shared", path), tree.at(grads, path))
        for path, stages in shared:
            total = None
            for other in stages:
                one = tree.at(grads, path) if other == here else self.mail.take(other, ("shared", path), ("shared", path))
                total = one if total is None else tree.add(total, one)
            grads = tree.replace(grads, path, total)
        return grads

    def _tell_forms(self, shared: dict[str, Params]) -> None:
        """Announce the gradients to sum to all workers once, since they cannot send headers to each other simultaneously."""
        if not self.of.cut.shared or self.of.has_told_forms:
            return
        own = {path: form_of(self.of.who, g) for path, g in shared.items()}
        for peer, forms in enumerate(gather_objects(self.of.workers, own)):
            self.of.known |= {("from", peer, ("shared", path)): form for path, form in forms.items()}
            self.of.known |= {("to", peer, ("shared", path)): form for path, form in own.items()}
        self.of.has_told_forms = True

    def value(self) -> Tensor:
        """Return the value of the whole batch on the last stage, in float64."""
        sums = [sum(column[1:], column[0]) for column in zip(*self.values, strict=True)]
        return self.loss.value_of_parts(sums)


def shares_of(loss: Loss, batches: list[Batch]) -> list[Share]:
    """Return the share of each micro-batch in each part of a loss: wᵢ / Σ wᵢ, 1 for sums, 0 for weight 0."""
    rows = [[number(w) for w in weights_of(loss, *one)] for one in batches]
    totals = [or_one(sum(column)) for column in zip(*rows, strict=True)]
    totals = [1.0 if part.reduction == "sum" else total for part, total in zip(loss.part_list(), totals, strict=True)]
    return [tuple([w / total for w, total in zip(row, totals, strict=True)]) for row in rows]


def _device(params: Params, batches: list[Batch]) -> torch.device:
    leaves = [*tree.leaves(params), *tree.leaves(batches[0])]
    return next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))


def _kind(batch: Batch) -> Any:
    """Return a key that determines the forms of all messages of a micro-batch, for params of one dtype."""
    leaves = flatten_together(batch)[0]
    return tuple([(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else None for leaf in leaves])


def _dtype_outside(x: Any, params: Params, y: Any) -> torch.dtype:
    """Return the output dtype of a net within ``cast``: the dtype of x, or that of the params if x is not floating."""
    leaves: list[Tensor] = [*tree.leaves(x), *tree.leaves(params), *tree.leaves(y)]
    return next(leaf.dtype for leaf in leaves if leaf.is_floating_point())
