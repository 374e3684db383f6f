"""Kernels of recurrent nets: one step forward and backward, and whole sequences in buffers that are written step by step.

The arguments of a step are pre = x Wᵀ + b, hid = h Uᵀ (+ b), h, and c (``None`` except for an LSTM). It returns the new h before
any projection, the new c, and the cache of its backward. Times are for an LSTM, 64 steps of 32×64 to 128, forward and backward.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.activation import sigmoid_backward, tanh, tanh_backward, threshold_backward
from funcnet.kernels.linear import linear as product
from funcnet.kernels.tracing import is_eager

_aten = torch.ops.aten
_sigmoid_backward_into: Callable[..., Tensor] = _aten.sigmoid_backward.grad_input
_tanh_backward_into: Callable[..., Tensor] = _aten.tanh_backward.grad_input

ONEDNN: bool = torchs.HAS_ONEDNN and None not in (torchs.onednn_rnn, torchs.onednn_rnn_backward)

Maybe = Tensor | None
Kept = tuple[Tensor, ...]
Backward = tuple[Tensor, Tensor, Maybe, Maybe]


def owned(*tensors: Maybe) -> bool:
    """Return whether tensors are plain data in memory; then results may be written to a new buffer."""
    given = [x for x in tensors if x is not None]
    return is_eager() and all([type(x) is Tensor and not x.requires_grad and x.numel() > 0 for x in given])  # noqa: C419


def _tanh_step(pre: Tensor, hid: Tensor, h: Tensor, c: Maybe) -> tuple[Tensor, Maybe, Kept]:
    h = tanh(pre + hid)
    return h, None, (h,)


def _tanh_back(kept: Kept, h: Tensor, c: Maybe, gh: Tensor, gc: Maybe) -> Backward:
    g = tanh_backward(gh, kept[0])
    return g, g, None, None


def _relu_step(pre: Tensor, hid: Tensor, h: Tensor, c: Maybe) -> tuple[Tensor, Maybe, Kept]:
    h = torch.relu(pre + hid)
    return h, None, (h,)


def _relu_back(kept: Kept, h: Tensor, c: Maybe, gh: Tensor, gc: Maybe) -> Backward:
    g = threshold_backward(gh, kept[0], 0)
    return g, g, None, None


def _lstm_step(pre: Tensor, hid: Tensor, h: Tensor, c: Any) -> tuple[Tensor, Maybe, Kept]:
    i, f, u, o = (pre + hid).chunk(4, -1)
    gates = torch.cat((torch.sigmoid(i), torch.sigmoid(f), tanh(u), torch.sigmoid(o)), -1)
    i, f, u, o = gates.chunk(4, -1)
    c = f * c + i * u
    t = tanh(c)
    return o * t, c, (gates, t)


def _lstm_back(kept: Kept, h: Tensor, c: Any, gh: Tensor, gc: Any) -> Backward:
    (gates, t) = kept
    i, f, u, o = gates.chunk(4, -1)
    gc = gc + tanh_backward(gh * o, t)
    gi, gf, go = sigmoid_backward(gc * u, i), sigmoid_backward(gc * c, f), sigmoid_backward(gh * t, o)
    g = torch.cat((gi, gf, tanh_backward(gc * i, u), go), -1)
    return g, g, None, gc * f


def _gru_step(pre: Tensor, hid: Tensor, h: Tensor, c: Maybe) -> tuple[Tensor, Maybe, Kept]:
    (r, z, n), (hr, hz, hn) = pre.chunk(3, -1), hid.chunk(3, -1)
    r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
    n = tanh(n + r * hn)
    return n + z * (h - n), None, (torch.cat((r, z, n), -1), hn)


def _gru_back(kept: Kept, h: Tensor, c: Maybe, gh: Tensor, gc: Maybe) -> Backward:
    gates, hn = kept
    r, z, n = gates.chunk(3, -1)
    gz, gn = sigmoid_backward(gh * (h - n), z), tanh_backward(gh * (1 - z), n)
    gr = sigmoid_backward(gn * hn, r)
    return torch.cat((gr, gz, gn), -1), torch.cat((gr, gz, gn * r), -1), gh * z, None


class Kind(NamedTuple):
    """A kind of cell: its number of gates, a step, its backward, and both over a whole sequence in buffers."""

    gates: int
    step: Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Maybe, Kept]]
    back: Callable[[Kept, Tensor, Any, Tensor, Any], Backward]
    run: Callable[..., Any]
    run_back: Callable[..., Any]


def _buffer(like: Tensor, steps: int, size: int) -> Tensor:
    return like.new_empty((steps, like.shape[1], size))


def _simple_run(pre: Tensor, w: tuple[Tensor, Maybe, Maybe], h: Tensor, c: Maybe, f: Callable[..., Any]) -> Any:
    y = _buffer(pre, len(pre) + 1, h.shape[-1])
    y[0] = h
    before, after = y[:-1].unbind(0), y[1:].unbind(0)
    for p, old, new in zip(pre.unbind(0), before, after, strict=True):
        f(p.add_(product(old, w[0])), out=new)
    return y, None, (y[1:],)


def _simple_run_back(kept: Kept, ys: Tensor, cs: Maybe, gy: Tensor, gh: Tensor, w: Tensor, f: Callable[..., Any]) -> Any:
    g, wt = torch.empty_like(kept[0]), w.t()
    for part, y, out in zip(*[reversed(x.unbind(0)) for x in (gy, kept[0], g)], strict=True):
        out.copy_(f(gh + part, y))
        gh = product(out, wt)
    return g, g, gh, None, None


def _tanh_run(pre: Tensor, w: tuple[Tensor, Maybe, Maybe], h: Tensor, c: Maybe) -> Any:
    return _simple_run(pre, w, h, c, torch.tanh)


def _relu_run(pre: Tensor, w: tuple[Tensor, Maybe, Maybe], h: Tensor, c: Maybe) -> Any:
    return _simple_run(pre, w, h, c, lambda x, out: torch.clamp(x, min=0, out=out))


def _tanh_run_back(kept: Kept, ys: Tensor, cs: Maybe, gy: Tensor, gh: Tensor, gc: Maybe, w: tuple[Tensor, Maybe]) -> Any:
    return _simple_run_back(kept, ys, cs, gy, gh, w[0], tanh_backward)


def _relu_run_back(kept: Kept, ys: Tensor, cs: Maybe, gy: Tensor, gh: Tensor, gc: Maybe, w: tuple[Tensor, Maybe]) -> Any:
    return _simple_run_back(kept, ys, cs, gy, gh, w[0], lambda g, y: threshold_backward(g, y, 0))


def _lstm_run(pre: Tensor, w: tuple[Tensor, Maybe, Maybe], h: Tensor, c: Any) -> Any:
    """Overwrite ``pre`` with the gates; each step is one product and eight operations in the processor's cache."""
    steps, size = len(pre), c.shape[-1]
    ys, cs, ts = _buffer(pre, steps + 1, h.shape[-1]), _buffer(pre, steps + 1, size), _buffer(pre, steps, size)
    ys[0], cs[0] = h, c
    m = ys[1:] if w[2] is None else _buffer(pre, steps, size)
    ifs, us, os = (part.unbind(0) for part in torch.split(pre, [2 * size, size, size], -1))
    rows = zip(pre.unbind(0), ifs, us, os, ys[:-1].unbind(0), cs[:-1].unbind(0), strict=True)
    into = list(zip(cs[1:].unbind(0), ts.unbind(0), m.unbind(0), strict=True))
    for k, (gates, ifg, u, o, y, before) in enumerate(rows):
        new, t, out = into[k]
        gates.add_(product(y, w[0]))
        i, f = torch.split(ifg.sigmoid_(), size, 1)
        torch.mul(f, before, out=new).addcmul_(i, u.tanh_())
        torch.mul(o.sigmoid_(), torch.tanh(new, out=t), out=out)
        if w[2] is not None:
            ys[k + 1] = product(out, w[2])
    return ys, cs, (pre, ts)


