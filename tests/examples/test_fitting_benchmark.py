"""The benchmark of ``fit``: both contenders end with the same params. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells

import funcnet as fn
from examples.benchmarks import fitting

CASES = {
    "DataLoader": lambda: fitting.loaded(0, rows=200),
    "tensors": lambda: fitting.from_tensors(rows=200),
    "list of batches, tiny step": lambda: fitting.tiny(listed=True, steps=5),
    "tensors, tiny step": lambda: fitting.tiny(listed=False, steps=5),
}


@pytest.mark.parametrize("name", CASES)
def test_both_end_with_the_same_params(name: str):
    """Params agree bit for bit, with the same batches and noise; a second training repeats the first."""
    case = CASES[name]()
    ways = fitting.contenders(case)
    loop, fit, again = (fn.tree.leaves(ways[way]()) for way in ("loop", "fit", "fit"))
    first = fn.tree.leaves(case.net.init(fn.split(fn.key(0), 3)[0]))
    for a, b, c, start in zip(loop, fit, again, first, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(b, c)
        assert not torch.equal(a, start)


def test_the_page_has_two_rows_for_each_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """There is one for each clock, written to a file as printed, below the head; the number of threads is restored."""
    small = {name: make() for name, make in CASES.items()}
    monkeypatch.setattr(fitting, "cases", small.items)
    threads = torch.get_num_threads()
    fitting.main(["--rounds", "1", "--page", str(tmp_path / "page.md")])
    printed, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    assert torch.get_num_threads() == threads
    assert page.endswith(printed)
    for name in small:
        rows = cells(printed, name)
        assert [row[1] for row in rows] == [*fitting.CLOCKS]
        assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)


def test_the_committed_page_has_all_rows():
    """The page was written with the current cases."""
    page = (Path(fitting.__file__).parent / "results" / "FITTING.md").read_text()
    for name, _ in fitting.cases():
        assert [row[1] for row in cells(page, name)] == [*fitting.CLOCKS]
