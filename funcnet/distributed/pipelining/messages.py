"""Messages: trees of tensors that one worker sends to another, without waiting for it.

The receiver must allocate tensors of the right shapes in advance. Before the first tree of a kind, the sender therefore sends a
header: the structure, and the shape and dtype of each leaf. A kind is a name, the same on both workers, that determines all
shapes.
"""

import pickle
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.distributed.workers import Pending, Workers, exchange
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree, flatten_together, unflatten

Kind = tuple[Any, ...]


class Leaf(NamedTuple):
    """The shape and the dtype of a leaf."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Form(NamedTuple):
    """The form of a tree for its receiver: its structure, and the forms of its leaves, ``None`` for absent ones."""

    structure: Tree
    leaves: tuple[Leaf | None, ...]


def form_of(who: str, values: Tree) -> Form:
    """Return the form of a tree of dense tensors."""
    leaves = flatten_together(values)[0]
    for leaf in leaves:
        if leaf is not None and (not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or leaf.is_nested):
            raise value_error(who, "a stage must pass dense tensors to the next one", describe(leaf))
    return Form(tree.structure(values), tuple([None if leaf is None else Leaf(tuple(leaf.shape), leaf.dtype) for leaf in leaves]))


class Mail:
    """The messages of one worker; ``known`` has the forms already sent or received, by peer and kind."""

    def __init__(self, who: str, workers: Workers, device: torch.device, known: dict[Any, Form]) -> None:
        self.who, self.workers, self.device, self._known = who, workers, device, known
        self._sent: list[tuple[Tensor, int]] = []
        self._labels: list[Any] = []
        self._awaited: list[tuple[Tensor, int]] = []
        self._asked: dict[Any, tuple[Form, list[Any]]] = {}
        self._under_way: dict[Any, list[Pending]] = {}

    def put(self, peer: int, kind: Kind, label: Any, values: Tree) -> None:
        """Send a tree with the next ``flush``; ``arrived(peer, label)`` waits until its memory is no longer needed."""
        form, known = form_of(self.who, values), self._known.get(("to", peer, kind))
        if known is None:
            self._known["to", peer, kind] = form
            words = torch.frombuffer(bytearray(pickle.dumps(form)), dtype=torch.uint8).to(self.device)
            self._queue(peer, label, torch.tensor([len(words)], device=self.device))
            self._queue(peer, label, words)
        elif known != form:
            rule = "the form of a stage's output must depend only on the form of x; create another step for another dtype"
            raise value_error(self.who, rule, f"{_described(form)} after {_described(known)}")
        for leaf in tree.leaves(values):
            if leaf.numel():
                self._queue(peer, label, leaf.contiguous())

    def _queue(self, peer: int, label: Any, values: Tensor) -> None:
        self._sent.append((values, peer))
        self._labels.append((peer, label))

    def ask(self, peer: int, kind: Kind, label: Any) -> bool:
        """Receive a tree with the next ``flush``; return whether its form is known, without which ``take`` must wait."""
        if (peer, label) not in self._asked:
            form = self._known.get(("from", peer, kind))
            if form is None:
                return False
            buffers = [leaf and torch.empty(leaf.shape, dtype=leaf.dtype, device=self.device) for leaf in form.leaves]
            self._asked[peer, label] = form, buffers
            self._awaited += [(one, peer) for one in buffers if one is not None and one.numel()]
        return True

    def flush(self) -> None:
        """Start all pending sends and receives."""
        if not self._sent and not self._awaited:
            return
        pending = exchange(self.workers, self._sent, self._awaited)
        sent = len(self._sent)
        for label, one in zip(self._labels, pending[:sent], strict=True):
            self._under_way.setdefault(label, []).append(one)
        for (buffer, _), one in zip(self._awaited, pending[sent:], strict=True):
            self._under_way[id(buffer)] = [one]
        self._sent, self._labels, self._awaited = [], [], []

    def take(self, peer: int, kind: Kind, label: Any) -> Tree:
        """Wait for a tree and return it."""
        if not self.ask(peer, kind, label):
            self._known["from", peer, kind] = self._header(peer)
            self.ask(peer, kind, label)
        self.flush()
        form, buffers = self._asked.pop((peer, label))
        for buffer in buffers:
            self._wait(id(buffer))
        return unflatten(form.structure, iter(buffers))

    def _header(self, peer: int) -> Form:
        (length,) = self._received(peer, torch.empty(1, dtype=torch.int64, device=self.device)).tolist()
        words = self._received(peer, torch.empty(length, dtype=torch.uint8, device=self.device))
        return pickle.loads(bytes(words.tolist()))  # type: ignore[no-any-return]

    def _received(self, peer: int, buffer: Tensor) -> Tensor:
        self._awaited.append((buffer, peer))
        self.flush()
        self._wait(id(buffer))
        return buffer

    def arrived(self, peer: int, label: Any) -> None:
        """Wait until a sent tree's memory is no longer needed."""
        self._wait((peer, label))

    def finish(self) -> None:
        """Wait for all messages."""
        self.flush()
        for label in [*self._under_way]:
            self._wait(label)

    def _wait(self, label: Any) -> None:
        for one in self._under_way.pop(label, ()):
            one.wait()


def _described(form: Form) -> str:
    return ", ".join([f"{leaf.dtype} {leaf.shape}" if leaf else "nothing" for leaf in form.leaves])
