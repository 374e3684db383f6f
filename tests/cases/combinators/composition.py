"""Layers in series, side by side, as a graph, and several of one kind."""

import torch

import funcnet as fn
from cases.making import between, case, normal

DEEP = fn.serial(*[layer for _ in range(6) for layer in (fn.Linear(4, 4), fn.Tanh())])
NORMED = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.ReLU(), fn.Dropout(0.4), fn.Linear(4, 2))
CONVOLVED = fn.serial(fn.Conv1d(1, 3, 3, padding=1), fn.Tanh(), fn.Flatten(), fn.Linear(15, 2), fn.LogSoftmax())

SERIAL = {
    "serial of none": case(fn.serial(), normal(4, 3)),
    "serial of one": case(fn.serial(fn.Linear(3, 2)), normal(4, 3)),
    "serial": case(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)), normal(4, 3)),
    "serial by names": case(fn.serial(hidden=fn.Linear(3, 5), act=fn.Sigmoid(), out=fn.Linear(5, 2)), normal(4, 3)),
    "serial without params": case(fn.serial(fn.Tanh(), fn.Softmax()), normal(4, 3)),
    "serial, params behind": case(fn.serial(fn.Flatten(), fn.Tanh(), fn.Linear(6, 2), fn.Tanh()), normal(4, 2, 3)),
    "serial, nested": case(
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 2)), fn.serial(), fn.serial(fn.Linear(2, 3))), normal(4, 3)
    ),
    "serial, deep": case(DEEP, normal(3, 4)),
    "serial, convolutional": case(CONVOLVED, normal(2, 1, 5)),
    "serial, normalized and dropped": case(NORMED, normal(6, 3)),
    "serial, normalized, inference": case(NORMED.inference(), normal(6, 3)),
    "serial, normalized first": case(fn.serial(fn.BatchNorm1d(3), fn.Linear(3, 2)), normal(4, 3)),
    "serial, bias before norm": case(fn.serial(fn.Conv1d(2, 3, 2), fn.BatchNorm1d(3)), normal(3, 2, 4)),
    "serial of arithmetic": case(fn.serial(fn.Mul(), fn.Linear(3, 2)), (normal(4, 3), normal(4, 3))),
}

PLAIN, DROPPED = fn.serial(fn.Linear(3, 2), fn.Tanh()), fn.serial(fn.Dropout(0.3), fn.Linear(3, 2))

BRANCHING = {
    "parallel": case(fn.parallel(fn.Linear(3, 2), fn.Tanh()), (normal(4, 3), normal(4, 2, 2))),
    "parallel of one": case(fn.parallel(fn.Linear(3, 2)), (normal(4, 3),)),
    "parallel with dropout": case(fn.parallel(DROPPED, fn.Dropout(), fn.Identity()), (normal(4, 3), normal(4, 2), normal(4, 1))),
    "branch": case(fn.branch(fn.Linear(3, 2), fn.Tanh()), normal(4, 3)),
    "branch of one": case(fn.branch(PLAIN), normal(4, 3)),
    "branch and add": case(fn.branch(PLAIN, fn.Linear(3, 2), merge=fn.Add()), normal(4, 3)),
    "branch and multiply": case(fn.branch(PLAIN, fn.serial(fn.Linear(3, 2), fn.Sigmoid()), merge=fn.Mul()), normal(4, 3)),
    "branch and concat": case(fn.branch(PLAIN, fn.Identity(), merge=fn.Concat()), normal(4, 3)),
    "branch, merge with params": case(
        fn.branch(fn.Tanh(), fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(6, 2))), normal(4, 3)
    ),
    "branch with dropout": case(fn.branch(DROPPED, DROPPED, merge=fn.Sub()), normal(4, 3)),
    "branch with norm": case(fn.branch(fn.BatchNorm1d(3), fn.ReLU(), merge=fn.Add()), normal(4, 3)),
    "residual": case(fn.residual(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 3))), normal(4, 3)),
    "residual with projection": case(fn.residual(PLAIN, fn.Linear(3, 2, bias=False)), normal(4, 3)),
    "residual with dropout": case(fn.residual(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.2), fn.Linear(3, 3))), normal(4, 3)),
    "residual, nested": case(fn.residual(fn.residual(fn.Tanh())), normal(4, 3)),
}

