"""Activations, and softmaxes along torch.nn's implicit axis."""

from typing import Any

from attrs import field
from torch import Tensor, nn

from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import one_of
from funcnet.interop.torch_nn.importing.conversion import entry_of, made, same
from funcnet.interop.torch_nn.importing.registry import Converted, layer
from funcnet.layers.activation.base import Along
from funcnet.layers.activation.glu import GLU
from funcnet.layers.activation.leaky import LeakyReLU, PReLU, RReLU
from funcnet.layers.activation.rectifiers import CELU, ELU, SELU, ReLU, ReLU6, Threshold
from funcnet.layers.activation.self_gated import GELU, Hardswish, Mish, SiLU
from funcnet.layers.activation.shrinkages import Hardshrink, Softshrink, Tanhshrink
from funcnet.layers.activation.sigmoids import Hardsigmoid, Hardtanh, LogSigmoid, Sigmoid, Softsign, Tanh
from funcnet.layers.activation.softmaxes import LogSoftmax, Softmax, Softmax2d, Softmin
from funcnet.layers.activation.softpluses import Softplus
from funcnet.value import frozen

same(nn.CELU, CELU, "alpha")
same(nn.ELU, ELU, "alpha")
same(nn.GELU, GELU, "approximate")
same(nn.GLU, GLU, "dim")
same(nn.Hardshrink, Hardshrink, "lambd")
same(nn.Hardsigmoid, Hardsigmoid)
same(nn.Hardswish, Hardswish)
same(nn.Hardtanh, Hardtanh, "min_val", "max_val")
same(nn.LeakyReLU, LeakyReLU, "negative_slope")
same(nn.LogSigmoid, LogSigmoid)
same(nn.Mish, Mish)
same(nn.PReLU, PReLU, "num_parameters", "init")
same(nn.RReLU, RReLU, "lower", "upper")
same(nn.ReLU, ReLU)
same(nn.ReLU6, ReLU6)
same(nn.SELU, SELU)
same(nn.SiLU, SiLU)
same(nn.Sigmoid, Sigmoid)
same(nn.Softmax2d, Softmax2d)
same(nn.Softplus, Softplus, "beta", "threshold")
same(nn.Softshrink, Softshrink, "lambd")
same(nn.Softsign, Softsign)
same(nn.Tanh, Tanh)
same(nn.Tanhshrink, Tanhshrink)
same(nn.Threshold, Threshold, "threshold", "value")

_SOFTMAXES: dict[type, type[Along]] = {nn.LogSoftmax: LogSoftmax, nn.Softmax: Softmax, nn.Softmin: Softmin}

_ALONG = {kind.__name__: (kind(0), kind(1)) for kind in _SOFTMAXES.values()}
"""Each softmax, along the first axis and along the second."""


@frozen
class ImplicitAxis(Layer):
    """A softmax along torch.nn's implicit axis: 0 if x has 0, 1 or 3 axes, else 1.

    Args:
        kind: The name of the layer, ``"Softmax"``, ``"LogSoftmax"`` or ``"Softmin"``.

    Shape:
        x (...) → y (...)

    Cache:
        That of the softmax.

    >>> import torch
    >>> ImplicitAxis("Softmax")({}, torch.zeros(2, 4))[0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    batch_dependent = True

    kind: str = field(validator=one_of(*_ALONG))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        return self._along(x).apply(params, x)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Tensor]:
        return self._along(cache).vjp(params, cache, gy)

    def _along(self, x: Tensor) -> Along:
        first, second = _ALONG[self.kind]
        return first if x.dim() in (0, 1, 3) else second


@layer(*_SOFTMAXES)
def softmax(module: Any) -> Converted:
    """Convert a softmax along the given axis, or along torch.nn's implicit axis."""
    kind = entry_of(module, _SOFTMAXES)
    return (ImplicitAxis(kind.__name__), {}) if module.dim is None else made(kind, module, dim=module.dim)
