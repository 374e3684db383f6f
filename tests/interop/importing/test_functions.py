"""Functions and methods in traced code: each is converted and compared with torch and its autograd in float64."""

# ruff: noqa: PLW0108 (functions are traced through lambdas, whose arguments are counted)

import operator

import pytest
import torch
from traced_functions import check, numbers

A, B = numbers(2, 3, 4), numbers(2, 3, 4, seed=1)

ARITHMETIC = {
    "sums": [lambda a, b: a + b, lambda a, b: torch.add(a, b, alpha=2), lambda a: a + 1.5, lambda a: 2 + a, lambda a: a.add(3)],
    "differences": [lambda a, b: a - b, lambda a: a - 1, lambda a: 1 - a, lambda a, b: torch.sub(a, b, alpha=3), lambda a: -a],
    "products": [lambda a, b: a * b, lambda a: a * 2, lambda a: 0.5 * a, lambda a, b: operator.imul(a, b), lambda a: a.mul(3.0)],
    "quotients": [lambda a, b: a / b, lambda a: a / 3, lambda a: 2 / (a + 10), lambda a, b: a.div(b)],
    "powers": [lambda a: a**2, lambda a: a.pow(3), lambda a, b: (a * a + 1) ** b, lambda a: 2**a, lambda a: torch.pow(a, 2)],
    "sizes": [
        lambda a: a * a.shape[1],
        lambda a: a + a.size(0),
        lambda a: a / a.shape[2],
        lambda a: a / a.shape[2] ** 0.5,
        lambda a: a.shape[1] - a,
        lambda a: a * (a.size(1) * 2 + 1),
    ],
    "products of matrices": [
        lambda a, b: a @ b.transpose(1, 2),
        lambda a, b: torch.bmm(a, b.transpose(-1, -2)),
        lambda a, b: torch.baddbmm(a @ b.transpose(1, 2), a, b.transpose(1, 2), beta=2, alpha=0.5),
    ],
    "weighted sums": [lambda a, b: torch.addcmul(a, a, b, value=2), lambda a, b: torch.lerp(a, b, 0.3)],
}

SHAPES = {
    "views": [
        lambda a: a.view(a.size(0), -1),
        lambda a: a.view(-1, 12),
        lambda a: a.reshape((a.shape[0], 2, 6)),
        lambda a: torch.reshape(a, (-1,)),
        lambda a: a.view(a.shape[0] * 3, a.size(-1)),
        lambda a: a.view(a.size()),
        lambda a, b: a.flatten(1).view_as(b),
    ],
    "flat": [lambda a: torch.flatten(a, 1), lambda a: a.flatten(), lambda a: a.flatten(0, 1)],
    "several axes": [
        lambda a: a.unflatten(2, (2, 2)),
        lambda a: a.unflatten(1, (a.size(1), 1)),
        lambda a: a.unflatten(-1, (-1, 2)),
    ],
    "axes of size 1": [
        lambda a: a.unsqueeze(1).squeeze(1),
        lambda a: a.unsqueeze(-1).unsqueeze(0).squeeze(0),
        lambda a: a[:, None].squeeze(dim=1),
    ],
    "orders of axes": [
        lambda a: a.permute(2, 0, 1),
        lambda a: torch.permute(a, (0, 2, 1)),
        lambda a: a.transpose(1, 2),
        lambda a: a[0].t(),
    ],
    "expansions": [
        lambda a: a[:, :1].expand(-1, 5, -1),
        lambda a: a[:1].expand(a.size(0) + 1, -1, -1),
        lambda a, b: a[:1].expand_as(b),
        lambda a, b: torch.broadcast_to(a[:, :1], b.shape),
    ],
}

INDEXING = {
    "elements": [lambda a: a[:, 0], lambda a: a[..., -1], lambda a: a[1], lambda a: a[:, 1:, ::2], lambda a: a[:, None, 1]],
    "sizes": [lambda a: a[:, : a.shape[1] - 1], lambda a: a[:, -a.size(1) :], lambda a: a[:, a.size(1) // 2]],
    "along an axis": [lambda a: a.narrow(1, 0, 2), lambda a: torch.narrow(a, -1, 1, a.size(2) - 1), lambda a: a.select(1, 2)],
}

JOINING = {
    "joined": [
        lambda a, b: torch.cat([a, b], 1),
        lambda a, b: torch.cat((a, b, a), dim=-1),
        lambda a: torch.cat([a]),
        lambda a, b: torch.stack([a, b], dim=1),
        lambda a: torch.stack([a]),
    ],
    "parts": [
        lambda a: a.chunk(2, -1)[1],
        lambda a: torch.chunk(a, 3, dim=1)[0] * 2,
        lambda a: torch.split(a, 1, 1)[0] * torch.split(a, 1, 1)[2],
        lambda a: a.split([1, 3], dim=2)[1],
        lambda a: a.split((1, a.size(2) - 1), dim=2)[1],
        lambda a: a.split(a.size(2) // 2, dim=2)[1] + torch.split(a, a.size(2) // 2, 2)[0],
        lambda a: a.unbind(1)[2],
    ],
}

TABLES = {"arithmetic": ARITHMETIC, "shapes": SHAPES, "indexing": INDEXING, "joining": JOINING}
ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_a_function_is_converted_to_layers_with_its_values_and_gradients(table: str, name: str) -> None:
    """Output, dtype and the gradients of all inputs agree."""
    for function in TABLES[table][name]:
        check(function, A, B)
