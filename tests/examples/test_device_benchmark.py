"""The benchmark of a device, tried on the CPU with little time: sections, failures and the page. No time is judged here."""

import importlib
import json

import pytest
import torch

import funcnet as fn
from examples.benchmarks import device_checks, device_steps
from examples.benchmarks.device_steps import Budget, Way
from examples.benchmarks.workloads import WORKLOADS

device = importlib.import_module("examples.benchmarks.device")
CPU = torch.device("cpu")


def test_the_page_holds_every_section(tmp_path, capsys):
    """One workload in no time gets its first contender, and the page, which is printed, says what was left out."""
    device.main(f"--device cpu --minutes 0.001 --workloads disk_mlp --rounds 2 --turn 0.001 --cases 1 --out {tmp_path}".split())
    text, found = (tmp_path / "DEVICE.md").read_text(), json.loads((tmp_path / "device.json").read_text())
    assert capsys.readouterr().out.strip() == text.strip()
    assert found["keys"] == []
    assert [row["label"] for row in found["steps"][0]["rows"]] == ["funcnet eager, float32"]
    assert "torch.nn eager, fused, float32 is left out: no time was left" in text
    assert "All draws have the bits of main memory" in text
    assert "time was over after 0 of 1 cases" in text


def test_a_failure_is_a_line_and_ctrl_c_ends_a_section(tmp_path, monkeypatch):
    """What a section or a contender raises is told on the page; later sections follow."""

    def failing(*_):
        raise RuntimeError("out of memory\nand more")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(device_steps, "Ours", failing)
    monkeypatch.setattr(device_checks, "key_faults", stopped)
    monkeypatch.setattr(device_checks, "laws", failing)
    device.main(f"--device cpu --minutes 0.001 --workloads disk_mlp --rounds 1 --turn 0.001 --out {tmp_path}".split())
    text = (tmp_path / "DEVICE.md").read_text()
    assert "keys: stopped by Ctrl-C" in text
    assert "funcnet eager, float32 is left out: RuntimeError: out of memory" in text
    assert "laws: RuntimeError: out of memory" in text
    assert "| torch.nn eager, fused, float32 |" in text


def test_the_laws_are_tried_in_both_dtypes():
    """Two cases in float64 and float32; one that breaks a law is told with its name, the law and the message."""
    found = device_checks.laws(CPU, Budget(60), 2)
    assert found["tried"] == {"float64": 2, "float32": 2}
    assert found["failures"] == []
    case = next(iter(device_checks.catalogue().values()))
    broken = fn.layer(apply=lambda params, x: (2 * x, None), vjp=lambda params, cache, gy: (params, gy))
    failures = [*device_checks._failures(case._replace(layer=broken, x=torch.ones(2, 3), params={}), torch.float64, CPU)]
    assert "transpose" in [one["law"] for one in failures]


def test_draws_that_differ_are_told(monkeypatch):
    """A draw that depends on more than the key is a fault, and so is one that raises."""
    monkeypatch.setattr(device_checks, "DRAWS", {"chance": lambda key: torch.rand(3), "none": lambda key: key[1]})
    assert {one["draw"] for one in device_checks.key_faults(CPU)} == {"chance", "none"}
    assert len(device_checks.key_faults(CPU)) == 6


@pytest.mark.parametrize("name", ["mlp_adam", "ensemble20", "adam"])
def test_every_eager_contender_takes_steps(name):
    """Funcnet's and torch.nn's, in float32 and bfloat16: the losses are finite."""
    for contender in device_steps.contenders(WORKLOADS[name], CPU):
        if " eager" in contender.label:
            training = contender.make()
            training.run(2)
            loss = training.value()
            assert (loss is None) == (name == "adam")
            assert loss is None or torch.tensor(loss).isfinite()


def test_a_gpu_has_more_contenders():
    """CUDA graphs and TF32 are for GPUs; reading the list needs none."""
    labels = [[one.label for one in device_steps.contenders(WORKLOADS["gpt"], torch.device(kind))] for kind in ("cpu", "cuda")]
    assert not any("graphs" in label or "TF32" in label for label in labels[0])
    assert {Way("graphs").label("funcnet"), "torch.nn graphs, fused, TF32"} <= {*labels[1]}
    assert len({*labels[1]}) == len(labels[1]) == 18
