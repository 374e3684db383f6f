"""Recurrent cells: the next state from the input and the previous state; ⊙ is the elementwise product, σ the sigmoid.

With the sums p = x Wᵀ + b and s = h Uᵀ + b', divided into parts of hidden_size for the gates, and their gradients gp and gs:

    gW = Σ gp xᵀ    gU = Σ gs hᵀ    gb = Σ gp    gb' = Σ gs    gx = gp W    gh = gs U

x (N, input_size) or (input_size,), h and c (N, hidden_size) or (hidden_size,).
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import axes_complaint, check_gy, check_param, floating_complaint, require_arguments, require_kind
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, one_of, size, size_or_none
from funcnet.initializers.elementary import Uniform
from funcnet.kernels import linear as kernels
from funcnet.kernels.recurrent.steps import KINDS
from funcnet.random.keys import Key
from funcnet.value import frozen


def initialize(rng: Key | int, shapes: dict[str, tuple[int, ...]], hidden_size: int) -> Params:
    """Draw all params uniformly from ±1 / √hidden_size, as torch.nn does."""
    rng, bound = random.as_key(rng), 1 / math.sqrt(hidden_size)
    draw = Uniform(-bound, bound)
    return {name: draw(random.fold_in(rng, i), shape) for i, (name, shape) in enumerate(shapes.items())}


@frozen
class _Cell(Layer):
    """Base of RNNCell, LSTMCell and GRUCell."""

    halves_share_work = True

    input_size: Size = field(validator=size_or_none)
    hidden_size: int = field(validator=size)
    bias: bool = field(default=True, validator=flag)

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of the kernel: ``tanh``, ``relu``, ``lstm`` or ``gru``."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"input_size": -1}

    def init(self, rng: Key | int) -> Params:
        return initialize(rng, self.param_shapes(), self.hidden_size)

    def apply(self, params: Any, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        require_arguments(self, params, x)
        one, h, c = self._parts(x)
        require_kind(self, params, one)
        pre = kernels.linear(one, params["weight_ih"], params.get("bias_ih"))
        hid = kernels.linear(h, params["weight_hh"], params.get("bias_hh"))
        y, after, kept = KINDS[self.kind].step(pre, hid, h, c)
        return (y if after is None else (y, after)), (x, kept)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        x, _ = cache
        one, h, _ = self._parts(x)
        g, ghid, gh, gc = self._back(cache, gy)
        return self._gparams(one, h, g, ghid), self._gx(params, x, g, ghid, gh, gc)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        one, h, _ = self._parts(cache[0])
        return self._gparams(one, h, *self._back(cache, gy)[:2])

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._gx(params, cache[0], *self._back(cache, gy))

    def _back(self, cache: Cache, gy: Any) -> Any:
        x, kept = cache
        _, h, c = self._parts(x)
        if c is None:
            return KINDS[self.kind].back(kept, h, c, check_gy(self, gy, h.shape, h), None)
        gh, gc = [torch.zeros_like(h) if g is None else check_gy(self, g, h.shape, h) for g in gy]
        return KINDS[self.kind].back(kept, h, c, gh, gc)

    def _gparams(self, x: Tensor, h: Tensor, g: Tensor, ghid: Tensor) -> Params:
        (w, b), (u, d) = kernels.linear_grads(x, g), kernels.linear_grads(h, ghid)
        return {"weight_ih": w, "weight_hh": u} | ({"bias_ih": b, "bias_hh": d} if self.bias else {})

    def _gx(self, params: Params, x: Any, g: Tensor, ghid: Tensor, direct: Tensor | None, gc: Tensor | None) -> Any:
        rows = g.shape[-1]
        gx = kernels.matmul_input_grad(g, check_param(self, params, "weight_ih", (rows, self.input_size), g))
        if not isinstance(x, tuple):
            return gx
        gh = kernels.matmul_input_grad(ghid, check_param(self, params, "weight_hh", (rows, self.hidden_size), g))
        gh = gh if direct is None else gh + direct
        return gx, gh if gc is None else (gh, gc)

    def _parts(self, x: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the input, h and c, with zeros for a missing state."""
        if isinstance(x, tuple):
            one, state = x
            return (one, *state) if isinstance(state, tuple) else (one, state, None)
        zeros = x.new_zeros((*x.shape[:-1], self.hidden_size))
        return x, zeros, zeros if self.kind == "lstm" else None

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        rows = KINDS[self.kind].gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.input_size), "weight_hh": (rows, self.hidden_size)}
        return shapes | ({"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {})

    def complaint(self, x: Any) -> str | None:
        if self._is_input(x):
            return None
        one, form = x[0] if isinstance(x, tuple) and x else x, "(input, (h, c))" if self.kind == "lstm" else "(input, h)"
        rule = floating_complaint(one) or axes_complaint(self, one, "N, input_size", "input_size")
        return rule or f"x must be an input, or {form} with states of its dtype and shape {(*one.shape[:-1], self.hidden_size)}"

    def _is_input(self, x: Any) -> bool:
        """Return whether x is an input, or an input and a state that fits it: kernels would broadcast other shapes."""
        is_lstm, one = self.kind == "lstm", x[0] if isinstance(x, tuple) and x else x
        if isinstance(x, tuple) and (len(x) != 2 or isinstance(x[1], tuple) != is_lstm):
            return False
        states = (x[1] if is_lstm else x[1:]) if isinstance(x, tuple) else ()
        if not all([isinstance(part, Tensor) and part.is_floating_point() and not part.is_nested for part in (one, *states)]):  # noqa: C419
            return False
        shape = (*one.shape[:-1], self.hidden_size)
        right = one.dim() in (1, 2) and one.shape[-1] == self.input_size and len(states) in (0, 1 + is_lstm)
        return right and all([part.shape == shape and part.dtype is one.dtype for part in states])  # noqa: C419


@frozen
class RNNCell(_Cell):
    """One step of an Elman network: the next h from the input and h.

        p  = x Wᵀ + b           s  = h Uᵀ + b'
        h' = tanh(p + s),  or ReLU
        gp = gh' ⊙ (1 - h'²)    gs = gp                 with ReLU gh' where h' > 0, else 0
        gW = Σ gp xᵀ    gU = Σ gs hᵀ    gb = gb' = Σ gp    gx = gp W    gh = gs U

    Args:
        input_size: Number of features of the input; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        bias: Whether to learn the biases b and b'.
        nonlinearity: ``"tanh"`` or ``"relu"``.

    Shape:
        x (N, input_size), or (x, h) with h (N, hidden_size), zeros by default → h' (N, hidden_size). The batch axis is optional.

    Params:
        weight_ih: W (hidden_size, input_size), uniform in ±1 / √hidden_size.
        weight_hh: U (hidden_size, hidden_size), the same.
        bias_ih: b (hidden_size,), the same; absent with ``bias=False``.
        bias_hh: b' (hidden_size,), the same; absent with ``bias=False``.

    Cache:
        The input and h, not copied, and h'.

    References:
        Elman 1990; names and initial values as in ``torch.nn.RNNCell``.

    >>> cell = RNNCell(4, 3)
    >>> cell(cell.init(0), torch.ones(2, 4)).shape
    torch.Size([2, 3])
    """

    nonlinearity: str = field(default="tanh", validator=one_of("tanh", "relu"))

    @property
    def kind(self) -> str:
        return self.nonlinearity


@frozen
class LSTMCell(_Cell):
    """One step of long short-term memory: the next (h, c) from the input and (h, c).

        p  = x Wᵀ + b                   s  = h Uᵀ + b'                         in four parts, one for each gate
        i  = σ(p + s)    f  = σ(p + s)    u  = tanh(p + s)    o  = σ(p + s)
        c' = f ⊙ c + i ⊙ u              h' = o ⊙ tanh(c')
        e  = gc' + gh' ⊙ o ⊙ (1 - tanh(c')²)
        gi = e ⊙ u ⊙ i ⊙ (1 - i)        gf = e ⊙ c ⊙ f ⊙ (1 - f)
        gu = e ⊙ i ⊙ (1 - u²)           go = gh' ⊙ tanh(c') ⊙ o ⊙ (1 - o)
        gp = [gi, gf, gu, go]           gs = gp                                gc = e ⊙ f
        gW = Σ gp xᵀ    gU = Σ gs hᵀ    gb = gb' = Σ gp    gx = gp W    gh = gs U

    Args:
        input_size: Number of features of the input; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        bias: Whether to learn the biases b and b'.

    Shape:
        x (N, input_size), or (x, (h, c)) with h and c (N, hidden_size), zeros by default → (h', c'), each (N, hidden_size). The
        batch axis is optional.

    Params:
        weight_ih: W (4 · hidden_size, input_size), uniform in ±1 / √hidden_size; rows in the order i f u o.
        weight_hh: U (4 · hidden_size, hidden_size), the same.
        bias_ih: b (4 · hidden_size,), the same; absent with ``bias=False``.
        bias_hh: b' (4 · hidden_size,), the same; absent with ``bias=False``.

    Cache:
        The input, h and c, not copied, the gates and tanh(c').

    References:
        Hochreiter & Schmidhuber 1997; Gers et al. 2000 for the gate f; names and initial values as in ``torch.nn.LSTMCell``.

    >>> cell = LSTMCell(4, 3)
    >>> h, c = cell(cell.init(0), torch.ones(2, 4))
    >>> h.shape, c.shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    @property
    def kind(self) -> str:
        return "lstm"


@frozen
class GRUCell(_Cell):
    """One step of a gated recurrent unit: the next h from the input and h.

        p  = x Wᵀ + b                   s  = h Uᵀ + b'                         in three parts, one for each gate
        r  = σ(p + s)    z  = σ(p + s)    n  = tanh(p + r ⊙ s)
        h' = (1 - z) ⊙ n + z ⊙ h
        gn = gh' ⊙ (1 - z) ⊙ (1 - n²)   gr = gn ⊙ s ⊙ r ⊙ (1 - r)              here s is its third part, for n
        gz = gh' ⊙ (h - n) ⊙ z ⊙ (1 - z)
        gp = [gr, gz, gn]               gs = [gr, gz, gn ⊙ r]
        gW = Σ gp xᵀ    gU = Σ gs hᵀ    gb = Σ gp    gb' = Σ gs    gx = gp W    gh = gs U + gh' ⊙ z

    Args:
        input_size: Number of features of the input; ``None`` to infer it with ``infer_sizes``.
        hidden_size: Number of features of the state.
        bias: Whether to learn the biases b and b'.

    Shape:
        x (N, input_size), or (x, h) with h (N, hidden_size), zeros by default → h' (N, hidden_size). The batch axis is optional.

    Params:
        weight_ih: W (3 · hidden_size, input_size), uniform in ±1 / √hidden_size; rows in the order r z n.
        weight_hh: U (3 · hidden_size, hidden_size), the same.
        bias_ih: b (3 · hidden_size,), the same; absent with ``bias=False``.
        bias_hh: b' (3 · hidden_size,), the same; absent with ``bias=False``.

    Cache:
        The input and h, not copied, the gates, and the part of s that belongs to n.

    References:
        Cho et al. 2014, with r applied after the product as in torch; names and initial values as in ``torch.nn.GRUCell``.

    >>> cell = GRUCell(4, 3)
    >>> cell(cell.init(0), (torch.ones(2, 4), torch.zeros(2, 3))).shape
    torch.Size([2, 3])
    """

    @property
    def kind(self) -> str:
        return "gru"
