"""CUDA graphs without a GPU: when a step is replayed, with which options, and which outputs are copied."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import funcnet as fn
from funcnet.compilation import cuda_graphs, inductor
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
    """Inputs must be on one GPU or 0-d, below the limit, and not written to; the options are passed to Inductor."""
    assert may_replay(inputs) is replayed
    options = []
    kernel_on_gpu(options.append, inputs)
    assert options == [REPLAYED if replayed else {}]


def test_the_choice_can_be_forced():
    """Either option can be forced for every size."""
    with forced("CUDA graphs", "launched"):
        assert not may_replay([on_gpu(3)])
    with forced("CUDA graphs", "replayed"):
        assert may_replay([on_gpu(1 << 24)])


def test_inductor_knows_the_option():
    """Inductor ignores unknown options without an error."""
    assert {*REPLAYED} <= {*torch._inductor.list_options()}


def test_is_on_gpu():
    """One tensor of a tree on the GPU suffices."""
    assert is_on_gpu([1, (torch.ones(2), [on_gpu(2)])])
    assert not is_on_gpu([1, torch.ones(2)])


def test_outputs_are_copies():
    """Outputs on the GPU that are not inputs are copied; inputs, numbers and tensors in main memory are returned unchanged."""
    given, made = on_gpu(2, 3), on_gpu(3)
    found = copied_out([given, made, COUNTER, 7], [given])
    assert found[0] is given
    assert found[1] is not made
    assert (found[1].shape, found[1].device) == (made.shape, made.device)
    assert found[2] is COUNTER
    assert found[3] == 7


def test_other_threads_launch_the_kernels(monkeypatch):
    """Recordings belong to one thread; the others use a kernel that is compiled once, without graphs."""
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


@pytest.mark.compiled
def test_the_way_of_a_gpu_gives_the_steps_of_eager_mode(monkeypatch):
    """Tensors in main memory take this code path, without recordings by Inductor, and so does a thread without recordings."""
    monkeypatch.setattr(inductor, "is_on_gpu", lambda values: True)
    monkeypatch.setattr(cuda_graphs, "may_replay", lambda inputs: True)
    monkeypatch.setattr(cuda_graphs, "is_key_in_tls", lambda name: True)
    net, opt = fn.serial(fn.Linear(2, 3), fn.Tanh(), fn.Linear(3, 1)), fn.Adam(1e-2)
    step = fn.train_step(net, fn.MSE(), opt)
    fast, x, target = fn.compile(step), fn.random.uniform(1, (4, 2)), fn.random.uniform(2, (4, 1))
    params = own = net.init(0)
    state = own_state = opt.init(params)
    for _ in range(3):
        params, state, _ = step(params, state, x, target)
        own, own_state, _ = fast(own, own_state, x, target)
    assert fn.tree.allclose(own, params)
    monkeypatch.setattr(cuda_graphs, "is_key_in_tls", lambda name: False)
    torch.testing.assert_close(fast(own, own_state, x, target)[2], step(params, state, x, target)[2])
