"""Optimizers over workers: quantities that depend on all gradients are computed over all workers.

    ‖g‖ = √Σᵣ ‖gᵣ‖²          the norm for clipping, from the norms of all workers r
    finite                   if every gradient on every worker is finite
    Σ = Σᵣ Σᵣ                 the sums of Prodigy

Workers exchange one row of numbers for each quantity. All workers compute with the same rows in the same order, so they make the
same decisions and get the same bits in every run.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import attrs
import torch
import torch.distributed as dist
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Grads, Params
from funcnet.distributed.workers import Workers, gather_rows
from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together
from funcnet.kernels.optim import norm_of_all, read
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.chaining import Chain
from funcnet.optim.clipping import ClipByGlobalNorm
from funcnet.optim.evaluating import EvaluatingOptimizer
from funcnet.optim.groups import ByPath
from funcnet.optim.master_weights import MasterWeights
from funcnet.optim.prodigy import Prodigy
from funcnet.optim.recording import EvaluatingRecorder, Recorder
from funcnet.optim.sharpness import SAM
from funcnet.optim.skipping import SkipNonFinite
from funcnet.optim.transforms.decay import AddDecayedWeights
from funcnet.optim.transforms.loss_scale import LossScale
from funcnet.optim.transforms.noise import AddNoise, AddPrivacyNoise
from funcnet.optim.transforms.norms import NormalizeByUpdateNorm
from funcnet.optim.transforms.observing import Monitor
from funcnet.optim.wrapping import OptimizerWrapper
from funcnet.value import frozen

Part = Optimizer | GradientTransform


class Over:
    """The workers that share the quantities, and the leaves that this worker counts."""

    __slots__ = ("counted", "flags", "workers")

    def __init__(self, workers: Workers, counted: Tree = None, flags: Sequence[bool] | None = None) -> None:
        self.workers, self.counted, self.flags = workers, counted, flags

    def among(self, grads: Tree) -> "Over":
        """Return the ``Over`` for the gradients that exist, with a flag for each that this worker counts."""
        if self.counted is None:
            return self
        rows = zip(*flatten_together(grads, self.counted), strict=True)
        return Over(self.workers, None, [bool(flag) for g, flag in rows if g is not None])

    def counting(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Select the tensors that this worker counts, from one for each gradient."""
        return xs if self.flags is None else [x for x, flag in zip(xs, self.flags, strict=True) if flag]

    def rows(self, *numbers: Any) -> Tensor:
        """Return the numbers of all workers, in float64, with one row per worker."""
        row = torch.stack([torch.as_tensor(one).detach().double() for one in numbers])
        found: Tensor = gather_rows(self.workers, _where_sent(row, self.workers)).wait()
        return found

    def norm(self, own: Tensor) -> Tensor:
        """Return the norm over all workers, given this worker's."""
        return norm_of_all([self.rows(own)])

    def __repr__(self) -> str:
        return f"{self.workers.size} workers"


def _where_sent(row: Tensor, workers: Workers) -> Tensor:
    """Move a row to a device that the group can send from, since the numbers of a worker without leaves are on the CPU."""
    if row.is_cpu and dist.get_backend(workers.group) == "nccl":
        return row.to(torch.device("cuda", torch.cuda.current_device()))
    return row


def over_field() -> Any:
    """Return the attrs field for an ``Over``."""
    return field(kw_only=True, eq=False)


class Together:
    """Mixin of the rules below, each of which is a subclass of the part that it replaces."""

    __slots__ = ()

    over: Over

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Any, State]:
        """Update with the part, counting only the leaves that belong to this worker."""
        over = self.over.among(grads)
        part: Any = self if over is self.over else attrs.evolve(self, over=over)  # type: ignore[misc]
        return super(Together, part).update(grads, state, params)  # type: ignore[misc, no-any-return]

    def norm_of_all(self, xs: Sequence[Tensor]) -> Tensor:
        """Return the norm of the tensors of all workers together."""
        return self.over.norm(super().norm_of_all(self.over.counting(xs)))  # type: ignore[misc]

    def norm_of_difference(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
        """Return the norm of the differences on all workers together."""
        xs, ys = self.over.counting(xs), self.over.counting(ys)
        return self.over.norm(super().norm_of_difference(xs, ys))  # type: ignore[misc]

    def all_finite(self, xs: Sequence[Tensor]) -> Tensor:
        """Return whether all elements on all workers are finite, as a 0-d tensor."""
        return self.over.rows(super().all_finite(self.over.counting(xs))).amin() > 0  # type: ignore[misc]

    def totals(self, *sums: Sequence[Tensor]) -> list[Any]:
        """Return the total of each list over all workers."""
        own = super().totals(*map(self.over.counting, sums))  # type: ignore[misc]
        return [read(one) for one in self.over.rows(*own).sum(0)]


@frozen
class ClipOverWorkers(Together, ClipByGlobalNorm):
    """``ClipByGlobalNorm`` with the norm over all workers."""

    over: Over = over_field()


@frozen
class NormalizeOverWorkers(Together, NormalizeByUpdateNorm):
    """``NormalizeByUpdateNorm`` with the norm over all workers."""

    over: Over = over_field()

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        if not tree.leaves(grads):  # this worker needs no norm, but the others wait for its part
            self.norm_of_all([])
        return Together.update(self, grads, state, params)


@frozen
class LossScaleOverWorkers(Together, LossScale):
    """``LossScale`` with a factor that falls if a gradient of any worker is not finite."""

    over: Over = over_field()


@frozen
class SkipOverWorkers(Together, SkipNonFinite):
    """``SkipNonFinite`` that skips if a gradient of any worker is not finite."""

    over: Over = over_field()


@frozen
class ProdigyOverWorkers(Together, Prodigy):
    """``Prodigy`` with one estimate for the params of all workers."""

    over: Over = over_field()


@frozen
class SAMOverWorkers(Together, SAM):
    """``SAM`` with the distance over the params of all workers."""

    over: Over = over_field()


@frozen
class RecorderOverWorkers(Together, Recorder):
    """A recorder of the norms over all workers."""

    over: Over = over_field()


@frozen
class EvaluatingRecorderOverWorkers(Together, EvaluatingRecorder):
    """A recorder of the norms over all workers, for an optimizer that evaluates gradients itself."""

    over: Over = over_field()


@frozen
class MonitorOverWorkers(Together, Monitor):
    """``Monitor`` for the norm of the gradients of all workers."""

    over: Over = over_field()

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Grads, State]:
        grads, state = Monitor.update(self, grads, state, params)
        counted = self.over.among(grads).counting(tree.leaves(grads))
        return grads, {**state, "measured": self.over.norm(tree.norm(counted))}


