"""Modules with a parametrized tensor: weight norm, spectral norm and orthogonal weights of ``torch.nn.utils.parametrizations``.

Torch makes the module an instance of a new subclass, and its tensors have the paths of the params of ``weight_norm``,
``spectral_norm`` and ``orthogonal``. funcnet's spectral norm iterates after a step instead of before it: y differs by one
iteration in training, and is the same in evaluation.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from funcnet import tree
from funcnet.combinators.orthogonality import orthogonal
from funcnet.combinators.weight_norms import spectral_norm, weight_norm
from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.conversion import entry_of, tensors
from funcnet.interop.torch_nn.importing.registry import LAYERS, Convert, Converted
from funcnet.interop.torch_nn.importing.values import UnsupportedError


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module, ignoring the subclass that a parametrization creates."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def parametrized(module: Any, convert: Convert) -> Converted:
    """Convert a module with parametrized tensors."""
    lists = dict(module.parametrizations.items())
    made, inner = _converted(_plain(module, lists), convert)
    params = tensors(module)
    for name, maps in lists.items():
        if name not in inner:
            raise UnsupportedError(f"{name} is parametrized, but {type(made).__name__} has no such tensor")
        made = _wrapped(made, name, maps)
        params["parametrizations"][name].setdefault("0", {})
    if tree.names(params).keys() != module.state_dict().keys():
        raise UnsupportedError(f"the params of {made} must have the names {', '.join(module.state_dict())}")
    return made, params


def _converted(plain: Any, convert: Convert) -> Converted:
    return entry_of(plain, LAYERS)(plain, convert)


def _plain(module: Any, lists: dict[str, Any]) -> Any:
    """Return the module without parametrizations, with originals of the same shape instead of the computed tensors."""
    plain_type = plain_class(module)
    plain = plain_type.__new__(plain_type)
    rest = {name: child for name, child in module._modules.items() if name != "parametrizations"}
    plain.__dict__ = {**module.__dict__, "_modules": rest, "_parameters": {**module._parameters}}
    plain._parameters.update({name: _shaped_like(maps) for name, maps in lists.items()})
    return plain


def _shaped_like(maps: Any) -> Any:
    """Return the original with the shape of the parametrized tensor; for weight norm this is the second, the direction."""
    return maps.original if hasattr(maps, "original") else maps.original1


def _wrapped(layer: Layer, name: str, maps: Any) -> Layer:
    """Return the layer whose tensor ``name`` is computed as in the module."""
    if len(maps) != 1 or (type(maps[0]).__module__, type(maps[0]).__name__) not in _MAPS:
        kinds = ", ".join(type(one).__name__ for one in maps)
        raise UnsupportedError(f"{name} must be parametrized with weight_norm, spectral_norm or orthogonal, got {kinds}")
    try:
        return _MAPS[type(maps[0]).__module__, type(maps[0]).__name__](layer, name, maps[0])
    except ValueError as error:
        raise UnsupportedError(str(error)) from error


def _weight_norm(layer: Layer, name: str, found: Any) -> Layer:
    """Return a weight norm; in torch.nn, -1 is the norm over all axes."""
    return weight_norm(layer, name, None if found.dim == -1 else found.dim)


def _spectral_norm(layer: Layer, name: str, found: Any) -> Layer:
    if not hasattr(found, "n_power_iterations"):
        raise UnsupportedError(f"{name} must have two axes at least for spectral_norm")
    return spectral_norm(layer, name, found.n_power_iterations, found.eps, found.dim)


def _orthogonal(layer: Layer, name: str, found: Any) -> Layer:
    return orthogonal(layer, name, found.orthogonal_map.name, use_trivialization=hasattr(found, "base"))


_HOME = "torch.nn.utils.parametrizations"

_MAPS: dict[tuple[str, str], Callable[[Layer, str, Any], Layer]] = {
    (_HOME, "_WeightNorm"): _weight_norm,
    (_HOME, "_SpectralNorm"): _spectral_norm,
    (_HOME, "_Orthogonal"): _orthogonal,
}
"""The combinator for each of torch's parametrizations, by class name because the classes are private."""
