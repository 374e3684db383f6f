"""Activations as torch.nn modules."""

import torch
from torch import nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.modules import Applied
from funcnet.interop.torch_nn.exporting.registry import namesake, native, same_names
from funcnet.layers.activation.glu import GLU
from funcnet.layers.activation.leaky import LeakyReLU, PReLU, RReLU
from funcnet.layers.activation.rectifiers import CELU, ELU, SELU, ReLU, ReLU6, Threshold
from funcnet.layers.activation.self_gated import GELU, Hardswish, Mish, SiLU
from funcnet.layers.activation.shrinkages import Hardshrink, Softshrink, Tanhshrink
from funcnet.layers.activation.sigmoids import Hardsigmoid, Hardtanh, LogSigmoid, Sigmoid, Softsign, Tanh
from funcnet.layers.activation.softmaxes import LogSoftmax, Softmax, Softmax2d, Softmin
from funcnet.layers.activation.softpluses import Softplus

same_names([ReLU, ReLU6, LeakyReLU, PReLU, RReLU, ELU, SELU, Threshold, GELU, SiLU, Mish, Hardswish, GLU])
same_names([Sigmoid, LogSigmoid, Hardsigmoid, Tanh, Hardtanh, Tanhshrink, Softsign, Softplus, Hardshrink, Softshrink])
same_names([Softmax, LogSoftmax, Softmin, Softmax2d])


@native(CELU)
def _celu(layer: CELU, params: Params) -> nn.Module:
    """Convert CELU if alpha is a float32 number; otherwise wrap the layer, since torch rounds alpha in the gradient."""
    exact = torch.tensor(layer.alpha, dtype=torch.float32).item() == layer.alpha
    module: nn.Module = namesake(nn.CELU, layer, params)
    return module if exact else Applied(layer)