SUM, PRODUCT = fn.Add(), fn.Mul()

GRAPH = {
    "graph with named outputs": case(
        fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), output={"last": "a", "first": "h", "again": "a"}),
        normal(4, 3),
    ),
    "graph of one node": case(fn.graph("x", y=(fn.Linear(3, 2), "x")), normal(4, 3)),
    "graph, skip": case(fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), y=(SUM, "a", "h")), normal(4, 3)),
    "graph, diamond": case(
        fn.graph("x", a=(fn.Linear(3, 2), "x"), b=(fn.Linear(3, 2), "x"), c=(PRODUCT, "a", "b"), y=(SUM, "a", "b", "c")),
        normal(4, 3),
    ),
    "graph, a value used three times": case(fn.graph("x", y=(PRODUCT, "x", "x", "x")), normal(4, 3)),
    "graph of two inputs": case(
        fn.graph(
            "u",
            "v",
            a=(fn.Linear(3, 2), "u"),
            b=(fn.Linear(4, 2), "v"),
            y=(fn.Div(), "a", "s"),
            s=(fn.Sigmoid(), "b"),
            output="y",
        ),
        (normal(5, 3), between(-1.0, 1.0, 5, 4)),  # no quotient, whose gradient would exceed the range of float16
    ),
    "graph of two outputs": case(
        fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), b=(fn.Sigmoid(), "h"), output=("a", "b")), normal(4, 3)
    ),
    "graph, an output used inside": case(
        fn.graph("x", h=(fn.Linear(3, 3), "x"), y=(SUM, "h", "x"), output=("y", "h")), normal(4, 3)
    ),
    "graph with dropout and norm": case(
        fn.graph("x", n=(fn.BatchNorm1d(3), "x"), d=(fn.Dropout(0.3), "n"), y=(SUM, "d", "x")), normal(4, 3)
    ),
    "graph in a serial": case(fn.serial(fn.graph("x", a=(fn.Tanh(), "x"), y=(PRODUCT, "a", "x")), fn.Linear(3, 2)), normal(4, 3)),
}

REPETITION = {
    "ensemble": case(fn.ensemble(fn.Linear(3, 2), 2), normal(4, 3)),
    "ensemble of one": case(fn.ensemble(PLAIN, 1), normal(4, 3)),
    "ensemble of an input each": case(fn.ensemble(PLAIN, 2, shared_input=False), normal(2, 4, 3), batched=False),
    "ensemble with dropout and norm": case(fn.ensemble(NORMED, 2), normal(6, 3)),
    "ensemble without params": case(fn.ensemble(fn.Tanh(), 3), normal(4, 3)),
    "ensemble of two inputs": case(fn.ensemble(fn.parallel(fn.Linear(3, 2), fn.Tanh()), 2), (normal(4, 3), normal(4, 2))),
    "ensemble in a serial": case(fn.serial(fn.ensemble(fn.Linear(3, 2), 2), fn.Mean(0)), normal(4, 3)),
}

HALVES = normal(4, 2), normal(4, 3)
STEPS = fn.reversible(fn.serial(fn.Linear(3, 2), fn.Tanh()), fn.serial(fn.Linear(2, 3), fn.Sigmoid()))
SMOOTH = fn.reversible(fn.serial(fn.Linear(3, 2), fn.Sin()), fn.serial(fn.Linear(2, 3), fn.Cos()))
NORMED_STEPS = fn.reversible(
    fn.serial(fn.Dropout(0.3), fn.BatchNorm1d(3), fn.Linear(3, 2)), fn.serial(fn.Linear(2, 3), fn.Dropout(0.2))
)

REVERSIBLE = {
    "reversible": case(STEPS, HALVES),
    "reversible with dropout and norm": case(NORMED_STEPS, HALVES),
    "reversible, a run in a serial": case(fn.serial(STEPS, STEPS, STEPS, fn.Concat(), fn.Linear(5, 2)), HALVES),
    "reversible, nested runs": case(
        fn.serial(fn.parallel(fn.Linear(2, 2), fn.Tanh()), fn.freeze(SMOOTH), fn.serial(SMOOTH, SMOOTH), fn.serial(SMOOTH)),
        HALVES,
    ),
    "reversible, a run with dropout and norm": case(fn.serial(NORMED_STEPS, NORMED_STEPS), HALVES, compiled=False),
}