_RULES: dict[type, type] = {
    ClipByGlobalNorm: ClipOverWorkers,
    NormalizeByUpdateNorm: NormalizeOverWorkers,
    LossScale: LossScaleOverWorkers,
    SkipNonFinite: SkipOverWorkers,
    Prodigy: ProdigyOverWorkers,
    SAM: SAMOverWorkers,
    Recorder: RecorderOverWorkers,
    EvaluatingRecorder: EvaluatingRecorderOverWorkers,
    Monitor: MonitorOverWorkers,
}

# These need the paths or positions of all leaves, which do not change if leaves of other workers are None.
_BY_PLACE = (ByPath, AddDecayedWeights, AddNoise, AddPrivacyNoise)


def over_workers(opt: Part, workers: Workers, counted: Tree = None) -> Any:
    """Rewrite an optimizer so that norms, sums and finiteness checks cover the gradients of all workers.

        ‖g‖ = √Σᵣ ‖gᵣ‖²      gᵣ are the gradients that worker r counts

    The parts of a chain, the groups of ``by_path`` and the optimizers in wrappers are rewritten too; parts that act on elements
    or on leaves do not change. Each worker's trees have the structure of the whole tree, with ``None`` for leaves that it lacks,
    so paths and positions are those of the whole tree. Every worker makes every update, even without leaves.

    Args:
        opt: An optimizer or a gradient transform.
        workers: The workers that hold the gradients.
        counted: A tree of bools like params: the leaves that this worker counts if several workers have the same leaf; all by
            default.

    Raises:
        ValueError: If a part acts on the whole tree and has no rule for several workers, such as ``LBFGS``.
    """
    if counted is not None and isinstance(opt, EvaluatingOptimizer):
        raise value_error("over_workers", "counted requires an optimizer that uses one gradient per step", repr(opt))
    return _rewritten(opt, Over(workers, counted))


def _rewritten(part: Any, over: Over) -> Any:
    """Rewrite a part, or a tuple that contains parts."""
    if isinstance(part, tuple):
        return tuple([_rewritten(one, over) for one in part])
    if not isinstance(part, (Optimizer, GradientTransform)):
        return part
    made = _rule_of(part)
    fields = {one.alias: _rewritten(getattr(part, one.name), over) for one in attrs.fields(type(part)) if one.init}  # type: ignore[arg-type]
    return part.replace(**fields) if made is None else made(**fields, over=over)


def _rule_of(part: Part) -> type | None:
    """Return the rule's class for a part, or ``None`` if the part needs no rule; raise if a rule is missing."""
    if isinstance(part, Monitor) and part.measure is not tree.norm:
        _refuse(part, "a Monitor of several workers must measure the norm, which is its default")
    if type(part) in _RULES:
        return _RULES[type(part)]
    if part.acts_on == "tree" and not _is_made_of_parts(part):
        _refuse(part, "a part that acts on all gradients together needs a rule for gradients on several workers")
    return None


def _is_made_of_parts(part: Part) -> bool:
    """Return whether a part acts on the whole tree only through its inner optimizers or the paths of leaves."""
    if isinstance(part, OptimizerWrapper):
        return type(part).acts_on is OptimizerWrapper.acts_on
    return isinstance(part, (Chain, MasterWeights, *_BY_PLACE))


def is_over_all(part: Any) -> bool:
    """Return whether a part has a rule for several workers, or is a rule."""
    return type(part) in _RULES or isinstance(part, Together)


def is_by_place(part: Any) -> bool:
    """Return whether a part needs the paths or positions of all leaves."""
    return isinstance(part, _BY_PLACE)


def _refuse(part: Part, rule: str) -> NoReturn:
    raise value_error("over_workers", rule, repr(part))
