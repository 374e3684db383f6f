"""Testing: the judges of layers, for one's own too: ``check_laws`` tries all laws, ``check_vjp`` the first by differences."""

from funcnet.testing.differences import check_vjp, finite_difference
from funcnet.testing.laws import (
    LAWS,
    check_laws,
    law_halves,
    law_linear,
    law_pure,
    law_reach,
    law_rows,
    law_second_order,
    law_strides,
    law_structure,
    law_transforms,
    law_transpose,
    law_value,
)

__all__ = [
    "LAWS",
    "check_laws",
    "check_vjp",
    "finite_difference",
    "law_halves",
    "law_linear",
    "law_pure",
    "law_reach",
    "law_rows",
    "law_second_order",
    "law_strides",
    "law_structure",
    "law_transforms",
    "law_transpose",
    "law_value",
]
