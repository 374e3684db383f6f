"""Dropout: parts of x are set to 0 with probability p, and the rest is scaled to keep the mean.

    y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0; sampled with the key
    gx = gy ⊙ m / (1 - p)

y has the shape of x. There is one m for each element of x in ``Dropout``, for each channel in ``Dropout1d`` to ``Dropout3d``, and
for each row in ``DropPath``. ⊙ is the elementwise product.
"""

from abc import abstractmethod
from typing import ClassVar

from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, axes_complaint, check_gy, kind_of, require_axis, require_dense_floating, require_key
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, is_whole_tuple, number, valid_if
from funcnet.kernels import operands as kernels
from funcnet.layers.shape.reshaping import Identity
from funcnet.random.keys import Key, key_beside
from funcnet.value import frozen


@frozen
class Dropping(Layer):
    """Base of dropout layers; subclasses define the shape of the mask, and list the allowed axes of x in ``forms``.

    With p = 0 the layer is the identity, and needs no key.
    """

    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    forms: ClassVar[tuple[str, ...]] = ("...",)

    @abstractmethod
    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask: the shape of x, but 1 along axes whose elements are dropped together."""

    @property
    def stochastic(self) -> bool:
        return self.p > 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor | None, Shape, Tensor]]:
        rng = require_key(self, rng) if self.stochastic else None
        shape = self.mask_shape(require_dense_floating(self, params, x))
        keep = None if rng is None else self.draw(key_beside(rng, x), shape)
        return x if keep is None else self.masked(x, keep), (keep, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor | None, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        keep, shape, like = cache
        gy = check_gy(self, gy, shape, like)  # the mask would broadcast it
        return params, gy if keep is None else kernels.masked_scale(gy, keep, self.scale())

    def inference(self) -> Layer:
        return Identity()

    def draw(self, rng: Key | int, shape: tuple[int, ...]) -> Tensor:
        """Draw the mask."""
        return random.bernoulli(rng, shape, 1 - self.p)

    def masked(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return y, from x and the mask."""
        return kernels.masked_scale(x, keep, self.scale())

    def scale(self) -> float:
        """Return the factor of the elements that are kept."""
        return 1 / (1 - self.p) if self.p < 1 else 0.0

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(self, x, *self.forms)


@frozen
class Dropout(Dropping):
    """Set each element to 0 with probability ``p``, and divide the rest by 1 - p.

        y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0
        gx = gy ⊙ m / (1 - p)

    The mask is a pure function of the key: the same key drops the same elements. With p = 0 the layer is the identity and needs
    no key. ``inference()`` returns the identity.

    Args:
        p: Probability of dropping an element.
        broadcast_dims: Axes along which elements are dropped together: ``(1,)`` drops a feature of x (N, T, features) at all
            steps or at none.

    Shape:
        x (...) → y (...)

    Cache:
        The mask m (bool), with size 1 along ``broadcast_dims``; the shape of ``x``, and an empty tensor of its dtype and device.

    Raises:
        ValueError: If x lacks one of the axes ``broadcast_dims``.

    References:
        Srivastava et al. 2014, "Dropout", section 10, for the scaling; Gal & Ghahramani 2016, for one mask shared by all steps.

    >>> import torch
    >>> Dropout(0.5)({}, torch.ones(2, 3), 0).unique()
    tensor([0., 2.])
    """

    broadcast_dims: tuple[int, ...] = field(
        default=(), converter=as_tuple, validator=valid_if(is_whole_tuple, "a tuple of whole numbers")
    )

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        dims = [require_axis(self, x, d) % max(x.dim(), 1) for d in self.broadcast_dims]
        return tuple([1 if i in dims else n for i, n in enumerate(x.shape)]) if dims else tuple(x.shape)


@frozen
class DropPath(Dropping):
    """Set each row to 0 with probability ``p``, and divide the rest by 1 - p: stochastic depth.

        y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0, for each row
        gx = gy ⊙ m / (1 - p)

    Use it just before a residual sum, ``residual(serial(f, DropPath(0.1)))``: a dropped row then bypasses f. The mask is a pure
    function of the key. With p = 0 the layer is the identity and needs no key. ``inference()`` returns the identity.

    Args:
        p: Probability of dropping a row.

    Shape:
        x (N, ...) → y (N, ...)

    Cache:
        The mask m (bool), (N, 1, ...); the shape of ``x``, and an empty tensor of its dtype and device.

    References:
        Huang et al. 2016, "Deep networks with stochastic depth", with the scaling of dropout, so ``inference()`` needs no factor.
    """

    forms = ("N, ...",)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[0], *[1] * (x.dim() - 1))


@frozen
class ChannelDropout(Dropping):
    """Base of dropout of whole channels; the last entry of ``forms`` has the axes without a batch."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        axes = self.forms[1].count(",")
        if x.dim() not in (axes + 1, axes + 2):
            raise Misfit
        return (*x.shape[:-axes], *[1] * axes)


@frozen
class Dropout1d(ChannelDropout):
    """Set each channel to 0 with probability ``p``, and divide the rest by 1 - p.

        y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0, for each channel
        gx = gy ⊙ m / (1 - p)

    The mask is a pure function of the key. With p = 0 the layer is the identity and needs no key. ``inference()`` returns the
    identity.

    Args:
        p: Probability of dropping a channel.

    Shape:
        x (N, channels, L) → y (N, channels, L), or both without N.

    Cache:
        The mask m (bool), with size 1 along the length; the shape of ``x``, and an empty tensor of its dtype and device.

    References:
        Tompson et al. 2015, "Efficient object localization using convolutional networks", section 3.2; ``torch.nn.Dropout1d``.
    """

    forms = ("N, channels, length", "channels, length")


@frozen
class Dropout2d(ChannelDropout):
    """Set each channel to 0 with probability ``p``, and divide the rest by 1 - p.

        y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0, for each channel
        gx = gy ⊙ m / (1 - p)

    The mask is a pure function of the key. With p = 0 the layer is the identity and needs no key. ``inference()`` returns the
    identity. ``torch.nn.Dropout2d`` reads three axes as (N, channels, L); use ``Dropout1d`` for that.

    Args:
        p: Probability of dropping a channel.

    Shape:
        x (N, channels, H, W) → y (N, channels, H, W), or both without N.

    Cache:
        The mask m (bool), with size 1 along height and width; the shape of ``x``, and an empty tensor of its dtype and device.

    References:
        Tompson et al. 2015, "Efficient object localization using convolutional networks", section 3.2; ``torch.nn.Dropout2d``.
    """

    forms = ("N, channels, height, width", "channels, height, width")


@frozen
class Dropout3d(ChannelDropout):
    """Set each channel to 0 with probability ``p``, and divide the rest by 1 - p.

        y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0, for each channel
        gx = gy ⊙ m / (1 - p)

    The mask is a pure function of the key. With p = 0 the layer is the identity and needs no key. ``inference()`` returns the
    identity.

    Args:
        p: Probability of dropping a channel.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, D, H, W), or both without N.

    Cache:
        The mask m (bool), with size 1 along depth, height and width; the shape of ``x``, and an empty tensor of its dtype and
        device.

    References:
        Tompson et al. 2015, "Efficient object localization using convolutional networks", section 3.2; ``torch.nn.Dropout3d``.
    """

    forms = ("N, channels, depth, height, width", "channels, depth, height, width")
