"""Paddings."""

import funcnet as fn
from cases.making import case, loose, normal

CASES = {
    "ZeroPad1d": case(fn.ZeroPad1d(2), normal(2, 3, 4)),
    "ZeroPad1d that takes away": case(fn.ZeroPad1d((1, -2)), normal(2, 3)),
    "ZeroPad2d": case(fn.ZeroPad2d((1, 0, 2, 3)), normal(2, 2, 3, 2)),
    "ZeroPad3d": case(fn.ZeroPad3d(1), normal(2, 1, 2, 1, 3)),
    "ConstantPad1d": case(fn.ConstantPad1d((1, 2), -1.5), normal(2, 3, 4)),
    "ConstantPad1d of a vector": loose(fn.ConstantPad1d(1, 2.0), normal(3)),
    "ConstantPad2d": case(fn.ConstantPad2d((0, 2, -1, 1), 0.5), normal(2, 3, 2, 3)),
    "ConstantPad3d": case(fn.ConstantPad3d((1, 0, 0, 1, 2, 0), 3.0), normal(2, 2, 1, 2)),
    "ReflectionPad1d": case(fn.ReflectionPad1d((3, 1)), normal(2, 3, 4)),
    "ReflectionPad1d without batch": loose(fn.ReflectionPad1d(1), normal(3, 2)),
    "ReflectionPad2d": case(fn.ReflectionPad2d((1, 2, 0, 1)), normal(2, 2, 2, 3)),
    "ReflectionPad3d": case(fn.ReflectionPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 3, 2)),
    "ReplicationPad1d": case(fn.ReplicationPad1d((3, 1)), normal(2, 3, 2)),
    "ReplicationPad2d": case(fn.ReplicationPad2d((1, 2, 0, 3)), normal(2, 2, 1, 3)),
    "ReplicationPad2d without batch": loose(fn.ReplicationPad2d(2), normal(2, 2, 3)),
    "ReplicationPad3d": case(fn.ReplicationPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 1, 2)),
    "CircularPad1d": case(fn.CircularPad1d((3, 2)), normal(2, 3, 3)),
    "CircularPad1d without batch": loose(fn.CircularPad1d(2), normal(3, 4)),
    "CircularPad2d": case(fn.CircularPad2d((1, 2, 0, 3)), normal(2, 2, 3, 2)),
    "CircularPad3d": case(fn.CircularPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 2, 1)),
}
