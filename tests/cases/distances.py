"""Distances and scalings of vectors, and reductions."""

import torch

import funcnet as fn
from cases.making import between, case, loose, normal

TIED = torch.tensor([[2.0, 1.0, 2.0], [-1.0, 3.0, 0.5]])
ZEROS = torch.tensor([[0.0, 1.5, -2.0], [0.0, 0.0, 3.0], [0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])

DISTANCES = {
    "CosineSimilarity": case(fn.CosineSimilarity(), (normal(4, 3), normal(4, 3))),
    "CosineSimilarity broadcast": loose(fn.CosineSimilarity(-1), (normal(2, 1, 3), normal(4, 1))),
    "CosineSimilarity of channels": case(fn.CosineSimilarity(1), (normal(2, 3, 4), normal(2, 3, 4))),
    "CosineSimilarity of rows": loose(fn.CosineSimilarity(0), (normal(4, 3), normal(4, 3))),
    "CosineSimilarity of short ones": case(fn.CosineSimilarity(eps=2.0), (between(0.1, 0.9, 4, 3), normal(4, 3) * 5)),
    "PairwiseDistance": case(fn.PairwiseDistance(), (normal(4, 3), normal(4, 3))),
    "PairwiseDistance of degree 1": case(fn.PairwiseDistance(1.0), (normal(4, 3), normal(4, 3))),
    "PairwiseDistance of degree 3, kept": case(fn.PairwiseDistance(3.0, keepdim=True), (normal(2, 4, 3), normal(2, 4, 3))),
    "PairwiseDistance of degree 1.5": case(fn.PairwiseDistance(1.5, 0.0), (normal(4, 3), normal(4, 3))),
    "PairwiseDistance of the largest": loose(fn.PairwiseDistance(float("inf"), 0.1), (normal(4, 3), normal(3))),
    "CauchySimilarity": case(fn.CauchySimilarity(3), (normal(4, 3), normal(4, 3))),
    "CauchySimilarity broadcast": loose(fn.CauchySimilarity(3), (normal(2, 1, 3), normal(4, 3))),
    "CauchySimilarity of vectors": loose(fn.CauchySimilarity(3), (normal(3), normal(3))),
}

SCALINGS = {
    "Normalize": case(fn.Normalize(), normal(4, 3)),
    "Normalize by degree 1": case(fn.Normalize(1.0, -1), normal(2, 3, 4)),
    "Normalize by degree 3": case(fn.Normalize(3.0), normal(2, 3, 2)),
    "Normalize by the largest": case(fn.Normalize(float("inf")), normal(4, 3)),
    "Normalize short ones": case(fn.Normalize(eps=5.0), normal(4, 3)),
    "Normalize rows": loose(fn.Normalize(dim=0), normal(4, 3)),
    "Standardize": case(fn.Standardize(), normal(4, 3)),
    "Standardize two axes": case(fn.Standardize((1, -1), 0.1), normal(2, 3, 4)),
    "Standardize rows": loose(fn.Standardize(0), normal(4, 3)),
}

REDUCTIONS = {
    "Sum": case(fn.Sum(), normal(4, 3)),
    "Sum of a number": case(fn.Sum(), normal()),
    "Sum of features": case(fn.Sum(-1), normal(4, 3)),
    "Sum of two axes kept": case(fn.Sum((1, -1), keepdim=True), normal(2, 3, 4)),
    "Max": case(fn.Max(), normal(4, 3)),
    "Max of features": case(fn.Max(1), normal(4, 3)),
    "Max among equals": case(fn.Max(-1, keepdim=True), TIED),
    "Min of places": case(fn.Min((2, 3)), normal(2, 2, 3, 2)),
    "Min among equals": case(fn.Min(1), -TIED),
    "Prod": case(fn.Prod(), normal(4, 3)),
    "Prod of features with zeros": case(fn.Prod(-1), ZEROS),
    "Prod of two axes kept": case(fn.Prod((0, 2), keepdim=True), normal(2, 3, 4)),
    "Var": case(fn.Var(), normal(4, 3)),
    "Var of features": case(fn.Var(-1, correction=0), normal(4, 3)),
    "Var of two axes kept": case(fn.Var((0, 2), keepdim=True), normal(2, 3, 4)),
    "Std": case(fn.Std(), normal(4, 3)),
    "Std of features kept": case(fn.Std(1, True, 0), normal(4, 3, 2)),
}

CASES = {**DISTANCES, **SCALINGS, **REDUCTIONS}
