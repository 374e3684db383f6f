"""Testing: the judges of layers, losses, optimizers, gradient transforms, schedules and metrics, custom ones too.

``check_laws`` tries all laws on a layer, ``check_vjp`` the first of them with differences, ``check_loss`` a loss,
``check_optimizer`` an optimizer, ``check_transform`` a gradient transform, ``check_schedule`` a schedule, ``check_metric`` a
metric. ``assert_close`` compares trees, and ``forbid_key_reuse`` finds a second draw from one key.
"""

from funcnet.testing.assertions import assert_close
from funcnet.testing.differences import check_vjp, finite_difference
from funcnet.testing.keys import forbid_key_reuse
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
from funcnet.testing.losses import check_loss
from funcnet.testing.metrics import check_metric
from funcnet.testing.optimizers import check_optimizer, check_transform
from funcnet.testing.schedules import check_schedule

__all__ = [
    "LAWS",
    "assert_close",
    "check_laws",
    "check_loss",
    "check_metric",
    "check_optimizer",
    "check_schedule",
    "check_transform",
    "check_vjp",
    "finite_difference",
    "forbid_key_reuse",
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
