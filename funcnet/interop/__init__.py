"""Interop: funcnet with torch.nn, autograd, ONNX, scikit-learn and TensorBoard. Only this package uses torch.nn and autograd.

The modules are imported on first use: ``funcnet.interop.onnx.export`` works after ``import funcnet``.
"""

from importlib import import_module
from typing import Any

_MODULES = ("onnx", "sklearn", "tensorboard", "torch_nn")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
