"""Torch's private names: any of them can be missing, and the fallback returns the same results."""

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kernels import lacking

from funcnet import flattening, tree
from funcnet.kernels import private_names
from funcnet.kernels.private_names import constant, found

FOUND = lacking.all_names()

ROUNDING = ("fused", "softmax", "flash", "weight_norm", "mkldnn", "adaptive_avg_pool", "_exact", "functorch")
"""Names whose fallback rounds differently, or does not work within ``vmap``."""


def load() -> ModuleType:
    """Return a new copy of the module that looks up the names."""
    spec = importlib.util.spec_from_file_location("looked_up_anew", private_names.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_torch_has_all_names():
    """The measurements used these kernels. A release that lacks a name must be entered here."""
    lacks = {"2.11": ["_foreach_clone"]}.get(".".join(torch.__version__.split(".")[:2]), [])
    assert [name for name, there in FOUND.items() if not there] == lacks


def test_each_name_may_be_missing():
    """Only code that uses the missing name runs the fallback."""
    before = load()
    for name in before.FOUND:
        with lacking.lacking(name):
            module = load()
        assert [one for one, there in module.FOUND.items() if there != before.FOUND[one]] == [name] * before.FOUND[name]


def test_a_name_that_refuses_its_call_is_missing(monkeypatch):
    """A name whose arguments have changed counts as missing."""
    monkeypatch.setattr(torch, "_foreach_add", lambda xs, ys: xs)
    module = load()
    assert not module.FOUND["_foreach_add"]
    assert module.foreach_add([torch.ones(2)], [torch.ones(2)], alpha=2.0)[0].tolist() == [3.0, 3.0]


def test_found_gives_what_torch_has(monkeypatch):
    """No Python function wraps it, which would take time at each call."""
    monkeypatch.setattr(private_names, "FOUND", {})
    assert found("_foreach_add", None) is torch._foreach_add
    assert found("_no.such", 3) == 3
    assert private_names.FOUND == {"_foreach_add": True, "_no.such": False}


def test_constant_marks_as_torch_does():
    """It sets only the attribute that ``torch.compiler.assume_constant_result`` sets."""
    ours, torchs = (mark(eval("lambda: 0")) for mark in (constant, torch.compiler.assume_constant_result))
    assert vars(ours) == vars(torchs)


def work(what: str, names: list[str]) -> None:
    """Run the task in another process, without the names."""
    path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    code = f"import sys; sys.path[:0] = {path}; from kernels import lacking; lacking.main()"
    done = subprocess.run([sys.executable, "-c", code, what, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("exact", [True, False])
def test_results_without_the_names_are_the_same(exact, tmp_path):
    """All layers and optimizers agree: bit for bit if the fallback computes the same operations, else up to rounding.

    Without any of the names the laws hold too, also for ``vmap`` and second derivatives.
    """
    names = [name for name, there in FOUND.items() if there and not (exact and any(part in name for part in ROUNDING))]
    work("laws," * (not exact) + str(tmp_path / "results"), names)
    want, got = lacking.results(), torch.load(tmp_path / "results", weights_only=False)
    assert [name for name in want if not alike(got[name], want[name], 0.0 if exact else 2e-5)] == []


def alike(got: object, want: object, tolerance: float) -> bool:
    """Return whether two trees differ by at most a fraction of their largest element."""
    if tolerance == 0:
        return tree.equal(got, want)
    (one, other), like = ([x for x in flattening.flatten_together(t)[0] if x is not None] for t in (got, want)), pickle.dumps
    assert like(tree.structure(got)) == like(tree.structure(want))
    largest = max([x.double().abs().amax() for x in other if x.numel()], default=0.0)
    near = [
        torch.isclose(x.double(), y.double(), rtol=0, atol=float(tolerance * largest), equal_nan=True).all()
        for x, y in zip(one, other, strict=True)
    ]
    return all(near)


@pytest.mark.compiled
def test_steps_compile_without_the_names():
    """Compiled steps of a net with a loop, dropout and running statistics agree with eager ones."""
    work("compile", [name for name, there in FOUND.items() if there])
