"""oneDNN's LSTM as operators for compiled code, which Inductor calls without lowering them.

Inductor has no LSTM kernel for training, and unrolls the steps: a compiled training step of an LSTM of 64 to 128 features on 64
time steps of 32 rows takes 12.2 ms that way, and an eager one 10.0 (one core of an AMD EPYC with AVX-512).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.looping import is_looping
from funcnet.kernels.private_names import constant, onednn_rnn, onednn_rnn_backward
from funcnet.kernels.recurrent.workspaces import kept_of, workspace_of
from funcnet.kernels.tracing import is_for_inductor, is_plain_data

_LSTM = 2

_library = torch.library.Library("funcnet", "FRAGMENT")  # type: ignore[no-untyped-call]
_GIVEN = "Tensor x, Tensor ih, Tensor hh, Tensor b_ih, Tensor b_hh, Tensor h, Tensor c"
_ENDS = "Tensor y, Tensor h_n, Tensor c_n, Tensor gy, Tensor gh, Tensor gc"


def run(*given: Any) -> tuple[Tensor, ...]:
    """Return all outputs, the last state and, if ``training``, the kept part of oneDNN's workspace, which requires grad mode."""
    *tensors, training = given
    options: Any = (False, [], _LSTM, tensors[2].shape[1], 1, True, False, False, training)
    if not training:  # skipping the contexts below saves 5 of 200 µs
        return tuple(onednn_rnn(*tensors, *options))
    with torch.inference_mode(False), torch.enable_grad():
        y, h, c, workspace = onednn_rnn(*tensors, *options)
        return y, h, c, kept_of(workspace, tensors[0], tensors[2])


def run_back(*given: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of x, both weights, both biases and the first state; the kept workspace, last, is not written to."""
    *tensors, kept = given
    options: Any = (False, _LSTM, tensors[2].shape[1], 1, True, True, False, [], False)
    with workspace_of(kept, tensors[0], tensors[2]) as workspace:
        found: tuple[Tensor, ...] = onednn_rnn_backward(*tensors, *options, workspace)
    return found


def serves(*tensors: Tensor | None) -> bool:
    """Return whether Inductor compiles the calling code, for plain tensors in main memory, not differentiated or mapped over."""
    if not (is_for_inductor() and is_plain_data(*tensors) and is_looping(*[x for x in tensors if x is not None])):
        return False
    return all([type(size) is int and size > 0 for x in tensors if x is not None for size in x.shape])  # noqa: C419


@constant
def _workspace(steps: int, rows: int, inputs: int, outputs: int) -> int:
    """Return the number of bytes that are kept for a sequence, as a constant in compiled code."""
    return _measured(steps, rows, inputs, outputs)


@cache
def _measured(steps: int, rows: int, inputs: int, outputs: int) -> int:
    """Run the kernel once, which is the only way to find the size."""
    x, state = torch.zeros(steps, rows, inputs), torch.zeros(1, rows, outputs)
    w = [torch.zeros(4 * outputs, *size) for size in ((inputs,), (outputs,), (), ())]
    return run(x, *w, state, state, True)[3].numel()


def run_operator(*given: Any) -> tuple[Tensor, ...]:
    """Return the result of ``run`` in compiled code."""
    *tensors, training = given
    x, hh = tensors[0], tensors[2]
    size = _workspace(*x.shape, hh.shape[1]) if training else 0
    found: tuple[Tensor, ...] = torch.ops.funcnet.lstm(*tensors, size)
    return found


def run_back_operator(*given: Tensor) -> tuple[Tensor, ...]:
    """Return the result of ``run_back`` in compiled code."""
    gx, ih, hh, b, gh, gc = torch.ops.funcnet.lstm_back(*given)
    return gx, ih, hh, b, b, gh, gc


def _run_kernel(*given: Any) -> tuple[Tensor, ...]:
    y, h, c, workspace = run(*[x.contiguous() for x in given[:-1]], given[-1] > 0)
    return y, h, c, workspace if given[-1] > 0 else y.new_empty(0, dtype=torch.uint8)


def _run_back_kernel(*given: Tensor) -> tuple[Tensor, ...]:
    gx, ih, hh, b, _, gh, gc = run_back(*[x.contiguous() for x in given])
    return gx, ih, hh, b, gh, gc


def _run_shapes(*given: Any) -> tuple[Tensor, ...]:
    x, h, c, size = given[0], given[5], given[6], given[7]
    y = x.new_empty((*x.shape[:2], h.shape[-1]))
    return y, x.new_empty(h.shape), x.new_empty(c.shape), x.new_empty(size, dtype=torch.uint8)


def _run_back_shapes(*given: Tensor) -> tuple[Tensor, ...]:
    x, ih, hh, b, _, h, c = given[:7]
    return tuple([one.new_empty(one.shape) for one in (x, ih, hh, b, h, c)])


for _name, _schema, _kernel, _shapes in (
    ("lstm", f"({_GIVEN}, int workspace) -> (Tensor, Tensor, Tensor, Tensor)", _run_kernel, _run_shapes),
    (
        "lstm_back",
        f"({_GIVEN}, {_ENDS}, Tensor workspace) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        _run_back_kernel,
        _run_back_shapes,
    ),
):
    _library.define(_name + _schema)  # type: ignore[no-untyped-call]
    _library.impl(_name, _kernel, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"funcnet::{_name}", _shapes, lib=_library)
