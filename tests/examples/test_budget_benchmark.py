"""The budget of a step: every phase is measured, with its own kernels. No test asserts on a time."""

import pytest

from examples.benchmarks import budget


@pytest.mark.parametrize("name", budget.NETS)
def test_kernels_of_the_phases_are_those_of_the_step(name: str):
    """Forward, loss, backward, statistics and optimizer together call exactly the kernels of the step."""
    counts = {phase: sorted([str(kernel) for kernel, _, _ in budget.kernels(f)]) for phase, f in budget.phases(name).items()}
    together = counts["forward, loss, backward"] + counts["statistics"] + counts["optimizer"]
    assert counts["step"] == sorted(together)
    assert set(counts["forward"]) | set(counts["backward"]) <= set(counts["step"])


def test_table_has_a_row_for_each_phase(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The command prints kernels, plans, checks and Python overhead, the difference of the first two."""
    monkeypatch.setattr(budget, "CALLS", 2)
    budget.main(["disk_mlp", "--rounds", "1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert head == ["disk_mlp, µs", "kernels", "by plan", "with checks", "Python by plan"]
    assert [row[0] for row in rows] == [*budget.phases("disk_mlp"), "memory, caches, the step's own Python"]
    for row in rows:
        kernels, plan, _, python = map(float, row[1:])
        assert python == pytest.approx(plan - kernels, abs=0.11)
