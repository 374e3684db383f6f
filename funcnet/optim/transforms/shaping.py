"""Gradient transforms that center gradients, remove NaNs, or keep params non-negative."""

import torch
from torch import Tensor

from funcnet.optim.moments import MomentTransform
from funcnet.value import frozen


@frozen
class Centralize(MomentTransform):
    """Subtract the mean from the gradient of each unit: ``optax.centralize``.

        g ← g - mean g    over all axes but the first; vectors and scalars do not change

    Axis 0 numbers the output units of ``Linear`` and of convolutions.

    State:
        step: Number of updates made.

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
    """Replace NaNs with zeros, and count for each leaf the updates that had some: ``optax.zero_nans``.

        g ← 0 where g is NaN, for each element
        n ← n + 1 if the leaf has a NaN

    Infinite gradients do not change. NaNs at every update indicate a fault in the net or its data: check the counts.

    State:
        step: Number of updates made.
        nan_count: n, a 0-d tensor for each leaf.

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
    """Limit gradients to p, which keeps a step of size 1 from making params negative: ``optax.keep_params_nonnegative``.

        g ← min(g, p)

    Use it as the last transform of a chain before ``SGD(lr=1.0)``, whose step p ← p - g then ends at 0 instead of below. The
    initial params must not be negative.

    State:
        step: Number of updates made.

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
