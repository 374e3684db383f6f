"""Ties: one parameter of a module at several paths."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from funcnet import tree
from funcnet.contract import Params
from funcnet.flattening import join
from funcnet.interop.torch_nn.exporting.modules import module_at

Groups = Iterable[tuple[str, ...]]


class _LaterPlaces:
    """Hooks that keep only the first path of each tied parameter in a ``state_dict``, but also load one with all paths.

    Args:
        first: The first path for each later path.
    """

    def __init__(self, first: dict[str, str]) -> None:
        self.first = first

    def __call__(self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        """Remove the later paths."""
        for path in self.first:
            state.pop(prefix + path, None)

    def fill_in(self, module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Add the later paths that are missing."""
        for path, first in self.first.items():
            if prefix + first in state:
                state.setdefault(prefix + path, state[prefix + first])


def with_ties(params: Params, groups: Groups) -> Params:
    """Return params with the tensor at the first path of each group at all of its paths."""
    for first, *others in groups:
        for path in others:
            params = tree.replace(params, path, tree.at(params, first))
    return params


def tied_module(module: nn.Module, params: Params, groups: Groups) -> nn.Module | None:
    """Tie the parameters of a module; its ``state_dict`` has only the first paths as keys.

    Return ``None`` if tied leaves are buffers, or if only some of the parameters are frozen.
    """
    first = dict(_later_places(params, groups))
    if not all(tie(module, path, one) for path, one in first.items()):
        return None
    hooks = _LaterPlaces(first)
    module.register_state_dict_post_hook(hooks)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(hooks.fill_in)  # type: ignore[no-untyped-call]
    return module


def _later_places(params: Params, groups: Groups) -> Iterable[tuple[str, str]]:
    """Yield each later path of a tensor with its first path."""
    for first, *others in groups:
        for inner in tree.names(tree.at(params, first)):
            yield from ((join(path, inner) if inner else path, join(first, inner) if inner else first) for path in others)


def tie(module: nn.Module, path: str, first: str) -> bool:
    """Register the parameter at ``first`` at ``path`` too, unless one is a buffer or only one is frozen; return success."""
    (owner, name), (other, its_name) = _owner(module, path), _owner(module, first)
    one, two = owner.get(name), other.get(its_name)
    if one is None or two is None or one.requires_grad != two.requires_grad:
        return False
    owner[name] = two
    return True


def _owner(module: nn.Module, path: str) -> tuple[dict[str, nn.Parameter | None], str]:
    holder, _, name = path.rpartition(".")
    return module_at(module, holder)._parameters, name


def tie_equal_leaves(module: nn.Module, params: Params) -> None:
    """Tie parameters whose leaves are the same tensor; buffers stay separate, because each is updated with its layer."""
    firsts: dict[int, str] = {}
    for path, leaf in tree.names(params).items():
        first = firsts.setdefault(id(leaf), path)
        if first != path:
            tie(module, path, first)
