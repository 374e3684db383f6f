"""The growth of cost with size, and import time: output of the commands, exponents and pages. No test asserts on a time."""

import json

import pytest
from pages import cells

from examples.benchmarks import growth, growth_exponents, growth_jobs, growth_nets, growth_plots, import_time

SMALL = {"width": 4, "depth": 2, "batch": 1, "attention": 3, "lstm": 3, "cells": 3}


def power(exponent, *sizes, factor=1.0):
    """Return the points of a power law."""
    return {str(n): factor * n**exponent for n in sizes}


@pytest.mark.parametrize("axis", growth_nets.AXES)
@pytest.mark.parametrize("name", ["funcnet eager", "funcnet donated", "torch.nn eager", "JAX donated"])
def test_each_training_takes_steps(name, axis):
    """Each training takes two steps at a small size."""
    step = growth_nets.contenders()[name](axis, SMALL[axis])
    assert step() is None
    assert step() is None


@pytest.mark.parametrize("axis", growth_nets.AXES)
def test_nets_have_the_same_parameters_and_outputs(axis):
    """y of funcnet's net has the shape of the batch's target."""
    n = SMALL[axis]
    x, target = growth_nets.batch(axis, n)
    if axis == "cells":
        x = x, (x.new_zeros(growth_nets.ROWS, growth_nets.WIDTH),) * 2
    for loop in (False, True):
        net = growth_nets._net(axis, n, loop=loop)
        assert net(net.init(0), x).shape == target.shape


def law(exponent, constant=0.0, sizes=(4, 16, 64), factor=1.0):
    """Return the points of a constant and a power."""
    return {n: constant + y for n, y in power(exponent, *sizes, factor=factor).items()}


@pytest.mark.parametrize("constant", [0.0, 1000.0])
def test_an_exponent_does_not_depend_on_a_constant_cost(constant):
    """Sizes grow by the same factor; falling costs and two sizes give no exponent."""
    points = law(1.5, constant)
    assert growth_exponents.exponent(points, ["4", "16", "64"]) == pytest.approx(1.5)
    assert growth_exponents.exponent(points, ["4", "16"]) is None
    assert growth_exponents.exponent({**points, "16": points["64"]}, ["4", "16", "64"]) is None


def test_the_upper_end_has_the_largest_sizes_of_both_lines():
    """There are three, unless they grow unevenly."""
    longer = law(1.0, sizes=(1, 4, 16, 64))
    assert growth_exponents.upper_end(longer, law(1.0, sizes=(1, 4, 16))) == ["1", "4", "16"]
    assert growth_exponents.upper_end(longer, longer) == ["4", "16", "64"]
    assert growth_exponents.upper_end(law(1.0, sizes=(1, 4, 32))) == ["4", "32"]


@pytest.mark.parametrize(
    ("ours", "said", "noise"), [((1.4, 1.3), "above", 0.1), ((1.3, 1.15), "not above", 0.15), ((0.5, 0.6), "not above", 0.1)]
)
def test_an_exponent_is_above_if_it_is_in_whichever_runs(ours, said, noise):
    """The other's is 1.0 in one run and 1.12 in the next."""
    runs = {
        f"time, run {i}": {"a": law(one), "b": law(other)}
        for i, (one, other) in enumerate(zip(ours, (1.0, 1.12), strict=True), 1)
    }
    found = growth_exponents.compare({"time": {"a": law(1.0, factor=3.0), "b": law(1.0)}, **runs}, "time", "a", "b")
    assert (found.verdict, found.noise) == (said, pytest.approx(max(noise, 0.12)))
    assert found.ratios == pytest.approx({"4": 3.0, "16": 3.0, "64": 3.0})


def test_the_largest_ratio_leaves_small_memory_out():
    """Sizes at which both take less than the minimum are left out; a pair without points has no row."""
    lines = {"a": {"4": 3.0, "16": 20.0, "64": 30.0}, "b": {"4": 1.0, "16": 5.0, "64": 10.0}}
    found = growth_exponents.compare({"memory": lines}, "memory", "a", "b")
    assert (found.ratios, found.worst) == ({"16": 4.0, "64": 3.0}, "16")
    assert growth_exponents.compare({"memory": lines}, "memory", "a", "c") is None


@pytest.mark.parametrize(("low", "high"), [(0.02, 500_000.0), (3.0, 40.0), (90.0, 110.0)])
def test_an_axis_has_few_ticks(low, high):
    """An axis has one to seven ticks."""
    assert 1 <= len(growth_plots.y_ticks(low, high)) <= 7


def test_the_least_of_two_runs_counts():
    """Only points of both runs count."""
    one, other = {"a": power(1.0, 4, 16), "b": power(1.0, 4)}, {"a": power(1.0, 4, factor=0.5)}
    assert growth.least([one, other]) == {"a": {"4": 2.0}}


def test_a_line_is_foreseen():
    """The line continues with the slope of its last two points, at least linearly; one point gives no prediction."""
    assert growth_jobs._foreseen(power(2.0, 4, 16), 64) == pytest.approx(64.0**2)
    assert growth_jobs._foreseen(power(0.0, 4, 16, factor=5.0), 64) == pytest.approx(20.0)
    assert growth_jobs._foreseen(power(2.0, 4), 16) == 0.0


