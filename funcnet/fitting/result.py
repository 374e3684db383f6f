"""The result of a training run: params, state and history, to save, print and plot together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.fitting.history import MOST_ROWS, History, content_of
from funcnet.fitting.plotting import Figure
from funcnet.flattening import Tree
from funcnet.markup import output, table
from funcnet.saving.files import PathLike, load, load_metadata, save
from funcnet.tables import aligned, short


class Fit(NamedTuple):
    """The result of ``fit``: ``params, state, history = fit(...)``. It prints as a table.

    Args:
        params: The trained params.
        state: The optimizer's state.
        history: The measurements of each epoch.

    >>> fit = Fit({"weight": torch.zeros(3, 4)}, {"step": torch.tensor(2)}, History({"epoch": [1], "loss": [0.5]}))
    >>> fit
    params           12  48 B
    optimizer state   1   8 B
    <BLANKLINE>
    epoch  loss
        1   0.5
    """

    params: Params
    state: Tree
    history: History

    def save(self, path: PathLike) -> None:
        """Save params, state and history in one file with ``funcnet.save``.

        ``load_metadata(path)["history"]`` returns the columns of the history without reading the params.

        Args:
            path: The file; an existing one is replaced.

        Raises:
            ValueError: If ``save`` rejects a value, such as a sparse tensor.
            OSError: If the folder is missing or the disk is full.
        """
        save(path, {**self._asdict(), "history": dict(self.history)}, {"kind": "Fit", "history": _outline(self.history)})

    @classmethod
    def load(cls, path: PathLike, like: Any = None) -> "Fit":
        """Load a file that ``fit.save(path)`` wrote; the values are equal bit for bit.

        Args:
            path: The file.
            like: A ``Fit`` or a pair (params, state) with the expected structure, shapes and dtypes; tensors are loaded to its
                devices, or to the CPU without it.

        Raises:
            ValueError: If the file is damaged, was not written by ``Fit.save``, or differs from ``like``; the error lists every
                path that differs.
            OSError: If the file is missing.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Fit({"weight": torch.ones(2)}, {}, History({"epoch": [1], "loss": [0.5]})).save(f"{folder.name}/fit.fn")
        >>> Fit.load(f"{folder.name}/fit.fn").params
        {'weight': tensor([1., 1.])}
        >>> folder.cleanup()
        """
        if like is not None and (not isinstance(like, tuple) or len(like) not in (2, 3)):
            raise value_error("Fit.load", "like must be a Fit or a pair (params, state)", describe(like))
        history = _expected(path, load_metadata(path))
        wanted = None if like is None else {"params": like[0], "state": like[1], "history": history}
        found = load(path, wanted)
        return cls(found["params"], found["state"], History(found["history"]))

    def plot(self, columns: Sequence[str] | None = None, figure: Figure = None) -> Figure:
        """Draw the history with matplotlib, and return the figure, as ``History.plot`` does.

        Args:
            columns: Names of the columns to draw, by default all that hold numbers.
            figure: A matplotlib figure or subfigure to draw into, by default a new one.

        Raises:
            ImportError: Without matplotlib; ``pip install funcnet[plot]`` installs it.
            ValueError: If a column is missing or has no numbers, or ``figure`` has another type.
        """
        return History(self.history).plot(columns, figure)

    def _repr_html_(self) -> str:
        sizes = [_size("params", self.params), _size("optimizer state", self.state)]
        return output(table(("", "numbers", "memory"), sizes, words=1), content_of(History(self.history), most=MOST_ROWS))

    def __str__(self) -> str:
        sizes = aligned([_size("params", self.params), _size("optimizer state", self.state)], 1)
        return "\n".join([*sizes, "", str(History(self.history))])

    def __repr__(self) -> str:
        return str(self)


def _size(name: str, part: Tree) -> tuple[str, ...]:
    return name, f"{tree.size(part):,}", f"{short(tree.nbytes(part))}B"


def _outline(history: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the columns with each tensor replaced by its dtype and shape."""
    return {name: [_outline_value(value) for value in column] for name, column in history.items()}


def _outline_value(value: Any) -> Any:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": value.shape} if isinstance(value, Tensor) else value


def _expected(path: PathLike, metadata: Any) -> dict[str, list[Any]]:
    """Return the columns described by ``_outline``, with tensors on the meta device."""
    if not isinstance(metadata, dict) or metadata.get("kind") != "Fit" or not isinstance(metadata.get("history"), dict):
        raise value_error("Fit.load", f"{str(path)!r} must be a file that Fit.save has written", "a file of another tree")
    return {name: [_fill(value) for value in column] for name, column in metadata["history"].items()}


def _fill(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
