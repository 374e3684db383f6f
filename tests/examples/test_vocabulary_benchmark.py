"""The benchmark of a large vocabulary: all contenders compute the same. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells

from examples.benchmarks import vocabulary

SIZES = (24, 50, 8)


@pytest.mark.parametrize("dtype", vocabulary.DTYPES)
def test_all_contenders_give_the_same(dtype: str):
    """Values and gradients agree, and funcnet's value without gradients too."""
    given = vocabulary.drawn(dtype, *SIZES)
    found = {name: vocabulary.contender(name, *given)() for name in (*vocabulary.OURS, *vocabulary.THEIRS)}
    want = found[vocabulary.OURS[0]]
    tolerance = {"rtol": 0.05, "atol": 0.01} if dtype == "bfloat16" else {"rtol": 1e-4, "atol": 1e-6}
    for value, gradients in found.values():
        torch.testing.assert_close(value, want[0], **tolerance)
        torch.testing.assert_close(gradients or want[1], want[1], **tolerance)


def test_every_contender_is_measured():
    """Each has a time, and a peak of at least 0 bytes."""
    names = (*vocabulary.OURS, *vocabulary.THEIRS)
    threads = torch.get_num_threads()
    try:
        found = vocabulary.measured("times", "float32", SIZES, 1)
        assert found.keys() == {*names}
        assert all(seconds > 0 for seconds in found.values())
        assert all(vocabulary.measured("peak", name, "float32", SIZES) >= 0 for name in names)
    finally:
        torch.set_num_threads(threads)


def test_the_page_has_a_row_for_each_contender_and_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The table is written to a file as printed, below the head."""
    seconds = dict.fromkeys((*vocabulary.OURS, *vocabulary.THEIRS), 2.0)
    monkeypatch.setattr(vocabulary, "_in_a_process", lambda *job: seconds if job[0] == "times" else 3e6)
    vocabulary.main(["--rows", "64", "--page", str(tmp_path / "page.md")])
    printed = capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert page.endswith(printed)
    assert "64 rows of 512 features and 32000 words" in page
    for name in seconds:
        assert cells(printed, name) == [[name, dtype, "2.00", "1.00", "3"] for dtype in vocabulary.DTYPES]


def test_the_committed_page_has_all_rows():
    """The page was written with the current contenders, in at least one dtype."""
    page = (Path(vocabulary.__file__).parent / "results" / "VOCABULARY.md").read_text()
    for name in (*vocabulary.OURS, *vocabulary.THEIRS):
        assert [row[1] for row in cells(page, name)] == [*vocabulary.DTYPES][: len(cells(page, name))] != []