def test_the_page_has_exponents_plots_and_points(tmp_path):
    """The points come from one run, and from another run for another contender."""
    lines = {"funcnet eager": power(2.0, 16, 64, 256, factor=8.0), "torch.nn eager": power(1.0, 16, 64, 256, factor=8.0)}
    first = growth.merged({}, {"width": {"time": lines, "memory": {}}})
    both = growth.merged(
        first, {"width": {"time": {"JAX jit": power(1.0, 16)}, "memory": {}}, "lstm": {"time": {}, "memory": {}}}
    )
    assert list(both["width"]["time"]) == ["funcnet eager", "torch.nn eager", "JAX jit"]
    assert list(both) == ["width", "lstm"]
    (tmp_path / "points.json").write_text(json.dumps({"head": "# H", "results": {"width": both["width"]}, "notes": ["a note"]}))
    growth.main(["--redraw", "--out", str(tmp_path)])
    text = (tmp_path / "GROWTH.md").read_text()
    ratios = ["256.00 at 256", "256.00 at 256"]
    assert cells(text, "width") == [
        ["width", "time", "funcnet eager", "torch.nn eager", "16-256", "2.00", "1.00", "—", "above", *ratios],
        ["width", "time", "funcnet eager", "JAX jit", "—", "—", "—", "—", "—", "128.00 at 16", "128.00 at 16"],
    ]
    assert "1 of 1 exponents are above theirs: time by width (funcnet eager beside torch.nn eager)." in text
    assert "- a note" in text
    assert (tmp_path / "width.png").read_bytes().startswith(b"\x89PNG")


def answers(stop_at):
    """Return a replacement of ``perform`` that the user interrupts at a job."""
    jobs = []

    def perform(job, cached):
        jobs.append(job)
        if len(jobs) == stop_at:
            raise KeyboardInterrupt
        points = power(1.0, 16, 64, 256, factor=len(jobs))
        if job[0] == "memory":
            return {"runs": [points, points], "notes": []}
        return {"points": dict.fromkeys(job[2], points), "notes": []}

    return perform


@pytest.mark.parametrize(("stop_at", "having"), [(2, ["memory"]), (4, ["time", "memory"])])
def test_what_was_measured_is_kept_when_the_user_stops(stop_at, having, tmp_path, monkeypatch):
    """The page is written from it, with the given command."""
    monkeypatch.setattr(growth, "perform", answers(stop_at))
    given = ["width", "--contenders", "funcnet eager,JAX jit", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"Stopped by Ctrl-C; the points of the processes that had ended are in"):
        growth.main(given)
    found = json.loads((tmp_path / "points.json").read_text())["results"]["width"]
    assert [what for what in ("time", "memory") if found[what]] == having
    text = (tmp_path / "GROWTH.md").read_text()
    assert f"`python -m examples.benchmarks.growth width --contenders 'funcnet eager,JAX jit' --out {tmp_path}`" in text


def test_a_run_measures_memory_and_times_twice(tmp_path, monkeypatch, capsys):
    """The lower of two runs counts, and the page compares both."""
    monkeypatch.setattr(growth, "perform", answers(0))
    growth.main(["lstm", "--contenders", "funcnet eager,JAX jit", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "points.json").read_text())["results"]["lstm"]
    assert found["time"]["JAX jit"] == power(1.0, 16, 64, 256, factor=3)
    assert found["time, run 2"]["JAX jit"] == power(1.0, 16, 64, 256, factor=4)
    assert "lstm: funcnet eager 3 points, JAX jit 3 points" in capsys.readouterr().out


def test_times_of_imports_are_compared_with_those_of_torch(capsys, monkeypatch, tmp_path):
    """The table has medians and minima over the rounds after the first."""
    times = iter([9.0] * len(import_time.CODE) + [float(i) for i in range(len(import_time.CODE))] * 2)
    monkeypatch.setattr(import_time, "milliseconds", lambda program, cached: next(times))
    import_time.main(["--rounds", "2", "--page", str(tmp_path / "page.md")])
    assert cells(capsys.readouterr().out, "funcnet") == [["funcnet", "2", "2", "2", "2"]]
    assert "| funcnet | 2 |" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_no_rounds_are_refused(rounds, capsys):
    """No process is started."""
    with pytest.raises(SystemExit):
        import_time.main(["--rounds", rounds])
    assert f"argument --rounds: must be a whole number of at least 1, got {rounds}" in capsys.readouterr().err


def test_the_time_of_a_program_is_that_of_its_process(tmp_path):
    """A process that works takes longer than one that does nothing."""
    assert import_time.milliseconds("sum(range(10**6))", str(tmp_path)) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["foo"], "unknown axis 'foo'; choose from width, depth"),
        (["--contenders", "foo"], "unknown contender 'foo'; choose from funcnet eager, funcnet donated"),
        (["--redraw"], "--redraw needs the points of a run"),
    ],
)
def test_bad_arguments_of_growth_are_refused(arguments, said, capsys, tmp_path):
    """The error precedes any measurement or file."""
    with pytest.raises(SystemExit):
        growth.main([*arguments, "--out", str(tmp_path / "new")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
