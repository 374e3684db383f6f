"""Modules that are not converted: losses, lazy modules, and a module with a wrong gradient."""

from typing import Any, NoReturn

from torch import nn

from funcnet.interop.torch_nn.importing.conversion import entry_of
from funcnet.interop.torch_nn.importing.registry import layer
from funcnet.interop.torch_nn.importing.values import UnsupportedError

LOSSES: dict[type, str] = {
    nn.BCELoss: "BCE",
    nn.BCEWithLogitsLoss: "BCEWithLogits",
    nn.CTCLoss: "CTC",
    nn.CosineEmbeddingLoss: "CosineEmbedding",
    nn.CrossEntropyLoss: "CrossEntropy",
    nn.GaussianNLLLoss: "GaussianNLL",
    nn.HingeEmbeddingLoss: "HingeEmbedding",
    nn.HuberLoss: "Huber",
    nn.KLDivLoss: "KLDiv",
    nn.L1Loss: "L1",
    nn.LinearCrossEntropyLoss: "LinearCrossEntropy",
    nn.MSELoss: "MSE",
    nn.MarginRankingLoss: "MarginRanking",
    nn.MultiLabelMarginLoss: "MultiLabelMargin",
    nn.MultiLabelSoftMarginLoss: "MultiLabelSoftMargin",
    nn.MultiMarginLoss: "MultiMargin",
    nn.NLLLoss: "NLL",
    nn.NLLLoss2d: "NLL",
    nn.PoissonNLLLoss: "PoissonNLL",
    nn.SmoothL1Loss: "SmoothL1",
    nn.SoftMarginLoss: "SoftMargin",
    nn.TripletMarginLoss: "TripletMargin",
    nn.TripletMarginWithDistanceLoss: "TripletMarginWithDistance",
}
"""The funcnet loss for each torch.nn loss."""

LAZY: tuple[type, ...] = (
    *(nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d, nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d),
    *(nn.LazyConvTranspose1d, nn.LazyConvTranspose2d, nn.LazyConvTranspose3d),
    *(nn.LazyInstanceNorm1d, nn.LazyInstanceNorm2d, nn.LazyInstanceNorm3d, nn.LazyLinear),
)
"""The modules that infer sizes from their first input, and then change their class."""


@layer(*LOSSES)
def loss(module: nn.Module) -> NoReturn:
    """Refuse a loss."""
    name = entry_of(module, LOSSES)
    raise UnsupportedError(f"a loss is not a layer: remove it from the module and use fn.{name} as the loss of (y, target)")


@layer(*LAZY)
def lazy(module: Any) -> NoReturn:
    """Refuse a lazy module that has not been called yet."""
    raise UnsupportedError(f"{type(module).__name__} has no sizes yet: call the module once with an input")


@layer(nn.CrossMapLRN2d)
def cross_map_norm(module: nn.Module) -> NoReturn:
    """Refuse a module that keeps the first channel in all of its sums (torch 2.13.0), unlike ``fn.CrossMapLRN2d``."""
    raise UnsupportedError(
        "torch.nn.CrossMapLRN2d deviates from its formula after the first channels, and its gradient is wrong: "
        "use nn.LocalResponseNorm, which has the same options"
    )
