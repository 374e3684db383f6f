"""Benchmark commands with separate pages: compile time by depth, bfloat16, and the deep net's two forms."""

import pytest
import torch
from pages import cells

from examples.benchmarks import compile_time, half_precision
from examples.benchmarks.peers import funcnet, torch_nn
from examples.benchmarks.workloads import WORKLOADS


@pytest.fixture
def threads():
    """Restore the number of threads, which a command sets to 1."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_page_of_compile_time_has_the_slope(capsys, monkeypatch, tmp_path):
    """Each net and depth has a row; the slope is the difference in seconds per block between two rows of a net."""
    monkeypatch.setattr(compile_time, "_in_a_process", lambda job: (1.0 + 0.5 * job[1], 2.0, 3.0))
    compile_time.main(["--page", str(tmp_path / "page.md"), "--size", "4"])
    printed = capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert page.endswith(printed)
    assert "Linear(4, 16)" in page
    for name, depths in compile_time.NETS.items():
        rows = cells(printed, name)
        assert [int(row[1]) for row in rows] == [*depths]
        assert [row[5] for row in rows] == ["", *["0.50"] * (len(depths) - 1)]


@pytest.mark.compiled
@pytest.mark.parametrize("name", compile_time.NETS)
def test_the_time_to_compile_is_measured(name, threads):
    """A small net is measured in this process."""
    own, compiler, ms = compile_time.measure(name, 1, 4, 2)
    assert own > 0
    assert compiler >= 0
    assert ms > 0


@pytest.mark.parametrize("name", half_precision.NAMES)
def test_a_step_in_bfloat16_is_near_that_in_float32(name):
    """The losses of the first step of both frameworks are compared."""
    for make in (half_precision.ours, half_precision.theirs):
        single, half = (float(make(name, dtype, False)()) for dtype in (torch.float32, torch.bfloat16))
        assert half != single
        assert half == pytest.approx(single, rel=0.02)


def test_the_page_of_bfloat16_has_a_row_for_each_contender(capsys, tmp_path, threads):
    """The table is printed, and is on the page below its head."""
    half_precision.main(["bigmlp", "--rounds", "1", "--no-compiled", "--page", str(tmp_path / "page.md")])
    printed = capsys.readouterr().out
    rows = cells(printed, "bigmlp")
    assert [row[1] for row in rows] == [
        f"{peer} eager, {word}" for peer in ("funcnet", "torch.nn") for word in ("float32", "bfloat16")
    ]
    assert (rows[0][3], rows[3][4]) == ("1.00", "1.00")
    assert (tmp_path / "page.md").read_text().endswith(printed)


def test_the_loop_of_blocks_takes_the_steps_of_the_blocks_written_out():
    """The losses agree bit for bit, from the same params, stacked."""
    losses = []
    for loop in (False, True):
        training = funcnet.FuncnetTraining(WORKLOADS["deep"], loop=loop)
        training.run(2)
        losses.append(training.value())
    assert losses[0] == losses[1]


def test_the_deep_net_is_compiled_as_a_loop_only():
    """A hundred separate blocks take minutes to compile, in torch.nn too."""
    ours = [one.label for one in funcnet.contenders(WORKLOADS["deep"], ("eager", "compiled"))]
    names = ("eager", "eager, repeat", "compiled, repeat")
    assert ours == [f"funcnet {name}{donated}" for name in names for donated in ("", ", donated")]
    theirs = {one.family for one in torch_nn.contenders(WORKLOADS["deep"])}
    assert theirs == {"torch.nn eager"}
