"""Layers along time."""

import funcnet as fn
from cases.making import case, loose, normal

STEP = fn.serial(fn.Concat(), fn.Linear(5, 2), fn.Dropout(0.3), fn.Tanh(), fn.branch(fn.Linear(2, 1), fn.Identity()))

CASES = {
    "scan of a cell": loose(fn.scan(fn.GRUCell(3, 2), output_is_carry=True), (normal(4, 2, 3), normal(2, 2))),
    "scan of a cell with two states, reverse": loose(
        fn.scan(fn.LSTMCell(2, 2), output_is_carry=True, reverse=True), (normal(3, 2, 2), (normal(2, 2), normal(2, 2)))
    ),
    "scan with dropout": loose(fn.scan(STEP), (normal(3, 2, 3), normal(2, 2))),
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
