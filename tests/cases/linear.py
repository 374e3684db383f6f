"""Linear maps."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

CASES = {
    "Linear": case(fn.Linear(3, 2), normal(5, 3)),
    "Linear without bias": case(fn.Linear(3, 2, bias=False), normal(5, 3)),
    "Linear of one vector": case(fn.Linear(3, 2), normal(3)),
    "Linear of one row": case(fn.Linear(3, 2), normal(1, 3)),
    "Linear 1 to 1": case(fn.Linear(1, 1), normal(4, 1)),
    "Linear on 3 axes": case(fn.Linear(3, 4), normal(2, 5, 3)),
    "Linear on 4 axes without bias": case(fn.Linear(3, 4, bias=False), normal(2, 1, 5, 3)),
    "Linear as torch draws it": case(fn.Linear(3, 2, initializer="torch"), normal(5, 3)),
    "Linear of many": case(fn.Linear(19, 23), normal(17, 19)),
    "Bilinear": case(fn.Bilinear(3, 2, 4), (normal(5, 3), normal(5, 2))),
    "Bilinear without bias, on 3 axes": case(fn.Bilinear(2, 3, 1, bias=False), (normal(2, 4, 2), normal(2, 4, 3))),
    "Bilinear of vectors, as torch draws it": loose(fn.Bilinear(3, 2, 4, initializer="torch"), (normal(3), normal(2))),
    "LinearGeneral": case(fn.LinearGeneral(4, (2, 3)), normal(5, 4)),
    "LinearGeneral of two axes": case(fn.LinearGeneral((2, 3), 4, axis=(-2, -1), bias=False), normal(5, 2, 3)),
    "LinearGeneral of axes in disorder": case(fn.LinearGeneral((3, 2), (2, 2), axis=(3, 1)), normal(2, 2, 4, 3)),
    "LinearGeneral of all": loose(fn.LinearGeneral(3, 2), normal(3)),
    "Einsum": case(fn.Einsum("...tc,hcd->...htd", (2, 3, 4)), normal(2, 5, 3)),
    "Einsum of two axes": case(fn.Einsum("bij,ijk->bk", (2, 3, 4)), normal(4, 2, 3)),
    "Einsum, each channel by itself": case(fn.Einsum("bct,ct->bc", (2, 3)), normal(4, 2, 3)),
    "Scale": case(fn.Scale(3), normal(2, 4, 3)),
    "Scale of channels": case(fn.Scale((3, 1)), normal(2, 3, 4)),
    "Scale of all alike": case(fn.Scale(()), normal(2, 3)),
    "Bias": case(fn.Bias(3), normal(2, 4, 3)),
    "Bias of channels": case(fn.Bias((3, 1), initializer="normal"), normal(2, 3, 4)),
    "Rescale": case(fn.Rescale(-1.5, 0.5), normal(4, 3)),
    "Rescale without offset": case(fn.Rescale(0.25), normal(2, 3, 2)),
    "Rescale by nothing": case(fn.Rescale(), normal(3)),
    "Maxout": case(fn.Maxout(3, 2), normal(5, 3)),
    "Maxout of three, on 3 axes": case(fn.Maxout(3, 2, 3, bias=False), normal(2, 4, 3)),
    "Maxout of one vector": loose(fn.Maxout(3, 2, 1), normal(3)),
    "DeferredLinear": loose(fn.DeferredLinear(3, 2), normal(5, 3)),
    "DeferredLinear without bias, on 3 axes": loose(fn.DeferredLinear(3, 4, bias=False), normal(2, 5, 3)),
    "AdaptiveLogSoftmaxWithLoss": loose(
        fn.AdaptiveLogSoftmaxWithLoss(4, 9, (2, 5), 2.0, True), (normal(5, 4), torch.tensor([1, 8, 2, 6, 0]))
    ),
    "AdaptiveLogSoftmaxWithLoss of one row": loose(
        fn.AdaptiveLogSoftmaxWithLoss(4, 6, 3, initializer="torch"), (normal(4), torch.tensor(4)), compiled=False
    ),
    "AdaptiveLogSoftmaxWithLoss on 3 axes, of the shortlist": loose(
        fn.AdaptiveLogSoftmaxWithLoss(4, 6, (3,)), (normal(2, 3, 4), torch.tensor([[0, 1, 2], [2, 2, 1]]))
    ),
}
