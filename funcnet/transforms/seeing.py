"""Insight into a net: the outputs of all its layers, and the Jacobian of its output."""

from typing import Any

import torch
from torch import Tensor

from funcnet.combinators.vmapping import mapped
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.kernels.tracing import transform_level
from funcnet.stand_ins import StandIn, stand_in_for, with_stand_ins
from funcnet.walking import children_of, require_layer


class _Recorder(StandIn):
    """A layer that records its output, unless a ``vmap`` within the net hides it."""

    path: str
    level: int
    outputs: list[Any]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self.original.apply(params, x, rng)
        if transform_level() == self.level:
            self.outputs.append(y)
        return y, cache


def intermediates(net: Layer, params: Params, x: Any, rng: Rng = None) -> dict[str, Any]:
    """Return the output of every layer of a net by path, outermost first; the path of the net itself is ``""``.

        value[path] = y of the layer at that path

    A layer that runs several times, as in ``scan`` and ``shared``, has a tuple of its outputs. If a wrapper and its layer have
    the same path, the output is the wrapper's, as in ``at``. Layers that run within ``vmap``, as in ``ensemble``, are left out,
    and so are layers that never run. For the outputs in evaluation, pass ``net.inference()``.

    Args:
        net: The net.
        params: Its params.
        x: Its input.
        rng: A key, for a stochastic net.

    Returns:
        A dict from paths to outputs.

    Raises:
        ValueError: If ``net`` is not a layer, or rejects its input.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = serial(Linear(2, 3), Tanh())
    >>> {path: tuple(y.shape) for path, y in intermediates(net, net.init(0), torch.ones(4, 2)).items()}
    {'': (4, 3), '0': (4, 3), '1': (4, 3)}
    """
    found: list[_Recorder] = []
    _with_recorders(require_layer("intermediates", net), "", found, transform_level()).apply(params, x, rng)
    outputs: dict[str, Any] = {}
    for one in reversed(found):  # the outermost comes last in the list
        if one.outputs:
            outputs.setdefault(one.path, one.outputs[0] if len(one.outputs) == 1 else tuple(one.outputs))
    return outputs


def _with_recorders(layer: Layer, path: str, found: list[_Recorder], level: int) -> _Recorder:
    """Return a net whose layers record their outputs, and append these layers to ``found``, the last one first."""
    children = children_of(layer)
    inside = {
        name: _with_recorders(child, ".".join(filter(None, (path, name))), found, level)
        for name, child in reversed([*children.items()])
    }
    layer = with_stand_ins(layer, {name: inside[name] for name in children})
    found.append(stand_in_for(layer, _Recorder, path=path, level=level, outputs=[]))
    return found[-1]


def jacobian(net: Layer, params: Params, x: Tensor) -> Tensor:
    """Return the whole derivative of y with respect to x.

        J[i, j] = ∂yᵢ / ∂xⱼ

    It is ``input_grad`` for all unit vectors at once, with ``vmap``. The rows of a batch do not depend on each other, so most of
    the Jacobian of a batch is 0: pass one row, or use ``torch.func.vmap``. For surrogates it contains the declared gradient.

    Args:
        net: A net from one floating tensor to another that needs no key. For a stochastic net pass ``net.inference()``.
        params: Its params.
        x: Its input.

    Returns:
        A tensor of the shape y.shape + x.shape.

    Raises:
        ValueError: If ``net`` is not a layer or is stochastic, or x or y is not a floating tensor.

    >>> from funcnet.layers.activation.elementary import Square
    >>> jacobian(Square(), {}, torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if require_layer("jacobian", net).stochastic:
        raise value_error("jacobian", "the net must not be stochastic: pass net.inference()", repr(net))
    y, cache = net.apply(params, x)
    for name, value in {"x": x, "y": y}.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise value_error("jacobian", f"{name} must be a floating tensor", value)
    if not y.numel():
        return x.new_zeros((*y.shape, *x.shape))
    units = torch.eye(y.numel(), dtype=y.dtype, device=y.device).reshape((-1, *y.shape))
    rows: Tensor = mapped(y.numel(), lambda gy: net.input_grad(params, cache, gy), units)
    return rows.reshape((*y.shape, *x.shape))
