"""Operations on several operands, distances and reductions."""

import torch

import funcnet as fn
from cases.making import KINKS, between, case, loose, normal

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

ARITHMETIC = {
    "Add": case(fn.Add(), (normal(4, 3), normal(4, 3))),
    "Add of one": case(fn.Add(), (normal(4, 3),)),
    "Add of three": case(fn.Add(), (normal(4, 3), normal(3), normal(4, 1))),
    "Add both broadcast": case(fn.Add(), (normal(4, 1), normal(1, 3))),
    "Add a number": case(fn.Add(), (normal(4, 3), normal())),
    "Sub": case(fn.Sub(), (normal(4, 3), normal(4, 3))),
    "Sub broadcast": case(fn.Sub(), (normal(3), normal(2, 4, 1))),
    "Mul": case(fn.Mul(), (normal(4, 3), normal(4, 3))),
    "Mul of one": case(fn.Mul(), (normal(4, 3),)),
    "Mul of four": case(fn.Mul(), (normal(4, 3), normal(3), normal(4, 1), normal())),
    "Mul with zeros": case(fn.Mul(), (KINKS, KINKS.flip(1), KINKS * 2)),
    "Div": case(fn.Div(), (normal(4, 3), between(0.5, 2.0, 4, 3))),
    "Div broadcast": case(fn.Div(), (normal(4, 1), -between(0.5, 2.0, 2, 1, 3))),
    "Pow": case(fn.Pow(), (between(0.5, 2.0, 4, 3), normal(4, 3))),
    "Pow broadcast": case(fn.Pow(), (between(0.5, 2.0, 4, 1), normal(3))),
    "Pow of 0": loose(fn.Pow(), (torch.tensor([0.0, 0.0, 0.5]), torch.tensor([2.0, 1.0, 0.0]))),
    "MatMul": case(fn.MatMul(), (normal(4, 3), normal(3, 2))),
    "MatMul of batches": case(fn.MatMul(), (normal(2, 4, 3), normal(2, 3, 5))),
    "MatMul broadcast": case(fn.MatMul(), (normal(2, 1, 4, 3), normal(5, 3, 2))),
    "MatMul batch by matrix": case(fn.MatMul(), (normal(2, 4, 3), normal(3, 2))),
    "MatMul of vectors": case(fn.MatMul(), (normal(3), normal(3))),
    "MatMul vector by matrix": case(fn.MatMul(), (normal(3), normal(3, 2))),
    "MatMul matrix by vector": case(fn.MatMul(), (normal(4, 3), normal(3))),
    "MatMul vector by batch": case(fn.MatMul(), (normal(3), normal(2, 3, 4))),
    "MatMul batch by vector": case(fn.MatMul(), (normal(2, 4, 3), normal(3))),
    "Concat": case(fn.Concat(), (normal(4, 3), normal(4, 2), normal(4, 1))),
    "Concat of one": case(fn.Concat(), (normal(4, 3),)),
    "Concat channels": case(fn.Concat(1), (normal(2, 3, 4), normal(2, 1, 4))),
    "Concat from the end": case(fn.Concat(-2), (normal(2, 3, 4), normal(2, 2, 4))),
    "Concat rows": case(fn.Concat(0), (normal(4, 3), normal(2, 3))),
    "Mean": case(fn.Mean(), normal(4, 3)),
    "Mean of a number": case(fn.Mean(), normal()),
    "Mean kept": case(fn.Mean(keepdim=True), normal(4, 3)),
    "Mean of rows": case(fn.Mean(0), normal(4, 3)),
    "Mean of features": case(fn.Mean(-1), normal(4, 3)),
    "Mean of features kept": case(fn.Mean(1, keepdim=True), normal(4, 3)),
    "Mean of two axes": case(fn.Mean((1, 2)), normal(2, 3, 4)),
    "Mean of the outer axes kept": case(fn.Mean((0, -1), keepdim=True), normal(2, 3, 4)),
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

CASES = {**ARITHMETIC, **DISTANCES, **REDUCTIONS}
