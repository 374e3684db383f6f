"""The benchmark: both frameworks take the same steps, and the page has the measurements. No test asserts on a time."""

import functools
import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pages import cells, is_quotient

import funcnet as fn
from examples.benchmarks import faults, goals, measure, memory, report, worker
from examples.benchmarks.peers import funcnet, torch_nn
from examples.benchmarks.workloads import WORKLOADS, Contender

benchmarks = importlib.import_module("examples.benchmarks.__main__")

ROOT = Path(__file__).parents[2]
SINGLE = [name for name, workload in WORKLOADS.items() if workload.members == 1]


def steps_of(training, weights):
    """Take three steps; return the loss of each, the number of weights, and the weights by name."""
    losses = []
    for _ in range(3):
        training.run(1)
        losses.append(training.value() or 0.0)  # an optimizer by itself has no loss
    return losses, training.size, weights()


def assert_same_steps(ours, theirs):
    """Compare two results of ``steps_of``."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-9)
    assert ours[1] == theirs[1]
    for name, leaf in ours[2].items():
        torch.testing.assert_close(leaf, theirs[2][name], rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def by_funcnet(name, donated):
    """Return a training of funcnet in float64, and a function that returns its weights by name."""
    training = funcnet.FuncnetTraining(WORKLOADS[name], "eager", donated, torch.float64)
    return training, lambda: fn.tree.names(training.params)


@functools.lru_cache(maxsize=1)
def steps_of_torch_nn(name):
    """Take steps once for both forms of funcnet, from funcnet's weights."""
    training = torch_nn.TorchTraining(WORKLOADS[name], "eager", "default", torch.float64)
    training.module.load_state_dict(fn.tree.map(torch.clone, by_funcnet(name, False)[1]()))
    return steps_of(training, training.module.state_dict)


@pytest.mark.parametrize("donated", [False, True])
@pytest.mark.parametrize("name", SINGLE)
def test_the_twin_takes_the_same_steps(name, donated):
    """From the same weights, losses and weights of funcnet and torch.nn agree in float64 for three steps."""
    assert_same_steps(steps_of(*by_funcnet(name, donated)), steps_of_torch_nn(name))


def assert_rows_of_faults(text):
    """Check that each contender has a line with ms, page faults and peak MB, by default and with freed memory retained."""
    _, *lines = text.splitlines()
    assert [line[:40].strip() for line in lines] == [f"lstm, {peer}" for peer in faults.PEERS]
    for line in lines:
        found = re.findall(r"([0-9.]+) \((\d+); (\d+)\)", line[40:])
        assert len(found) == 2
        assert all(float(ms) > 0 and int(peak) > 0 for ms, _, peak in found)


@pytest.mark.parametrize("name", [*memory.NETS, *memory.SCANS])
def test_the_memory_of_a_net_is_measured(name):
    """Cache, peak and time of a small net are measured; recomputation keeps less than it recomputes."""
    kept, peak, ms = memory.measure(name, 9, 4, 8)
    assert peak >= 0
    assert ms > 0
    plain = {"remat in √n segments": "serial", "repeat of remat": "repeat", "scan, checkpoint_every=√T": "scan"}
    plain |= {"reversible": "serial", "repeat of reversible": "repeat"}
    assert kept > 0
    assert name not in plain or 3 * kept < memory.measure(plain[name], 9, 4, 8)[0]


def test_the_page_of_memory_has_a_row_for_each_net_and_length(capsys, monkeypatch, tmp_path):
    """The tables are printed, and are on the page below its head."""
    monkeypatch.setattr(memory, "_in_a_process", lambda job: (2e6, 3e6, 4.0))
    memory.main(["--page", str(tmp_path / "page.md"), "--size", "4", "--rows", "8"])
    printed = capsys.readouterr().out
    assert printed.count("| 2.0 | 3 | 4 |") == 2 * len(memory.NETS) + 2 * len(memory.SCANS)
    assert printed.count("| 3 | 3 | 4 | 4 |") == len(memory.STEPPED) * len(memory.OPTIMIZERS)
    page = (tmp_path / "page.md").read_text()
    assert page.endswith(printed)
    assert "Linear(4, 16)" in page


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("optimizer", memory.OPTIMIZERS)
@pytest.mark.parametrize("name", memory.STEPPED)
def test_the_memory_of_a_step_is_measured(name, optimizer, in_backward):
    """Params, peak and time of a small net are measured."""
    size, peak, ms = memory.measure_steps(name, optimizer, in_backward, 3, 16, 4)
    assert size == 4 * 3 * 16 * 17
    assert peak >= 0
    assert ms > 0


