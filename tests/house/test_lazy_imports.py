"""Names of funcnet are imported on first access; code that lists all names finds all of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import funcnet as fn
from funcnet import lazy_imports


def printed(program, *arguments):
    """Run a program in a new process, and return the words that it prints."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_imports_few_modules():
    """``import funcnet`` imports no layer, optimizer or loop, and none of torch's heavy parts."""
    program = """
import torch, sys
before = set(sys.modules)
import funcnet
print(*sorted(set(sys.modules) - before))
"""
    modules = printed(program)
    assert "funcnet.contract" in modules
    assert not [name for name in modules if name.startswith(("funcnet.layers", "funcnet.optim", "funcnet.fitting", "matplotlib"))]
    assert not [name for name in modules if name.startswith(("torch._inductor", "torch._dynamo", "torch.onnx"))]


WAYS = (
    "print(funcnet.Linear.__name__)",
    "from funcnet import Linear; print(Linear.__name__)",
    "from funcnet import *; print(Linear.__name__)",
    "print(vars(funcnet)['Linear'].__name__)",
    "print(funcnet.serial(funcnet.Linear(1, 1))[0].__class__.__name__)",
    "print((funcnet.Linear(1, 1) >> funcnet.Tanh())[0].__class__.__name__)",
    "(funcnet.MSE() + 0.1 * funcnet.L1()).value_and_grad; print('Linear')",
    "print(eval('Linear(1, 1)', vars(funcnet)).__class__.__name__)",
    "import pickle; print(pickle.loads(pickle.dumps(funcnet.Linear(1, 1))).__class__.__name__)",
    "print('Linear' * ('Linear' in dir(funcnet)))",
    "funcnet.kernels.set_choice('matrix products', 'mkl'); print('Linear')",
    "print('Linear' * (len(funcnet.kernels.CHOICES) > 20))",
)


def test_each_way_to_a_name_imports_it():
    """Each way is tried in a fork of a process that has only imported the package."""
    program = """
import os, sys
import funcnet
for way in sys.argv[1:]:
    sys.stdout.flush()
    if not os.fork():
        try:
            exec(way, {"funcnet": funcnet})
        except Exception as error:
            print(f"{way}: {error!r}".replace(" ", "_"))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
    assert printed(program, *WAYS) == ["Linear"] * len(WAYS)


def test_all_names_are_there():
    """``vars``, ``dir`` and ``__all__`` agree, and each name is the object of its module."""
    homes = lazy_imports._homes("funcnet")
    assert set(fn.__all__) == set(homes)
    assert set(homes) <= set(vars(fn)) <= set(dir(fn))
    assert all(vars(fn)[name] is getattr(fn, name) for name in homes)


def test_a_name_that_is_missing():
    """It raises the same error as any module, so ``hasattr`` and ``pickle`` work."""
    with pytest.raises(AttributeError, match=r"module 'funcnet' has no attribute 'nonsense'"):
        fn.nonsense  # noqa: B018


def test_without_source_all_names_are_imported_at_once(monkeypatch):
    """An installation with only bytecode has no source to read the names from."""
    monkeypatch.setattr(lazy_imports, "_source", lambda package: None)
    before = type(sys.modules["funcnet"])
    assert not lazy_imports.is_lazy("funcnet")
    assert type(sys.modules["funcnet"]) is before
    block = next(part for part in ast.parse(Path(fn.__file__).read_text()).body if isinstance(part, ast.If))
    assert ast.unparse(block.test) == "not is_lazy(__name__)"


def test_an_unknown_choice_names_all():
    """The error also lists choices of kernels that have not been used yet."""
    with pytest.raises(ValueError, match="'matrix products'"):
        fn.kernels.set_choice("nonsense", "mkl")
