"""Changes of shape."""

import funcnet as fn
from cases.making import case, normal

CASES = {
    "Identity": case(fn.Identity(), normal(4, 3)),
    "Identity of a pair": case(fn.Identity(), (normal(4, 3), normal(4, 2, 1))),
    "Flatten": case(fn.Flatten(), normal(2, 3, 4)),
    "Flatten of 2 axes": case(fn.Flatten(), normal(4, 3)),
    "Flatten of 4 axes": case(fn.Flatten(), normal(2, 3, 1, 4)),
    "Flatten all": case(fn.Flatten(0), normal(2, 3, 4)),
    "Flatten the middle": case(fn.Flatten(1, 2), normal(2, 3, 4, 5)),
    "Flatten from the end": case(fn.Flatten(-2, -1), normal(2, 3, 4)),
    "Flatten the first two": case(fn.Flatten(0, 1), normal(2, 3, 4)),
}
