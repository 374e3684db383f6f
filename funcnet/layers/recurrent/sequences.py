"""Cells along a sequence, in several layers and in one direction or both: the base class of RNN, LSTM and GRU.

``nets`` has the formulas. The reverse direction runs from the last step to the first, and its outputs are joined to the forward
outputs along the last axis. Each layer takes the outputs of the layer below, after dropout.
"""

from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import axes_complaint, check_gy, check_param, floating_complaint, require_arguments, require_key, require_kind
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, number, number_of_parts, size, size_or_none, value_error
from funcnet.kernels.operands import masked_scale
from funcnet.kernels.recurrent.sequences import Weights, run, run_back
from funcnet.kernels.recurrent.steps import KINDS
from funcnet.kernels.tracing import is_plain
from funcnet.layers.recurrent.cells import initialize
from funcnet.random.keys import Key, key_beside
from funcnet.value import frozen

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
DROPOUT = number(0.0, at_most=1.0)


@frozen
class Recurrent(Layer):
    """Base of recurrent nets."""

    ensemble_mode = "loop if large"
    halves_share_work = True

    input_size: Size = field(validator=size_or_none)
    hidden_size: int = field(validator=size)
    num_layers: int = field(default=1, validator=number_of_parts)
    bias: bool = field(default=True, validator=flag)
    batch_first: bool = field(default=False, validator=flag)
    dropout: float = field(default=0.0, validator=DROPOUT)
    bidirectional: bool = field(default=False, validator=flag)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"input_size": -1}

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of the kernel: ``tanh``, ``relu``, ``lstm`` or ``gru``."""

    @property
    def stochastic(self) -> bool:
        return self.dropout > 0 and self.num_layers > 1

    def inference(self) -> Layer:
        return self.replace(dropout=0.0)

    def init(self, rng: Key | int) -> Params:
        return initialize(rng, self.param_shapes(), self.hidden_size)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self._forward(params, x, rng, training=True)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._forward(params, x, rng, training=False)[0]

    def _forward(self, params: Params, x: Any, rng: Rng, *, training: bool) -> tuple[Any, Cache]:
        if self.stochastic:
            require_key(self, rng)
        require_arguments(self, params, x)
        require_kind(self, params, _sequence(x))
        self._check_lengths(x)
        y, states, mask = self._parts(x)
        caches, ends, keeps = [], [], []
        for layer in range(self.num_layers):
            keep = self._keep(y, layer, rng)
            y = y if keep is None else masked_scale(y, keep, self._scale())
            y, end, cache = self._run_layer(self._directions(params, layer), y, states, mask, training=training)
            caches.append(cache)
            ends += end
            keeps.append(keep)
        return (self._outward(y, x), self._stack(ends, x)), (x, tuple(caches), tuple(keeps))

    def _run_layer(
        self, directions: Any, x: Tensor, states: Any, mask: Tensor | None, *, training: bool
    ) -> tuple[Tensor, Any, Any]:
        ys, ends, caches = [], [], []
        for direction, (at, w) in enumerate(directions):
            flipped = mask if mask is None or not direction else mask.flip(0)
            y, end, cache = run(self.kind, w, x.flip(0) if direction else x, states[at], flipped, training=training)
            ys.append(y.flip(0) if direction else y)
            ends.append(end)
            caches.append(cache)
        return ys[0] if len(ys) == 1 else torch.cat(ys, -1), ends, tuple(caches)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self._back(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self._back(params, cache, gy, inputs=False)[0]

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._back(params, cache, gy, weights=False)[1]

    def _back(self, params: Params, cache: Cache, gy: Any, *, weights: bool = True, inputs: bool = True) -> tuple[Params, Any]:
        x, caches, keeps = cache
        g, gends = self._incoming(cache, gy)
        self._check_params(params, g)
        gparams: dict[str, Any] = dict.fromkeys(params)
        for layer in reversed(range(self.num_layers)):
            parts = g.chunk(len(caches[layer]), -1)
            gxs: list[Any] = []
            for direction, (at, w) in enumerate(self._directions(params, layer)):
                needed = {"weights": weights, "inputs": inputs or layer > 0}
                part = parts[direction].flip(0) if direction else parts[direction]
                gw, gx, gends[at] = run_back(self.kind, w, caches[layer][direction], part, gends[at], **needed)
                gparams |= {} if gw is None else self._by_name(gw, layer, direction)
                gxs.append(gx if gx is None or not direction else gx.flip(0))
            g = _add_directions(gxs)
            g = g if keeps[layer] is None else masked_scale(g, keeps[layer], self._scale())
        if not inputs or not isinstance(x, tuple):
            return gparams, self._outward(g, x) if inputs else None
        return gparams, (self._outward(g, x), None if x[1] is None else self._stack(gends, x), None)[: len(x)]

    def _directions(self, params: Any, layer: int) -> list[tuple[int, Weights]]:
        """Return the number of the state, and the params, of each direction of a layer."""
        directions = 1 + self.bidirectional
        found: list[dict[str, Any]] = [
            {name: params.get(_name(name, layer, direction)) for name in _NAMES} for direction in range(directions)
        ]
        return [(directions * layer + direction, Weights(*one.values())) for direction, one in enumerate(found)]

    def _by_name(self, gw: Weights, layer: int, direction: int) -> Params:
        return {_name(name, layer, direction): g for name, g in zip(_NAMES, gw, strict=True) if g is not None}

    def _keep(self, y: Tensor, layer: int, rng: Rng) -> Tensor | None:
        if not self.stochastic or layer == 0 or rng is None:
            return None
        return random.bernoulli(key_beside(random.fold_in(rng, layer), y), tuple(y.shape), 1 - self.dropout)

    def _scale(self) -> float:
        return 1 / (1 - self.dropout) if self.dropout < 1 else 0.0

    def _parts(self, x: Any) -> tuple[Tensor, list[Any], Tensor | None]:
        """Return the sequence as (T, N, features), the states by number, and the mask of valid steps.

        Steps that are not valid become zeros: multiplying by 0 would not remove infinities or NaN.
        """
        y, state, lengths = (*x, None)[:3] if isinstance(x, tuple) else (x, None, None)
        y = self._inward(y, x)
        if lengths is None:
            return y, self._split(state, y), None
        mask = (torch.arange(y.shape[0], device=y.device).unsqueeze(1) < lengths.reshape(-1)).unsqueeze(-1)
        return torch.where(mask, y, 0.0), self._split(state, y), mask

    def _check_lengths(self, x: Any) -> None:
        """Raise ``ValueError`` for lengths outside the sequence, if they can be read without waiting for a device."""
        lengths = x[2] if isinstance(x, tuple) and len(x) == 3 else None
        if lengths is None or not is_plain(lengths):
            return
        steps = len(self._inward(x[0], x))
        if bool(((lengths < 0) | (lengths > steps)).any()):
            raise value_error(self, f"lengths must be from 0 to {steps}, the number of steps", str(lengths.tolist()))

    def _split(self, state: Any, y: Tensor) -> list[Any]:
        """Split a state into a pair (h, c) for each layer and direction; ``None`` means zeros."""
        count, widths = self.num_layers * (1 + self.bidirectional), self._widths()
        if state is None:
            state = tuple([y.new_zeros((count, y.shape[1], width)) for width in widths])
        parts = state if isinstance(state, tuple) else (state,)
        columns = [(part if part.dim() == 3 else part.unsqueeze(1)).unbind(0) for part in parts]
        return [(*row, None)[:2] for row in zip(*columns, strict=True)]

    def _stack(self, states: Any, x: Any) -> Any:
        """Stack the states of all layers and directions in the layout of x."""
        columns = [torch.stack(column) for column in zip(*states, strict=True) if column[0] is not None]
        columns = [column.squeeze(1) if _sequence(x).dim() == 2 else column for column in columns]
        return columns[0] if len(columns) == 1 else tuple(columns)

    def _incoming(self, cache: Cache, gy: Any) -> tuple[Tensor, list[Any]]:
        """Return the parts of gy, as (T, N, features) and as states by number, with zeros for ``None``."""
        x = cache[0]
        y = self._inward(_sequence(x), x)
        g, gstate = gy
        directions, widths = 1 + self.bidirectional, self._widths()
        shape = (*y.shape[:2], directions * widths[0])
        g = y.new_zeros(shape) if g is None else self._inward(g, x)
        shapes = [(self.num_layers * directions, *([] if _sequence(x).dim() == 2 else [y.shape[1]]), width) for width in widths]
        ends = gstate if isinstance(gstate, tuple) else (None,) * len(shapes) if gstate is None else (gstate,)
        fits = g.shape == shape and len(ends) == len(shapes)
        if not fits or any([end is not None and end.shape != n for end, n in zip(ends, shapes, strict=True)]):  # noqa: C419
            raise value_error(self, "gy must be a pair with the shapes of y; either part may be None", gy)
        check_gy(self, g, shape, y)
        pairs = zip(ends, shapes, strict=True)
        return g, self._split(tuple([y.new_zeros(n) if end is None else check_gy(self, end, n, y) for end, n in pairs]), y)

    def _inward(self, one: Tensor, x: Any) -> Tensor:
        if _sequence(x).dim() == 2:
            return one.unsqueeze(1)
        return one.transpose(0, 1) if self.batch_first else one

    def _outward(self, one: Tensor, x: Any) -> Tensor:
        if _sequence(x).dim() == 2:
            return one.squeeze(1)
        return one.transpose(0, 1) if self.batch_first else one

    def _widths(self) -> tuple[int, ...]:
        """Return the sizes of h and, in an LSTM, c."""
        return (self.hidden_size,)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for direction in range(1 + self.bidirectional):
                shapes |= {_name(name, layer, direction): shape for name, shape in self._layer_shapes(layer).items()}
        return shapes

    def _layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the params of one layer, the same in both directions."""
        rows, out = KINDS[self.kind].gates * self.hidden_size, self._widths()[0]
        width = self.input_size if layer == 0 else out * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...]] = {_NAMES[0]: (rows, width), _NAMES[1]: (rows, out)}
        shapes |= {_NAMES[2]: (rows,), _NAMES[3]: (rows,)} if self.bias else {}
        return shapes if out == self.hidden_size else {**shapes, _NAMES[4]: (out, self.hidden_size)}

    def _check_params(self, params: Params, like: Tensor) -> None:
        """Check shapes and dtypes of params for backward methods: oneDNN would read past their ends."""
        for name, shape in self.param_shapes().items():
            check_param(self, params, name, shape, like)

    def complaint(self, x: Any) -> str | None:
        if isinstance(x, tuple) and len(x) not in (2, 3):
            return "x must be a sequence, (sequence, state) or (sequence, state, lengths)"
        y, state, lengths = (*x, None)[:3] if isinstance(x, tuple) else (x, None, None)
        if floating_complaint(y) or y.dim() not in (2, 3) or y.shape[-1] != self.input_size:
            return floating_complaint(y) or axes_complaint(
                self, y, "N, T, input_size" if self.batch_first else "T, N, input_size", "T, input_size"
            )
        steps, *n = self._inward(y, x).shape[: y.dim() - 1]
        per_row = (
            isinstance(lengths, Tensor)
            and not lengths.is_nested
            and not lengths.is_floating_point()
            and [lengths.numel()] == (n or [1])
        )
        if lengths is not None and not per_row:
            return "lengths must be a tensor with a whole number for each row"
        shapes = [(self.num_layers * (1 + self.bidirectional), *n, width) for width in self._widths()]
        states = state if isinstance(state, tuple) else (state,)
        if state is not None and [_shape(part) for part in states] != shapes:
            return f"the state must have the shape {' and '.join(map(str, shapes))}"
        if state is not None and any([part.dtype is not y.dtype or part.is_cpu is not y.is_cpu for part in states]):  # noqa: C419
            return f"the state must have the dtype and device of the sequence, {y.dtype} on {y.device}"
        return None if steps else "the sequence must have a step"


def _shape(part: Any) -> Any:
    return part.shape if isinstance(part, Tensor) and not part.is_nested else None


def _add_directions(gxs: list[Any]) -> Any:
    return gxs[0] if len(gxs) == 1 or gxs[0] is None else gxs[0] + gxs[1]


def _name(name: str, layer: int, direction: int) -> str:
    return f"{name}_l{layer}{'_reverse' * direction}"


def _sequence(x: Any) -> Tensor:
    one: Tensor = x[0] if isinstance(x, tuple) else x
    return one
