"""Dropout: parts of x are dropped with probability p, and what stays is scaled to keep the mean.

y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0; drawn from the key
gx = gy ⊙ m / (1 - p)

x and y have one shape. Each m stands for one element of x (...) in Dropout, for all elements of a channel in Dropout1d to
Dropout3d, and for a whole row of x (N, ...) in DropPath.
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
    """Dropout of parts of x; a subclass gives the shape of the mask, and the forms of x in ``forms``.

    With p = 0 it is the identity, and needs no key.
    """

    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    forms: ClassVar[tuple[str, ...]] = ("...",)

    @abstractmethod
    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask: that of x, with 1 for the axes along which elements are dropped together."""

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
        """Return the factor of the elements that are not dropped."""
        return 1 / (1 - self.p) if self.p < 1 else 0.0

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(self, x, *self.forms)


@frozen
class Dropout(Dropping):
    """Zero each element with probability ``p``, and divide the rest by 1 - p; the identity in ``inference()``.

    The mask is a pure function of the key: ``apply(params, x, rng)`` with the same key drops the same elements. Along the axes
    of ``broadcast_dims`` all is dropped together: of (N, T, features) by ``(1,)`` a feature at all steps, or at none.

    Params   none.
    Cache    the mask (bool), with 1 for ``broadcast_dims``, True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key where p > 0, and when ``x`` is not a floating tensor, or has
             not the axes of ``broadcast_dims``.
    Source   Srivastava et al. 2014, section 10 for the scaling; Gal & Ghahramani 2016 for all steps alike.
    """

    broadcast_dims: tuple[int, ...] = field(
        default=(), converter=as_tuple, validator=valid_if(is_whole_tuple, "a tuple of whole numbers")
    )

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        dims = [require_axis(self, x, d) % max(x.dim(), 1) for d in self.broadcast_dims]
        return tuple([1 if i in dims else n for i, n in enumerate(x.shape)]) if dims else tuple(x.shape)


@frozen
class DropPath(Dropping):
    """Zero each row, all axes but the first, with probability ``p``, and divide the rest by 1 - p: stochastic depth.

    It goes before a sum, ``residual(serial(f, DropPath(0.1)))``, so that a row that is dropped passes by f.

    Params   none.
    Cache    the mask (bool), (N, 1, ...), True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and when ``x`` is not a floating tensor with rows.
    Source   Huang et al. 2016; the scaling is dropout's, and so not undone in ``inference()``.
    """

    forms = ("N, ...",)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[0], *[1] * (x.dim() - 1))


@frozen
class ChannelDropout(Dropping):
    """Dropout of whole channels; the channels are in front of the axes in ``forms`` that have no batch."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        axes = self.forms[1].count(",")
        if x.dim() not in (axes + 1, axes + 2):
            raise Misfit
        return (*x.shape[:-axes], *[1] * axes)


@frozen
class Dropout1d(ChannelDropout):
    """Zero whole channels of (N, channels, length) or (channels, length); all else is as in ``Dropout``.

    Params   none.
    Cache    the mask (bool), with 1 for the length, True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has other axes.
    Source   Tompson et al. 2015.
    """

    forms = ("N, channels, length", "channels, length")


@frozen
class Dropout2d(ChannelDropout):
    """Zero whole channels of (N, channels, height, width) or (channels, height, width); all else is as in ``Dropout``.

    ``torch.nn.Dropout2d`` takes three axes for (N, channels, length): for them there is ``Dropout1d``.

    Params   none.
    Cache    the mask (bool), with 1 for height and width, True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has other axes.
    Source   Tompson et al. 2015.
    """

    forms = ("N, channels, height, width", "channels, height, width")


@frozen
class Dropout3d(ChannelDropout):
    """Zero whole channels of (N, channels, depth, height, width) or (channels, depth, height, width); else as in ``Dropout``.

    Params   none.
    Cache    the mask (bool), with 1 for depth, height and width, True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has other axes.
    Source   Tompson et al. 2015.
    """

    forms = ("N, channels, depth, height, width", "channels, depth, height, width")
