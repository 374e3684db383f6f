"""CUDA graphs, as far as they go without a GPU: when a step is replayed, with which options, and what becomes of its outputs."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from funcnet.compilation import cuda_graphs
from funcnet.compilation.cuda_graphs import REPLAYED, Replayed, copied_out, is_on_gpu, kernel_on_gpu, may_replay
from funcnet.kernels.choices import forced

MODE = FakeTensorMode(allow_non_fake_inputs=True)


def on_gpu(*shape, index=0):
    """Return a fake tensor on a GPU."""
    return FakeTensor(MODE, torch.empty(shape, device="meta"), torch.device("cuda", index))


def written(x):
    """Return a tensor after a write to it."""
    return x.add_(1)


COUNTER = torch.zeros((), dtype=torch.int64)


@pytest.mark.parametrize(
    ("inputs", "replayed"),
    [
        ([on_gpu(3, 4), on_gpu(4)], True),
        ([on_gpu(3, 4), COUNTER, 2], True),
        ([on_gpu(3), torch.ones(3)], False),
        ([on_gpu(3), on_gpu(3, index=1)], False),
        ([torch.ones(3)], False),
        ([on_gpu(1 << 24)], False),
        ([written(on_gpu(3))], False),
    ],
    ids=["on one GPU", "with a counter", "with rows in main memory", "two GPUs", "no GPU", "64 MiB", "written to"],
)
def test_when_a_step_is_replayed(inputs, replayed):
    """All inputs on one GPU or single numbers, below the limit, and none written to; the options go to Inductor."""
    assert may_replay(inputs) is replayed
    options = []
    kernel_on_gpu(options.append, inputs)
    assert options == [REPLAYED if replayed else {}]


def test_the_choice_can_be_forced():
    """Either way for every size."""
    with forced("CUDA graphs", "launched"):
        assert not may_replay([on_gpu(3)])
    with forced("CUDA graphs", "replayed"):
        assert may_replay([on_gpu(1 << 24)])


def test_inductor_knows_the_option():
    """An option that Inductor does not know would be dropped without a word."""
    assert {*REPLAYED} <= {*torch._inductor.list_options()}


def test_is_on_gpu():
    """A tensor of a tree counts."""
    assert is_on_gpu([1, (torch.ones(2), [on_gpu(2)])])
    assert not is_on_gpu([1, torch.ones(2)])


def test_outputs_are_copies():
    """What is on the GPU and is no input is copied; inputs, numbers and tensors in main memory are returned as they are."""
    given, made = on_gpu(2, 3), on_gpu(3)
    found = copied_out([given, made, COUNTER, 7], [given])
    assert found[0] is given
    assert found[1] is not made
    assert (found[1].shape, found[1].device) == (made.shape, made.device)
    assert found[2] is COUNTER
    assert found[3] == 7


def test_other_threads_launch_the_kernels(monkeypatch):
    """Recordings belong to one thread: others get a kernel that is compiled once, without graphs."""
    compiled = []

    def compile_with(options):
        compiled.append(options)
        return lambda *inputs: [bool(options)]

    owner = threading.get_ident()
    monkeypatch.setattr(cuda_graphs, "is_key_in_tls", lambda name: threading.get_ident() == owner)
    kernel, found = Replayed(compile_with), []
    assert kernel() == [True]
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(kernel()))
        thread.start()
        thread.join()
    assert found == [[False], [False]]
    assert compiled == [REPLAYED, {}]
