"""Layers on tensors with their channels last."""

import funcnet as fn
from cases.making import case, loose, normal

NET = fn.serial(
    fn.Conv2d(2, 3, 3, padding=1), fn.BatchNorm2d(3), fn.Dropout2d(0.3), fn.MaxPool2d(2), fn.Flatten(), fn.Linear(12, 2)
)

CASES = {
    "channels_last of a convolution": case(fn.channels_last(fn.Conv2d(3, 2, 2)), normal(2, 4, 3, 3)),
    "channels_last without a batch": loose(fn.channels_last(fn.Conv1d(3, 2, 2), 0), normal(5, 3)),
    "channels_last of a norm": case(fn.channels_last(fn.BatchNorm1d(3)), normal(2, 4, 3)),
    "channels_last of indices": case(fn.channels_last(fn.MaxPool2d(2, 1, return_indices=True)), normal(2, 3, 4, 2)),
    "channels_last of a net": case(fn.channels_last(NET), normal(3, 4, 5, 2)),
    "channels_last of two inputs": case(fn.channels_last(fn.Concat(1)), (normal(2, 3, 2), normal(2, 3, 1))),
    "channels_last in a serial": case(fn.serial(fn.channels_last(fn.AvgPool2d(2)), fn.Linear(3, 2)), normal(2, 4, 4, 3)),
    "channels_last of a mean": case(fn.channels_last(fn.Mean()), normal(4, 3)),
}
