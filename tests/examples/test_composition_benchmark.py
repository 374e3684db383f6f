"""The benchmark of composition: all contenders compute the same. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells

import funcnet as fn
from examples.benchmarks import composition, depth, ensembles, per_example, turns


@pytest.mark.parametrize("name", per_example.nets())
def test_all_ways_to_gradients_of_each_example_give_the_same(name: str):
    """The gradients of the loop, of ``torch.func`` and of funcnet agree, and their norms agree."""
    net, x, target = per_example.nets()[name]
    found = {way: work() for way, work in per_example.contenders(net, x[:4], target[:4]).items()}
    want = fn.tree.names(found["loop"])
    for grads in (found["vmap(grad)"], found["per_example_grads"][1]):
        for path, leaf in fn.tree.names(grads).items():
            torch.testing.assert_close(leaf, want[path], rtol=1e-4, atol=1e-6)
    for path, leaf in fn.tree.names(found["batch"]).items():
        torch.testing.assert_close(leaf, want[path].mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["per_example_norms"], found["norms of stored"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ensembles.nets())
def test_both_ensembles_give_the_same(name: str):
    """Outputs and gradients of three members agree."""
    net, module, x, target = ensembles.nets()[name]
    found = {way: work() for way, work in ensembles.contenders(net, module, x[:4], target[:4], members=3).items()}
    torch.testing.assert_close(found["ensemble, forward"], found["torch.func, forward"], rtol=1e-4, atol=1e-5)
    ours, theirs = fn.tree.names(found["ensemble, gradients"]), found["torch.func, gradients"]
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        torch.testing.assert_close(leaf, theirs[path], rtol=1e-4, atol=1e-6)


def test_both_kinds_of_depth_give_the_same():
    """The results agree bit for bit."""
    found = {way: work() for way, work in depth.contenders(6, 5, n=3).items()}
    assert torch.equal(found["repeat, forward"], found["serial, forward"])
    for work in ("gradients", "SGD step", "Adam step"):
        ours, theirs = found[f"repeat, {work}"], found[f"serial, {work}"]
        stacked = fn.tree.map(lambda *leaves: torch.stack(leaves), *theirs[0])
        assert fn.tree.equal(stacked, ours[0])
        assert torch.equal(ours[-1], theirs[-1])


def test_contenders_take_turns():
    """Each round has another order, and global settings are restored."""
    turn: list[str] = []
    threads = torch.get_num_threads()
    times = turns.measured({name: lambda name=name: turn.append(name) for name in "abc"}, rounds=5)
    rounds = ["".join(turn[i : i + 3]) for i in range(0, 18, 3)]
    assert {*map(frozenset, rounds)} == {frozenset("abc")}
    assert len({*rounds}) > 1
    assert times.keys() == {*"abc"}
    assert torch.get_num_threads() == threads


def test_the_page_has_a_row_for_each_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The page is written to a file as printed."""
    for module in (per_example, ensembles, depth):
        ways = dict.fromkeys([one for pair in module.QUOTIENTS.values() for one in pair], lambda: sum(range(1000)))
        monkeypatch.setattr(module, "cases", lambda name=module.__name__, ways=ways: iter([(name, ways)]))
    composition.main(["--rounds", "2", "--page", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page == capsys.readouterr().out
    for module in (per_example, ensembles, depth):
        (row,) = cells(page, module.__name__)
        assert len(row) == 1 + len({one for pair in module.QUOTIENTS.values() for one in pair}) + len(module.QUOTIENTS)


def test_the_committed_page_has_all_rows():
    """The page was written with the current cases."""
    page = (Path(composition.__file__).parent / "results" / "COMPOSITION.md").read_text()
    for name in (*per_example.nets(), *ensembles.nets(), *[f"{rows} rows of {size}" for size, rows in depth.SIZES]):
        assert cells(page, name), name
