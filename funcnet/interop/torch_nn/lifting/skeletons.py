"""Skeletons: torch.nn modules without tensors, which are inserted for each call and removed again."""

import copy
import hashlib
import io
import pickle
from collections import deque
from contextlib import suppress
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from funcnet.errors import value_error
from funcnet.kernels.tracing import is_compiling
from funcnet.value import unpacked

PARAMETER, BUFFER, ATTRIBUTE = "parameter", "buffer", "attribute"
_INTERNAL = ("_parameters", "_buffers", "_modules")
_OF_MODULES = frozenset(vars(nn.RNN(1, 1)))
"""Attributes of torch itself, whose containers no forward pass changes."""

_CONTAINERS = (list, dict, set, bytearray, deque)

_ABSENT = object()

Slot = tuple[str, str]
"""The dotted name of a tensor in a module, and its kind."""


def slots_of(module: nn.Module) -> dict[Slot, Tensor]:
    """Return the tensors of a module under all their names, including attributes but not derived tensors."""
    found: dict[Slot, Tensor] = {}
    for path, one in module.named_modules(remove_duplicate=False):
        kinds = {PARAMETER: one._parameters, BUFFER: one._buffers, ATTRIBUTE: vars(one)}
        for kind, named in kinds.items():
            for name, leaf in named.items():
                if isinstance(leaf, Tensor) and (kind != ATTRIBUTE or leaf.grad_fn is None):
                    found[f"{path}.{name}".lstrip("."), kind] = leaf
    return found


def _require_plain(module: nn.Module) -> None:
    """Refuse modules with inaccessible tensors: TorchScript modules, and lazy modules before their first call."""
    who = f"lift({type(module).__name__})"
    for path, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            raise value_error(who, "the module must be a Python module; lift the uncompiled one", f"TorchScript {path}".strip())
    lazy = [name for name, leaf in (*module.named_parameters(), *module.named_buffers()) if is_lazy(leaf)]
    if lazy:
        raise value_error(who, "parameters must have values; call a lazy module once first", f"none at {', '.join(lazy[:5])}")


def _require_reachable(module: nn.Module) -> None:
    """Refuse tensors in lists and dicts, which a functional call would miss."""
    for path, one in module.named_modules():
        for name, got in vars(one).items():
            known = name in _INTERNAL or isinstance(got, Tensor) or (isinstance(one, nn.RNNBase) and name == "_flat_weights")
            if not known and any(isinstance(part, Tensor) for part in unpacked(got)):
                rule = "tensors must be parameters, buffers or attributes of a module; register those in lists and dicts"
                raise value_error(
                    f"lift({type(module).__name__})", rule, f"{type(got).__name__} {path}.{name}".replace(" .", " ")
                )


