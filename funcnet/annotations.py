"""Annotations: the types of params, gradients, states, caches and sizes, as type checkers and editors show them.

A tree is a dict, tuple or list of tensors and of other trees; which one it is depends on the layers of a net, which its type does
not say. Indexing gives ``Any``, so ``params["0"]["weight"]`` needs no cast. A tensor, a number or a layer in the place of a tree
is an error, and so are gradients or a state in the place of params:

    net.apply(x, params)                x is no tree
    net.apply(grads, x)                 gradients are no params
    opt.update(params, state, grads)    neither are they here

Dicts, tuples and lists that you write yourself are accepted everywhere. Type checkers compare the methods: ``Params`` has more
than ``State``, and ``State`` has more than ``Grads``. ``contract`` and ``optim.base`` make those names of the protocols here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol


class GradsDict(Protocol):
    """Gradients by name; see ``Grads``."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def keys(self) -> Any: ...
    def values(self) -> Any: ...
    def items(self) -> Any: ...


class GradsTuple(Protocol):
    """Gradients by number; see ``Grads``."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def index(self, value: Any, /) -> int: ...
    def count(self, value: Any, /) -> int: ...


class StateDict(GradsDict, Protocol):
    """A state by name; see ``State``."""

    def __len__(self) -> int: ...


class StateTuple(GradsTuple, Protocol):
    """A state by number; see ``State``."""

    def __len__(self) -> int: ...


class ParamsTuple(StateTuple, Protocol):
    """Params by number; see ``Params``."""

    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, key: object, /) -> bool: ...


if TYPE_CHECKING:

    class Size:
        """The size of an axis of x: the argument is a whole number, or ``None`` until ``infer_sizes`` has read it from x.

        The field is read as an ``int``, to save layers a check for ``None``.
        """

        def __get__(self, instance: object, owner: Any, /) -> int: ...
        def __set__(self, instance: object, value: int | None, /) -> None: ...

else:
    Size = int | None
