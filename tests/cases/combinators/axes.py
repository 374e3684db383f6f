"""Layers along other axes: channels last, time, windows, equal rows."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

NET = fn.serial(
    fn.Conv2d(2, 3, 3, padding=1), fn.BatchNorm2d(3), fn.Dropout2d(0.3), fn.MaxPool2d(2), fn.Flatten(), fn.Linear(12, 2)
)

CHANNELS_LAST = {
    "channels_last of a convolution": case(fn.channels_last(fn.Conv2d(3, 2, 2)), normal(2, 4, 3, 3)),
    "channels_last without a batch": loose(fn.channels_last(fn.Conv1d(3, 2, 2), 0), normal(5, 3)),
    "channels_last of a norm": case(fn.channels_last(fn.BatchNorm1d(3)), normal(2, 4, 3)),
    "channels_last of indices": case(fn.channels_last(fn.MaxPool2d(2, 1, return_indices=True)), normal(2, 3, 4, 2)),
    "channels_last of a net": case(fn.channels_last(NET), normal(3, 4, 5, 2)),
    "channels_last of two inputs": case(fn.channels_last(fn.Concat(1)), (normal(2, 3, 2), normal(2, 3, 1))),
    "channels_last in a serial": case(fn.serial(fn.channels_last(fn.AvgPool2d(2)), fn.Linear(3, 2)), normal(2, 4, 4, 3)),
    "channels_last of a mean": case(fn.channels_last(fn.Mean()), normal(4, 3)),
}

STEP = fn.serial(fn.Concat(), fn.Linear(5, 2), fn.Dropout(0.3), fn.Tanh(), fn.branch(fn.Linear(2, 1), fn.Identity()))

SEEING = fn.serial(fn.Concat(), fn.Linear(7, 2), fn.Tanh(), fn.branch(fn.Linear(2, 1), fn.Identity()))

LOOKING = fn.graph("x", "h", "i", e=(fn.Embedding(5, 2), "i"), s=(fn.Mul(), "h", "e"), y=(fn.Add(), "x", "s"), output=("y", "s"))

TIME = {
    "scan of a cell": loose(fn.scan(fn.GRUCell(3, 2), output_is_carry=True), (normal(4, 2, 3), normal(2, 2))),
    "scan of a cell with two states, reverse": loose(
        fn.scan(fn.LSTMCell(2, 2), output_is_carry=True, reverse=True), (normal(3, 2, 2), (normal(2, 2), normal(2, 2)))
    ),
    "scan with dropout": loose(fn.scan(STEP), (normal(3, 2, 3), normal(2, 2))),
    "scan with checkpoints": loose(fn.scan(STEP, checkpoint_every=2), (normal(5, 2, 3), normal(2, 2)), compiled=True),
    "scan with checkpoints, reverse": loose(
        fn.scan(fn.GRUCell(3, 2), output_is_carry=True, reverse=True, checkpoint_every=2), (normal(3, 2, 3), normal(2, 2))
    ),
    "scan with constants": loose(fn.scan(SEEING), (normal(3, 2, 3), normal(2, 2), normal(2, 2)), compiled=True),
    "scan with constant indices": loose(fn.scan(LOOKING), (normal(3, 2, 2), normal(2, 2), torch.tensor([4, 1]))),
    "scan with constants and checkpoints": loose(
        fn.scan(SEEING, checkpoint_every=2), (normal(3, 2, 3), normal(2, 2), normal(2, 2))
    ),
    "bidirectional": loose(fn.bidirectional(fn.serial(fn.Linear(3, 2), fn.Softmax(0))), normal(4, 2, 3)),
    "bidirectional of nets with states": loose(
        fn.bidirectional(fn.GRU(2, 2), fn.RNN(2, 2), merge=fn.Mul()), (normal(3, 2, 2), (normal(1, 2, 2), normal(1, 2, 2)))
    ),
    "bidirectional, batch first": case(fn.bidirectional(fn.Conv1d(2, 2, 2), dim=2, merge=fn.Add()), normal(2, 2, 4)),
    "time_distributed": case(fn.time_distributed(fn.serial(fn.Linear(3, 2), fn.Dropout(0.2))), normal(2, 4, 3)),
    "map_over 3 axes": case(fn.map_over(fn.BatchNorm1d(2), 3), normal(2, 1, 3, 2)),
    "map_over of two inputs": case(
        fn.map_over(fn.parallel(fn.Linear(3, 2), fn.Flatten())), (normal(2, 3, 3), normal(2, 3, 2, 2))
    ),
}

LEARNT = fn.serial(fn.Linear(4, 1), fn.Squeeze(-1))
NOISY = fn.serial(fn.BatchNorm2d(3), fn.Dropout(0.3), fn.LogSumExp())

POOLS = {
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

TABLE = fn.Embedding(5, 3)
ROWS = torch.tensor([[4, 0], [1, 1], [4, 0], [0, 4], [1, 1]])

UNIQUE = {
    "uniqued": case(fn.uniqued(fn.serial(TABLE, fn.Linear(3, 2))), torch.tensor([4, 0, 4, 4, 1])),
    "uniqued rows": case(fn.uniqued(fn.serial(TABLE, fn.Flatten(), fn.Tanh(), fn.Linear(6, 2))), ROWS),
    "uniqued, of two": case(fn.uniqued(fn.branch(TABLE, fn.serial(TABLE, fn.Sigmoid()))), ROWS),
    "uniqued with running statistics": case(
        fn.uniqued(fn.serial(TABLE, fn.RunningBatchNorm1d(3))), torch.tensor([2, 2, 1], dtype=torch.int32)
    ),
}

CASES = {**CHANNELS_LAST, **TIME, **POOLS, **UNIQUE}
