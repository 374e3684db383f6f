"""Layers and nets without sizes."""

import torch

import funcnet as fn


def quarter(shape: torch.Size) -> fn.Layer:
    """Make a layer with a quarter as many features."""
    return fn.Linear(shape[-1], shape[-1] // 4)


LENET = fn.serial(
    fn.Conv2d(None, 6, 5, padding=2),
    fn.BatchNorm2d(None),
    fn.Tanh(),
    fn.AvgPool2d(2),
    fn.Dropout(0.2),
    fn.Conv2d(None, 16, 5),
    fn.Tanh(),
    fn.AvgPool2d(2),
    fn.Flatten(),
    fn.Linear(None, 10),
)
