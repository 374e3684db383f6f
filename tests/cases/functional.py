"""Layers for functions of tensors: sizes taken from x, weights in x, selections, orders along axes, and sources."""

import torch

import funcnet as fn
from cases.making import Case, between, case, loose, normal

SIZE = fn.InputSize
ALL = slice(None)
IS = torch.tensor([[True, False, True]] * 4)


def quick(made: Case) -> Case:
    """Skip the compiler: these layers run the code of others in the catalogue, or a single kernel."""
    return made._replace(compiled=False)


SIZED = {
    "View": case(fn.View((SIZE(0, 0), 2, -1)), normal(4, 6)),
    "View of several rows": quick(case(fn.View((-1, 6)), normal(4, 2, 3))),
    "View like another": quick(case(fn.View((fn.InputShape(1, 0, 2), -1)), (normal(4, 6), normal(4, 2, 3)))),
    "Expand": quick(case(fn.Expand((-1, -1, 3)), normal(4, 2, 1))),
    "Expand to another": case(fn.Expand((SIZE(1, 0), -1, 3)), (normal(1, 2, 3), normal(4, 2)), batched=False),
    "ConstantPad": quick(case(fn.ConstantPad((1, -1, 0, 2), 1.5), normal(4, 3, 2))),
    "ConstantPad to a multiple": quick(
        case(fn.ConstantPad((1, fn.SizeArithmetic("sub", 4, fn.SizeArithmetic("mod", SIZE(0, -1), 4)))), normal(4, 3))
    ),
    "RescaleBySize": case(fn.RescaleBySize(fn.SizeArithmetic("truediv", 1, SIZE(0, -1)), 2.0), normal(4, 3)),
    "GetItem": quick(case(fn.GetItem((ALL, slice(0, SIZE(1, 1)))), (normal(4, 5), normal(4, 3)))),
    "GetItem of places": loose(fn.GetItem((ALL, fn.InputTensor(1), None)), (normal(4, 5), torch.tensor([0, 3, 3]))),
    "Narrow": quick(case(fn.Narrow(1, 1, fn.SizeArithmetic("floordiv", SIZE(0, 1), 2)), normal(4, 5))),
    "Narrow from the end": quick(case(fn.Narrow(1, -2, 2), normal(4, 5))),
    "Tile": case(fn.Tile((1, 3)), normal(4, 2)),
    "Tile along a new axis": quick(loose(fn.Tile((2, 1, SIZE(1, 0))), (normal(4, 2), normal(3, 2)))),
    "ResizeTo": quick(case(fn.ResizeTo((SIZE(1, 2), 5), "bilinear"), (normal(2, 2, 3, 4), normal(2, 1, 4, 4)))),
    "ResizeTo area": case(fn.ResizeTo((3, 2), "area"), normal(2, 2, 5, 4)),
    "AdaptiveAvgPoolTo": quick(case(fn.AdaptiveAvgPoolTo((fn.SizeArithmetic("floordiv", SIZE(0, 2), 2),)), normal(2, 2, 5))),
}

MOVING = {
    "MoveDim": quick(case(fn.MoveDim(1, -1), normal(2, 3, 4))),
    "MoveDim of two axes": quick(loose(fn.MoveDim((0, 1), (1, 2)), normal(2, 3, 4))),
    "Roll": quick(case(fn.Roll((1, -2), (1, 2)), normal(2, 3, 4))),
    "Roll all": quick(loose(fn.Roll(3), normal(4, 3))),
    "Flip": quick(case(fn.Flip(1), normal(4, 3))),
    "Flip rows": quick(loose(fn.Flip((0, -1)), normal(4, 3))),
    "RepeatInterleave": quick(case(fn.RepeatInterleave(1, 3), normal(2, 3, 4))),
    "SlidingWindow": case(fn.SlidingWindow(1, 3, 2), normal(2, 7, 3)),
    "SlidingWindow with gaps": quick(case(fn.SlidingWindow(-1, 2, 3), normal(2, 7))),
    "Unbind": quick(case(fn.Unbind(1), normal(4, 3))),
    "Unbind rows": quick(loose(fn.Unbind(), normal(2, 3))),
}

