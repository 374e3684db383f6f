"""``chain``: gradient transforms followed by an optimizer, as one optimizer. ``donate``: an optimizer that may reuse memory."""

from collections.abc import Callable
from typing import Any

from attrs import field

from funcnet.contract import Grads, Params
from funcnet.errors import add_location, instances, value_error
from funcnet.flattening import Tree
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.evaluating import inner_optimizer
from funcnet.value import frozen

_transforms = instances(GradientTransform, "gradient transforms, all before the optimizer", several=True)


def _tuple_of_transforms(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple):
        raise value_error("chain", "transforms must be a tuple", got)
    _transforms(value, attribute, got)


@frozen
class Chain(Optimizer):
    """Gradient transforms followed by an optimizer; made by ``chain``.

        g ← t₁(g), ..., g ← tₙ(g)
        p ← the step of ``optimizer`` with g

    Args:
        transforms: The gradient transforms, in order.
        optimizer: The optimizer.

    State:
        A tuple: the state of each transform, then the state of the optimizer.

    Raises:
        ValueError: If the state is not a tuple of that length. An error in a part gets a note with the number of the part.

    References:
        ``optax.chain``.
    """

    label = "chain"

    transforms: tuple[GradientTransform, ...] = field(validator=_tuple_of_transforms)
    optimizer: Optimizer = field(validator=inner_optimizer)

    @property
    def _parts(self) -> tuple[Any, ...]:
        return (*self.transforms, self.optimizer)

    @property
    def acts_on(self) -> str:
        scopes = {part.acts_on for part in self._parts}
        return "tree" if "tree" in scopes else "leaves" if "leaves" in scopes else "elements"

    def init(self, params: Params) -> State:
        return tuple([part.init(params) for part in self._parts])

    def rates(self, state: Any) -> dict[str, Any]:
        """Return the rates of all parts. If several parts have a rate of the same name, the last one is returned."""
        self._require_state(state)
        return {name: one for part, own in zip(self._parts, state, strict=True) for name, one in part.rates(own).items()}

    def eval_params(self, state: State, params: Params) -> Params:
        self._require_state(state)
        return self.optimizer.eval_params(state[-1], params)

    def map_state(self, f: Callable[..., Tree], state: Any, *others: Any) -> State:
        self._require_state(state)
        return tuple([part.map_state(f, *own) for part, *own in zip(self._parts, state, *others, strict=True)])

    def require_fit(self, state: State, params: Params) -> None:
        self._require_state(state)
        try:
            self.optimizer.require_fit(state[-1], params)
        except Exception as error:
            add_location(error, f"chain, part {len(self.transforms)}")
            raise

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Any, State]:
        self._require_state(state)
        result, after = grads, []
        for i, (part, own) in enumerate(zip(self._parts, state, strict=True)):
            try:
                result, new = part.update(result, own, params)
            except Exception as error:
                add_location(error, f"chain, part {i}")
                raise
            after.append(new)
        return result, tuple(after)

    def _require_state(self, state: State) -> None:
        if not isinstance(state, tuple) or len(state) != len(self._parts):
            raise value_error(self, f"state must be a tuple of {len(self._parts)}, one for each part", state)

    def donate(self) -> "Chain":
        return self.replace(optimizer=self.optimizer.donate())

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self._parts))})"


def chain(*parts: GradientTransform | Optimizer) -> Chain:
    """Combine gradient transforms and an optimizer, the last part, into one optimizer.

        g ← t₁(g), ..., g ← tₙ(g)
        p ← the step of the optimizer with g

    The optimizer subtracts: a chain that ends with ``SGD(lr)`` corresponds to a chain of optax that ends with
    ``scale_by_learning_rate``. Optimizers like ``SAM`` wrap the whole chain: ``SAM(chain(ClipByGlobalNorm(1.0), SGD(0.1)))``.

    Args:
        parts: Gradient transforms in the order of their application, then an optimizer.

    State:
        A tuple with the state of each part. All parts count the same updates.

    Raises:
        ValueError: If the last part is not an optimizer, or another part is not a gradient transform.

    References:
        ``optax.chain``.

    >>> from funcnet.optim.sgd import SGD
    >>> from funcnet.optim.clipping import ClipByGlobalNorm
    >>> chain(ClipByGlobalNorm(1.0), SGD(lr=0.1))
    chain(ClipByGlobalNorm(max_norm=1.0), SGD(lr=0.1))
    """
    if not parts or not isinstance(parts[-1], Optimizer):
        rule = "the last part must be an optimizer, like SGD(lr=0.1)"
        raise value_error("chain", rule, repr(parts[-1]) if parts else "no parts")
    return Chain(parts[:-1], parts[-1])  # type: ignore[arg-type]  # a validator checks each


def donate(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that may write to its ``params`` and ``state``, which the caller gives up.

    The results are the same, bit for bit, but can overwrite the given tensors. On large nets this saves more time than the
    arithmetic takes, because fresh memory is slow. Gradients are not given up, and must not share memory with params.

    An update that raises has written nothing. An interrupted update, for example with Ctrl-C, may have written only some leaves:
    in a custom loop, keep a copy, or handle the interrupt between updates; ``fit`` trains on a copy. Compiled code checks for
    shared memory only at the first call for each kind of arguments.

    Args:
        optimizer: The optimizer; a chain too.

    Returns:
        The optimizer with ``donated=True``, also in its parts.

    Raises:
        ValueError: If ``optimizer`` is not an optimizer; from ``update`` also if two elements of params and state share memory,
            and, outside inference mode, for tensors created inside it.

    >>> from funcnet.optim.adam import Adam
    >>> donate(Adam(lr=0.1))
    Adam(donated=True, lr=0.1)
    """
    if not isinstance(optimizer, Optimizer):
        raise value_error("donate", "the argument must be an optimizer", optimizer)
    return optimizer.donate()