def memory_rows():
    """Return the rows of the committed page of memory, as lists of words, by net and n or optimizer."""
    lines = (ROOT / "examples" / "benchmarks" / "results" / "MEMORY.md").read_text().splitlines()
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {(name, n): numbers for name, n, *numbers in rows if n not in ("n", "optimizer")}


def test_the_committed_memory_is_what_depth_and_length_promise():
    """Reversible caches are constant, recomputed ones grow as the root, and updates in the backward pass save 67 MB."""
    rows = memory_rows()
    cache = lambda name, n: float(rows[name, str(n)][0])
    for name in ("reversible", "repeat of reversible"):
        assert cache(name, 128) == pytest.approx(cache(name, 32), rel=0.05)
    assert cache("remat in √n segments", 128) < 3 * cache("remat in √n segments", 32)
    assert cache("scan, checkpoint_every=√T", 256) < 3 * cache("scan, checkpoint_every=√T", 64)
    for name in memory.STEPPED:
        for optimizer in ("SGD, donated", "Adam, donated"):
            plain, layerwise = map(float, rows[name, optimizer][:2])
            assert plain - layerwise > 50


def test_the_figures_of_memory_in_the_docs_are_those_of_the_page():
    """Peaks of 128 blocks, and of a step with Adam."""
    rows, text = memory_rows(), " ".join((ROOT / "docs" / "performance.md").read_text().split())
    blocks = f"a net of 128 blocks peaks at {rows['remat in √n segments', '128'][1]} MB instead of {rows['serial', '128'][1]}"
    plain, layerwise = rows["serial", "Adam, donated"][:2]
    assert blocks in text
    assert f"{layerwise} MB instead of {plain}" in text


def test_page_faults_are_a_line_of_each_contender(capsys, monkeypatch):
    """Each combination of framework and memory setting is measured once, and the results are printed as a table."""
    jobs = []
    monkeypatch.setattr(faults, "_in_a_process", lambda *job: jobs.append(job) or (1.5, 20.0, 90.0))
    faults.main(["lstm", "--steps", "1"])
    assert_rows_of_faults(capsys.readouterr().out)
    assert jobs == [(["lstm", peer], 1, more) for peer in faults.PEERS for more in (faults.AS_IT_COMES, {})]


@pytest.mark.parametrize("peer", faults.PEERS)
def test_page_faults_are_counted(peer):
    """A step in this process has a time and a peak above 0, and a number of faults."""
    ms, count, peak = faults.measure("lstm", peer, 1)
    assert min(ms, peak) > 0
    assert count >= 0


@pytest.mark.long
def test_page_faults_are_counted_in_a_process_each(capsys):
    """Six processes import torch for one step each."""
    faults.main(["lstm", "--steps", "1"])
    assert_rows_of_faults(capsys.readouterr().out)


def test_the_ensemble_takes_the_same_steps():
    """All twenty members are compared with vmap of grad."""
    ours, weights = by_funcnet("ensemble20", True)
    theirs = torch_nn.EnsembleTraining(WORKLOADS["ensemble20"], "eager", torch.float64)
    theirs.params = fn.tree.map(torch.clone, weights())
    assert_same_steps(steps_of(ours, weights), steps_of(theirs, lambda: theirs.params))


