"""The benchmark of saving and loading, for a small tree."""

from examples.benchmarks import saving


def test_every_way_is_in_a_table_and_does_its_work(tmp_path):
    """Saving comes first, because loading reads the files."""
    assert [*saving.SAVED, *saving.LOADED] == [*saving.ways()]
    for name in saving.ways():
        called, summed, peak = saving.measure(name, 2, 10, str(tmp_path))
        assert 0 < called <= summed
        assert abs(peak) < 2**30
    assert {path.name for path in tmp_path.glob("tree.*")} == {"tree.fn", "tree.pt", "tree.safetensors"}


def test_the_page_has_a_row_for_each_way(capsys, monkeypatch, tmp_path):
    """The page has the command too; here the rows are measured in this process."""
    monkeypatch.setattr(saving, "measured", lambda names, *sizes: {name: [1.0, 2.0, 3e6] for name in names})
    saving.main(["--count", "2", "--size", "10", "--rounds", "1", "--page", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert "`python -m examples.benchmarks.saving --count 2 --size 10 --rounds 1`" in page
    assert "| fn.save | yes | yes | CRC-32 | 1 | 3 |" in page.splitlines()
    assert "| fn.load | CRC-32 | 1 | 2 | 3 |" in capsys.readouterr().out.splitlines()


def test_the_medians_are_those_of_processes(monkeypatch):
    """Each contender runs once per round, in a separate process."""
    calls = []

    def ran(command, **how):
        calls.append(command[-1])
        return type("Ran", (), {"stdout": f"[{len(calls)}, 2, 3]"})

    monkeypatch.setattr(saving.subprocess, "run", ran)
    found = saving.measured(["fn.save"], 2, 10, 3, "/folder")
    assert found == {"fn.save": [2, 2, 3]}
    assert calls == ['["fn.save", 2, 10, "/folder"]'] * 3
