"""The benchmark of gradients of each example: all contenders give the same. No time is judged here."""

import pytest
import torch

import funcnet as fn
from examples.benchmarks import per_example


@pytest.mark.parametrize("name", per_example.nets())
def test_all_contenders_give_the_same(name: str):
    """The gradients of the loop, of ``torch.func`` and of funcnet, and the norms of these."""
    net, x, target = per_example.nets()[name]
    found = {way: work() for way, work in per_example.contenders(net, x[:4], target[:4]).items()}
    want = fn.tree.names(found["loop"])
    for grads in (found["vmap(grad)"], found["per_example_grads"][1]):
        for path, leaf in fn.tree.names(grads).items():
            torch.testing.assert_close(leaf, want[path], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["per_example_norms"], found["norms of these"], rtol=1e-4, atol=1e-6)


def test_every_way_is_timed(capsys: pytest.CaptureFixture[str]):
    """A table with a line for each way and net."""
    times = per_example.measured({"nothing": lambda: None}, rounds=2)
    assert times["nothing"] >= 0
    threads = torch.get_num_threads()
    per_example.main(rounds=1)
    assert capsys.readouterr().out.count("per_example_norms") == len(per_example.nets())
    assert torch.get_num_threads() == threads
