"""How cost grows by size, and import time: the commands' lines, exponents and pages. No time is judged here."""

import json

import pytest
from pages import cells

from examples.benchmarks import growth, growth_nets, growth_page, import_time

SMALL = {"width": 4, "depth": 2, "batch": 1, "attention": 3, "lstm": 3, "cells": 3}


def power(exponent, *sizes, factor=1.0):
    """Return the points of a power law."""
    return {str(n): factor * n**exponent for n in sizes}


@pytest.mark.parametrize("axis", growth_nets.AXES)
@pytest.mark.parametrize("name", ["funcnet eager", "torch.nn eager"])
def test_each_training_takes_steps(name, axis):
    """Twice, at a small size."""
    step = growth_nets.contenders()[name](axis, SMALL[axis])
    assert step() is None
    assert step() is None


@pytest.mark.parametrize("axis", growth_nets.AXES)
def test_nets_have_the_same_parameters_and_outputs(axis):
    """funcnet's net has the shape of y that the batch's target has."""
    n = SMALL[axis]
    x, target = growth_nets.batch(axis, n)
    if axis == "cells":
        x = x, (x.new_zeros(growth_nets.ROWS, growth_nets.WIDTH),) * 2
    for loop in (False, True):
        net = growth_nets._net(axis, n, loop=loop)
        assert net(net.init(0), x).shape == target.shape


def test_the_slope_of_a_power_law_is_its_exponent():
    """Over all points, and over those above a least value; of one point there is none."""
    assert growth_page.slope(power(1.5, 16, 64, 256)) == pytest.approx(1.5)
    assert growth_page.slope({"1": 0.001, **power(2.0, 4, 16)}, least=1.0) == pytest.approx(2.0)
    assert growth_page.slope(power(1.0, 4)) is None


def test_last_slopes_are_those_between_shared_sizes():
    """A longer line is compared where the other has points too."""
    longer = {**power(1.0, 1, 4, 16), "64": 10_000.0}
    assert growth_page.last_slopes(longer, power(2.0, 1, 4, 16)) == (pytest.approx(1.0), pytest.approx(2.0))
    assert growth_page.last_slopes(longer, power(2.0, 1)) == (None, None)


@pytest.mark.parametrize(
    ("ours", "said"), [((1.3, 1.2), "above"), ((1.3, 1.0), "not above"), ((0.5, 0.6), "not above"), ((), "—")]
)
def test_an_exponent_is_above_if_it_is_in_each_run(ours, said):
    """One that is above in only one run is noise."""
    runs = {
        f"time, run {i}": {"funcnet eager": power(slope, 4, 16), "torch.nn eager": power(1.0, 4, 16)}
        for i, slope in enumerate(ours, 1)
    }
    found = growth_page.differences({"time": {}, **runs}, "time", "funcnet eager", "torch.nn eager")
    assert found == pytest.approx([slope - 1.0 for slope in ours])
    assert growth_page.verdict(found) == said


def test_the_least_of_two_runs_counts():
    """Only points that both runs have."""
    one, other = {"a": power(1.0, 4, 16), "b": power(1.0, 4)}, {"a": power(1.0, 4, factor=0.5)}
    assert growth.least([one, other]) == {"a": {"4": 2.0}}


def test_a_line_is_foreseen():
    """It goes on as steep as between its last two points, at least linearly; nothing is foreseen from one."""
    assert growth._foreseen(power(2.0, 4, 16), 64) == pytest.approx(64.0**2)
    assert growth._foreseen(power(0.0, 4, 16, factor=5.0), 64) == pytest.approx(20.0)
    assert growth._foreseen(power(2.0, 4), 16) == 0.0


def test_the_page_has_exponents_plots_and_points(tmp_path):
    """From the points of a run, and of another one for another contender."""
    lines = {"funcnet eager": power(2.0, 16, 64, 256, factor=8.0), "torch.nn eager": power(1.0, 16, 64, factor=8.0)}
    first = growth.merged({}, {"width": {"time": lines, "memory": {}}})
    both = growth.merged(
        first, {"width": {"time": {"JAX jit": power(1.0, 16)}, "memory": {}}, "lstm": {"time": {}, "memory": {}}}
    )
    assert list(both["width"]["time"]) == ["funcnet eager", "torch.nn eager", "JAX jit"]
    assert list(both) == ["width", "lstm"]
    (tmp_path / "points.json").write_text(json.dumps({"head": "# H", "results": {"width": both["width"]}, "notes": ["a note"]}))
    growth.main(["--redraw", "--out", str(tmp_path)])
    text = (tmp_path / "GROWTH.md").read_text()
    assert cells(text, "width") == [
        ["width", "time", "funcnet eager, torch.nn eager", "2.00", "1.00", "2.00", "1.00", "64.00 at 64", "—", "above"],
        ["width", "time", "funcnet eager, JAX jit", "—", "—", "2.00", "—", "128.00 at 16", "—", "—"],
    ]
    assert "- a note" in text
    assert (tmp_path / "width.png").read_bytes().startswith(b"\x89PNG")


def test_times_of_imports_are_compared_with_those_of_torch(capsys, monkeypatch, tmp_path):
    """Medians and the least of the rounds after the first."""
    times = iter([9.0] * len(import_time.CODE) + [float(i) for i in range(len(import_time.CODE))] * 2)
    monkeypatch.setattr(import_time, "milliseconds", lambda program, cached: next(times))
    import_time.main(["--rounds", "2", "--page", str(tmp_path / "page.md")])
    assert cells(capsys.readouterr().out, "funcnet") == [["funcnet", "2", "2", "2", "2"]]
    assert "| funcnet | 2 |" in (tmp_path / "page.md").read_text()


def test_the_time_of_a_program_is_that_of_its_process(tmp_path):
    """A process that works for a while takes longer than nothing."""
    assert import_time.milliseconds("sum(range(10**6))", str(tmp_path)) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["foo"], "unknown axis 'foo'; there are width, depth"), (["--redraw"], "--redraw needs the points of a run")],
)
def test_bad_arguments_of_growth_are_refused(arguments, said, capsys, tmp_path):
    """Before anything is measured or written."""
    with pytest.raises(SystemExit):
        growth.main([*arguments, "--out", str(tmp_path / "new")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