FREEZE = {
    "by_mode": case(
        fn.by_mode(
            fn.graph("x", a=(fn.Linear(3, 2), "x"), b=(fn.Tanh(), "a")),
            fn.graph("x", a=(fn.Linear(3, 2), "x"), b=(fn.Sigmoid(), "a")),
        ),
        normal(4, 3),
    ),
    "freeze": case(fn.freeze(fn.Linear(3, 2)), normal(4, 3)),
    "freeze a trunk": case(fn.serial(fn.freeze(PLAIN), fn.Tanh(), fn.Linear(2, 2)), normal(4, 3)),
    "freeze with dropout and norm": case(fn.serial(fn.Linear(3, 3), fn.freeze(NORMED)), normal(6, 3)),
    "freeze in a graph": case(
        fn.graph("x", a=(fn.freeze(fn.Linear(3, 2)), "x"), b=(fn.Linear(2, 2), "a"), y=(SUM, "a", "b")), normal(4, 3)
    ),
    "freeze in an ensemble": case(fn.ensemble(fn.serial(fn.freeze(fn.Linear(3, 2)), fn.Linear(2, 2)), 2), normal(4, 3)),
    "freeze in a tied net": case(fn.tied(fn.freeze(fn.serial(*[fn.Linear(3, 3)] * 2)), ("0", "1")), normal(4, 3)),
}

MIXED = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.3), fn.Linear(4, 2))

CAST = {
    "cast to float64": case(fn.cast(MIXED, torch.float64), normal(6, 3)),
    "cast to float32": case(fn.cast(fn.serial(fn.Linear(3, 4), fn.Sigmoid(), fn.Linear(4, 2)), torch.float32), normal(4, 3)),
    "cast to bfloat16": case(fn.cast(MIXED, torch.bfloat16), normal(6, 3)),
    "cast in a serial, of a part": case(
        fn.serial(fn.cast(fn.LayerNorm(3), torch.float32), fn.Linear(3, 2), fn.cast(fn.Softmax(), torch.float64)), normal(4, 3)
    ),
    "cast of a pair": case(fn.cast(fn.parallel(fn.Linear(3, 2), fn.Tanh()), torch.float64), HALVES[::-1]),
    "cast of an embedding": case(fn.cast(fn.Embedding(5, 3), torch.float64), torch.tensor([4, 0, 4])),
}

REFINED = fn.residual(fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.4), fn.Linear(4, 3)))

DEPTH = {
    "repeat": case(fn.repeat(fn.serial(fn.Linear(3, 3), fn.Tanh()), 2), normal(4, 3)),
    "repeat of one": case(fn.repeat(fn.Linear(3, 2), 1), normal(4, 3)),
    "repeat, in a loop": case(fn.repeat(REFINED, 5), normal(6, 3), compiled=True),
    "repeat without params": case(fn.repeat(fn.Tanh(), 4), normal(4, 3), compiled=True),
    "repeat of two inputs": case(
        fn.repeat(fn.parallel(fn.Linear(3, 3), fn.serial(fn.Linear(2, 2), fn.Sin())), 4), (normal(4, 3), normal(4, 2))
    ),
    "repeat, nested, in a serial": case(
        fn.serial(fn.Linear(3, 2), fn.repeat(fn.repeat(fn.serial(fn.Linear(2, 2), fn.Sin()), 2), 2)), normal(4, 3)
    ),
    "repeat of a convolution": case(fn.repeat(fn.residual(fn.Conv1d(2, 2, 3, padding=1)), 4), normal(2, 2, 5), compiled=True),
}

