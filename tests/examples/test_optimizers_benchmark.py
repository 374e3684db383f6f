"""The benchmark of optimizers: both contenders take the same steps. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells

from examples.benchmarks import muon, optimizers


@pytest.mark.parametrize("name", optimizers.optimizers())
def test_both_take_the_same_steps(name: str):
    """Three steps start from the same params, with the same gradients."""
    ways = optimizers.contenders(name, count=2, shape=(5, 7))
    for _ in range(3):
        found, wanted = [ways[way]() for way in ("funcnet", "torch")]
    for ours, theirs, first in zip(found, wanted, optimizers.tensors(0, 2, (5, 7)), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-7)
        assert not torch.equal(ours, first)


def test_the_page_has_a_row_for_each_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """All tables are written to a file as printed."""
    monkeypatch.setattr(optimizers, "cases", lambda: ((n, optimizers.contenders(n, 2, (5, 7))) for n in optimizers.optimizers()))
    ours = [*optimizers.cases_of_ours(2, (5, 7))]
    monkeypatch.setattr(optimizers, "cases_of_ours", lambda: ours)
    monkeypatch.setattr(muon, "SIZES", {"a block of width 8": (1, 8)})
    optimizers.main(["--rounds", "1", "--page", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page == capsys.readouterr().out
    for name in optimizers.optimizers():
        assert [len(row) for row in cells(page, name)] == [4, 4]
    for name in optimizers.OURS_ONLY:
        assert [len(row) for row in cells(page, name)] == [4]
    assert [len(row) for row in cells(page, "a block of width 8")] == [7]


def test_all_ways_of_muon_take_the_same_steps():
    """Three steps agree with torch's, and approximately in float32."""
    params = muon.matrices(1, 16)
    ways = muon.contenders(params)
    for _ in range(3):
        found = {name: way() for name, way in ways.items()}
    for name, first in params.items():
        want = found["torch"][name].detach()
        assert not torch.equal(want, first)
        for way in ("pure", "donated"):
            torch.testing.assert_close(found[way][name], want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["donated, float32"][name], want, rtol=0.0, atol=1e-3)


def test_the_committed_page_has_all_rows():
    """The page was written with the current optimizers."""
    page = (Path(optimizers.__file__).parent / "results" / "OPTIMIZERS.md").read_text()
    for name in (*optimizers.optimizers(), *optimizers.OURS_ONLY, *muon.SIZES):
        assert cells(page, name), name