WINDOWS = {
    "WindowShift": quick(case(fn.WindowShift((2, 2), (1, 1)), normal(2, 4, 2, 3))),
    "WindowShift back": quick(case(fn.WindowShift((2, 2), (1, 1), back=True), normal(2, 4, 4, 1))),
    "ShiftedWindowMask": quick(loose(fn.ShiftedWindowMask((2, 2), (1, 1)), normal(2, 4, 2, 3))),
}

SOURCES = {
    "Parameter": loose(fn.Parameter((2, 3), 1.0, 0.5), ()),
    "Parameter, a buffer": quick(loose(fn.Parameter((2, 3), trainable=False), ())),
    "ConstantTensor": loose(fn.ConstantTensor.of(torch.tensor([0.5, -2.0], dtype=torch.float64)), normal(3)),
    "ConstantTensor of integers": quick(loose(fn.ConstantTensor.of(torch.arange(3)), normal(2))),
    "NoGradient": loose(fn.NoGradient("gt", (fn.InputTensor(0), 0.1)), normal(4, 3)),
    "NoGradient of two": quick(loose(fn.NoGradient("eq", (fn.InputTensor(0), fn.InputTensor(1))), (normal(4, 3), normal(3)))),
    "NoGradient, places": quick(loose(fn.NoGradient("argmax", (fn.InputTensor(0), -1)), normal(4, 3))),
    "NoGradient, zeros": loose(fn.NoGradient("zeros", ((SIZE(0, 0), 3),), (("dtype", torch.float64),)), normal(4)),
    "NoGradient, sums": quick(loose(fn.NoGradient("add", (fn.InputTensor(0), 2)), torch.arange(4))),
    "NoGradient, integers": quick(loose(fn.NoGradient("to", (fn.InputTensor(0), torch.int64)), normal(4) * 5)),
}

CHOICES = {
    "Pick": quick(case(fn.Pick(1), (normal(4, 5), normal(4, 3)))),
    "Stack": quick(case(fn.Stack(1), (normal(4, 3), normal(4, 3)))),
    "Stack rows": quick(loose(fn.Stack(), (normal(2, 3), normal(2, 3)))),
    "Where": case(fn.Where(), (IS, normal(4, 3), normal(4, 3))),
    "Where, a number": quick(case(fn.Where(b=0.5), (IS, normal(4, 3)))),
    "Where broadcast": quick(loose(fn.Where(), (IS, normal(3), normal(4, 1)))),
    "Maximum": case(fn.Maximum(), (normal(4, 3), normal(4, 3))),
    "Minimum broadcast": quick(loose(fn.Minimum(), (normal(4, 3), normal(3)))),
    "TypeAs": quick(case(fn.TypeAs(), (IS, normal(4, 3)))),
    "CumSum": quick(case(fn.CumSum(), normal(4, 3))),
    "CumSum of rows": quick(loose(fn.CumSum(0), normal(4, 3))),
    "TopK": case(fn.TopK(k=2), normal(4, 3)),
    "TopK, the smallest": quick(case(fn.TopK(1, 2, largest=False, sorted=False), normal(2, 3, 4))),
    "MaxWithIndices": quick(case(fn.MaxWithIndices(), normal(4, 3))),
    "MaxWithIndices kept": quick(case(fn.MaxWithIndices(1, True), normal(2, 3, 2))),
    "MinWithIndices": quick(loose(fn.MinWithIndices(0), normal(4, 3))),
    "GatherElements": quick(case(fn.GatherElements(), (normal(4, 3), torch.tensor([[0, 1, 1, 2]] * 4)))),
    "GatherElements of rows": quick(loose(fn.GatherElements(0), (normal(4, 3), torch.tensor([[0, 1, 3], [1, 1, 0]])))),
    "VectorNorm": quick(loose(fn.VectorNorm(), normal(4, 3))),
    "VectorNorm kept": quick(case(fn.VectorNorm((1, 2), True, 3.0), normal(2, 3, 4))),
    "EinsumOperands": case(fn.EinsumOperands("nqd,nkd->nqk"), (normal(2, 3, 4), normal(2, 5, 4)), batched=False),
    "EinsumOperands, the rest": quick(loose(fn.EinsumOperands("...ij,jk->...ik"), (normal(2, 3, 4), normal(4, 2)))),
}

