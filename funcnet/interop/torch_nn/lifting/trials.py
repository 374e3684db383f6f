"""Trials: determine the behavior of a module with an example, before the layer is used."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from funcnet import random, tree
from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.flattening import flatten_together
from funcnet.interop.torch_nn.lifting.drawing_again import Leaf
from funcnet.interop.torch_nn.lifting.generators import all_seeded, states
from funcnet.interop.torch_nn.lifting.keyed_draws import KeyedDraws
from funcnet.interop.torch_nn.lifting.lifted import Lifted, Traits
from funcnet.random.keys import Key


def traits_of(layer: Lifted, params: Params, x: Any) -> Traits:
    """Call the module of a layer on copies of params and of an example, and return its traits.

    Raises:
        ValueError: If the module fails, writes to its parameters, returns anything but a tree of tensors, or returns another
            output in a second call.
    """
    who = f"lift({type(layer.skeleton.module).__name__})"
    for leaf in flatten_together(x)[0]:
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or leaf.is_nested:
            raise value_error(who, "example must be a dense tensor, or a tuple or tree of these", describe(leaf))
    with torch.inference_mode(False), torch.no_grad(), all_seeded(random.key(0), tree.leaves((params, x))):
        trial = _Trial(who, layer, params, x)
        _require_repeatable(who, trial, layer, params, x)
        return Traits(
            draws=trial.drawn > 0,
            draws_in_kernels=trial.draws_in_kernels,
            draws_hidden=trial.hidden,
            fused=trial.fused,
            stores=trial.stored,
            changes=trial.changed,
            moves=trial.moves,
            writes_to_x=trial.writes_to_x,
            batch_dependent=_is_batch_dependent(trial, layer, params, x),
            floating=tuple([None if leaf is None else leaf.is_floating_point() for leaf in trial.leaves]),
        )


def _key_beside(tensors: Sequence[Tensor]) -> Key:
    """Return a key on the device of the tensors, so that samples are on it too."""
    return random.key(0).to(tensors[0].device if tensors else "cpu")


class _Trial:
    """One call of a module on copies of all tensors that it may write to."""

    def __init__(self, who: str, layer: Lifted, params: Params, x: Any) -> None:
        named = {name: leaf.detach().clone() for name, leaf in tree.names(params).items()}
        x = tree.map(lambda leaf: leaf.detach().clone(), x)
        tensors = (*named.values(), *tree.leaves(x))
        versions = {id(one): one._version for one in tensors}  # versions of copied inference tensors do not start at 0

        def is_written(one: Tensor) -> bool:
            return bool(one._version != versions[id(one)])

        before, draws = states(tensors), KeyedDraws(_key_beside(tensors))
        with draws:
            y, after = _called(who, layer, named, x)
        self.draws_in_kernels = before != states(tensors)
        self.drawn, self.hidden, self.fused = draws.drawn, draws.hidden, draws.fused
        self.stored, self.changed = layer.skeleton.stored, layer.skeleton.changed
        self.leaves = flatten_together(y)[0]
        self.moves = any(is_written(named[leaf.name]) or after[leaf.name] is not named[leaf.name] for leaf in _buffers(layer))
        self.writes_to_x = any(map(is_written, tree.leaves(x)))
        _check(who, self.leaves, [leaf.name for leaf in layer.leaves if not leaf.is_buffer and is_written(named[leaf.name])])


def _called(who: str, layer: Lifted, named: dict[str, Tensor], x: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the output of the module, and its buffers afterwards."""
    held = named | {name: named[first] for name, first in layer.ties}
    try:
        return layer.skeleton.call(held, x if isinstance(x, tuple) else (x,), changes=layer.skeleton.containers)
    except Exception as error:
        mode = "train" if layer.skeleton.is_training else "eval"
        rule = f"the module must accept the example in {mode} mode"
        raise value_error(who, rule, f"{type(error).__name__}: {error}") from error


def _check(who: str, outputs: list[Any], written: list[str]) -> None:
    """Refuse writes to parameters, and outputs that are not tensors."""
    if written:
        raise value_error(who, "forward must not write to parameters", f"one that writes to {', '.join(written)}")
    for one in outputs:
        if one is not None and not isinstance(one, Tensor):
            came = describe(one) if isinstance(one, str | int | float) else f"a {type(one).__name__}"
            raise value_error(who, "the output must be a tensor, or a dict, tuple or list of tensors", came)


def _require_repeatable(who: str, trial: _Trial, layer: Lifted, params: Params, x: Any) -> None:
    """Refuse modules that keep state between calls, or use a generator that cannot be seeded here."""
    with all_seeded(random.key(0), tree.leaves((params, x))):
        again = _Trial(who, layer, params, x)
    if len(again.leaves) != len(trial.leaves) or not all(map(_is_close, trial.leaves, again.leaves)):
        rule = "forward must return equal outputs for equal inputs, draw from global generators, and keep state only in buffers"
        raise value_error(who, rule, "a different output in a second call")


def _is_close(a: Any, b: Any) -> bool:
    """Return whether two outputs are equal up to rounding, since some GPU kernels add in varying order."""
    if a is None or b is None or a.is_meta:
        return a is b or (a is not None and b is not None and a.shape == b.shape)
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def _buffers(layer: Lifted) -> list[Leaf]:
    return [leaf for leaf in layer.leaves if leaf.is_buffer]


def _is_batch_dependent(trial: _Trial, layer: Lifted, params: Params, x: Any) -> bool:
    """Return whether the first row of y changes if all other rows of x are replaced with the first."""
    xs = tree.leaves(x)
    rows = {leaf.shape[0] if leaf.dim() else 0 for leaf in xs}
    if len(rows) != 1 or min(rows) < 2 or xs[0].is_meta:
        norms = [one for one in layer.skeleton.module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        return any(one.training or not one.track_running_stats for one in norms)
    with all_seeded(random.key(0), tree.leaves((params, x))):
        other = _Trial("lift", layer, params, tree.map(lambda leaf: leaf[:1].expand_as(leaf), x))
    pairs = [(a, b) for a, b in zip(trial.leaves, other.leaves, strict=True) if a is not None and a.dim() and a.shape[0] in rows]
    return not all(torch.allclose(a[0], b[0], rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs if a.is_floating_point())


def require_one_call(layer: Lifted, params: Params, x: Any) -> None:
    """Refuse modules that are called again in the backward pass, when their parameters have been removed."""
    calls: list[str] = []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.append(type(module).__name__))
    first: int | None = None
    try:
        with suppress(Exception):  # a kernel without a derivative can still compute outputs
            y, cache = layer.apply(params, tree.map(lambda leaf: leaf.detach().clone(), x), _key_beside(tree.leaves(x)))
            first = len(calls)
            layer.grads(params, cache, y)
    finally:
        handle.remove()
    again = [] if first is None else calls[first:]
    if again and not any(leaf.is_meta for leaf in tree.leaves((params, x))):  # nothing is recorded there, and y is computed again
        rule = "the backward pass must not call modules again; switch activation checkpoints off"
        raise value_error(f"lift({type(layer.skeleton.module).__name__})", rule, f"calls of {', '.join(dict.fromkeys(again))}")
