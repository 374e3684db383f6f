"""Lifting: use any torch.nn module as a layer, given the module and an example input."""

from typing import Any

from torch import Tensor, nn

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.interop.torch_nn.lifting.drawing_again import leaf_of, without_values
from funcnet.interop.torch_nn.lifting.lifted import Lifted, Traits
from funcnet.interop.torch_nn.lifting.skeletons import Skeleton, slots_of
from funcnet.interop.torch_nn.lifting.trials import require_one_call, traits_of


def lift(module: nn.Module, example: Any) -> tuple[Layer, Params]:
    """Return any torch.nn module as a layer, with the module's parameters and buffers as params.

        y      = module(x), or module(*x) for a tuple x
        gp, gx = gyᵀ ∂y/∂(params, x)

    The layer runs the module in its current mode, train or eval; ``inference()`` runs it in eval mode. It needs a key if the
    module uses random numbers: torch's random functions then sample from that key. Buffers that a call changes, such as running
    statistics, change only in ``update_stats``. The module itself does not change, and params are copies.

    The layer contains no tensors. It is compared by the module's classes and settings, and can be pickled if the module can. Its
    ``repr`` is not code. In eager mode its cache has autograd's graph of the call; in compiled code, and within transforms of
    ``torch.func``, the backward pass computes y again. The module must not use kernels that torch cannot differentiate or map.

    Args:
        module: The module. Values that its forward stores in attributes are discarded after each call.
        example: An input: a tensor or tree of tensors, or a tuple of arguments for a module with several. A trial call with it
            determines which random functions are used, which tensors are written to, and whether output rows depend on each
            other, so pass at least two rows.

    Returns:
        The layer and its params, nested by the names in the ``state_dict``.

    Raises:
        ValueError: If ``module`` is not a module, fails on the example, writes to its parameters, has tensors in lists, returns
            anything but a tree of tensors, returns a different output in a second call, or calls modules again in the backward
            pass.

    >>> import torch
    >>> layer, params = lift(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.ones(4, 3))
    >>> y, cache = layer.apply(params, torch.zeros(4, 3))
    >>> {name: tuple(g.shape) for name, g in tree.names(layer.grads(params, cache, torch.ones_like(y))).items()}
    {'0.weight': (2, 3), '0.bias': (2,)}
    """
    if not isinstance(module, nn.Module):
        raise value_error("lift", "module must be a torch.nn.Module", describe(module))
    skeleton = Skeleton.of(module)
    named, ties = _named(module)
    leaves = tuple([leaf_of(module, name, kind, leaf) for (name, kind), leaf in named.items()])
    params = tree.from_names({name: leaf.detach().clone() for (name, _), leaf in named.items()}) if named else {}
    leaves = without_values(skeleton, leaves, ties)
    settled = skeleton.in_eval_mode()
    given, in_evaluation = (
        traits_of(Lifted(one, leaves, ties, Traits(), Traits(), settled), params, example) for one in (skeleton, settled)
    )
    layer = Lifted(skeleton, leaves, ties, given, in_evaluation, settled)
    require_one_call(layer, params, example)
    return layer, params


def _named(module: nn.Module) -> tuple[dict[tuple[str, str], Tensor], tuple[tuple[str, str], ...]]:
    """Return the tensors of a module by their first names, and the other names, each with the tensor's first name."""
    first: dict[int, str] = {}
    named, ties = {}, []
    for (name, kind), leaf in slots_of(module).items():
        if id(leaf) in first:
            ties.append((name, first[id(leaf)]))
        else:
            first[id(leaf)] = name
            named[name, kind] = leaf
    return named, tuple(ties)