@pytest.mark.parametrize(("name", "count"), [("disk_mlp", 100 * 2 * 1350), ("bigmlp", 256 * 2 * (784 * 1024 + 1024 * 1034))])
def test_flops_are_those_of_the_products(name, count):
    """There are three products a layer, two for the first, whose input needs no gradient."""
    first = {"disk_mlp": 100 * 2 * 50, "bigmlp": 256 * 2 * 784 * 1024}[name]
    assert torch_nn.flops(WORKLOADS[name]) == 3 * count - first


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Measure two workloads briefly."""
    folder = tmp_path_factory.mktemp("out")
    small = ["--peers", "nn,thinc", "--funcnet", "eager", "--rounds", "2", "--turn", "0.002", "--no-memory"]
    where = ["--json", str(folder / "all.json"), "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "examples.benchmarks", "disk_mlp", "ensemble20", *small, *where],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, out=done.stdout, results=json.loads((folder / "all.json").read_text()))


def test_the_page_holds_the_numbers_measured(run):
    """Medians in the table match the JSON file, and quotients use the best median of each family."""
    assert run.out.strip() == (run.folder / "BENCHMARKS.md").read_text().strip()
    for result in run.results["results"]:
        section = report.section(result)
        assert section in run.out
        ours, theirs = (min(m for m in medians(section, name)) for name in ("funcnet eager", "torch.nn eager"))
        for row in result["rows"]:
            (found,) = cells(section, row["label"]) + cells(section, row["label"] + " *")
            assert float(found[2]) == pytest.approx(row["median"], rel=1e-3)
            assert is_quotient(found[4], found[2], ours[1])
            assert is_quotient(found[5], found[2], theirs[1])


def medians(section, family):
    """Return the medians of a family, as numbers and as text."""
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith(f"| {family}")]
    return [(float(row[2]), row[2]) for row in rows]


def test_every_contender_of_the_requested_peers_is_measured(run):
    """The rows are funcnet plain and donated, torch.nn with each implementation of its optimizer, and vmap for the ensemble."""
    labels = {result["workload"]: [row["label"] for row in result["rows"]] for result in run.results["results"]}
    ours = ["funcnet eager", "funcnet eager, donated"]
    assert labels["disk_mlp"] == ours + [f"torch.nn eager, {kind}" for kind in ("default", "foreach", "fused")]
    assert labels["ensemble20"] == [*ours, "torch.nn eager, vmap of grad"]


def test_the_page_has_all_measurements(run):
    """The page has versions, processor, FLOPs, the best product, every time, similar losses, and a chart."""
    assert run.results["versions"]["torch"] == version("torch")  # torch.__version__ may have a build tag, such as +cu130
    assert run.results["processor"] in run.out
    for result in run.results["results"]:
        assert result["flops"] > 0
        assert max(result["gemm"].values()) > 0
        assert all(len(row["times"]) == 2 and 0.1 < row["loss"] < 0.5 for row in result["rows"])
    assert (run.folder / "chart_1.png").read_bytes().startswith(b"\x89PNG")


def result_of(**medians):
    """Return the result of bigmlp with a row for each label."""
    rows = [row(name.split(",")[0], median, name) for name, median in medians.items()]
    return {"workload": "bigmlp", "threads": 1, "cores": 1, "rows": rows, "flops": 3_000_000, "gemm": {"mm": 100.0}}


MEDIANS = {"funcnet eager": 60.0, "funcnet eager, donated": 50.0, "torch.nn eager": 60.0, "funcnet compiled": 30, "JAX jit": 40}


@pytest.mark.parametrize(
    ("maker", "before", "goal"),
    [
        ("intel", 58.0, ["0.833", "0.862", "≤ 0.85", "yes"]),
        ("amd", 58.0, ["0.833", "0.862", "as before", "yes"]),
        ("amd", 70.0, ["0.833", "0.714", "as before", "no"]),
        ("amd", None, ["0.833", "—", "as before", "—"]),
    ],
)
def test_goals_are_judged(maker, before, goal):
    """Goals depend on the maker, and may be the previous figures; unmeasured goals are left out."""
    earlier = [result_of(**{"funcnet eager": 50.0, "torch.nn eager": before})] if before else []
    found = {row[2]: row[3:] for row in cells(report.owed([result_of(**MEDIANS)], maker, earlier), "bigmlp")}
    assert found == {
        "time of funcnet eager ÷ torch.nn eager": goal,
        "time of funcnet compiled ÷ JAX jit": ["0.750", "—", "≤ 0.7", "no"],
        "share of GEMM peak": ["0.600", "—", {"intel": "≥ 0.8", "amd": "≥ 0.75"}[maker], "no"],
    }


def test_pure_steps_have_a_goal():
    """The best row of the family is the donated one; the pure one has a separate goal."""
    result = result_of(**MEDIANS)
    assert report.quotient(result, "funcnet eager, pure", "torch.nn eager") == 1.0
    assert report.quotient(result, "funcnet eager", "torch.nn eager") == pytest.approx(50 / 60)


def test_goals_name_workloads_and_families():
    """Each goal is of an existing workload, between contenders of known families."""
    for goal in goals.GOALS:
        assert goal.workload in WORKLOADS
        assert {goal.ours.split(",")[0], goal.theirs.split(",")[0]} <= set(report.FAMILIES)


def test_figures_of_the_round_before_are_read_from_pages(run):
    """A parsed page has the medians of the run; the committed file has rows for one and two threads."""
    found = [*goals.read_page(run.out)]
    assert [one["workload"] for one in found] == ["disk_mlp", "ensemble20"]
    for one, measured in zip(found, run.results["results"], strict=True):
        assert [row["label"] for row in one["rows"]] == [row["label"] for row in measured["rows"]]
        for mine, its in zip(one["rows"], measured["rows"], strict=True):
            assert mine["median"] == pytest.approx(its["median"], rel=1e-3)
            assert mine["family"] == its["family"]
    kept = {(one["workload"], one["threads"]) for one in goals.before()}
    assert {(name, threads) for name in WORKLOADS for threads in (1, 2)} - kept <= {("deep", 2)}


def test_the_quick_form_has_fewer_rounds_and_peers():
    """``--quick`` is the same command with other defaults."""
    options = benchmarks.options_of(["disk_mlp", "--quick", "--threads", "1,2"])
    assert (options.peers, options.rounds, options.memory, options.threads) == (["nn", "jax"], 6, False, [1, 2])
    options = benchmarks.options_of(["--quick", "--memory", "--rounds", "9", "--peers", "thinc"])
    assert (options.peers, options.rounds, options.turn, options.memory) == (["thinc"], 9, 0.05, True)
    options = benchmarks.options_of([])
    assert (len(options.peers), options.rounds, options.turn, options.memory) == (4, 30, 0.1, True)


def row(family, median, label):
    return {"label": label, "family": family, "median": median}


def test_turns_are_taken_one_after_the_other():
    """Each contender has one turn a round with its own number of calls, and its times are per step."""
    calls = []
    kinds = (("a", 1, 3), ("b", 10, 2))
    ready = [measure.Ready(Contender(name, name, None, steps), training(name, calls), 0.5, n) for name, steps, n in kinds]
    a, b = measure.rounds(ready, 3)
    assert calls == [("a", 3), ("b", 2)] * 3
    assert (a["steps in a turn"], b["steps in a turn"]) == (3, 20)
    assert a["low"] <= a["median"] == sorted(a["times"])[1] <= a["high"]


def training(name, calls, loss=0.5):
    return SimpleNamespace(run=lambda count: calls.append((name, count)), size=1, value=lambda: loss)


def test_a_contender_that_cannot_run_is_a_note():
    """The others are still measured."""

    def broken():
        raise RuntimeError("no compiler\nand more")

    ready, notes = measure.prepared([Contender("x", "x", broken), Contender("y", "y", lambda: training("y", []))], 1e-6)
    assert [one.contender.label for one in ready] == ["y"]
    assert notes == ["x is left out: RuntimeError: no compiler"]


@pytest.mark.parametrize(("loss", "said"), [(0.6, "is 0.6000, that of x a 0.5000"), (float("nan"), "is nan")])
def test_a_contender_that_computes_something_else_is_a_note(loss, said):
    """Contenders of a framework share weights and therefore the loss after ten steps; otherwise the time means nothing."""
    made = {"x a": 0.5, "y b": 0.7, "x c": loss}
    contenders = [Contender(name, name, lambda name=name: training(name, [], made[name])) for name in made]
    ready, notes = measure.prepared(contenders, 1e-6)
    assert [one.contender.label for one in ready] == ["x a", "y b"]
    assert notes == [f"x c is left out: ValueError: after ten steps its loss {said}"]


def test_a_peer_that_is_missing_is_a_note(monkeypatch):
    """All other requested peers are measured."""
    monkeypatch.setitem(sys.modules, "jax", None)
    found, notes = worker.gathered({"workload": "lenet", "funcnet": ["eager"], "peers": ["jax", "nn"]})
    assert len(found) == 5
    assert len(notes) == 1
    assert notes[0].startswith("jax is left out: ")


def test_peak_memory_sees_what_a_step_holds():
    """40 MB that are written to and freed within a step are in the peak."""
    contender = Contender("x", "x", lambda: SimpleNamespace(run=lambda calls: torch.ones(10_000_000).sum()))
    assert 35 < measure.memory(contender) < 80


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["disk_mpl"], "unknown workload 'disk_mpl'; choose from disk_mlp, mlp_adam"),
        (["--peers", "nn,jaxx"], "unknown peer 'jaxx'; choose from nn, nn-compile, jax, thinc"),
        (["--funcnet", "fast"], "unknown way 'fast'; choose from eager, compiled, scan"),
        (["--threads", "0"], "must be a whole number of at least 1, got 0"),
        (["--rounds", "x"], "must be a whole number of at least 1, got x"),
    ],
)
def test_what_does_not_exist_is_refused(arguments, problem, capsys):
    """The error lists the existing names."""
    with pytest.raises(SystemExit):
        benchmarks.main(arguments)
    assert problem in capsys.readouterr().err
