"""Nets as torch.nn modules: ``as_module``, whose backward pass is the VJP of the net.

    module(x) = net(params, x)      gradients: net.vjp

The module uses the same kernels as the net; ``functions`` defines the function that autograd differentiates.
"""

from typing import Any

import torch
from torch import Tensor, nn

from funcnet.codec import TreeCodec
from funcnet.contract import Layer, Params
from funcnet.errors import value_error
from funcnet.interop.torch_nn.autograd.functions import applied
from funcnet.interop.torch_nn.autograd.plans import Plan, is_inline
from funcnet.interop.torch_nn.autograd.precision import casts_of, device_of
from funcnet.interop.torch_nn.autograd.roles import Roles, require_params, roles
from funcnet.interop.torch_nn.autograd.rows import LONE, Memory, Skeleton, to_row
from funcnet.paths import named_leaves
from funcnet.tree.mapping import same_leaf
from funcnet.walking import require_layer

_LONE = "weight"
"""Name of the parameter if params are a single tensor, whose path is empty."""


class Holder(nn.Module):
    """A module that only stores parameters and other holders."""

    def put(self, path: str, leaf: Tensor, *, is_buffer: bool) -> None:
        """Register a parameter or a buffer under a dotted path."""
        head, _, tail = path.partition(".")
        if tail:
            if head not in self._modules:
                self._refuse_taken(head)
                self.add_module(head, Holder())
            self._modules[head].put(tail, leaf, is_buffer=is_buffer)  # type: ignore[union-attr,operator]
        else:
            self._refuse_taken(head)
            (self.register_buffer if is_buffer else self.register_parameter)(head, leaf)  # type: ignore[arg-type]

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_to_replace(name, value)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_to_replace(name, None)
        super().__delattr__(name)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module; refuse to replace one with parameters of the net."""
        self._refuse_to_replace(name, module)
        super().add_module(name, module)

    def _refuse_to_replace(self, name: str, value: Any) -> None:
        """Refuse to replace a layer, as in ``model.fc = nn.Linear(512, 10)``: the net would not call the new module."""
        if isinstance(vars(self).get("_modules", {}).get(name), Holder):
            rule = f"{name!r} is a layer of the net, which calls its own layers; replace it in the net, with fn.replace"
            raise value_error("as_module", rule, f"{type(value).__name__} as {name!r}")

    def _refuse_taken(self, name: str) -> None:
        if not name or hasattr(self, name):
            rule = "a name in params must be free in torch.nn.Module, and not empty"
            raise value_error("as_module", rule, repr(name))


class NetModule(Holder):
    """A net as a torch.nn module; created with ``as_module``."""

    def __init__(self, net: Layer, params: Params) -> None:
        super().__init__()
        found = roles(net, params)
        self._net, self._structure, self._roles = net, Skeleton(params), found
        self._names = [path or _LONE if leaf is not None else None for path, leaf in named_leaves("", params)]
        self._absent = [path for path, leaf in named_leaves("", params) if leaf is None]
        made: dict[int, Tensor] = {}
        with torch.inference_mode(mode=False):
            for path, leaf in named_leaves("", params):
                if leaf is not None:
                    made[id(leaf)] = made[id(leaf)] if id(leaf) in made else _copied(found, path, leaf)
                    self.put(path or _LONE, made[id(leaf)], is_buffer=path in found.buffers)
        self._prepare()

    def _prepare(self) -> None:
        """Prepare the objects that every call needs; they are not pickled but created again."""
        self._places = [self._place(name) for name in self._names]
        self._codec = TreeCodec(self._structure.tree)
        stats = [i for i, name in enumerate(self._names) if self._net.has_running_stats and name in self._roles.buffers]
        nets = (self._net.inference(), ()), (self._net, tuple(stats))
        count = len(self._names)
        self._plans = [Plan(net, self._codec, LONE, count, moves, Memory(), casts_of(net), is_inline(net)) for net, moves in nets]
        self._draws = [net.stochastic for net, _ in nets]

    def _place(self, name: str | None) -> tuple[Any, Any, bool]:
        """Return the holder of a leaf, the leaf's name in it, and whether it is a buffer."""
        if name is None:
            return None, None, False
        path, _, last = name.rpartition(".")
        holder = self.get_submodule(path)
        return holder, last, last in holder._buffers

    def __getstate__(self) -> dict[str, Any]:
        made = {"_places", "_codec", "_plans", "_draws"}
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Accept the other names of tied parameters, which the ``state_dict`` of a torch.nn module contains."""
        kept = [state_dict[prefix + name] for name in self._names if name is not None and prefix + name in state_dict]
        for name in [prefix + path for path in self._absent if prefix + path in state_dict]:
            if any(same_leaf(state_dict[name], one) for one in kept):
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, *x: Any) -> Any:
        """Apply the net to x, a tensor or a tree; several arguments are the entries of a tuple."""
        plan = self._plans[self.training]
        shape, entries = to_row(x[0] if len(x) == 1 else x)
        if shape is not LONE:
            plan = plan.with_x(shape)
        row = [*self._leaves(), *entries]
        for i in plan.stats:
            row[i] = row[i].clone()  # the buffer is overwritten, but the backward pass can need its old values
        row.append(_drawn_key(row) if self._draws[self.training] else None)
        y, moved = applied(plan, row)
        if moved:
            self._move(moved)
        return y

    def params(self) -> Params:
        """Return copies of the current params and statistics as a tree for the net; they do not require gradients."""
        made: Params = self._codec.write([None if leaf is None else leaf.detach().clone() for leaf in self._leaves()])
        return made

    def extra_repr(self) -> str:
        return str(self._net)

    def _leaves(self) -> list[Any]:
        """List the parameters and buffers that are currently set, for example by ``functional_call``."""
        found = [
            None if name is None else (holder._buffers if is_buffer else holder._parameters).get(name)
            for holder, name, is_buffer in self._places
        ]  # looking into dicts, which torch can replace, takes 0.1 µs; ``getattr`` 0.6
        for i, (holder, name, _) in enumerate(self._places):
            if found[i] is None and name is not None:
                found[i] = getattr(holder, name)  # parametrized or pruned by torch
        return found

    def _move(self, moved: dict[int, Tensor]) -> None:
        """Write updated statistics to the buffers, in place."""
        with torch.no_grad():
            for i, leaf in moved.items():
                holder, name, _ = self._places[i]
                getattr(holder, name).copy_(leaf)


def _copied(found: Roles, path: str, leaf: Tensor) -> Tensor:
    copy = leaf.detach().clone()
    return copy if path in found.buffers else nn.Parameter(copy, requires_grad=path not in found.frozen)


def _drawn_key(row: list[Any]) -> Tensor:
    """Sample a key from torch's generator, on the device of x."""
    return torch.randint(-(2**63), 2**63 - 1, (), device=device_of(row))


