"""Sample trees for functions of trees."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool]


class Pair(NamedTuple):
    """A named tuple, like the state of an optimizer."""

    mean: object
    square: object


def tensor(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


def sample():
    """One tree with a node of every kind, an absent leaf, an empty node and a leaf without axes."""
    return {
        "layers": ({"weight": tensor(1, 2, 3), "bias": None}, {}, [tensor(4), torch.tensor(5.0)]),
        "state": Pair(tensor(6, 7), None),
    }


tensors = st.builds(
    lambda shape, dtype, seed: (torch.arange(torch.Size(shape).numel()).reshape(shape) + seed).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)


def trees(leaves):
    keys = st.text("abxyz", min_size=1, max_size=2)
    return st.recursive(
        leaves,
        lambda inner: (
            st.dictionaries(keys, inner, max_size=3)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=8,
    )


any_tree = trees(tensors | st.none())


def reordered(value):
    """Return the same tree with the keys of every dict in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, Pair):
        return Pair(*[reordered(child) for child in value])
    return type(value)(reordered(child) for child in value) if isinstance(value, (tuple, list)) else value


ONE = torch.ones(2)
