"""Trials of wrong arguments: the behavior of a layer if one leaf has another shape, dtype or kind.

A trial gives one leaf of gy, params or x another shape (an axis longer, shorter, of size 1, of size 0, two transposed, one more,
one less), another dtype or another kind, and calls one verb. It must raise our ``ValueError`` or ``TypeError``, in the form
``who: rule, got what``, or return the right numbers. Trials run in child processes, so that a crash is a result too.
"""

import argparse
import mmap
import os
import re
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from cases import CASES, Case
from torch import Tensor

import funcnet as fn
from funcnet import random, tree
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.flattening import flatten_together
from funcnet.layers.custom import FunctionLayer
from funcnet.testing.comparison import noise_like
from funcnet.walking import walk

SENTENCE = re.compile(r"^.+?: .+, got .+", re.DOTALL)
BACKWARD = ("vjp", "grads", "input_grad")
VERBS = {"gy": BACKWARD, "params": ("apply", "__call__", *BACKWARD, "update_stats"), "x": ("apply", "__call__")}
TABLES = (fn.Embedding, fn.HashEmbed, fn.EmbeddingBag)
FINE = ("refused", "same", "taken")
WIDTH = 48


class Trial(NamedTuple):
    """One trial: the number of the leaf to change, the change, and the verb to call."""

    case: str
    argument: str
    leaf: int
    change: str
    verb: str


class Given(NamedTuple):
    """The right arguments of every verb, and what it returns for them."""

    params: Any
    x: Any
    cache: Any
    gy: Any
    results: dict[str, Any]


def given(case: Case) -> Given:
    """Call every verb with the right arguments."""
    layer = case.layer
    key = random.key(0) if layer.stochastic else None
    y, cache = layer.apply(case.params, case.x, key)
    gy = noise_like(y, random.key(1))
    results = {verb: getattr(layer, verb)(case.params, cache, gy) for verb in BACKWARD}
    results |= {"apply": y, "__call__": y, "update_stats": layer.update_stats(case.params, cache)}
    return Given(case.params, case.x, cache, gy, results)


