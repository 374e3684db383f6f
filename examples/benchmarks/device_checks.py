"""Checks on one device: random bits equal those in main memory, and the layers of the catalogue keep the laws."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import funcnet as fn
from examples.benchmarks.device_steps import synchronize
from examples.benchmarks.device_time import CASE, Budget, limited
from funcnet.testing.laws import LAWS

TESTS = Path(__file__).parents[2] / "tests"
LOWER = ("structure", "pure", "transpose", "rows", "strides", "halves", "transforms", "second order")
"""The laws that also hold below float64."""

BATCH = 25
"""The number of cases between two synchronizations with the device."""

DRAWS = {
    "fold_in": lambda key: fn.fold_in(key, 7),
    "fold_in a word": lambda key: fn.fold_in(key, "dropout"),
    "fold_in numbers": lambda key: fn.fold_in(key, torch.arange(5, device=key.device)),
    "split": lambda key: fn.split(key, 4),
    "uniform": lambda key: fn.random.uniform(key, (1000,)),
    "uniform in float64": lambda key: fn.random.uniform(key, (1000,), dtype=torch.float64),
    "bernoulli": lambda key: fn.random.bernoulli(key, (1000,), 0.3),
    "randint": lambda key: fn.random.randint(key, (1000,), 0, 17),
    "permutation": lambda key: fn.random.permutation(key, 100),
    "normal": lambda key: fn.random.normal(key, (1000,)),
    "normal in float64": lambda key: fn.random.normal(key, (1000,), dtype=torch.float64),
    "gumbel": lambda key: fn.random.gumbel(key, (1000,)),
}


def key_faults(device: torch.device) -> list[dict[str, Any]]:
    """Return an error for each draw that fails, or whose bits differ from those in main memory."""
    faults = []
    for name, draw in DRAWS.items():
        for seed in (0, 1, 2**40 + 3):
            key = fn.key(seed)
            try:
                want, got = draw(key), draw(key.to(device)).cpu()
            except Exception as error:
                faults.append({"draw": name, "seed": seed, "fault": f"{type(error).__name__}: {error}"})
                continue
            differing = int((want != got).sum())
            if differing:
                gap = float((want.double() - got.double()).abs().max())
                faults.append(
                    {"draw": name, "seed": seed, "fault": f"{differing} of {want.numel()} differ, by {gap:.3g} at most"}
                )
    return faults


def catalogue() -> dict[str, Any]:
    """Return the cases of the tests, one of each type of layer first, so that any part of them is a sample."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    CASES = importlib.import_module("cases").CASES

    first = {type(case.layer): name for name, case in reversed(CASES.items())}
    sample = [*first.values()]
    return {name: CASES[name] for name in [*sample, *[name for name in CASES if name not in set(sample)]]}


def laws(device: torch.device, budget: Budget, limit: int | None = None) -> dict[str, Any]:
    """Check the laws, without compilation, until the time is up; return the number of cases and the failures."""
    cases = [*catalogue().items()][:limit]
    found: dict[str, Any] = {"cases": len(cases), "tried": {}, "failures": [], "notes": []}
    for i, (name, case) in enumerate(cases):
        if budget.left <= 0:
            found["notes"].append(f"the time was up after {i} of {len(cases)} cases")
            break
        for dtype in (torch.float64, torch.float32):
            kind = str(dtype).removeprefix("torch.")
            found["failures"] += [{"case": name, "dtype": kind, **one} for one in _failures(case, dtype, device)]
            found["tried"][kind] = i + 1
        if not _is_alive(device, i, found["notes"]):
            break
    return found


def _failures(case: Any, dtype: torch.dtype, device: torch.device) -> Iterator[dict[str, str]]:
    """Yield the laws that a case breaks in a dtype."""
    names = LAWS if dtype is torch.float64 else LOWER
    for law in [law for law in names if case.batched or law != "rows"]:
        options: dict[str, Any] = {"dtype": dtype} if law in LOWER else {}
        options |= {"compiled": False} if law == "transforms" else {}
        try:
            with limited(CASE):
                x, params = fn.tree.to((case.x, case.params), device)
                LAWS[law](case.layer, x, params, fn.key(0).to(device), **options)
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            yield {"law": law, "message": lines[0][:400]}


def _is_alive(device: torch.device, i: int, notes: list[str]) -> bool:
    """Return whether the device still works: after an assertion in a kernel every call fails."""
    if i % BATCH:
        return True
    try:
        synchronize(device)
    except Exception as error:
        notes.append(f"the device failed at case {i}: {str(error).splitlines()[0]}")
        return False
    return True
