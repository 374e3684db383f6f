"""Laws: the eleven promises of ``funcnet.contract``, each a function that raises ``AssertionError`` if a layer breaks it.

Every law is called as ``law(layer, x, params=None, rng=0)``. Params are fresh by default; a stochastic layer gets ``rng`` in
``apply``. Laws 1, 3 to 8, and 11 also take ``dtype``, float64 by default, since a layer can use other kernels in other dtypes.
Law 8 also takes ``compiled=False``, which skips compiling. The message consists of the number and name of the law, the fault, and
the layer: ``"law 6, strides: ...; in Linear(...)"``. An error that the layer itself raises breaks the law too.
"""

from typing import Any

import torch

from funcnet.contract import Layer, Params
from funcnet.random.keys import Key
from funcnet.testing.comparison import DTYPES, require_dtypes
from funcnet.testing.law_decorator import Law, require_layer
from funcnet.testing.numeric_laws import law_halves, law_linear, law_rows, law_second_order, law_strides, law_transpose
from funcnet.testing.structural_laws import law_pure, law_reach, law_structure, law_transforms, law_value

LAWS: dict[str, Law] = {
    "transpose": law_transpose,
    "linear": law_linear,
    "pure": law_pure,
    "structure": law_structure,
    "rows": law_rows,
    "strides": law_strides,
    "halves": law_halves,
    "transforms": law_transforms,
    "value": law_value,
    "reach": law_reach,
    "second order": law_second_order,
}
"""The laws by name, in the order of their numbers; all are called alike."""

_FIRST = ("structure", "pure")  # if these are broken, the comparisons of the others mean nothing
_LOWER = (*_FIRST, "transpose", "rows", "strides", "halves", "transforms", "second order")  # the laws that do not need float64


def check_laws(
    layer: Layer,
    x: Any,
    params: Params | None = None,
    rng: Key | int = 0,
    *,
    batched: bool = True,
    compiled: bool = True,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
) -> None:
    """Check all laws of a layer: structure and purity first, then the others by number, in one dtype after the other.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        batched: Whether the first axis of x is a batch; ``False`` skips the law of rows.
        compiled: Whether to check ``torch.compile`` too, in the first dtype; it takes most of the time.
        dtypes: The dtypes to check. Numerical derivatives are computed in float64; in a lower dtype, law 1 compares y and the
            gradients with the results in float64, and ``funcnet.testing.precision`` computes how much rounding can change them.
            Laws 2, 9 and 10 do not depend on the dtype and are checked once.

    Raises:
        AssertionError: If the layer breaks a law; the message starts with the number and name of the law.
        ValueError: If ``layer`` is not a layer, or ``dtypes`` is not a tuple of floating dtypes.

    >>> from funcnet.layers.linear.linear import Linear
    >>> check_laws(Linear(3, 2), torch.ones(4, 3), compiled=False)
    """
    require_layer("check_laws", layer)
    require_dtypes("check_laws", dtypes)
    for dtype in dtypes:
        names = [*_FIRST, *[name for name in LAWS if name not in _FIRST]] if dtype is dtypes[0] else _LOWER
        for name in [name for name in names if batched or name != "rows"]:
            options: dict[str, Any] = {"dtype": dtype} if name in _LOWER else {}
            options |= {"compiled": compiled and dtype is dtypes[0]} if name == "transforms" else {}
            LAWS[name](layer, x, params, rng, **options)
