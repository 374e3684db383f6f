"""Kernels of recurrent nets over whole sequences (T, N, ...): one layer in one direction, forward and backward.

One product computes the input's contribution to all steps, and one the gradient of each weight. A loop over time computes the
rest, in buffers for plain tensors, else in new tensors. An LSTM in float32 on the CPU uses oneDNN's kernel, like torch.nn: 64
steps of 32×64 to 128 take 8 ms forward and backward, and 15 with buffers; a GRU takes 14 with buffers, and 21 in torch.nn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.linear import linear as product
from funcnet.kernels.linear import matmul_weight_grad
from funcnet.kernels.recurrent import lstm_operators, pieces
from funcnet.kernels.recurrent.steps import KINDS, ONEDNN, Kind, Maybe, owned
from funcnet.kernels.tracing import is_differentiated

Kernel = Callable[..., tuple[Tensor, ...]]

LSTM = choice("LSTM", {"buffers": NEVER, "onednn": 0}, lambda cpu: 0 if ONEDNN else NEVER)
"""Whether to use oneDNN's kernel for whole sequences of an LSTM in float32."""

BUFFERS = choice("recurrent buffers", {"new tensors": NEVER, "buffers": 0}, lambda cpu: 0)
"""Whether to write the steps of other sequences to buffers, for plain tensors."""

State = tuple[Tensor, Maybe]


class Weights(NamedTuple):
    """The params of one layer in one direction; the biases and the projection can be ``None``."""

    ih: Tensor
    hh: Tensor
    b_ih: Maybe = None
    b_hh: Maybe = None
    hr: Maybe = None


def run(kind: str, w: Weights, x: Tensor, state: State, mask: Maybe, *, training: bool = True) -> tuple[Tensor, State, Any]:
    """Return all outputs, the last state, and the cache of the backward pass; ``mask`` (T, N, 1) is True for steps that count.

    For prediction, ``training=False``, oneDNN keeps nothing: it takes 2.8 ms instead of 7.9, and no 16 MB of workspace.
    """
    given = (x, *w, *state)
    may_write = mask is None and owned(*given)
    if mask is None and LSTM.value == 0 and kind == "lstm" and w.hr is None and x.dtype is torch.float32 and x.is_cpu:
        if may_write:
            return _run_onednn(w, x, state, training, pieces.run)
        if lstm_operators.serves(*given):
            return _run_onednn(w, x, state, training, lstm_operators.run_operator)
    if may_write and BUFFERS.value == 0:
        inner = (w.hh, w.b_hh if kind == "gru" else None, w.hr)
        ys, cs, kept = KINDS[kind].run(_inputs(kind, w, x), inner, *state)
    else:
        ys, cs, kept = _run_stepwise(KINDS[kind], _inputs(kind, w, x), w, state, mask, kind == "gru")
    y = ys[1:] if mask is None else torch.where(mask, ys[1:], 0.0)
    return y, (ys[-1], None if cs is None else cs[-1]), {"x": x, "ys": ys, "cs": cs, "kept": kept, "mask": mask}


def _inputs(kind: str, w: Weights, x: Tensor) -> Tensor:
    """Return the input's contribution to all steps, in fresh memory, with both biases if they are only added."""
    b = w.b_ih if kind == "gru" or w.b_ih is None or w.b_hh is None else w.b_ih + w.b_hh
    return product(x.reshape(-1, x.shape[-1]), w.ih, b).reshape(*x.shape[:-1], w.ih.shape[0])


def _run_stepwise(kind: Kind, pre: Tensor, w: Weights, state: State, mask: Maybe, inner_bias: bool) -> Any:
    (h, c), rows = state, []
    hs, cs = [h], [c]
    for t, p in enumerate(pre.unbind(0)):
        new, c2, kept = kind.step(p, product(h, w.hh, w.b_hh if inner_bias else None), h, c)
        new = new if w.hr is None else product(new, w.hr)
        h = new if mask is None else torch.where(mask[t], new, h)
        c = c2 if mask is None or c2 is None or c is None else torch.where(mask[t], c2, c)
        rows.append(kept)
        hs.append(h)
        cs.append(c)
    columns = tuple([torch.stack(column) for column in zip(*rows, strict=True)])
    return torch.stack(hs), None if c is None else torch.stack([one for one in cs if one is not None]), columns


