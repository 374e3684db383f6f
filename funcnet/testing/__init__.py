"""Testing: checks of layers, losses, optimizers, gradient transforms, schedules and metrics, including your own.

``check_laws`` checks all laws of a layer, and ``check_vjp`` only the first of them, with finite differences. ``check_loss``,
``check_optimizer``, ``check_transform``, ``check_schedule`` and ``check_metric`` check the contracts of the other values.
``assert_close`` compares trees, and ``forbid_key_reuse`` detects a key that is used twice.
"""

from funcnet.testing.assertions import assert_close
from funcnet.testing.differences import check_vjp, finite_difference
from funcnet.testing.keys import forbid_key_reuse
from funcnet.testing.laws import LAWS, check_laws
from funcnet.testing.losses import check_loss
from funcnet.testing.metrics import check_metric
from funcnet.testing.numeric_laws import law_halves, law_linear, law_rows, law_second_order, law_strides, law_transpose
from funcnet.testing.optimizers import check_optimizer, check_transform
from funcnet.testing.schedules import check_schedule
from funcnet.testing.structural_laws import law_pure, law_reach, law_structure, law_transforms, law_value

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
