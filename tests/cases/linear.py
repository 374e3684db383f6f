"""Linear maps."""

import funcnet as fn
from cases.making import case, normal

CASES = {
    "Linear": case(fn.Linear(3, 2), normal(5, 3)),
    "Linear without bias": case(fn.Linear(3, 2, bias=False), normal(5, 3)),
    "Linear of one vector": case(fn.Linear(3, 2), normal(3)),
    "Linear of one row": case(fn.Linear(3, 2), normal(1, 3)),
    "Linear 1 to 1": case(fn.Linear(1, 1), normal(4, 1)),
    "Linear on 3 axes": case(fn.Linear(3, 4), normal(2, 5, 3)),
    "Linear on 4 axes without bias": case(fn.Linear(3, 4, bias=False), normal(2, 1, 5, 3)),
    "Linear as torch draws it": case(fn.Linear(3, 2, initializer="torch"), normal(5, 3)),
    "Linear of many": case(fn.Linear(19, 23), normal(17, 19)),
}
