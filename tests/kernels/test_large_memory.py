"""Memory for large results: the result is an ordinary tensor, whether or not the system grants huge pages."""

import pytest
import torch

from funcnet.kernels import large_memory


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1 << 20,), (3, 1 << 20), (5, 1 << 19, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_memory_of_the_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype):
    """It stores the written values, and writes do not reach its neighbors."""
    like = torch.ones(2, dtype=dtype)
    before = torch.full(shape, 3.0, dtype=dtype)
    x = large_memory.empty(shape, like).fill_(7.0)
    assert (x.shape, x.dtype, x.device, x.is_contiguous()) == (torch.Size(shape), dtype, like.device, True)
    assert (x == 7.0).all()
    assert (before == 3.0).all()


def test_only_whole_pages_of_large_memory_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Whole pages within the tensor are requested as huge pages."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(large_memory, "_advise", lambda: lambda *request: asked.append(request))
    large_memory.empty((1000,), torch.ones(1))
    assert asked == []
    x = large_memory.empty((3 << 20,), torch.ones(1))
    ((begin, size, advice),) = asked
    assert begin % 4096 == size % 4096 == 0
    assert x.data_ptr() <= begin
    assert begin + size <= x.data_ptr() + x.numel() * 4
    assert size > 11 << 20
    assert advice == 14


def test_a_system_without_the_request_gives_plain_memory(monkeypatch: pytest.MonkeyPatch):
    """If the C library lacks the call, nothing is requested."""
    monkeypatch.setattr(large_memory, "_is_linux", lambda: False)
    large_memory._advise.cache_clear()
    try:
        assert (large_memory.empty((3 << 20,), torch.ones(1)).fill_(2.0) == 2.0).all()
    finally:
        large_memory._advise.cache_clear()


def test_other_devices_are_not_asked(monkeypatch: pytest.MonkeyPatch):
    """A tensor on the meta device has no memory."""
    monkeypatch.setattr(large_memory, "_advise", None)
    assert large_memory.empty((3 << 20,), torch.ones(1, device="meta")).is_meta
