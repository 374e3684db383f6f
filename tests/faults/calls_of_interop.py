"""Calls for torch.nn, torch.export, scikit-learn and TensorBoard; ONNX, which takes seconds, has its own tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from calling import Call
from calls_of_training import in_a_folder
from torch import nn

import funcnet as fn
from funcnet import tree
from funcnet.interop.sklearn import Classifier, Regressor
from funcnet.interop.tensorboard import TensorBoard
from funcnet.interop.torch_nn import as_module, differentiable, from_torch, lift, load_state_dict, to_torch

X, T, NET, OPT = torch.ones(4, 2), torch.zeros(4, 3), fn.serial(fn.Linear(2, 3), fn.Tanh()), fn.SGD(0.1)
PARAMS = NET.init(0)
MODULE = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
STEP = fn.train_step(NET, fn.MSE(), OPT)
ARRAY, LABELS = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
TRAINING = {
    "net": fn.Linear, "loss": None, "optimizer": OPT, "epochs": 1, "batch_size": 3, "drop_last": False, "key": 0,
    "random_state": None, "early_stopping": False, "patience": 2, "validation_fraction": 0.5, "metrics": (), "callbacks": (),
    "warm_start": False, "dtype": None, "device": None, "progress": False,
}  # fmt: skip


def exported(**arguments: Any) -> Any:
    """Export, and return the names of the program's inputs, since a program has no numbers to check."""
    return [*fn.export(**arguments).graph_signature.user_inputs]


def fitted(kind: Callable[..., Any], y: Any) -> Callable[..., Any]:
    """Return a function that creates an estimator, trains it and predicts."""
    return lambda **given: torch.as_tensor(kind(**given).fit(ARRAY, y).predict(ARRAY))


def logged(**fields: Any) -> Any:
    """Train with a ``TensorBoard`` in the current folder."""
    board = TensorBoard(**fields)
    fn.fit(NET, fn.MSE(), OPT, (X, T), epochs=1, batch_size=2, key=0, params=PARAMS, callbacks=[board], progress=False)
    board.close()


CALLS = [
    Call("from_torch", from_torch, {"module": MODULE}),
    Call("to_torch", to_torch, {"net": NET, "params": PARAMS}, ("as_module",)),
    Call("as_module", as_module, {"net": NET, "params": PARAMS}),
    Call("as_module.forward", as_module(NET, PARAMS), {"*": (X,)}, ("serial",)),
    Call("differentiable", differentiable, {"net": NET}),
    Call("differentiable()", differentiable(NET), {"params": PARAMS, "x": X, "rng": None}, ("serial",)),
    Call("lift", lift, {"module": MODULE, "example": X}),
    Call("load_state_dict", load_state_dict, {"params": PARAMS, "state_dict": tree.names(PARAMS), "strict": True, "prefix": "", "rename": {"0.weight": "0.weight"}}),
    Call("export", exported, {"step": STEP, "args": (PARAMS, OPT.init(PARAMS), X, T), "path": None, "batch": ("x", "target"), "dynamic_shapes": None, "compiled": False}, ("train_step", "serial")),
    Call("Classifier", fitted(Classifier, LABELS), {**TRAINING, "class_weight": None}, ("fit", "train_step")),
    Call("Regressor", fitted(Regressor, ARRAY), TRAINING, ("fit", "train_step")),
    Call("TensorBoard", in_a_folder(logged), {"log_dir": "runs", "histograms": True, "every": 1, "optimizer": OPT, "net": NET, "hparams": {"width": 3}}),
]  # fmt: skip
