"""ScaleByFactoredRMS: gradients divided by the root of their mean squares, stored as row and column means."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, number, size, whole
from funcnet.optim.columns import Columns
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentTransform
from funcnet.value import frozen

_NONE = (0,)


@frozen
class ScaleByFactoredRMS(MomentTransform):
    """Divide by the root of a running mean of squares, stored as two factors as in Adafactor: ``optax.scale_by_factored_rms``.

        r ← β r + (1 - β) mean (g² + ε) over columns      c the same over rows      β = 1 - (t - t₀)^-κ
        g ← g / √(r c / mean r)

    Rows and columns are the two longest axes of a leaf. A leaf without two axes of at least ``min_dim_size_to_factor`` keeps all
    mean squares, n: g ← g / √n. For a 1024 × 1024 matrix the state takes 8 KB; Adam's takes 8 MB.

    Args:
        factored: Whether to store factors; ``False`` stores all mean squares.
        decay_rate: κ, how fast β approaches 1.
        step_offset: t₀, the number of updates after which β restarts, for fine-tuning with the state of earlier training.
        min_dim_size_to_factor: The smallest size of both axes.
        epsilon: ε, added to the squares, in the unit of g².

    State:
        step: t, the number of updates made.
        row_avg: r, without elements where unused, like the next two.
        col_avg: c.
        square_avg: n.

    Raises:
        ValueError: If an argument is outside its bounds.

    References:
        Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", algorithm 4.

    >>> params = {"w": torch.ones(300, 200), "b": torch.ones(300)}
    >>> state = ScaleByFactoredRMS().init(params)
    >>> [tuple(state[name][leaf].shape) for leaf in params for name in ("row_avg", "col_avg", "square_avg")]
    [(200,), (300,), (0,), (0,), (0,), (300,)]
    """

    acts_on = "leaves"
    moments = ("row_avg", "col_avg", "square_avg")

    factored: bool = field(default=True, validator=flag)
    decay_rate: float = field(default=0.8, validator=number(0.0))
    step_offset: int = field(default=0, validator=whole(0))
    min_dim_size_to_factor: int = field(default=128, validator=size)
    epsilon: float = field(default=1e-30, validator=number(0.0))

    def moment_shape(self, name: str, shape: torch.Size) -> Sequence[int]:
        axes = self._axes(shape)
        if axes is None or name == "square_avg":
            return shape if axes is None and name == "square_avg" else _NONE
        left_out = axes[1] if name == "row_avg" else axes[0]
        return [n for i, n in enumerate(shape) if i != left_out]

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {"beta": 1 - (t - self.step_offset) ** -self.decay_rate}, {}

    def formula(
        self, _: Tensor, g: Tensor, r: Tensor, c: Tensor, n: Tensor, *, beta: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes, squares = self._axes(g.shape), g * g + self.epsilon
        if axes is None:
            n = beta * n + (1 - beta) * squares
            return g * n.rsqrt(), r, c, n
        short, long = axes
        r = beta * r + (1 - beta) * squares.mean(long)
        c = beta * c + (1 - beta) * squares.mean(short)
        share = r / r.mean(short - (short > long), keepdim=True)
        return g * share.rsqrt().unsqueeze(long) * c.rsqrt().unsqueeze(short), r, c, n

    def _axes(self, shape: torch.Size) -> tuple[int, int] | None:
        """Return the second longest axis and the longest; ``None`` for a leaf whose squares are all stored."""
        if not self.factored or len(shape) < 2:
            return None
        *_, short, long = sorted(range(len(shape)), key=lambda i: shape[i])
        return (short, long) if shape[short] >= self.min_dim_size_to_factor else None