def _lstm_run_back(kept: Kept, ys: Tensor, cs: Any, gy: Tensor, gh: Tensor, gc: Any, w: tuple[Tensor, Maybe]) -> Any:
    """Compute the factors that do not depend on gc and gh for all steps at once, so that a step has few operations."""
    gates, ts = kept
    g, (i, f, u, o) = torch.empty_like(gates), gates.chunk(4, -1)
    gi, gf, gu, go = g.chunk(4, -1)
    for a, b, out in ((u, i, gi), (cs[:-1], f, gf), (ts, o, go)):
        _sigmoid_backward_into(a, b, grad_input=out)
    _tanh_backward_into(i, u, grad_input=gu)
    slope, gc, wt = tanh_backward(o, ts), gc.clone(), w[0].t()
    wrt = None if w[1] is None else w[1].t()
    ghs = None if w[1] is None else torch.empty_like(gy)
    threes, lasts = (part.unbind(0) for part in torch.split(g.view(*g.shape[:2], 4, -1), [3, 1], 2))
    rows = (gy.unbind(0), slope.unbind(0), f.unbind(0), threes, lasts, g.unbind(0))
    for k, (part, a, forget, three, last, whole) in reversed([*enumerate(zip(*rows, strict=True))]):
        gh = gh + part
        if ghs is not None and wrt is not None:
            ghs[k] = gh
            gh = product(gh, wrt)
        gc.addcmul_(gh, a)
        three.mul_(gc.unsqueeze(1))
        last.squeeze(1).mul_(gh)
        gc.mul_(forget)
        gh = product(whole, wt)
    return g, g, gh, gc, ghs


