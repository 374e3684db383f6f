"""The history of a training run: named columns with a value for each epoch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import describe, value_error
from funcnet.fitting.curves import curves_of
from funcnet.fitting.plotting import Figure, draw
from funcnet.markup import Markup, element, folded, joined, output, table
from funcnet.tables import aligned

MOST_ROWS, _ENDS = 20, 5
"""Most rows of a table, and the number of rows shown at each end of a longer one."""
_WIDTH = 120
"""Characters of the longest line; a wider table is split into several."""


class History(dict[str, list[Any]]):
    """Measurements of a training run: a dict from column names, such as ``epoch``, ``loss`` and ``seconds``, to lists.

    It prints as a table, in notebooks too, and ``plot()`` draws it. Each list has a value for each epoch: a number, a tensor
    (such as a confusion matrix), or ``None`` if nothing was measured. A column that began later has a shorter list, for the last
    epochs. Two histories are equal if they have the same columns with the same values; NaN equals NaN.

    Args:
        columns: A dict of lists by column name; the lists are copied. ``None`` for an empty history.

    Raises:
        ValueError: If a column is not a list, or a value is neither a number in the range of floats, a tensor nor ``None``.

    >>> history = History({"epoch": [1, 2], "loss": [0.9, 0.25]})
    >>> history.append({"epoch": 3, "loss": 0.125, "accuracy": 0.75})
    >>> print(history)
    epoch   loss  accuracy
        1    0.9
        2   0.25
        3  0.125      0.75
    >>> history
    <History of 3 epochs: epoch, loss, accuracy>
    >>> history.best("loss")
    {'epoch': 3, 'loss': 0.125, 'accuracy': 0.75}
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]] | None = None) -> None:
        super().__init__()
        if columns is not None and not isinstance(columns, Mapping):
            raise value_error("History", "columns must be a dict of lists", describe(columns))
        for name, column in (columns or {}).items():
            if not isinstance(name, str) or not isinstance(column, (list, tuple)):
                raise value_error("History", "each column must have a name and a list of values", f"{name!r}: {describe(column)}")
            self[name] = [_value("History", name, value) for value in column]

    def append(self, row: Mapping[str, Any]) -> None:
        """Append the row of an epoch; a new name begins a column, and a column missing from the row gets ``None``.

        Args:
            row: The values of the epoch by column name; a 0-d tensor is stored as a number.

        Raises:
            ValueError: If the row is not a dict, or a value is neither a number in the range of floats, a tensor nor ``None``.
        """
        if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
            raise value_error("History.append", "row must be a dict of values by name", describe(row))
        kept = {name: _value("History.append", name, value) for name, value in row.items()}
        for name in [*self, *[name for name in kept if name not in self]]:
            self.setdefault(name, []).append(kept.get(name))

    def rows(self) -> list[dict[str, Any]]:
        """Return a list with a dict for each epoch, for ``pandas.DataFrame(history.rows())`` or ``csv.DictWriter``."""
        count = self._epochs()
        return [{name: c[i - count] for name, c in self.items() if len(c) >= count - i} for i in range(count)]

    def best(self, column: str, mode: str = "min") -> dict[str, Any]:
        """Return the row of the epoch with the best value of a column; the first one in a tie.

        Args:
            column: Name of a column of numbers, such as ``"validation_loss"``; NaN is never the best.
            mode: ``"min"`` if smaller is better, ``"max"`` if larger is.

        Raises:
            ValueError: If the column is missing or has no numbers, or ``mode`` is another word.
        """
        if not isinstance(mode, str) or mode not in _BETTER:
            raise value_error("History.best", "mode must be 'min' or 'max'", repr(mode))
        self._require("History.best", column)
        rows = [row for row in self.rows() if _is_number(row.get(column))]
        if not rows:
            raise value_error("History.best", f"the column {column!r} must have a number that is not NaN", "none")
        return _BETTER[mode](rows, key=lambda row: row[column])

    def plot(self, columns: Sequence[str] | None = None, figure: Figure = None) -> Figure:
        """Draw the columns over the epochs with matplotlib, and return the figure.

        The loss and each metric have a panel, with a second line for the validation data. The parts of a loss share a panel, as
        do norms and learning rates; seconds come last. An axis is logarithmic if a linear one would squeeze most values
        together. Notebooks show the figure, and ``figure.savefig("history.png")`` writes it. The figure is not registered with
        pyplot and need not be closed.

        Args:
            columns: Names of the columns to draw, by default all that hold numbers.
            figure: A matplotlib figure or subfigure to draw into, by default a new one.

        Raises:
            ImportError: Without matplotlib; ``pip install funcnet[plot]`` installs it.
            ValueError: If a column is missing or has no numbers, or ``figure`` has another type.
        """
        names = [name for name in self if name != "epoch" and self._is_numeric(name)] if columns is None else columns
        if not isinstance(names, (list, tuple)) or not names:
            raise value_error("History.plot", "columns must be a list of names, at least one", describe(names))
        if not self._epochs():
            raise value_error("History.plot", "the history must have an epoch to draw", "none")
        for name in names:
            self._require("History.plot", name)
            if not self._is_numeric(name):
                raise value_error("History.plot", "the columns must hold numbers", f"{name!r}, which holds tensors")
        if figure is not None and not hasattr(figure, "add_subplot"):
            raise value_error("History.plot", "figure must be a matplotlib figure or subfigure", describe(figure))
        return draw({name: self[name] for name in names}, self._numbers(), figure)

    def copy(self) -> "History":
        """Return a copy to which rows can be appended without changing the original; tensors are shared."""
        made = History()
        for name, column in self.items():
            made[name] = [*column]  # values are not checked again: fit copies the history after each epoch
        return made

    __copy__ = copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        return self.keys() == other.keys() and all(_same(column, other[name]) for name, column in self.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        count = self._epochs()
        return f"<History of {count} epoch{'s' * (count != 1)}{': ' * bool(self)}{', '.join(self)}>"

    def __str__(self) -> str:
        cells = self._cells()
        return "\n\n".join(["\n".join(aligned(block, 0)) for block in _blocks(cells)]) if cells[1:] and cells[0] else "no epochs"

    def _repr_html_(self) -> str:
        return output(content_of(self, most=MOST_ROWS))

    def _cells(self, most: int | None = MOST_ROWS) -> list[tuple[str, ...]]:
        names = [name for name in self if self._is_numeric(name)]
        rows = [tuple([_cell(row.get(name)) for name in names]) for row in self.rows()]
        if most is not None and len(rows) > most:
            rows = [*rows[:_ENDS], ("...",) * len(names), *rows[-_ENDS:]]
        return [tuple(names), *rows]

    def _epochs(self) -> int:
        return max(map(len, self.values()), default=0)

    def _numbers(self) -> list[int]:
        """Return the epoch numbers, counted from 1 if there is no column of them."""
        count = self._epochs()
        epochs = self.get("epoch", [])
        return epochs if len(epochs) == count and all(isinstance(n, int) for n in epochs) else [*range(1, count + 1)]

    def _is_numeric(self, name: str) -> bool:
        return not any(isinstance(value, Tensor) for value in self[name])

    def _require(self, who: str, name: object) -> None:
        if not isinstance(name, str) or name not in self:
            raise value_error(who, f"a column must be one of the history's ({', '.join(self) or 'it has none'})", repr(name))


def content_of(history: History, most: int | None) -> Markup:
    """Return the curves and the table of a history as HTML.

    Args:
        history: The history.
        most: Maximal number of rows; a longer history shows only its first and last epochs. ``None`` for no limit.
    """
    head, *rows = history._cells(most)
    if not rows or not head:
        return element("p", "no epochs")
    columns = {name: history[name] for name in head if name != "epoch"}
    values = element("div", table(head, rows), class_="scroll")
    return joined([curves_of(columns, history._numbers()), folded("values of each epoch", values, is_open=len(rows) <= _ENDS)])


_BETTER: dict[str, Callable[..., dict[str, Any]]] = {"min": min, "max": max}


def _value(who: str, name: str, value: Any) -> Any:
    """Return the value to store: a Python number, a detached tensor, or ``None``."""
    if isinstance(value, Tensor):
        return value.detach().clone() if value.dim() else value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Real):  # numpy's scalars too
        try:
            number = float(value)
        except OverflowError:
            raise value_error(who, f"the values of {name!r} must be within the range of floats", "a larger one") from None
        return int(value) if isinstance(value, Integral) else number
    raise value_error(who, f"the values of {name!r} must be numbers, tensors or None", describe(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _blocks(rows: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """Split a wide table into narrower ones, each with the first column."""
    first, *others = zip(*rows, strict=True)
    block: list[tuple[str, ...]] = [first]
    for column in others:
        if len(block) > 1 and sum([2 + max(map(len, one)) for one in [*block, column]]) > _WIDTH:
            yield [*zip(*block, strict=True)]
            block = [first]
        block.append(column)
    yield [*zip(*block, strict=True)]


def _same(a: Any, b: Any) -> bool:
    """Return whether two columns, or two of their values, are the same."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return all(_same(one, other) for one, other in zip_longest(a, b, fillvalue=()))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and _same_tensor(a, b)
    return bool(a == b) or (_is_nan(a) and _is_nan(b))


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    kinds = [(x.dtype, x.shape, x.device) for x in (a, b)]
    return kinds[0] == kinds[1] and bool(((a == b) | (torch.isnan(a) & torch.isnan(b))).all())
