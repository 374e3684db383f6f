"""Converters of functions and methods in traced code: importing this module registers all of them."""

from funcnet.interop.torch_nn.importing.functions import (  # noqa: F401
    activations,
    arithmetic,
    choosing,
    indexing,
    joining,
    moving,
    passing,
    pooling,
    reducing,
    shapes,
    with_weights,
)
