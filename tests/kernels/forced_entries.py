"""Find the catalogue entries that each choice between kernels affects: forcing it changes the kernels that they call."""

from collections.abc import Iterable, Iterator
from functools import cache

import cases
import torch
from cases import Case
from cases.making import case
from kernel_calls import asked, calls_of, compute

import funcnet as fn
from funcnet import random
from funcnet.kernels.choices import forced

FAMILIES = {family.__name__.partition(".")[2]: family.CASES for family in cases.FAMILIES}
"""The catalogue by family."""

HOMES = {
    "matrix products": ("linear", "attention", "recurrent"),
    "tanh": ("activation", "recurrent"),
    "sums of squares": ("losses",),
    "order of images": ("conv",),
    "order beside large weights": ("turned",),
    "running statistics": ("norm",),
    "search for NaN": ("activation", "losses"),
    "attention": ("attention",),
    "attention in float16": ("attention",),
    "backward attention in bfloat16": ("attention",),
    "products of backward attention": ("attention",),
    "weight norm": ("combinators",),
    "rows at padding": ("embedding",),
    "gradient of embeddings": ("embedding",),
    "max pooling": ("pooling",),
    "mean pooling": ("pooling",),
    "LSTM": ("recurrent",),
    "long LSTM": ("recurrent",),
    "recurrent buffers": ("recurrent",),
    "blocks of logits": ("losses",),
}
"""The families to search for each choice; all are searched for choices without an entry here, and with ``--long``."""


def _turned_image() -> Case:
    """Return a case with an image in channels_last that has fewer elements than the weight."""
    one = case(fn.Conv2d(6, 8, 3, padding=1), random.normal(0, (2, 6, 2, 3)))
    return one._replace(x=one.x.contiguous(memory_format=torch.channels_last))


FAMILIES["turned"] = {"Conv2d on a small image in channels_last": _turned_image()}


@cache
def _asked_in(family: str) -> dict[str, set[str]]:
    """Return the choices that each entry of a family reads, in float32 or half precision."""
    found = {}
    for entry, one in FAMILIES[family].items():
        with asked() as names:
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                compute(one, dtype)
        found[entry] = names
    return found


def _spread(entries: Iterable[Case]) -> list[Case]:
    """Return the entries, beginning with the first of each class."""
    rest, firsts, classes = [], [], set()
    for one in entries:
        (rest if type(one.layer) in classes else firsts).append(one)
        classes.add(type(one.layer))
    return firsts + rest


def concerned(name: str, option: str, families: Iterable[str] | None = None) -> Iterator[Case]:
    """Yield the entries whose kernel calls change with an option of a choice."""
    families = HOMES.get(name, FAMILIES) if families is None else families
    entries = [FAMILIES[family][entry] for family in families for entry, names in _asked_in(family).items() if name in names]
    for one in _spread(entries):
        without = calls_of(one)
        with forced(name, option):
            changed = calls_of(one) != without
        if changed:
            yield one
