"""The benchmark of a device, on the CPU with little time: sections, failures and the page. No test asserts on a time."""

import importlib
import json
import signal
from types import SimpleNamespace

import pytest
import torch

import funcnet as fn
from examples.benchmarks import device_checks, device_steps
from examples.benchmarks.device_steps import Way
from examples.benchmarks.device_time import Budget, limited
from examples.benchmarks.workloads import WORKLOADS, Contender

device = importlib.import_module("examples.benchmarks.device")
CPU = torch.device("cpu")


def test_the_page_holds_every_section(tmp_path, capsys):
    """Without time, only the first contender of a workload is measured, and the printed page names those left out."""
    device.main(f"--device cpu --minutes 0.001 --workloads disk_mlp --rounds 2 --turn 0.001 --cases 1 --out {tmp_path}".split())
    text, found = (tmp_path / "DEVICE.md").read_text(), json.loads((tmp_path / "device.json").read_text())
    assert capsys.readouterr().out.strip() == text.strip()
    assert found["keys"] == []
    assert [row["label"] for row in found["steps"][0]["rows"]] == ["funcnet eager, float32"]
    assert "torch.nn eager, fused, float32 is left out: no time was left" in text
    assert "All draws have the same bits as in main memory" in text
    assert "the time was up after 0 of 1 cases" in text


def failing(*_):
    raise RuntimeError("out of memory\nand more")


def stopped(*_):
    raise KeyboardInterrupt


def test_a_failure_is_a_line(tmp_path, monkeypatch):
    """An error of a section or a contender is on the page; later contenders and sections follow."""
    for module, name in ((device_steps, "Ours"), (device_checks, "key_faults"), (device_checks, "laws")):
        monkeypatch.setattr(module, name, failing)
    device.main(f"--device cpu --minutes 0.001 --workloads disk_mlp --rounds 1 --turn 0.001 --out {tmp_path}".split())
    text = (tmp_path / "DEVICE.md").read_text()
    assert "keys: RuntimeError: out of memory" in text
    assert "funcnet eager, float32 is left out: RuntimeError: out of memory" in text
    assert "laws: RuntimeError: out of memory" in text
    assert "| torch.nn eager, fused, float32 |" in text


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch):
    """The command ends without a traceback; the page has the earlier sections, and a line for the interrupted one."""
    monkeypatch.setattr(device_steps, "contenders", stopped)
    device.main(f"--device cpu --minutes 1 --workloads disk_mlp,gpt --out {tmp_path}".split())
    text, found = (tmp_path / "DEVICE.md").read_text(), json.loads((tmp_path / "device.json").read_text())
    assert "- disk_mlp: stopped by Ctrl-C; what follows was not measured" in text
    assert "gpt: " not in text
    assert (found["keys"], found["steps"]) == ([], [])


def test_what_takes_too_long_is_left_out(monkeypatch):
    """A contender that does not end is interrupted, and the next one is measured; the timer is removed.

    The signal of the timer is sent by hand, because on a busy machine the quick contender could take too long as well.
    """
    monkeypatch.setattr(device_steps, "LEAST", 60.0)

    def slow():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        signal.raise_signal(signal.SIGALRM)

    quick = SimpleNamespace(run=lambda n: None, size=1, value=lambda: 0.5)
    both = [Contender("slow", "x", slow), Contender("quick", "y", lambda: quick)]
    monkeypatch.setattr(device_steps, "contenders", lambda *_: both)
    found = device_steps.measured(WORKLOADS["disk_mlp"], CPU, Budget(0.001), 1, 0.001)
    assert found["notes"] == ["slow is left out: TimeoutError: it took more than 60 s"]
    assert [row["label"] for row in found["rows"]] == ["quick"]
    with limited(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_rounds_end_with_the_time():
    """Without time there are three rounds; with enough time, the requested number."""
    ready = [
        SimpleNamespace(
            training=SimpleNamespace(run=lambda n: None, size=1),
            calls=1,
            contender=Contender("x", "x", None),
            loss=0.5,
            first=0.0,
        )
    ]
    assert [device_steps._affordable(ready, 12, Budget(seconds)) for seconds in (0, 60)] == [3, 12]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--device foo", "argument --device: must be cpu, cuda or cuda:<number>, got foo"),
        ("--device meta", "argument --device: must be cpu, cuda or cuda:<number>, got meta"),
        ("--device cuda:99", "CUDA devices that torch finds, got cuda:99"),
        ("--minutes -1", "argument --minutes: must be a positive number, got -1"),
        ("--turn nan", "argument --turn: must be a positive number, got nan"),
        ("--cases 0", "argument --cases: must be a whole number of at least 1, got 0"),
        ("--workloads disk_mpl", "argument --workloads: unknown workload 'disk_mpl'; choose from disk_mlp, mlp_adam"),
        ("--out /dev/null/x", "argument --out: must be a folder that can be written to, got /dev/null/x"),
    ],
)
def test_wrong_arguments_are_refused(arguments, problem, capsys):
    """The error precedes any measurement, and has the rule."""
    with pytest.raises(SystemExit):
        device.main(arguments.split())
    assert problem in capsys.readouterr().err


def test_the_laws_are_tried_in_both_dtypes():
    """Two cases are tried in float64 and float32; a failure has the name, the law and the message."""
    found = device_checks.laws(CPU, Budget(60), 2)
    assert found["tried"] == {"float64": 2, "float32": 2}
    assert found["failures"] == []
    case = next(iter(device_checks.catalogue().values()))
    broken = fn.layer(apply=lambda params, x: (2 * x, None), vjp=lambda params, cache, gy: (params, gy))
    failures = [*device_checks._failures(case._replace(layer=broken, x=torch.ones(2, 3), params={}), torch.float64, CPU)]
    assert "transpose" in [one["law"] for one in failures]


def test_draws_that_differ_are_reported(monkeypatch):
    """A draw that depends on more than the key, or raises an error, is a fault."""
    monkeypatch.setattr(device_checks, "DRAWS", {"chance": lambda key: torch.rand(3), "none": lambda key: key[1]})
    assert {one["draw"] for one in device_checks.key_faults(CPU)} == {"chance", "none"}
    assert len(device_checks.key_faults(CPU)) == 6


@pytest.mark.parametrize("name", ["mlp_adam", "ensemble20", "adam"])
def test_every_eager_contender_takes_steps(name):
    """funcnet's and torch.nn's contenders, in float32 and bfloat16, have finite losses."""
    for contender in device_steps.contenders(WORKLOADS[name], CPU):
        if " eager" in contender.label:
            training = contender.make()
            training.run(2)
            loss = training.value()
            assert (loss is None) == (name == "adam")
            assert loss is None or torch.tensor(loss).isfinite()


def test_a_gpu_has_more_contenders():
    """CUDA graphs and TF32 are for GPUs; the list can be read without one."""
    labels = [[one.label for one in device_steps.contenders(WORKLOADS["gpt"], torch.device(kind))] for kind in ("cpu", "cuda")]
    assert not any("graphs" in label or "TF32" in label for label in labels[0])
    assert {Way("graphs").label("funcnet"), "torch.nn graphs, fused, TF32"} <= {*labels[1]}
    assert len({*labels[1]}) == len(labels[1]) == 18
