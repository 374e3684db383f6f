"""Torch's state dicts, loaded into params by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.flattening import NODES, Tree
from funcnet.paths import named_leaves
from funcnet.saving.agreement import mapped, named_entries
from funcnet.saving.renaming import Rename, with_new_names
from funcnet.saving.tensors import identity
from funcnet.tree.mapping import same_leaf

_WHO = "load_state_dict"
_EXTRA = "_extra_state"
"""The last part of the name of data that modules save besides tensors."""


def load_state_dict(
    params: Params, state_dict: Mapping[str, Any], *, strict: bool = True, prefix: str = "", rename: Rename | None = None
) -> Params:
    """Return params with the values of a torch ``state_dict``, copied by name.

    Each leaf keeps its dtype, device and strides, and the values are converted, as in ``Module.load_state_dict``. A leaf on the
    meta device gets the device of its value. The given params are not modified. If a tensor has two names in the state dict but
    one path in params, the other name is accepted if the values are equal and params have ``None`` there (as in ``tied``), or if
    both names have the same memory.

    Args:
        params: The params; their paths are the names.
        state_dict: Tensors by name.
        strict: Whether every leaf must have a value and every value a leaf; shapes must agree in any case.
        prefix: Beginning of the names to load, such as ``"module."`` or ``"encoder."``, which is removed. Names without it are
            ignored; at least one name must have it.
        rename: New names, applied after ``prefix``, as in ``load``: a dict from patterns to new names, or a function of a name.
            The new name ``None`` removes the value.

    Returns:
        New params with the structure of ``params``.

    Raises:
        ValueError: If ``state_dict`` is not a dict of tensors; if values are missing, unexpected, of another shape, or lack data,
            in one error for all of them.

    >>> module = nn.Sequential(nn.Linear(3, 2))
    >>> params = load_state_dict(({"weight": torch.empty(2, 3), "bias": torch.empty(2)},), module.state_dict())
    >>> torch.equal(params[0]["weight"], module[0].weight)
    True
    """
    if not isinstance(strict, bool):
        raise value_error(_WHO, "strict must be True or False", describe(strict))
    if not isinstance(params, (Tensor, *NODES)):
        raise value_error(_WHO, "params must be a tree of tensors, as net.init returns", describe(params))
    found = with_new_names(_without_prefix(_tensors(state_dict), prefix), rename, _WHO)
    wanted = {path: leaf for path, leaf in named_entries(_WHO, params).items() if isinstance(leaf, Tensor)}
    tied = _tied(found, wanted, params)
    loaded = {name: value for name, value in found.items() if name in wanted}
    words = [*_misfits(loaded, wanted), *(_absences(found, wanted, tied) if strict else ())]
    if not strict and found and not loaded and wanted:
        words = [f"no name of params, such as {next(iter(wanted))!r}, but {next(iter(found))!r}"]
    if words:
        rule = "state_dict must hold the names and shapes of params" if strict else "the values of state_dict must fit params"
        raise value_error(_WHO, rule, "; ".join(words))
    made: Params = mapped(lambda path, leaf: _copied(loaded[path], leaf) if path in loaded else leaf, params)
    return made


def _tensors(state_dict: Any) -> dict[str, Any]:
    """Return the tensors of a state dict, with ``None`` for other data that modules save."""
    rule = "state_dict must be a dict of tensors by name, as module.state_dict() returns"
    if isinstance(state_dict, nn.Module):
        raise value_error(_WHO, rule, f"a module, {type(state_dict).__name__}")
    if not isinstance(state_dict, Mapping) or not all(isinstance(name, str) for name in state_dict):
        raise value_error(_WHO, rule, describe(state_dict))
    found: dict[str, Any] = {name: value for name, value in state_dict.items() if name != "_metadata"}
    for name, value in found.items():
        if isinstance(value, Mapping):
            raise value_error(_WHO, f"{rule}; pass the inner dict, state_dict[{name!r}]", f"{describe(value)[:200]} at {name!r}")
        if not isinstance(value, Tensor) and name.rpartition(".")[2] != _EXTRA:
            raise value_error(_WHO, rule, f"{describe(value)[:200]} at {name!r}")
    return found


def _without_prefix(found: dict[str, Any], prefix: Any) -> dict[str, Any]:
    """Return the values whose names have the prefix, keyed by the rest of the name."""
    if not isinstance(prefix, str):
        raise value_error(_WHO, "prefix must be a str", describe(prefix))
    if found and not any(name.startswith(prefix) for name in found):
        raise value_error(_WHO, f"a name must begin with the prefix {prefix!r}", f"{next(iter(found))!r} and the like")
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _tied(found: dict[str, Any], wanted: dict[str, Tensor], params: Tree) -> set[str]:
    """Return the extra names of tensors that params contain under another name."""
    absent = {path for path, leaf in named_leaves("", params) if leaf is None}
    kept = [found[name] for name in wanted if isinstance(found.get(name), Tensor)]
    memory = {_memory(value) for value in kept} - {None}
    others = {name: value for name, value in found.items() if name not in wanted and isinstance(value, Tensor)}
    shared = {name for name, value in others.items() if _memory(value) in memory}
    return shared | {name for name in others.keys() & absent if any(same_leaf(others[name], value) for value in kept)}


def _memory(value: Tensor) -> object:
    """Return a key that tensors with the same memory share, or ``None`` for a tensor without memory."""
    has_none = not _is_dense(value) or value.is_meta or not value.numel()
    return None if has_none else identity(value)


def _is_dense(value: Tensor) -> bool:
    return not (is_lazy(value) or value.layout is not torch.strided or value.is_nested or value.is_quantized)


def _is_whole(value: Tensor) -> bool:
    return torch.equal(value.double().trunc(), value.double())  # False for NaN


def _misfits(loaded: dict[str, Any], wanted: dict[str, Tensor]) -> Iterator[str]:
    """Yield a description of each value that does not fit its leaf."""
    for name, value in loaded.items():
        leaf = wanted[name]
        if not isinstance(value, Tensor) or not _is_dense(value) or value.is_meta:
            has = "no values yet" if isinstance(value, Tensor) and (is_lazy(value) or value.is_meta) else "no dense tensor"
            yield f"{has} at {name!r}"
        elif value.shape != leaf.shape and not (leaf.dim() == 0 and value.shape == (1,)):
            yield f"shape {tuple(value.shape)} instead of {tuple(leaf.shape)} at {name!r}"
        elif value.is_complex() and not leaf.is_complex():
            yield f"{value.dtype} instead of {leaf.dtype} at {name!r}"
        elif value.is_floating_point() and not leaf.is_floating_point() and not _is_whole(value):
            yield f"fractions instead of {leaf.dtype} at {name!r}"


def _absences(found: dict[str, Any], wanted: dict[str, Tensor], tied: set[str]) -> Iterator[str]:
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted and name not in tied]
    if missing:
        yield f"missing {', '.join(map(repr, missing))}"
    if unexpected:
        yield f"unexpected {', '.join(map(repr, unexpected))}"


def _copied(value: Tensor, leaf: Tensor) -> Tensor:
    """Copy a value with the dtype, device and strides of a leaf; old versions of torch saved counts with one axis."""
    value = value.detach().reshape(leaf.shape)
    if leaf.is_meta:
        return value.to(leaf.dtype, copy=True)
    with torch.no_grad():
        return torch.empty_like(leaf, requires_grad=False).copy_(value)