def changes(leaf: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the names of the changes to a leaf, and the functions that make them."""
    if not isinstance(leaf, Tensor):
        return
    for axis in range(leaf.dim()):
        yield from _of_axis(leaf, axis)
    if leaf.dim() > 1 and leaf.shape[-1] != leaf.shape[-2]:
        yield "transposed", lambda: leaf.transpose(-1, -2)
    yield "an axis before", lambda: leaf[None]
    yield "an axis after", lambda: leaf[..., None]
    if leaf.dim() and leaf.shape[0]:
        yield "an axis less", leaf[0].clone
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64):
        if dtype is not leaf.dtype:
            yield str(dtype), lambda dtype=dtype: leaf.to(dtype)
    yield "None", lambda: None
    yield "list", leaf.tolist
    yield "meta", lambda: leaf.to("meta")
    if leaf.dim():
        yield "sparse", leaf.to_sparse
    if leaf.dim() and leaf.numel():
        yield "nested", lambda: torch.nested.nested_tensor([leaf])


def _of_axis(leaf: Tensor, axis: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    size = leaf.shape[axis]
    if size:
        yield f"axis {axis} longer", lambda: torch.cat((leaf, leaf.narrow(axis, 0, 1)), axis)
        yield f"axis {axis} of size 0", lambda: leaf.narrow(axis, 0, 0).clone()  # the memory after a view would be valid
    if size > 1:
        yield f"axis {axis} shorter", lambda: leaf.narrow(axis, 0, size - 1).clone()
    if size > 2:
        yield f"axis {axis} of size 1", lambda: leaf.narrow(axis, 0, 1).clone()


def trials(name: str, case: Case) -> list[Trial]:
    """List all trials of a case."""
    known = given(case)
    return [
        Trial(name, argument, i, change, verb)
        for argument, verbs in VERBS.items()
        for i, leaf in enumerate(tree.leaves(getattr(known, argument)))
        for change, _ in changes(leaf)
        for verb in verbs
    ]


def changed(values: Any, number: int, change: str) -> tuple[Any, Any]:
    """Return a tree with one leaf changed, and the changed leaf."""
    count, leaf = iter(range(sys.maxsize)), dict(changes(tree.leaves(values)[number]))[change]()
    return tree.map(lambda old: leaf if next(count) == number else old, values), leaf


def judge(case: Case, known: Given, trial: Trial) -> str:
    """Return the outcome of a trial: one of ``FINE``, or the fault."""
    values, leaf = changed(getattr(known, trial.argument), trial.leaf, trial.change)
    arguments = known._asdict() | {trial.argument: values}
    try:
        result = call(case, trial.verb, arguments)
        if trial.argument == "x" and _is_in(leaf, result):  # the identity passes on anything
            return "taken"
        if trial.argument == "x" and trial.change not in ("sparse", "nested"):
            return _judge_forward(case, arguments, result)
    except (ValueError, TypeError) as error:
        return "refused" if SENTENCE.match(str(error)) else f"bare {type(error).__name__}: {str(error)[:WIDTH]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:WIDTH]}"
    return _judge_numbers(case, known, trial, result)


def _is_in(leaf: Any, y: Any) -> bool:
    return any(one is part for one in tree.leaves(y) for part in tree.leaves(leaf))


def call(case: Case, verb: str, arguments: dict[str, Any]) -> Any:
    """Call a verb; forward verbs get the same key each time."""
    layer, params = case.layer, arguments["params"]
    if verb in ("apply", "__call__"):
        result = getattr(layer, verb)(params, arguments["x"], random.key(0) if layer.stochastic else None)
        return result[0] if verb == "apply" else result
    more = (arguments["cache"],) if verb == "update_stats" else (arguments["cache"], arguments["gy"])
    return getattr(layer, verb)(params, *more)


def _judge_numbers(case: Case, known: Given, trial: Trial, result: Any) -> str:
    """Check the result for wrong params or a wrong gy: it must equal the result for the right ones."""
    want = known.results[trial.verb]
    if trial.change == "None" and trial.argument == "gy":  # the gradient of an unused output
        zero = tree.map(lambda leaf: leaf, known.gy)
        count = iter(range(sys.maxsize))
        zero = tree.map(lambda leaf: torch.zeros_like(leaf) if next(count) == trial.leaf else leaf, zero)
        want = call(case, trial.verb, known._asdict() | {"gy": zero})
    return _same(result, want, _place(known.params, trial.leaf) if trial.verb == "update_stats" else -1)  # passes params on


def _place(values: Any, number: int) -> int:
    """Return the index among all leaves, absent ones included, of a leaf given by its index among the present ones."""
    return [i for i, leaf in enumerate(flatten_together(values)[0]) if leaf is not None][number]


def _same(got: Any, want: Any, but: int = -1) -> str:
    """Compare two trees leaf by leaf; leaf number ``but`` may differ."""
    if tree.structure(got) != tree.structure(want) and but < 0:
        return "wrong structure"
    found, right = flatten_together(got)[0], flatten_together(want)[0]
    if len(found) != len(right):
        return "same" if but >= 0 else "wrong structure"
    return next(
        (ending for i, pair in enumerate(zip(found, right, strict=True)) if i != but and (ending := _differs(*pair))), "same"
    )


def _differs(a: Any, b: Any) -> str:
    if a is None or b is None:
        return "" if a is b else "wrong structure"
    if not isinstance(a, Tensor) or a.layout is not torch.strided or a.is_nested or a.device != b.device:
        return "wrong kind"
    if a.shape != b.shape or a.dtype != b.dtype:
        return "wrong shape" if a.shape != b.shape else "wrong dtype"
    return "" if a.is_meta or torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) else "wrong value"


def _judge_forward(case: Case, arguments: dict[str, Any], y: Any) -> str:
    """Check the result for another x: it must repeat, and gradients must have the structure of x and params."""
    layer, params, x = case.layer, arguments["params"], arguments["x"]
    again, cache = layer.apply(params, x, random.key(0) if layer.stochastic else None)
    if _same(again, y) != "same":
        return "other numbers each time"
    if not all(leaf.is_floating_point() for leaf in tree.leaves((x, y))) or any(leaf.is_meta for leaf in tree.leaves(x)):
        return "taken"
    gparams, gx = layer.vjp(params, cache, noise_like(y, random.key(1)))
    return "taken" if _mirrors(gx, x) and _mirrors(gparams, params) else "wrong shape of gradients"


def _mirrors(gradients: Any, values: Any) -> bool:
    pairs = [*zip(flatten_together(gradients)[0], flatten_together(values)[0], strict=False)]
    return all(g is None or (g.shape == leaf.shape and g.dtype == leaf.dtype) for g, leaf in pairs)


def run(found: list[Trial]) -> Iterator[tuple[Trial, str]]:
    """Run trials in a child process, with a new one after each crash, and yield how each ends."""
    at = 0
    while at < len(found):
        ended = yield from _in_a_child(found[at:])
        at += ended
        if at < len(found):
            yield found[at], "crash"
            at += 1


def _in_a_child(rest: list[Trial]) -> Any:
    done, (receiving, sending) = mmap.mmap(-1, 8), os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        with os.fdopen(sending, "w") as out:
            _work(rest, done, out)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as lines:
        endings = [line.rstrip("\n") for line in lines if line.endswith("\n")]
    os.waitpid(child, 0)
    count = struct.unpack("q", done[:8])[0]
    yield from zip(rest, [*endings, *["same"] * (count - len(endings))][:count], strict=False)
    return count


def _work(rest: list[Trial], done: mmap.mmap, out: Any) -> None:
    known: dict[str, Given] = {}
    for i, trial in enumerate(rest):
        if trial.case not in known:
            known = {trial.case: given(CASES[trial.case])}
        print(judge(CASES[trial.case], known[trial.case], trial).replace("\n", " "), file=out, flush=True)
        done[:8] = struct.pack("q", i + 1)


def excused(trial: Trial) -> bool:
    """Return whether a change is valid, or is left to a user's functions; y may get its dtype only from a table.

    A cast layer accepts params of any floating dtype, and their gradients have the same dtype.
    """
    layer = CASES[trial.case].layer
    takes_all = any(isinstance(one, MixedPrecision) for _, one in walk(layer)) and trial.argument == "params"
    if isinstance(layer, FunctionLayer) or (takes_all and trial.change == "torch.float64"):
        return True
    if trial.argument != "params" or trial.change != "torch.float64" or trial.verb not in ("apply", "__call__"):
        return False
    place = [*tree.names(CASES[trial.case].params)][trial.leaf].rpartition(".")[0]
    return isinstance(dict(walk(layer)).get(place), TABLES)


def main() -> int:
    """Run all trials, or every n-th, for layers in modules whose names contain given words, and list the failures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("words", nargs="*", help="words in the names of modules, such as layers.linear; all without any")
    parser.add_argument("--every", type=int, default=1, help="of how many trials one is run")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    names = [name for name, case in CASES.items() if _is_among(case, chosen.words)]
    found = [trial for name in names for trial in trials(name, CASES[name]) if not excused(trial)]
    for trial, ending in run(found[:: chosen.every]):
        counts[ending] += 1
        if ending not in FINE:
            print(f"{ending} | {type(CASES[trial.case].layer).__name__} | {' | '.join(map(str, trial))}")
    print(summary(counts))
    return int(not counts.keys() <= set(FINE))


def summary(counts: Counter[str]) -> str:
    """Return one line with the number of trials and how they ended."""
    wrong = {ending: counts[ending] for ending in ("crash", "wrong value", "wrong shape")}
    bare = sum(n for ending, n in counts.items() if ": " in ending)
    others = counts.total() - sum(wrong.values()) - bare - sum(counts[ending] for ending in FINE)
    good = counts["refused"] / max(counts["refused"] + bare, 1)
    fine = ", ".join(f"{counts[ending]} {ending}" for ending in FINE)
    bad = ", ".join(f"{n} {ending}" for ending, n in {**wrong, "other faults": others}.items())
    return (
        f"{counts.total()} trials: {fine}; {bad}; {good:.1%} of {counts['refused'] + bare} errors say who, the rule and what came"
    )


def _is_among(case: Case, words: list[str]) -> bool:
    return not words or any(word in type(case.layer).__module__ for word in words)


if __name__ == "__main__":
    sys.exit(main())