RECOMPUTED = {
    "remat in segments": case(fn.remat(NORMED, segments=2), normal(6, 3), compiled=True),
    "remat by names, params behind": case(
        fn.remat(fn.serial(a=fn.Tanh(), b=fn.Sin(), c=fn.Linear(3, 2), d=fn.Tanh()), segments=3), normal(4, 3)
    ),
    "remat of a layer": case(fn.remat(fn.Linear(3, 2)), normal(4, 3)),
    "remat without params": case(fn.remat(fn.serial(fn.Tanh(), fn.Sin())), normal(4, 3)),
    "remat": case(fn.remat(NORMED), normal(6, 3)),
    "remat in a repeat": case(fn.repeat(fn.remat(REFINED), 4), normal(6, 3), compiled=True),
}

TRIPLE = normal(4, 2), normal(4, 3), normal(4)
PAIR = fn.parallel(fn.Tanh(), fn.Identity())
COUPLING = fn.affine_coupling(
    fn.serial(fn.Linear(3, 4), fn.Sin(), fn.Chunk(2), PAIR), fn.serial(fn.Linear(2, 6), fn.Cos(), fn.Chunk(2), PAIR)
)
NORMED_COUPLING = fn.affine_coupling(
    fn.serial(fn.Dropout(0.3), fn.BatchNorm1d(3), fn.Linear(3, 4), fn.Chunk(2), PAIR),
    fn.serial(fn.Linear(2, 6), fn.Chunk(2), PAIR),
)

FLOWS = {
    "affine_coupling": case(COUPLING, TRIPLE),
    "affine_coupling with dropout and norm": case(NORMED_COUPLING, TRIPLE),
    "affine_coupling, a run in a serial": case(fn.serial(COUPLING, fn.freeze(COUPLING), COUPLING), TRIPLE, compiled=True),
    "affine_coupling of numbers": case(
        fn.affine_coupling(*[fn.branch(fn.Sin(), fn.Cos())] * 2), (normal(4), normal(4), normal(4))
    ),
    "affine_coupling of images": case(
        fn.repeat(fn.affine_coupling(*[fn.serial(fn.Conv2d(2, 4, 3, padding=1), fn.Rescale(0.1), fn.Chunk(2, 1), PAIR)] * 2), 3),
        (normal(2, 2, 3, 3), normal(2, 2, 3, 3), normal(2)),
    ),
}

RESTORED = {
    "repeat of reversible": case(fn.repeat(STEPS, 4), HALVES, compiled=True),
    "repeat of reversible, once": case(fn.repeat(STEPS, 1), HALVES),
    "repeat of reversible, nested runs": case(
        fn.serial(SMOOTH, fn.repeat(SMOOTH, 2), fn.repeat(fn.serial(SMOOTH, SMOOTH), 2)), HALVES
    ),
    "repeat of reversible with dropout and norm": case(fn.repeat(NORMED_STEPS, 2), HALVES, compiled=False),
}

SEEN = fn.serial(fn.Mul(), fn.Linear(3, 3), fn.Tanh())

CONSTANTS = {
    "keep_constants": case(fn.keep_constants(SEEN), (normal(4, 3), normal(4, 3))),
    "keep_constants without constants": case(fn.keep_constants(fn.Linear(3, 2)), normal(4, 3)),
    "keep_constants, repeated": case(
        fn.serial(fn.repeat(fn.keep_constants(SEEN), 4), fn.Select(0)), (normal(4, 3), normal(4, 3)), compiled=True
    ),
    "serial_with_constants": case(fn.serial_with_constants(SEEN, SEEN, fn.Add()), (normal(4, 3), normal(4, 3))),
    "serial_with_constants, dropout, running statistics": case(
        fn.serial_with_constants(fn.serial(fn.Mul(), fn.Dropout(0.3)), fn.serial(fn.Add(), fn.BatchNorm1d(3))),
        (normal(4, 3), normal(4, 3)),
    ),
    "serial_with_constants, no constants": case(fn.serial_with_constants(fn.Linear(3, 2), fn.Tanh()), normal(4, 3)),
}

CASES = {
    **SERIAL,
    **BRANCHING,
    **GRAPH,
    **REPETITION,
    **REVERSIBLE,
    **FREEZE,
    **CAST,
    **DEPTH,
    **RECOMPUTED,
    **FLOWS,
    **RESTORED,
    **CONSTANTS,
}