WEIGHTS_IN_X = {
    "FunctionalLinear": loose(fn.FunctionalLinear(), (normal(4, 3), normal(2, 3), normal(2))),
    "FunctionalLinear without bias": quick(loose(fn.FunctionalLinear(), (normal(2, 4, 3), normal(2, 3)))),
    "FunctionalConv": loose(fn.FunctionalConv(2, 2, 1), (normal(2, 3, 5, 4), normal(4, 3, 3, 3), normal(4))),
    "FunctionalConv same": quick(loose(fn.FunctionalConv(1, 1, "same", 1, 2), (normal(2, 4, 5), normal(4, 2, 4)))),
    "FunctionalConv without batch": quick(loose(fn.FunctionalConv(1), (normal(4, 5), normal(2, 4, 3), normal(2)))),
    "FunctionalConvTranspose": loose(fn.FunctionalConvTranspose(2, 2, 1, 1), (normal(2, 3, 3, 2), normal(3, 2, 3, 3), normal(2))),
    "ChannelAffine": quick(loose(fn.ChannelAffine(), (normal(2, 3, 4), normal(3), normal(3)))),
    "FunctionalBatchNorm": quick(
        loose(fn.FunctionalBatchNorm(), (normal(2, 3, 4), normal(3), between(0.5, 2.0, 3), normal(3), normal(3)))
    ),
    "FunctionalBatchNorm without weights": quick(
        loose(fn.FunctionalBatchNorm(), (normal(2, 3), normal(3), between(0.5, 2.0, 3)))
    ),
    "GroupStandardize": quick(case(fn.GroupStandardize(2), normal(3, 4, 2, 3))),
    "GroupStandardize of channels": quick(case(fn.GroupStandardize(), normal(3, 4, 5))),
    "FunctionalEmbedding": quick(loose(fn.FunctionalEmbedding(), (torch.tensor([[0, 1], [2, 2]]), normal(3, 4)))),
    "FunctionalEmbedding with padding": quick(loose(fn.FunctionalEmbedding(1), (torch.tensor([0, 1, 2, 2]), normal(3, 4)))),
}

POSITIVE = between(0.3, 2.0, 4, 3)

ELEMENTWISE = {
    "PowScalar": quick(case(fn.PowScalar(2.5), POSITIVE)),
    "PowScalar negative": quick(case(fn.PowScalar(-1.5), POSITIVE)),
    "PowScalar of 0": quick(case(fn.PowScalar(0.0), POSITIVE)),
    "Sqrt": quick(case(fn.Sqrt(), POSITIVE)),
    "Rsqrt": quick(case(fn.Rsqrt(), POSITIVE)),
    "Reciprocal": quick(case(fn.Reciprocal(), POSITIVE)),
    "Log": quick(case(fn.Log(), POSITIVE)),
    "Log1p": quick(case(fn.Log1p(), POSITIVE)),
    "Expm1": quick(case(fn.Expm1(), normal(4, 3))),
    "Clamp": quick(case(fn.Clamp(0.5, 1.0), POSITIVE)),
    "Clamp from above": quick(case(fn.Clamp(max=0.7), POSITIVE)),
    "Floor": quick(case(fn.Floor(), normal(4, 3))),
    "Ceil": quick(case(fn.Ceil(), normal(4, 3))),
    "Round": quick(case(fn.Round(), normal(4, 3))),
}


def first_compiled(cases: dict[str, Case]) -> dict[str, Case]:
    """Compile the first case of each layer, unless another one is compiled already."""
    compiled = {type(one.layer) for one in cases.values() if one.compiled is not False}
    found = {}
    for name, one in cases.items():
        first = type(one.layer) not in compiled
        compiled.add(type(one.layer))
        found[name] = one._replace(compiled=True) if first else one
    return found


CASES = first_compiled({**SIZED, **MOVING, **WINDOWS, **SOURCES, **CHOICES, **WEIGHTS_IN_X, **ELEMENTWISE})
