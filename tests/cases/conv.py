"""Convolutions."""

import funcnet as fn
from cases.making import case, loose, normal

CASES = {
    "Conv1d": case(fn.Conv1d(2, 3, 3), normal(2, 2, 7)),
    "Conv1d without bias": case(fn.Conv1d(2, 3, 3, bias=False), normal(2, 2, 7)),
    "Conv1d kernel 1": case(fn.Conv1d(3, 2, 1), normal(2, 3, 4)),
    "Conv1d as long as x": case(fn.Conv1d(2, 3, 5), normal(2, 2, 5)),
    "Conv1d of one channel and row": case(fn.Conv1d(1, 1, 2), normal(1, 1, 4)),
    "Conv1d stride that leaves a rest": case(fn.Conv1d(2, 3, 3, stride=2), normal(2, 2, 8)),
    "Conv1d stride beyond the kernel": case(fn.Conv1d(2, 2, 2, stride=3), normal(2, 2, 9)),
    "Conv1d padding": case(fn.Conv1d(2, 3, 3, padding=1), normal(2, 2, 5)),
    "Conv1d padding beyond the kernel": case(fn.Conv1d(2, 2, 2, padding=3), normal(2, 2, 3)),
    "Conv1d dilation": case(fn.Conv1d(2, 3, 3, dilation=2), normal(2, 2, 7)),
    "Conv1d groups": case(fn.Conv1d(4, 6, 3, groups=2), normal(2, 4, 5)),
    "Conv1d depthwise": case(fn.Conv1d(3, 3, 2, groups=3, bias=False), normal(2, 3, 5)),
    "Conv1d depthwise with multiplier": case(fn.Conv1d(2, 4, 2, groups=2), normal(3, 2, 5)),
    "Conv1d all options": case(fn.Conv1d(4, 2, 3, stride=2, padding=2, dilation=2, groups=2), normal(2, 4, 8)),
    "Conv1d valid": case(fn.Conv1d(2, 3, 3, stride=2, padding="valid"), normal(2, 2, 6)),
    "Conv1d same, odd kernel": case(fn.Conv1d(2, 3, 3, padding="same"), normal(2, 2, 5)),
    "Conv1d same, even kernel": case(fn.Conv1d(2, 3, 4, padding="same"), normal(2, 2, 5)),
    "Conv1d same, uneven by dilation": case(fn.Conv1d(2, 2, 2, padding="same", dilation=3, groups=2), normal(2, 2, 5)),
    "Conv1d same, kernel longer than x": case(fn.Conv1d(1, 2, 4, padding="same"), normal(2, 1, 2)),
    "Conv1d without batch": loose(fn.Conv1d(2, 3, 3, padding=1), normal(2, 5)),
    "Conv1d same, without batch": loose(fn.Conv1d(2, 3, 2, padding="same"), normal(2, 4)),
    "Conv1d as torch draws it": case(fn.Conv1d(2, 3, 3, initializer="torch"), normal(2, 2, 5)),
    "Conv1d of many": case(fn.Conv1d(5, 7, 3), normal(3, 5, 11)),
}
