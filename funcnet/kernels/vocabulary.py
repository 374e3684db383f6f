"""Kernels of a softmax over a large vocabulary: only the logits of a few rows are in memory at a time.

    z = h wᵀ + b                          lse = log Σ eᶻ over the words        p = eᶻ⁻ˡˢᵉ
    G = (a + c lse) p - β e_t - δ r       gh = G w    gw = Gᵀ h    gb = Σ G

e_t is 1 at the label of a row and 0 elsewhere. a, c, β and δ have one number per row, r one per word. In rows that do not count,
h is replaced with zeros, whatever it contains. One pass over the rows computes everything with three products; a separate
backward pass that recomputes the logits would need a fourth.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_compiling, is_differentiated
from funcnet.kernels.vocabulary_blocks import (
    Gradients,
    Read,
    Slopes,
    Vocabulary,
    pull_back_blocks,
    read_blocks,
    rows_at_once,
)


def read(given: Vocabulary) -> Read:
    """Return the terms from which the value of a loss is computed."""
    if _is_for_operator(given):
        found: Read = _without_empty(torch.ops.funcnet.vocabulary_read(*given))
        return found
    return read_blocks(given)


def read_and_pull_back(given: Vocabulary, slopes: Slopes) -> tuple[Read, Gradients]:
    """Return the terms of the value of a loss, and the gradients."""
    if _is_for_operator(given):
        found = torch.ops.funcnet.vocabulary_gradients(*given, *slopes)
        return _without_empty(found[:3]), _without_empty(found[3:])
    return pull_back_blocks(given, slopes)


def _without_empty(found: Any) -> Any:
    """Replace an empty last tensor, which an operator returns instead of ``None``, with ``None``."""
    return *found[:2], found[2] if found[2].numel() else None


def _is_for_operator(given: Vocabulary) -> bool:
    """Return whether compiled code calls the kernel as one operator: for several blocks, whose loop would be unrolled."""
    if not is_compiling() or is_differentiated(given.h, given.w, given.b):
        return False
    return type(given.h.shape[0]) is int and type(given.w.shape[0]) is int and given.h.shape[0] > rows_at_once(given)


# In compiled code the loop over blocks of rows is one custom operator, which Inductor calls without lowering it.
_library = torch.library.Library("funcnet", "FRAGMENT")  # type: ignore[no-untyped-call]
_GIVEN = "Tensor h, Tensor w, Tensor? b, Tensor t, Tensor counts, Tensor? r"
_SLOPES = "Tensor a, Tensor beta, Tensor? c, Tensor? delta"


def _with_empty(found: tuple[Any, ...], like: Tensor) -> tuple[Tensor, ...]:
    return tuple([like.new_empty(0) if one is None else one for one in found])


def _read_operator(*given: Any) -> tuple[Tensor, ...]:
    return _with_empty(read_blocks(Vocabulary(*given)), given[0])


def _gradients_operator(*given: Any) -> tuple[Tensor, ...]:
    found, gradients = pull_back_blocks(Vocabulary(*given[:6]), Slopes(*given[6:]))
    return _with_empty((*found, *gradients), given[0])


def _read_shapes(*given: Any) -> tuple[Tensor, ...]:
    h, r = given[0], given[5]
    numbers = [h.new_empty(h.shape[0], dtype=torch.promote_types(h.dtype, torch.float32)) for _ in range(3)]
    return _with_empty((*numbers[:2], None if r is None else numbers[2]), h)


def _gradient_shapes(*given: Any) -> tuple[Tensor, ...]:
    h, w, b = given[:3]
    made = h.new_empty(h.shape), w.new_empty(w.shape), None if b is None else w.new_empty(w.shape[0])
    return *_read_shapes(*given[:6]), *_with_empty(made, h)


def _mapped(operator: Any) -> Any:
    """Return the rule for ``vmap`` in compiled code, which processes one entry after the other."""

    def rule(info: Any, dims: tuple[int | None, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        entries = []
        for i in range(info.batch_size):
            own = [one if dim is None else one.select(dim, i) for one, dim in zip(given, dims, strict=True)]
            entries.append(operator(*own))
        stacked = tuple([torch.stack(one) for one in zip(*entries, strict=True)])
        return stacked, (0,) * len(stacked)

    return rule


for _name, _schema, _kernel, _shapes in (
    ("vocabulary_read", f"({_GIVEN}) -> (Tensor, Tensor, Tensor)", _read_operator, _read_shapes),
    (
        "vocabulary_gradients",
        f"({_GIVEN}, {_SLOPES}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        _gradients_operator,
        _gradient_shapes,
    ),
):
    _library.define(_name + _schema)  # type: ignore[no-untyped-call]
    _library.impl(_name, _kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"funcnet::{_name}", _shapes, lib=_library)
    torch.library.register_vmap(f"funcnet::{_name}", _mapped(getattr(torch.ops.funcnet, _name)), lib=_library)
