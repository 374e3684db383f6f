"""SinusoidalEmbedding: sines and cosines of a number, for example the time step of a diffusion model.

x (...), y (..., dim), for dim/2 frequencies f[i].
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, require_dense_floating
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import number, size, valid_if
from funcnet.value import frozen


@frozen
class SinusoidalEmbedding(Layer):
    """Embed each number as ``dim`` sines and cosines, with wavelengths from 2π to nearly 2π · ``base``.

        y[2i]     = sin(x f[i])                                              f[i] = base^(-2i / dim)
        y[2i + 1] = cos(x f[i])
        gx        = Σ f[i] (gy[2i] cos(x f[i]) - gy[2i + 1] sin(x f[i]))

    For x = 0, 1, 2, ..., y contains the vectors that ``SinusoidalPositions`` adds. Convert integers to a floating dtype first:
    ``t.float()``. Angles of a half-precision x are computed in float32.

    Args:
        dim: Size of the new last axis of y, an even number.
        base: Approximate ratio of the longest to the shortest wavelength, above 0.

    Shape:
        x (...) → y (..., dim)

    Cache:
        ``x``, not copied.

    References:
        Vaswani et al. 2017, "Attention is all you need", section 3.5.

    >>> import torch
    >>> SinusoidalEmbedding(4)({}, torch.zeros(1))
    tensor([[0., 1., 0., 1.]])
    """

    dim: int = field(validator=[size, valid_if(lambda n: n % 2 == 0, "even")])
    base: float = field(default=10000.0, validator=number(above=0.0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        angles = self._angles(require_dense_floating(self, params, x))[0]
        return torch.stack((torch.sin(angles), torch.cos(angles)), -1).flatten(-2).to(x.dtype), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        angles, frequencies = self._angles(cache)
        g_sin, g_cos = torch.unflatten(check_gy(self, gy, (*cache.shape, self.dim), cache), -1, (-1, 2)).unbind(-1)
        return params, ((g_sin * torch.cos(angles) - g_cos * torch.sin(angles)) * frequencies).sum(-1).to(cache.dtype)

    def _angles(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the angles and the frequencies, in float32 at least."""
        i = torch.arange(self.dim // 2, dtype=torch.float64, device=x.device)
        frequencies = (self.base ** (-2 * i / self.dim)).to(torch.promote_types(x.dtype, torch.float32))
        return x.to(frequencies.dtype).unsqueeze(-1) * frequencies, frequencies
