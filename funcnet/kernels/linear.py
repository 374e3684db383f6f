"""Kernels of linear maps. Times are of operands of 100×25: y = x wᵀ + b 4.0 µs, gyᵀ x 4.0, gy w 3.2, Σ gy 1.6."""

from torch import Tensor

from funcnet.kernels import products

linear = products.linear
linear_input_grad = products.times
linear_weight_grad = products.cross
linear_vjp = products.all_three
sum_of_rows = products.sum_of_rows


def linear_grads(x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a linear map's weight, gyᵀ x, and bias, Σ gy; all axes but the last are rows."""
    return products.cross(gy, x), sum_of_rows(gy)
