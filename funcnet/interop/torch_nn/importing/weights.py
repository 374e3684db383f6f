"""The params of modules that have the names and shapes of our layer's."""

from torch import nn

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.values import UnsupportedError


def weights_of(module: nn.Module, layer: Layer) -> Params:
    """Return a module's parameters as params, which must have the names and shapes of the layer's; nothing is copied."""
    found = {name: leaf.detach() for name, leaf in module.named_parameters(remove_duplicate=False)}
    wanted = layer.param_shapes() or {}
    shapes = {name: tuple(leaf.shape) for name, leaf in found.items()}
    if shapes != wanted:
        differing = sorted({name for name, _ in shapes.items() ^ wanted.items()})
        raise UnsupportedError(f"its parameters must be those of {layer!r}, and {', '.join(differing)} differ")
    return tree.from_names({name: found[name] for name in wanted}) if found else {}
