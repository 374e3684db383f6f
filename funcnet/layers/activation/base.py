"""Activations: one function applied to every element of x (...), of any shape.

    y  = f(x)
    gx = gy ⊙ f′(x)        ⊙ the elementwise product

y and both gradients have the shape of x. ``Activation`` is the base of all activations. An activation caches its output rather
than its input if the derivative can be computed from it: the next layer's cache usually holds that tensor anyway.
"""

from abc import abstractmethod
from collections.abc import Callable

from attrs import field
from torch import Tensor, strided

from funcnet.checks import axis_complaint, check_gy, floating_complaint, require_dense_floating, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import whole_number
from funcnet.plans import Unchecked
from funcnet.value import frozen


class Activation(Layer):
    """Base of layers that apply one function to every element.

        y  = f(x)
        gx = gy ⊙ f′(x)

    A subclass defines ``forward`` and ``backward``; it has no parameters.

    Shape:
        x (...) → y (...)

    Cache:
        The tensor that ``forward`` returns with y.

    Raises:
        ValueError: If x is not a dense floating tensor, if params are not empty, or if gy does not have the shape, dtype and
            device of y.

    >>> import torch
    >>> @frozen
    ... class Cube(Activation):
    ...     def forward(self, x):
    ...         return x**3, x
    ...
    ...     def backward(self, gy, x):
    ...         return 3 * gy * x**2
    >>> Cube()({}, torch.tensor([1.0, 2.0]))
    tensor([1., 8.])
    """

    __slots__ = ()

    ensemble_mode = "elementwise"

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y, and a tensor of the same shape and dtype for ``backward``.

        Args:
            x: Input tensor, already checked.

        Returns:
            The pair (y, cache).
        """

    @abstractmethod
    def backward(self, gy: Tensor, cache: Tensor, /) -> Tensor:
        """Return gx.

        Args:
            gy: Gradient of the output, already checked.
            cache: The tensor that ``forward`` returned with y.

        Returns:
            The gradient of the input, a new tensor.
        """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        if params or type(x) is not Tensor or not x.is_floating_point() or x.layout is not strided or x.is_nested:
            require_dense_floating(self, params, x)  # called only if something may be wrong, which saves small layers a call
        return self.forward(x)

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        if (
            params
            or gy.shape != cache.shape
            or gy.dtype is not cache.dtype
            or gy.layout is not strided
            or gy.is_cpu is not cache.is_cpu
        ):
            require_no_params(self, params)
            check_gy(self, gy, cache.shape, cache)
        return params, self.backward(gy, cache)

    def unchecked(self, params: Params, cache: Tensor) -> Unchecked | None:
        """Return the unchecked verbs, for activations of this package only: others may override ``apply`` and ``vjp``."""
        return unchecked_activation(self.forward, self.backward) if type(self).__module__.startswith("funcnet.") else None


def unchecked_activation(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]], backward: Callable[[Tensor, Tensor], Tensor]
) -> Unchecked:
    """Make the unchecked verbs of an activation from functions that compute (y, cache) and gx."""

    def apply(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        return forward(x)

    def vjp(params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, backward(gy, cache)

    return Unchecked(apply, vjp, no_grads)


def no_grads(params: Params, cache: Tensor, gy: Tensor) -> Params:
    """Return the gradients of a layer without params."""
    return params


@frozen
class Along(Layer):
    """Base of layers that work along the axis ``dim``; along the first axis, rows depend on each other."""

    dim: int = field(default=-1, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def complaint(self, x: Tensor) -> str | None:
        return floating_complaint(x) or axis_complaint(x, self.dim)
