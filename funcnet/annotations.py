"""Annotations: the types of params, gradients, states, caches and sizes, as type checkers and editors show them.

A tree is a dict, tuple or list of tensors and other trees. Which of them it is depends on the layers of a net, and the type of a
net does not record these. Indexing returns ``Any``, so ``params["0"]["weight"]`` needs no cast. Type checkers reject a tensor, a
number or a layer where a tree is expected, and gradients or a state where params are expected:

    net.apply(x, params)                x is not a tree
    net.apply(grads, x)                 gradients are not params
    opt.update(params, state, grads)    params and gradients are swapped

Dicts, tuples and lists that you write yourself are accepted everywhere. Type checkers compare methods: ``Params`` has more
methods than ``State``, and ``State`` has more than ``Grads``. ``contract`` and ``optim.base`` define these names from the
protocols below.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol


class GradsDict(Protocol):
    """A dict of gradients; see ``Grads``."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def keys(self) -> Any: ...
    def values(self) -> Any: ...
    def items(self) -> Any: ...


class GradsTuple(Protocol):
    """A tuple of gradients; see ``Grads``."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def index(self, value: Any, /) -> int: ...
    def count(self, value: Any, /) -> int: ...


class StateDict(GradsDict, Protocol):
    """A state that is a dict; see ``State``."""

    def __len__(self) -> int: ...


class StateTuple(GradsTuple, Protocol):
    """A state that is a tuple; see ``State``."""

    def __len__(self) -> int: ...


class ParamsTuple(StateTuple, Protocol):
    """A tuple of params; see ``Params``."""

    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, key: object, /) -> bool: ...


if TYPE_CHECKING:

    class Size:
        """The size of an axis of x: a whole number, or ``None`` until ``infer_sizes`` reads it from x.

        Type checkers see the field as an ``int``, so layers need no check for ``None``.
        """

        def __get__(self, instance: object, owner: Any, /) -> int: ...
        def __set__(self, instance: object, value: int | None, /) -> None: ...

else:
    Size = int | None
