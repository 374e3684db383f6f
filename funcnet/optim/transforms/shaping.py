"""Gradient transforms that shape what comes: centered, without NaNs, kept from making params negative, held back."""

import torch
from torch import Tensor

from funcnet.optim.moments import MomentTransform
from funcnet.value import frozen


@frozen
class Centralize(MomentTransform):
    """Subtract from the gradient of each unit its mean: ``optax.centralize``.

        g ← g - mean g    over all axes but the first; vectors and numbers stay as they are

    Axis 0 numbers the outputs of ``Linear`` and of convolutions.

    State:
        ``step``, the number of updates made.

    Raises:
        ValueError: From ``update`` as ``ScaleByAdam``.

    References:
        Yong, Huang, Hua & Zhang 2020, "Gradient centralization", equation 1.

    >>> import torch
    >>> transform = Centralize()
    >>> transform.update({"weight": torch.tensor([[1.0, 3.0], [5.0, 5.0]])}, transform.init({}), {})[0]
    {'weight': tensor([[-1.,  1.],
            [ 0.,  0.]])}
    """

    acts_on = "leaves"
    moments = ()

    def formula(self, _: Tensor, g: Tensor) -> tuple[Tensor]:
        return (g - g.mean([*range(1, g.dim())], keepdim=True) if g.dim() > 1 else g,)


@frozen
class ZeroNaNs(MomentTransform):
    """Replace NaNs by zeros, and count for each leaf the updates in which it had some: ``optax.zero_nans``.

        g ← 0 where g is NaN, element by element;  n ← n + 1 where a leaf has a NaN

    Infinite gradients stay. A NaN at every update is a fault in the net or its data: look at the counts.

    State:
        ``step``, the number of updates made; ``nan_count`` n, a 0-d tensor for each leaf.

    Raises:
        ValueError: From ``update`` as ``ScaleByAdam``.

    References:
        ``optax.zero_nans``.

    >>> import torch
    >>> transform, params = ZeroNaNs(), {"w": torch.ones(2)}
    >>> transform.update({"w": torch.tensor([torch.nan, 1.0])}, transform.init(params), params)
    ({'w': tensor([0., 1.])}, {'step': tensor(1), 'nan_count': {'w': tensor(1.)}})
    """

    acts_on = "leaves"
    moments = ("nan_count",)

    def moment_shape(self, name: str, shape: torch.Size) -> tuple[int, ...]:
        return ()

    def formula(self, _: Tensor, g: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        absent = g.isnan()
        return torch.where(absent, 0.0, g), count + absent.any().to(count.dtype)


@frozen
class KeepParamsNonnegative(MomentTransform):
    """Limit gradients so that a step of the gradient itself makes no param negative: ``optax.keep_params_nonnegative``.

        g ← min(g, p)

    It is the last part of a chain before ``SGD(lr=1.0)``, whose step p ← p - g then ends at 0 instead of below. Params must not
    be negative at first.

    State:
        ``step``, the number of updates made.

    Raises:
        ValueError: From ``update`` as ``ScaleByAdam``.

    References:
        ``optax.keep_params_nonnegative``.

    >>> import torch
    >>> from funcnet.optim.chaining import chain
    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = chain(KeepParamsNonnegative(), SGD(lr=1.0)), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([3.0, 0.5])}, opt.init(params), params)[0]
    {'w': tensor([0.0000, 0.5000])}
    """

    acts_on = "elements"
    moments = ()
    reads_params = True

    def formula(self, p: Tensor, g: Tensor) -> tuple[Tensor]:
        return (torch.where(g > p, p, g),)