def run_back(
    kind: str, w: Weights, cache: Any, gy: Tensor, gstate: State, *, weights: bool, inputs: bool
) -> tuple[Weights | None, Maybe, State]:
    """Return the gradients of the weights and of x, if requested, and of the first state."""
    if "workspace" in cache:
        if not is_differentiated(gy, *gstate, *w):
            back = lstm_operators.run_back_operator if lstm_operators.serves(gy, *w) else lstm_operators.run_back
            return _run_onednn_back(w, cache, gy, gstate, back)
        cache = _cache_anew(w, cache)
    x, ys, cs, kept, mask = (cache[name] for name in ("x", "ys", "cs", "kept", "mask"))
    if mask is None and BUFFERS.value == 0 and owned(gy, *gstate, *w, *kept):
        g, ghid, gh, gc, ghs = KINDS[kind].run_back(kept, ys, cs, gy, *gstate, (w.hh, w.hr))
    else:
        g, ghid, gh, gc, ghs = _run_back_stepwise(KINDS[kind], cache, gy, gstate, w)
    gx = product(g.reshape(-1, g.shape[-1]), w.ih.t()).reshape(x.shape) if inputs else None
    return (_weight_grads(w, x, ys, kept, g, ghid, ghs) if weights else None), gx, (gh, gc)


def _cache_anew(w: Weights, cache: Any) -> Any:
    """Recompute the cache with the formula, since oneDNN's backward, which uses its own format, has no derivative."""
    x, state = cache["x"], (cache["h"], cache["c"])
    ys, cs, kept = _run_stepwise(KINDS["lstm"], _inputs("lstm", w, x), w, state, None, inner_bias=False)
    return {"x": x, "ys": ys, "cs": cs, "kept": kept, "mask": None}


def _weight_grads(w: Weights, x: Tensor, ys: Tensor, kept: Any, g: Tensor, ghid: Tensor, ghs: Maybe) -> Weights:
    b = None if w.b_ih is None else g.sum((0, 1))
    b_hh = b if g is ghid or b is None else ghid.sum((0, 1))
    hr = None
    if ghs is not None:
        hr = matmul_weight_grad(ghs, kept[0].chunk(4, -1)[3] * kept[1])
    return Weights(matmul_weight_grad(g, x), matmul_weight_grad(ghid, ys[:-1]), b, b_hh, hr)


def _run_back_stepwise(kind: Kind, cache: Any, gy: Tensor, gstate: State, w: Weights) -> Any:
    ys, cs, mask, (gh, gc), rows = cache["ys"], cache["cs"], cache["mask"], gstate, []
    for t in reversed(range(len(gy))):
        kept, m = tuple([column[t] for column in cache["kept"]]), None if mask is None else mask[t]
        total = gh + (gy[t] if m is None else torch.where(m, gy[t], 0.0))
        part, gc2 = (total, gc) if m is None else (torch.where(m, total, 0.0), None if gc is None else torch.where(m, gc, 0.0))
        inner = part if w.hr is None else product(part, w.hr.t())
        g, ghid, direct, before = kind.back(kept, ys[t], None if cs is None else cs[t], inner, gc2)
        gh = product(ghid, w.hh.t()) if direct is None else product(ghid, w.hh.t()) + direct
        if m is not None:
            gh = gh + torch.where(m, 0.0, total)
            before = None if before is None or gc is None else before + torch.where(m, 0.0, gc)
        gc = before
        rows.append((g, ghid, part))
    g, ghid, ghs = (torch.stack(column[::-1]) for column in zip(*rows, strict=True))
    return g, ghid, gh, gc, None if w.hr is None else ghs


def _biases(w: Weights) -> tuple[Tensor, Tensor]:
    if w.b_ih is None or w.b_hh is None:
        none = w.ih.new_zeros(len(w.ih))
        return none, none
    return w.b_ih, w.b_hh


def _laid_out(w: Weights, x: Tensor, state: State) -> list[Tensor]:
    """Return the kernel's first arguments contiguous, as it assumes."""
    given = (x, w.ih, w.hh, *_biases(w), *state)
    return [one.contiguous() for one in given if one is not None]


def _run_onednn(w: Weights, x: Tensor, state: State, training: bool, kernel: Kernel) -> tuple[Tensor, State, Any]:
    """Run oneDNN's kernel; for prediction nothing is kept."""
    y, h, c, kept = kernel(*_laid_out(w, x, state), training)
    cache = {"x": x, "h": state[0], "c": state[1], "y": y, "h_n": h, "c_n": c, "workspace": kept}
    return y, (h, c), cache if training else None


def _run_onednn_back(w: Weights, cache: Any, gy: Tensor, gstate: State, kernel: Kernel) -> tuple[Weights, Tensor, State]:
    gs = [g.contiguous() for g in (gy, *gstate) if g is not None]
    ends = (cache["y"], cache["h_n"], cache["c_n"], *gs)
    given = _laid_out(w, cache["x"], (cache["h"], cache["c"]))
    gx, ih, hh, b_ih, b_hh, gh, gc = pieces.run_back(kernel, *given, *ends, cache["workspace"])
    biases = (None, None) if w.b_ih is None else (b_ih, b_hh)
    return Weights(ih, hh, *biases), gx, (gh, gc)
