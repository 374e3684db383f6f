"""The result of a training: params, state and the history, a column of numbers for each thing measured."""

from typing import Any, NamedTuple

from funcnet.contract import Params
from funcnet.flattening import Tree

History = dict[str, list[Any]]


class Fit(NamedTuple):
    """What ``fit`` returns: the trained params, the optimizer's state, and a list per column of the history."""

    params: Params
    state: Tree
    history: History
