"""Windows reduced by a layer."""

import funcnet as fn
from cases.making import case, loose, normal

LEARNT = fn.serial(fn.Linear(4, 1), fn.Squeeze(-1))
NOISY = fn.serial(fn.BatchNorm2d(3), fn.Dropout(0.3), fn.LogSumExp())

CASES = {
    "Pool1d of a spread": case(fn.Pool1d(fn.Std(-1), 3, 1, 1, 2), normal(2, 2, 7)),
    "Pool2d of products": case(fn.Pool2d(fn.Prod(-1), 2), normal(2, 2, 4, 5)),
    "Pool2d, padded by an infinity": case(
        fn.Pool2d(fn.Max(-1), (3, 2), (1, 2), 1, padding_value=-float("inf")), normal(2, 2, 3, 4)
    ),
    "Pool2d of a layer with params": loose(fn.Pool2d(LEARNT, 2, 1), normal(2, 3, 4)),
    "Pool2d, normalized and dropped": case(fn.Pool2d(NOISY, 2), normal(4, 3, 4, 2)),
    "Pool3d": case(fn.Pool3d(fn.LogSumExp(), (2, 1, 2), 2, (1, 0, 1)), normal(2, 1, 2, 3, 4)),
    "AdaptivePool1d": case(fn.AdaptivePool1d(fn.LogSumExp(), 3), normal(2, 2, 7)),
    "AdaptivePool2d of products": case(fn.AdaptivePool2d(fn.Prod(-1), (2, None)), normal(2, 2, 5, 2)),
    "AdaptivePool2d of a layer with params": loose(fn.AdaptivePool2d(LEARNT, 2), normal(2, 4, 4)),
    "AdaptivePool2d, dropped": case(fn.AdaptivePool2d(fn.serial(fn.Dropout(0.3), fn.LogSumExp()), 2), normal(3, 2, 3, 3)),
    "AdaptivePool3d": case(fn.AdaptivePool3d(fn.LogSumExp(), (2, 1, 2)), normal(2, 1, 3, 2, 3)),
}
