"""Calls of the training loop and of the functions that read and write files, each in its own folder."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from calling import Call

import funcnet as fn

X, T, NET = torch.ones(4, 2), torch.zeros(4, 3), fn.serial(fn.Linear(2, 3), fn.Tanh())
PARAMS, OPT = NET.init(0), fn.SGD(0.1, momentum=0.9)
LOOP = {
    "net": NET, "loss": fn.MSE(), "opt": OPT, "data": (X, T), "epochs": 1, "batch_size": 2, "key": fn.key(0), "params": PARAMS,
    "state": OPT.init(PARAMS), "validation": (X, T), "metrics": (fn.MeanSquaredError(),), "drop_last": True, "transform": None,
    "accumulate": 1, "in_backward": False, "norms": False, "callbacks": (), "checkpoints": None, "progress": False, "epochs_done": 0,
}  # fmt: skip
TREE = {"a": torch.ones(2, 3), "b": (1, None, "word")}


def in_a_folder(f: Callable[..., Any], *, file: str = "", tree: Any = TREE) -> Callable[..., Any]:
    """Call a function in a new folder, where ``file`` contains a tree."""

    def called(**arguments: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("here").mkdir()
            os.chdir("here")  # then ".." is in the temporary folder too
            if file:
                fn.save(file, tree)
            return f(**arguments)

    return called


def loaded(content: bytes) -> Any:
    """Load a file with these bytes."""
    Path("tree.fn").write_bytes(content)
    return fn.load("tree.fn")


def saved(path: Any, tree: Any, metadata: Any) -> Any:
    """Save in the background, and wait."""
    return fn.save_in_background(path, tree, metadata).result()


def content() -> bytes:
    """Return the bytes of a file that contains a tree."""
    with tempfile.TemporaryDirectory() as folder:
        fn.save(Path(folder) / "tree.fn", TREE)
        return (Path(folder) / "tree.fn").read_bytes()


def kept(step: Any, tree: Any, metadata: Any) -> Any:
    """Save a checkpoint, and load it."""
    checkpoints = fn.Checkpoints(Path("runs"))
    checkpoints.save(step, tree, metadata)
    return checkpoints.load(step)


def recorded(columns: Any) -> Any:
    """Make a history, and print it."""
    return str(fn.History(columns))


AVERAGED = fn.Averaged(OPT, fn.EMA(0.5))
GRADS = fn.tree.map(torch.ones_like, PARAMS)

CALLS = [
    Call("fit", in_a_folder(fn.fit), LOOP, ("train_step", "Average", "evaluate")),
    Call("report", in_a_folder(fn.report), {"run": {"epoch": [1, 2], "loss": [2.0, 1.0]}, "path": "run.html", "net": NET, "x": X, "confusion": torch.eye(2), "classes": ("a", "b"), "title": "Run"}),
    Call("evaluate", fn.evaluate, {"net": NET, "params": PARAMS, "data": (X, T), "metrics": (fn.MeanSquaredError(),), "loss": fn.MSE(), "prefix": "a_", "batch_size": 2}, ("Identity", "Average")),
    Call("predict", fn.predict, {"net": NET, "params": PARAMS, "x": X, "batch_size": 2}, ("Identity",)),
    Call("save", in_a_folder(fn.save), {"path": "tree.fn", "tree": TREE, "metadata": {"epoch": 1}}),
    Call("load", in_a_folder(fn.load, file="tree.fn"), {"path": "tree.fn", "like": TREE, "rename": {"a": "a"}, "partial": False, "device": "cpu"}),
    Call("load", in_a_folder(loaded), {"content": content()}),
    Call("save_in_background", in_a_folder(saved), {"path": "tree.fn", "tree": TREE, "metadata": None}, ("save",)),
    Call("load_metadata", in_a_folder(fn.load_metadata, file="tree.fn"), {"path": "tree.fn"}),
    Call("Checkpoints", in_a_folder(fn.Checkpoints), {"folder": Path("runs"), "keep": 2, "every": 3, "background": False}),
    Call("Checkpoints", in_a_folder(kept), {"step": 3, "tree": TREE, "metadata": None}, ("save",)),
    Call("EarlyStopping", fn.EarlyStopping, {"patience": 2, "monitor": "loss", "mode": "min", "min_delta": 0.0, "restore_best": True}),
    Call("History", recorded, {"columns": {"epoch": [1, 2], "loss": [0.5, 0.25]}}),
    Call("Averaged", fn.Averaged, {"optimizer": OPT, "average": fn.EMA(0.5)}),
    Call("Averaged.update", AVERAGED.update, {"grads": GRADS, "state": AVERAGED.init(PARAMS), "params": PARAMS}, ("Averaged", "SGD", "EMA")),
    Call("Averaged.eval_params", AVERAGED.eval_params, {"state": AVERAGED.init(PARAMS), "params": PARAMS}, ("Averaged", "EMA")),
]  # fmt: skip
