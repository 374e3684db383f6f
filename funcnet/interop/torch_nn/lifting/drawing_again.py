"""Initial parameters of lifted modules, sampled with the modules' own resets, or with the statistics of the original ones."""

import torch
from attrs import field
from torch import Tensor, nn

from funcnet import random
from funcnet.interop.torch_nn.lifting.skeletons import PARAMETER, Skeleton, slots_of
from funcnet.random.keys import Key
from funcnet.saving.tensors import buffer
from funcnet.value import Value, frozen

Ties = tuple[tuple[str, str], ...]
"""The other names of tensors, each with the tensor's first name."""

_RESETS = ("reset_parameters", "_reset_parameters")
_SCALES = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase, nn.PReLU)


@frozen
class Leaf(Value):
    """The properties of a module's tensor that a lifted layer keeps.

    Args:
        name: The dotted name.
        shape: The shape.
        dtype: The dtype.
        trains: Whether it has a gradient.
        is_buffer: Whether it is a buffer, or another attribute of a module.
        is_scale: Whether it is the scale of a norm, to which weight decay is not applied.
        mean: The mean of a parameter.
        deviation: The standard deviation of a parameter.
        contents: The bytes of a buffer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    trains: bool
    is_buffer: bool = False
    is_scale: bool = False
    mean: float = 0.0
    deviation: float = 0.0
    contents: bytes = field(default=b"", repr=False)

    def drawn(self, key: Key) -> Tensor:
        """Return a tensor for a leaf that no module resets: random for a parameter, the old values for a buffer."""
        if self.is_buffer:
            return (
                torch.frombuffer(bytearray(self.contents), dtype=self.dtype).reshape(self.shape)
                if self.contents
                else self.zeros()
            )
        if self.deviation == 0:
            return torch.full(self.shape, self.mean, dtype=self.dtype)
        return (random.normal(key, self.shape, dtype=torch.float64) * self.deviation + self.mean).to(self.dtype)

    def zeros(self, device: str = "cpu") -> Tensor:
        """Return zeros of its shape and dtype."""
        return torch.zeros(self.shape, dtype=self.dtype, device=device)


def leaf_of(module: nn.Module, name: str, kind: str, x: Tensor) -> Leaf:
    """Return the ``Leaf`` of a module's tensor."""
    owner = module.get_submodule(name.rpartition(".")[0])
    trains = kind == PARAMETER and x.requires_grad and x.is_floating_point()
    scale = isinstance(owner, _SCALES) and name.endswith("weight")
    if kind != PARAMETER:
        return Leaf(
            name,
            tuple(x.shape),
            x.dtype,
            False,
            True,
            contents=b"" if x.is_meta else bytes(buffer(x.detach().cpu().contiguous())),
        )
    mean, deviation = _moments(x.detach())
    return Leaf(name, tuple(x.shape), x.dtype, trains, False, scale, mean, deviation)


def _moments(x: Tensor) -> tuple[float, float]:
    """Return the mean and standard deviation of a tensor; the deviation of a constant tensor is exactly 0."""
    if x.is_meta or x.numel() == 0:
        return 0.0, 0.0
    x = x.double() if not x.is_complex() else x.real.double()
    first = float(x.reshape(-1)[0])
    return (first, 0.0) if bool((x == first).all()) else (float(x.mean()), float(x.std()))


def without_values(skeleton: Skeleton, leaves: tuple[Leaf, ...], ties: Ties) -> tuple[Leaf, ...]:
    """Remove the statistics and contents of leaves that the modules reset.

    Layers of equal modules are then equal, regardless of training.
    """
    try:
        _, reset_ones = _reset(skeleton, leaves, ties, "meta")
    except Exception:  # a reset that reads values, which are then kept
        return leaves
    return tuple([leaf.replace(mean=0.0, deviation=0.0, contents=b"") if leaf.name in reset_ones else leaf for leaf in leaves])


def redrawn(skeleton: Skeleton, leaves: tuple[Leaf, ...], ties: Ties, key: Key) -> dict[str, Tensor]:
    """Return new tensors by name, which the modules sample from the global generator, seeded by the caller."""
    after, reset_ones = _reset(skeleton, leaves, ties, "cpu")
    return {
        leaf.name: after[leaf.name].detach() if leaf.name in reset_ones else leaf.drawn(random.fold_in(key, i))
        for i, leaf in enumerate(leaves)
    }


def _reset(skeleton: Skeleton, leaves: tuple[Leaf, ...], ties: Ties, device: str) -> tuple[dict[str, Tensor], set[str]]:
    """Return new tensors by name, after resetting all modules, and the names of tensors that were reset."""
    with torch.inference_mode(False), torch.no_grad():
        given = {leaf.name: leaf.zeros(device) for leaf in leaves}
        module = skeleton.filled(given | {name: given[first] for name, first in ties})
        before = {name: (leaf, leaf._version) for (name, _), leaf in slots_of(module).items()}
        for one in reversed([*module.modules()]):  # inner modules first, like their constructors
            for reset in [getattr(one, name, None) for name in _RESETS]:
                if callable(reset):
                    reset()
    after = {name: leaf for (name, _), leaf in slots_of(module).items()}
    return after, {name for name, (leaf, version) in before.items() if after[name] is not leaf or leaf._version != version}
