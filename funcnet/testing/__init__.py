"""Testing: the judges of layers and optimizers, custom ones too.

``check_laws`` tries all laws on a layer, ``check_vjp`` the first of them with differences, ``check_optimizer`` an optimizer.
"""

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
from funcnet.testing.optimizers import check_optimizer

__all__ = [
    "LAWS",
    "check_laws",
    "check_optimizer",
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