def as_module(net: Layer, params: Params) -> NetModule:
    """Return a torch.nn module that computes a net; its backward pass is the net's VJP.

        module(x) = net(params, x)      gradients: gp, gx = net.vjp(params, cache, gy)

    In training mode the module applies ``net`` and updates running statistics in place. In evaluation mode it applies
    ``net.inference()``. A stochastic net gets a key from torch's generator at each call: ``torch.manual_seed`` makes the noise
    reproducible, and activation checkpoints repeat the same noise. The module accepts a tensor or a tree; several arguments are
    the entries of a tuple.

    All features of autograd work: derivatives of any order, ``torch.func``, forward mode, hooks, ``torch.compile`` as one graph,
    ``DistributedDataParallel``. Only the required gradients are computed; if none is required, no cache is kept. Higher
    derivatives compute the net again. ``torch.autocast`` acts as ``cast(net, dtype)``: the whole net is computed in the dtype of
    autocast, y has that dtype, and statistics and gradients keep theirs.

    Args:
        net: The net, with all sizes inferred.
        params: Its params, which are copied. Their dotted paths become the names of parameters in nested modules. Running
            statistics, integers and other tensors without a gradient become buffers. Parameters within ``freeze`` do not require
            gradients. A tensor at two paths becomes one parameter.

    Returns:
        The module; its method ``params()`` returns the current params.

    Raises:
        ValueError: If ``net`` is not a layer, ``params`` do not have the paths and shapes of the net's, or a name is an attribute
            of ``torch.nn.Module``.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> net = serial(Linear(4, 8), Tanh(), Linear(8, 2))
    >>> module = as_module(net, net.init(0))
    >>> [name for name, _ in module.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> module(torch.ones(5, 4)).sum().backward()
    >>> module.get_parameter("2.bias").grad
    tensor([5., 5.])
    """
    require_layer("as_module", net)
    require_params("as_module", net, params)
    return NetModule(net, params)
