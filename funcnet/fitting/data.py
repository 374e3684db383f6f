"""Data for ``fit``, ``evaluate`` and ``predict``: rows of tensors, which are cut into batches, or an iterable of batches.

    (x, target)            ``Rows``: tensors or numpy arrays, or trees of them, with one row per example
    DataLoader, list, ...  ``Stream``: batches, each (x, target)
    f(epoch) → iterable    ``Stream``: the batches of an epoch; epochs count from 0

``Rows`` can repeat any batch of an epoch; a ``Stream`` only runs from the first batch to the last.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from funcnet import random, tree
from funcnet.errors import add_location, describe, value_error
from funcnet.flattening import Tree
from funcnet.random.keys import Key

_BATCHES = "an iterable of batches such as a DataLoader, or a function of the epoch that returns one"
RULE, RULE_OF_ONE = f"must be a tuple (x, target), {_BATCHES}", f"must be tensors with one row per example, {_BATCHES}"


def as_tensors(data: Tree) -> Tree:
    """Replace numpy arrays with tensors, which share their memory if torch can read and write it."""
    if type(data) is Tensor:
        return data
    return tree.map(_as_tensor, data)


def _as_tensor(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) or not is_array(leaf) or not _is_plain(leaf):
        return leaf
    if not leaf.dtype.isnative:
        return torch.from_numpy(leaf.astype(leaf.dtype.newbyteorder("=")))
    return torch.from_numpy(leaf if leaf.flags.writeable and min(leaf.strides, default=0) >= 0 else leaf.copy())


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is a numpy array."""
    return any(kind.__module__ == "numpy" and kind.__name__ == "ndarray" for kind in type(leaf).__mro__)


def _is_plain(array: Any) -> bool:
    """Return whether torch has the dtype of an array and no element is masked."""
    return array.dtype.kind in "biufc" and array.dtype.char not in "gG" and not hasattr(array, "mask")


def take(data: Tree, rows: Tensor) -> Tree:
    """Return the given rows of every tensor."""
    return tree.map(lambda leaf: leaf[rows], data)


def rows_in(data: Tree, who: str, name: str = "data") -> int:
    """Return the number of rows, which must be the same in all tensors of the data."""
    for leaf in tree.leaves(data):
        if not isinstance(leaf, Tensor) or not leaf.dim() or leaf.layout is not torch.strided:
            raise value_error(who, f"{name} must hold dense tensors with one row per example", describe(leaf))
    counts = sorted({len(leaf) for leaf in tree.leaves(data)})
    if len(counts) != 1:
        what = "x and target must" if _is_pair(data) else f"all of {name} must"
        raise value_error(who, f"{what} have the same number of rows, at least 1", " and ".join(map(str, counts)) or "none")
    return counts[0]


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2


def _require_x(data: Any, who: str, name: str) -> None:
    """Raise for an x without tensors, and for an empty target other than ``None`` (for losses without a target)."""
    x, target = data
    odd = [part for part in (x, target) if not tree.leaves(part) and (part is x or part is not None)]
    if odd:
        raise value_error(who, f"{name} must hold dense tensors with one row per example", describe(odd[0]))


class Rows:
    """Tensors with one row per example, cut into batches in the given order or in an order determined by a key."""

    once = False

    def __init__(self, data: Tree, who: str, name: str, batch_size: int, *, drop_last: bool = False, pairs: bool = True) -> None:
        self.data, self.who, self.name = as_tensors(data), who, name
        if pairs:
            _require_x(self.data, who, name)
        self.rows = rows_in(self.data, who, name)
        if not self.rows:
            raise value_error(who, f"{'x and target' if pairs else name} must have at least 1 row", "0")
        if drop_last and self.rows < batch_size:
            rule = f"with drop_last there must be batch_size={batch_size} rows or more"
            raise value_error(who, rule, f"{self.rows} rows")
        self.batch_size, self.drop_last = int(batch_size), drop_last  # torch.split rejects numpy integers
        self.device = tree.leaves(self.data)[0].device
        self._last_cut: tuple[int, list[Tensor]] | None = None

    @property
    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def cut(self, order: Key | None = None) -> list[Tensor]:
        """Return the row numbers of each batch; the last result is cached, because an epoch needs it twice."""
        if order is None:
            return self._split(torch.arange(self.rows))
        number = int(order)
        if self._last_cut is None or self._last_cut[0] != number:
            self._last_cut = number, self._split(random.permutation(order, self.rows))
        return self._last_cut[1]

    def _split(self, rows: Tensor) -> list[Tensor]:
        return list(torch.split(rows, min(self.batch_size, self.rows)))[: self.steps]

    def batches(self, epoch: int = 0, order: Key | None = None, start: int = 0) -> Iterator[Tree]:
        """Yield the batches of an epoch from number ``start`` on."""
        pieces = self.cut(order)[start:]
        if type(self.data) is tuple and all(type(leaf) is Tensor for leaf in self.data):  # take would add 2 µs to 5
            yield from (tuple([leaf[rows] for leaf in self.data]) for rows in pieces)
        else:
            yield from (take(self.data, rows) for rows in pieces)

    def generators(self) -> list[torch.Generator]:
        """Return no generators: a key determines the order."""
        return []

    def described(self) -> dict[str, Any]:
        """Return the numbers that determine the order of batches."""
        return {"rows": self.rows, "batch_size": self.batch_size, "drop_last": self.drop_last}

    def hint(self, step: int) -> str:
        """Suggest ``drop_last`` if the step with an error is a smaller last batch."""
        left = self.rows - step * self.batch_size
        if not 0 < left < self.batch_size or not step:
            return ""
        return f", in the last batch, of {left} rows: drop_last=True leaves it out"


