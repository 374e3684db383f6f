"""Layers that take a key."""

import funcnet as fn
from cases.making import case, normal

CASES = {
    "Dropout": case(fn.Dropout(), normal(4, 3)),
    "Dropout on 3 axes": case(fn.Dropout(0.2), normal(2, 3, 5)),
    "Dropout of a vector": case(fn.Dropout(0.3), normal(7)),
    "Dropout of nothing": case(fn.Dropout(0.0), normal(4, 3)),
    "Dropout of all": case(fn.Dropout(1.0), normal(4, 3)),
    "Dropout inference": case(fn.Dropout(0.5).inference(), normal(4, 3)),
}
