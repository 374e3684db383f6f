"""Tensors that share memory, compared with the addresses of all their elements."""

from itertools import product

import pytest
import torch
from torch import Tensor

from funcnet.kernels.aliasing import is_writable, overlapping, plain


def bytes_of(x: Tensor) -> list[int]:
    """List the address of every byte of every element."""
    places = product(*[range(n) for n in x.shape])
    starts = [x.data_ptr() + x.element_size() * sum(i * s for i, s in zip(at, x.stride(), strict=True)) for at in places]
    return [start + i for start in starts for i in range(x.element_size())]


def by_hand(tensors: list[Tensor]) -> set[int]:
    """Return the positions of tensors with elements that share a byte."""
    owners: dict[int, list[int]] = {}
    for i, x in enumerate(tensors):
        for place in bytes_of(x):
            owners.setdefault(place, []).append(i)
    return {i for several in owners.values() if len(several) > 1 for i in several}


def groups() -> list[list[Tensor]]:
    """Return lists of views of one tensor: disjoint, interleaved, shifted, nested, expanded, empty, of two dtypes."""
    x = torch.arange(60.0)
    grid = x.view(6, 10)
    return [
        [x[:20], x[20:40], x[40:]],
        [x[::2], x[1::2]],
        [x[::2], x[1::2], x[30:31]],
        [grid[:, ::2], grid[:, 1::2]],
        [grid[:3, :5], grid[3:, :5], grid[:, 5:]],
        [grid[:3, :6], grid[:, 5:]],
        [grid.t(), x[58:], torch.ones(3)],
        [x[:12], x[11:23]],
        [x, x[10:20], x[30:40]],
        [x[:1].expand(4), x[1:]],
        [x.as_strided((3, 3), (1, 1)), x[10:]],
        [x.as_strided((3, 3), (4, 3)), x[30:]],
        [x[5:5], x[:10]],
        [x[3], x[4], x[3]],
        [x[:4], x.view(torch.float64)[1:3], x.view(torch.int16)[8:]],
        [x.view(torch.float64)[:3:2], x[2:4], x[6:]],
        [torch.ones(3), torch.ones(4)],
        [],
    ]


@pytest.mark.parametrize("place", range(len(groups())))
def test_overlapping_finds_the_tensors_that_share_an_element(place: int) -> None:
    """The result is correct for every order of the tensors."""
    tensors = groups()[place]
    for shift in range(max(1, len(tensors))):
        turned = tensors[shift:] + tensors[:shift]
        assert overlapping(turned) == by_hand(turned)


def test_tensors_without_memory_share_none() -> None:
    """Tensors on the meta device have no memory to share."""
    x = torch.ones(3, device="meta")
    assert overlapping([x, x]) == set()


def test_what_inference_mode_made_is_written_to_only_there() -> None:
    """A plain tensor is always writable; lazy zeros and negated views are never writable."""
    with torch.inference_mode():
        made = torch.ones(2)
        assert is_writable(made)
    odd = [torch._efficientzerotensor((2,)), torch.ones(2, dtype=torch.complex64).conj().imag]
    assert [is_writable(x) for x in (made, torch.ones(2), *odd)] == [False, True, False, False]


def test_a_plain_tensor_is_itself() -> None:
    """Any other tensor is converted to a plain one with the same values."""
    x = torch.ones(2)
    assert plain(x) is x
    negated = torch.complex(torch.zeros(2), torch.ones(2)).conj().imag
    for odd, value in ((torch._efficientzerotensor((2,)), 0.0), (negated, -1.0), (torch.nn.Parameter(x), 1.0)):
        made = plain(odd)
        assert torch.equal(made, torch.full((2,), value))
        assert (made.is_neg(), made._is_zerotensor(), made.requires_grad) == (False, False, False)
        assert type(made) is Tensor
