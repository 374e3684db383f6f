"""The catalogues on a fake GPU: no kernel mixes devices, and no values are read, which would make a step wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CASES

HERE = Path(__file__).parent
WAITING = {
    "uniqued": "DynamicOutputShapeException",
    "uniqued rows": "DynamicOutputShapeException",
    "uniqued, of two": "DynamicOutputShapeException",
    "uniqued with running statistics": "DynamicOutputShapeException",
    "checked": "DataDependentOutputException",
    "checked in a scan": "DataDependentOutputException",
}
"""Layers that read values on purpose: the number of distinct rows, or whether a number is finite."""

LACKING = {"orthogonal, square, by householder": "NotImplementedError"}
"""``geqrf`` has no kernel for fake tensors."""


def faults_of(what: str, dtype: str, *names: str) -> tuple[int, dict[str, str]]:
    """Return the number of cases, and the kind of error of each failed case."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "fake_gpu.py"), what, dtype, *names]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["tried"], found["faults"]


def kinds(faults: dict[str, str]) -> dict[str, str]:
    """Return the kinds of errors, with the message of each unknown kind."""
    known = WAITING | LACKING
    return {name: text.split(":")[0] if text.startswith(known.get(name, "?")) else text for name, text in faults.items()}


def test_a_sample_of_layers_stays_on_the_gpu():
    """One case of each type of layer, in float32, with keys on the GPU and in main memory."""
    names = [*{type(case.layer): name for name, case in CASES.items()}.values()]
    tried, faults = faults_of("layers", "float32", *names)
    assert tried == len(names) > 200
    assert kinds(faults) == {name: kind for name, kind in (WAITING | LACKING).items() if name in names}


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_layer_stays_on_the_gpu(dtype):
    """The whole catalogue runs forward, backward and in inference, in both half precisions."""
    tried, faults = faults_of("layers", dtype)
    assert tried == len(CASES)
    assert kinds(faults) == WAITING | LACKING


@pytest.mark.parametrize(("what", "least"), [("optimizers", 70), ("metrics", 30)])
def test_optimizers_and_metrics_stay_on_the_gpu(what, least):
    """Optimizers and gradient transforms run with counters in main memory and on the GPU; metrics run over two batches."""
    tried, faults = faults_of(what, "float32")
    assert tried >= least
    assert faults == {}


@pytest.mark.long
def test_optimizers_in_all_forms_stay_on_the_gpu():
    """Steps are plain and donated, each with counters in main memory and on the GPU."""
    tried, faults = faults_of("forms", "float32")
    assert tried >= 70
    assert faults == {}


def test_the_fake_gpu_refuses_what_a_gpu_refuses():
    """Layers that create a tensor in main memory, or read a value, fail: the tests above can fail."""
    program = (
        "import fake_gpu, torch, funcnet as fn\n"
        "from cases.making import case\n"
        "fake_gpu.backend_registration._setup_privateuseone_for_python_backend()\n"
        "made = lambda params, x: (x + torch.ones(x.shape[-1]), None)\n"
        "asked = lambda params, x: (x if x.sum() > 0 else -x, None)\n"
        "for apply in (made, asked):\n"
        "    layer = fn.layer(apply=apply, vjp=lambda params, cache, gy: (params, gy))\n"
        "    try:\n"
        "        fake_gpu.try_layer(case(layer, torch.ones(2, 3)), torch.float32)\n"
        "    except Exception as error:\n"
        "        print(fake_gpu.fault(error).split(':')[0])\n"
    )
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["FakeTensorDeviceMismatchError", "DataDependentOutputException"]