class Stream:
    """An iterable of batches, or a function of the epoch that returns one."""

    device = None

    def __init__(self, data: Any, who: str, name: str, rule: str) -> None:
        if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            raise value_error(who, f"{name} must be batches; DataLoader(dataset, batch_size=...) makes them", describe(data))
        if isinstance(data, (str, bytes, Tensor, dict, type)) or not (isinstance(data, Iterable) or callable(data)):
            raise value_error(who, f"{name} {rule}", describe(data))
        self.data, self.who, self.name = data, who, name

    @property
    def once(self) -> bool:
        """Whether the data is an iterator, such as a generator, which lasts for one epoch."""
        return isinstance(self.data, Iterator)

    @property
    def steps(self) -> int | None:
        """Return the number of batches in an epoch, if it is known."""
        try:
            return len(self.data)
        except (TypeError, AttributeError, NotImplementedError):
            return None

    def batches(self, epoch: int = 0, order: Key | None = None, start: int = 0) -> Iterator[Tree]:
        """Yield the batches of an epoch, made outside inference mode because the data may keep tensors for later."""
        del order, start
        for one in self._samplers():
            if callable(getattr(one, "set_epoch", None)):
                one.set_epoch(epoch)
        if getattr(self.data, "persistent_workers", False) and getattr(self.data, "_iterator", None) is not None:
            # A DataLoader samples a seed for new workers before it samples the order, but not for persistent workers: a resumed
            # run would otherwise see another order.
            torch.empty((), dtype=torch.int64).random_(generator=getattr(self.data, "generator", None))
        with torch.inference_mode(False):
            batches = iter(self.data if isinstance(self.data, Iterable) else self._made(self.data, epoch))
        if getattr(self.data, "num_workers", 0):  # batches are made in other processes
            yield from batches
        else:
            yield from _outside_inference(batches)

    def _made(self, function: Callable[[int], Any], epoch: int) -> Iterable[Any]:
        try:
            batches = function(epoch)
        except Exception as error:
            add_location(error, f"{self.name}({epoch}), a function of the epoch")
            raise
        if not isinstance(batches, Iterable):
            raise value_error(self.who, f"{self.name}, a function of the epoch, must return an iterable of batches", batches)
        return batches

    def _samplers(self) -> list[Any]:
        """Return the data, and the dataset and samplers of a DataLoader."""
        loader, found = self.data, [self.data]
        for path in (("dataset",), ("sampler",), ("batch_sampler",), ("batch_sampler", "sampler")):
            one = loader
            for name in path:
                one = getattr(one, name, None)
            if one is not None and all(one is not other for other in found):
                found.append(one)
        return found

    def generators(self) -> list[torch.Generator]:
        """Return the generators of a DataLoader and its samplers; checkpoints contain their states."""
        found: list[torch.Generator] = []
        for one in self._samplers():
            generator = getattr(one, "generator", None)
            if isinstance(generator, torch.Generator) and all(generator is not other for other in found):
                found.append(generator)
        return found

    def described(self) -> dict[str, Any]:
        """Return the known numbers that determine the order of batches."""
        return {"batches": self.steps, "generators": len(self.generators())}

    def hint(self, step: int) -> str:
        """Return no hint."""
        return ""


def _outside_inference(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        with torch.inference_mode(False):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


Source = Rows | Stream


def is_rows(data: Any, pairs: bool) -> bool:
    """Return whether the data is tensors with one row per example rather than batches."""
    return _is_pair(data) if pairs else isinstance(data, (tuple, dict, Tensor)) or is_array(data)


def source_of(data: Any, who: str, name: str, batch_size: int, *, drop_last: bool = False, pairs: bool = True) -> Source:
    """Return the source of the batches of ``data``.

    With ``pairs`` a batch is (x, target); otherwise it is any tree of tensors, which ``transform`` turns into a pair.
    """
    if is_rows(data, pairs):
        return Rows(data, who, name, batch_size, drop_last=drop_last, pairs=pairs)
    rule = RULE if pairs else RULE_OF_ONE
    if isinstance(data, (tuple, dict, Tensor)) or is_array(data):
        raise value_error(who, f"{name} {rule}", describe(data))
    if drop_last:
        rule = "drop_last is for tensors; a DataLoader has its own drop_last"
        raise value_error(who, rule, f"drop_last=True with {describe(data)}")
    return Stream(data, who, name, rule)


_TRANSFORM = "; transform=lambda batch, key: (x, target) makes one"
_FUNCTION = "; a function of the epoch can make them: lambda epoch: ((batch['x'], batch['y']) for batch in loader)"


def as_pair(batch: Any, who: str, name: str) -> tuple[Tree, Tree]:
    """Return x and target of a batch as tensors."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        hint = _TRANSFORM if who == "fit" and "validation" not in name else _FUNCTION
        raise value_error(who, f"{name} must be a pair (x, target){hint}", describe(batch))
    x, target = batch
    if type(x) is Tensor and type(target) is Tensor:
        return x, target
    return as_tensors(x), as_tensors(target)


def moved(data: Tree, device: torch.device, who: str = "fit") -> Tree:
    """Return the tree with its tensors on a device; tensors on the meta device have no values to move."""
    return tree.map(lambda leaf: _move(leaf, device, who) if isinstance(leaf, Tensor) else leaf, data)


def _move(leaf: Tensor, device: torch.device, who: str) -> Tensor:
    if leaf.is_meta and device.type != "meta":
        raise value_error(who, f"data must have values to move to {device}", f"{describe(leaf)} on the meta device")
    return leaf.to(device, non_blocking=True)


def device_of(params: Tree) -> torch.device:
    """Return the device of the first tensor, or the CPU without tensors."""
    return next((leaf.device for leaf in tree.leaves(params) if isinstance(leaf, Tensor)), torch.device("cpu"))