def _gru_run(pre: Tensor, w: tuple[Tensor, Maybe, Maybe], h: Tensor, c: Maybe) -> Any:
    steps, size = len(pre), h.shape[-1]
    ys, hns = _buffer(pre, steps + 1, size), _buffer(pre, steps, size)
    ys[0] = h
    rzs, ns = (part.unbind(0) for part in torch.split(pre, [2 * size, size], -1))
    rows = zip(rzs, ns, hns.unbind(0), ys[:-1].unbind(0), ys[1:].unbind(0), strict=True)
    for rz, n, hn, y, out in rows:
        hid = product(y, w[0], w[1])
        r, z = torch.split(rz.add_(hid[:, : 2 * size]).sigmoid_(), size, 1)
        hn.copy_(hid[:, 2 * size :])
        n.addcmul_(r, hn).tanh_()
        torch.lerp(n, y, z, out=out)
    return ys, None, (pre, hns)


def _gru_run_back(kept: Kept, ys: Tensor, cs: Maybe, gy: Tensor, gh: Tensor, gc: Maybe, w: tuple[Tensor, Maybe]) -> Any:
    gates, hns = kept
    r, z, n = gates.chunk(3, -1)
    ghid, ghs, wt = torch.empty_like(gates), torch.empty_like(gy), w[0].t()
    gr, gz, gnh = ghid.chunk(3, -1)
    gn = tanh_backward(1 - z, n)
    _sigmoid_backward_into(gn * hns, r, grad_input=gr)
    _sigmoid_backward_into(ys[:-1] - n, z, grad_input=gz)
    torch.mul(gn, r, out=gnh)
    rows = (gy.unbind(0), z.unbind(0), ghid.view(*ghid.shape[:2], 3, -1).unbind(0), ghid.unbind(0), ghs.unbind(0))
    for part, keep, three, whole, out in reversed([*zip(*rows, strict=True)]):
        torch.add(gh, part, out=out)
        three.mul_(out.unsqueeze(1))
        gh = product(whole, wt).addcmul_(out, keep)
    return torch.cat((gr, gz, gn.mul_(ghs)), -1), ghid, gh, None, None


KINDS = {
    "tanh": Kind(1, _tanh_step, _tanh_back, _tanh_run, _tanh_run_back),
    "relu": Kind(1, _relu_step, _relu_back, _relu_run, _relu_run_back),
    "lstm": Kind(4, _lstm_step, _lstm_back, _lstm_run, _lstm_run_back),
    "gru": Kind(3, _gru_step, _gru_back, _gru_run, _gru_run_back),
}
