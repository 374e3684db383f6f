"""torchvision's classification models, without weights and without its C++ operators, which the models do not call."""

import importlib
from types import ModuleType

import torch
from torch import nn

OPERATORS = (
    *("nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward"),
    *("roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward"),
)
"""The operators that torchvision looks up at import; a CPU build of torch cannot load their code."""

DECLARED: list[torch.library.Library] = []


def models() -> ModuleType:
    """Import ``torchvision.models``, after declaring the names of the operators if their library cannot be loaded."""
    try:
        torch.ops.torchvision.nms  # noqa: B018 (raises where it is not declared)
    except AttributeError:
        declared = torch.library.Library("torchvision", "FRAGMENT")
        for name in OPERATORS:
            declared.define(f"{name}(Tensor x) -> Tensor")
        DECLARED.append(declared)  # the operators stay declared as long as this object lives
    return importlib.import_module("torchvision.models")


def names() -> list[str]:
    """List the classification models."""
    found = models()
    return list(found.list_models(module=found))


def make(name: str) -> nn.Module:
    """Make a model without dropout and stochastic depth. All weights are random, even those that torchvision sets to 0."""
    aux = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = models().get_model(name, weights=None, **aux)
    for part in module.modules():
        for rate in ("p", "dropout", "attention_dropout", "drop_rate"):
            if isinstance(getattr(part, rate, None), float):
                setattr(part, rate, 0.0)
    for parameter in module.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return module


def size(name: str, module: nn.Module) -> int:
    """Return the size of a square image for a model: the model's size if its layers depend on it, otherwise a small size."""
    fixed = getattr(module, "image_size", None)
    return fixed or (299 if name.startswith("inception") else 224 if name.startswith(("maxvit", "swin")) else 64)


def version() -> str:
    """Return the version of torchvision."""
    models()
    return str(importlib.import_module("torchvision").__version__).partition("+")[0]