class Skeleton:
    """A module without its tensors. Skeletons are equal if their modules have the same classes and settings.

    The skeleton of a module that cannot be pickled, such as an instance of a local class, equals only itself.
    """

    __slots__ = ("_code", "_lock", "_modules", "_name", "changed", "module", "places", "stored")

    stored: tuple[str, ...]
    """Names of the attributes that the last call set on modules."""

    changed: tuple[str, ...]
    """Names of the copied containers that the last call changed in place."""

    def __init__(self, module: nn.Module, slots: tuple[Slot, ...]) -> None:
        self.module, self._lock = module, RLock()
        self.stored, self.changed = (), ()
        owners = dict(module.named_modules(remove_duplicate=False))
        self._modules = [*module.modules()]
        for one in self._modules:  # derived tensors, as in weight_norm, are recomputed in each call
            vars(one).update({name: None for name, got in vars(one).items() if isinstance(got, Tensor)})
        self.places = [(name, kind, owners[name.rpartition(".")[0]], name.rpartition(".")[2]) for name, kind in slots]
        self._empty()
        self._code = _code_of(module)
        self._name = f"<{type(module).__name__} {hashlib.sha256(self._code or b'').hexdigest()[:8]}>"

    @classmethod
    def of(cls, module: nn.Module) -> "Skeleton":
        """Copy a module without the values of its tensors."""
        _require_plain(module)
        _require_reachable(module)
        slots = slots_of(module)
        memo: dict[int, Any] = {id(leaf): _placeholder(leaf) for leaf in slots.values()}
        derived = [leaf for one in module.modules() for leaf in vars(one).values() if isinstance(leaf, Tensor)]
        memo |= {id(leaf): _placeholder(leaf) for leaf in derived}
        try:
            copied = copy.deepcopy(module, memo)
        except Exception as error:
            rule = "copy.deepcopy must be able to copy the module"
            raise value_error(f"lift({type(module).__name__})", rule, f"{type(error).__name__}: {error}") from error
        return cls(copied, tuple(slots))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Skeleton) and self._code is not None and self._code == other._code
        return self is other or same

    def __hash__(self) -> int:
        return id(self) if self._code is None else hash(self._code)

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> tuple[Any, ...]:
        return Skeleton, (self.module, tuple((name, kind) for name, kind, _, _ in self.places))

    def in_eval_mode(self) -> "Skeleton":
        """Return the skeleton of the module in eval mode."""
        return Skeleton(copy.deepcopy(self.module).eval(), tuple((name, kind) for name, kind, _, _ in self.places))

    @property
    def is_training(self) -> bool:
        """Whether any inner module is in train mode."""
        return any(one.training for one in self._modules)

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of the attributes that are containers, such as lists and dicts."""
        return tuple(
            f"{path}.{name}".lstrip(".")
            for path, one in self.module.named_modules()
            for name, got in vars(one).items()
            if isinstance(got, _CONTAINERS) and name not in _OF_MODULES
        )

    def call(
        self, tensors: dict[str, Tensor], arguments: tuple[Any, ...], stores: tuple[str, ...] = (), changes: tuple[str, ...] = ()
    ) -> tuple[Any, dict[str, Tensor]]:
        """Call the module with the given tensors; return its output, and its tensors afterwards.

        Other attributes set by the call are discarded; ``stores`` lists their names for the compiler. ``changes`` names
        containers, such as lists and dicts, that the call may write to; it gets copies of these.
        """
        copied = [self._place(name) for name in changes]
        if is_compiling():
            return self._traced(tensors, arguments, [self._place(name) for name in stores], copied)
        with self._lock:
            before = [(vars(one), dict(vars(one))) for one in self._modules]
            given = [(vars(owner)[key], _replace(owner, key)) for owner, key in copied]
            try:
                return self._filled(tensors)(*arguments), self._tensors()
            finally:
                self.changed = tuple([name for name, (old, new) in zip(changes, given, strict=True) if not _is_same(old, new)])
                self.stored = tuple(self._stored(before))
                for attributes, kept in before:
                    attributes.clear()
                    attributes.update(kept)
                self._empty()

    def _traced(
        self,
        tensors: dict[str, Tensor],
        arguments: tuple[Any, ...],
        stores: list[tuple[nn.Module, str]],
        copied: list[tuple[nn.Module, str]],
    ) -> tuple[Any, dict[str, Tensor]]:
        before = [(owner, key, getattr(owner, key, _ABSENT)) for owner, key in (*stores, *copied)]
        for owner, key in copied:
            _replace(owner, key)
        y = self._filled(tensors)(*arguments)
        after = self._tensors()
        for owner, key, kept in before:
            if kept is _ABSENT:
                delattr(owner, key)
            else:
                setattr(owner, key, kept)
        self._empty()
        return y, after

    def _place(self, name: str) -> tuple[nn.Module, str]:
        return self.module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]

    def _stored(self, before: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
        """Return the names of the attributes that changed, except tensors."""
        paths = {id(vars(one)): path for path, one in self.module.named_modules()}
        names = [
            f"{paths[id(now)]}.{name}".lstrip(".")
            for now, kept in before
            for name, got in now.items()
            if name not in kept or kept[name] is not got
        ]
        known = {name for name, kind, _, _ in self.places if kind == ATTRIBUTE}
        return [name for name in names if name not in known and not name.endswith("_flat_weights")]

    def filled(self, tensors: dict[str, Tensor]) -> nn.Module:
        """Return a new module with the given tensors as its parameters and buffers."""
        made = Skeleton(copy.deepcopy(self.module), tuple((name, kind) for name, kind, _, _ in self.places))
        kinds = {name: kind for name, kind, _, _ in self.places}
        return made._filled({name: nn.Parameter(x, False) if kinds[name] == PARAMETER else x for name, x in tensors.items()})

    def _filled(self, tensors: dict[str, Tensor]) -> nn.Module:
        for name, kind, owner, key in self.places:
            _put(owner, kind, key, tensors[name])
        for one in self._modules:
            if isinstance(one, nn.RNNBase):
                one._flat_weights = [one._parameters.get(name) for name in one._flat_weights_names]
        return self.module

    def _empty(self) -> None:
        for _, kind, owner, key in self.places:
            _put(owner, kind, key, None)
        for one in self._modules:
            if isinstance(one, nn.RNNBase):
                one._flat_weights = [None for _ in one._flat_weights_names]

    def _tensors(self) -> dict[str, Tensor]:
        return {name: _taken(owner, kind, key) for name, kind, owner, key in self.places if kind != PARAMETER}


def _put(owner: nn.Module, kind: str, key: str, leaf: Any) -> None:
    if kind == PARAMETER:
        owner._parameters[key] = leaf
    elif kind == BUFFER:
        owner._buffers[key] = leaf
    else:
        object.__setattr__(owner, key, leaf)


def _taken(owner: nn.Module, kind: str, key: str) -> Any:
    return owner._buffers[key] if kind == BUFFER else getattr(owner, key)


def _replace(owner: nn.Module, key: str) -> Any:
    """Replace a container with a copy, and return the copy."""
    made = getattr(owner, key).copy()  # the compiler does not support ``copy.copy``
    setattr(owner, key, made)
    return made


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two containers hold the same objects."""
    if len(one) != len(other) or (isinstance(one, dict) and one.keys() != other.keys()):
        return False
    pairs = zip(one.values(), other.values(), strict=True) if isinstance(one, dict) else zip(one, other, strict=True)
    return all(a is b for a, b in pairs)


def _placeholder(leaf: Tensor) -> Tensor:
    empty = torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
    return nn.Parameter(empty, leaf.requires_grad) if isinstance(leaf, nn.Parameter) else empty


class _Pickler(pickle.Pickler):
    """Pickles modules without tensors."""

    def persistent_id(self, one: Any) -> None:
        """Refuse tensors."""
        if isinstance(one, Tensor):
            raise pickle.PicklingError("a tensor")


def _code_of(module: nn.Module) -> bytes | None:
    """Return equal bytes for equal modules, or ``None`` if pickling fails. Without a memo they do not depend on identities."""
    for fast in (True, False):  # a module with reference cycles needs the memo
        with suppress(Exception), io.BytesIO() as file:
            pickler = _Pickler(file)
            pickler.fast = fast
            pickler.dump(module)
            return file.getvalue()
    return None
