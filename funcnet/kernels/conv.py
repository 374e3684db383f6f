"""Kernels of convolutions."""

from collections.abc import Callable

import torch
from torch import Tensor

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

convolution: Kernel = _aten.convolution.default
convolution_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.convolution_backward.default
