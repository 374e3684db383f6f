"""The cost of a loss over a large vocabulary: time and memory of value and gradients, beside torch's losses.

All contenders of a dtype take turns in one process, on one thread; the memory of each is measured in its own process.

    python -m examples.benchmarks.vocabulary --page examples/benchmarks/results/VOCABULARY.md
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from examples.benchmarks.command import file, new_parser, positive, printed, run_command

ROWS, WORDS, FEATURES, ROUNDS = 8192, 32_000, 512, 3
DTYPES = ("float32", "bfloat16")
OURS = ("funcnet LinearCrossEntropy", "funcnet LinearCrossEntropy, value only", "funcnet Linear, CrossEntropy")
STRATEGIES = ("auto", "aspect_ratio", "aspect_ratio:2", "aspect_ratio:8")
THEIRS = (*[f"torch linear_cross_entropy, {one}" for one in STRATEGIES], "torch linear, cross_entropy")

HEAD = """# A loss over a large vocabulary

`python -m examples.benchmarks.vocabulary --dtypes {dtypes} --rounds {rounds} --page examples/benchmarks/results/VOCABULARY.md`,
torch {torch}, {processor}, one thread.

{rows} rows of {features} features and {words} words: the value, and the gradients of the rows and of the weight, {grads}. torch
computes gradients with autograd, and its fused loss runs with each of its chunking strategies. Contenders take turns in one
process; the time is the smallest CPU time of {rounds} rounds. The second column of times is relative to funcnet's
`LinearCrossEntropy`. The peak is the growth of memory during one call in a separate process, gradients included; freed memory
goes back to the system (`MALLOC_MMAP_THRESHOLD_=65536`), so that the peak is the memory in use.

"""

Sizes = tuple[int, int, int]
"""Numbers of rows, words and features."""


def drawn(dtype: str, rows: int, words: int, features: int) -> tuple[Any, Any, Any]:
    """Draw hidden rows, a weight and labels."""
    import torch

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    h, w = torch.empty(rows, features, dtype=kind).normal_(), torch.empty(words, features, dtype=kind).normal_(0, features**-0.5)
    return h, w, torch.randint(0, words, (rows,))


def contender(name: str, h: Any, w: Any, labels: Any) -> Callable[[], Any]:
    """Return a function without arguments that returns the value, and gradients if the contender computes them."""
    import torch

    import funcnet as fn

    loss, net = fn.LinearCrossEntropy(), fn.Linear(w.shape[1], w.shape[0], bias=False)

    def in_two_layers() -> Any:
        y, cache = net.apply({"weight": w}, h)
        value, gy = fn.CrossEntropy().value_and_grad(y, labels)
        gparams, gh = net.vjp({"weight": w}, cache, gy)
        return value, (gh, gparams["weight"])

    def by_autograd(options: Any) -> Any:
        leaves = h.detach().requires_grad_(), w.detach().requires_grad_()
        value = torch.nn.functional.linear_cross_entropy(*leaves, labels, options=options)
        value.backward()
        return value.detach(), tuple([leaf.grad for leaf in leaves])

    ours = (lambda: loss.value_and_grad((h, w), labels), lambda: (loss((h, w), labels), ()), in_two_layers)
    chunked = [lambda one=one: by_autograd(torch.nn.LinearCrossEntropyOptions(chunking_method=one)) for one in STRATEGIES]
    return dict(zip((*OURS, *THEIRS), (*ours, *chunked, lambda: by_autograd(None)), strict=True))[name]


def times(dtype: str, sizes: Sizes, rounds: int) -> dict[str, float]:
    """Return the seconds of each contender: the smallest over rounds, each in another order."""
    found: dict[str, float] = {}
    given = drawn(dtype, *sizes)
    for _ in range(rounds):
        for name in random.sample((*OURS, *THEIRS), len(OURS) + len(THEIRS)):
            began = time.process_time()
            contender(name, *given)()
            found[name] = min(found.get(name, float("inf")), time.process_time() - began)
    return found


def peak(name: str, dtype: str, sizes: Sizes) -> int:
    """Return the increase of this process's memory by a call, in bytes."""
    contender(name, *drawn(dtype, 64, 200, sizes[2]))()  # load the kernels
    call = contender(name, *drawn(dtype, *sizes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def measured(*job: Any) -> Any:
    """Measure in this process: the times of a dtype, or the peak of a contender."""
    import torch

    torch.set_num_threads(1)
    return times(*job[1:]) if job[0] == "times" else peak(*job[1:])


def _in_a_process(*job: Any) -> Any:
    command = [sys.executable, "-m", "examples.benchmarks.vocabulary", "--one", json.dumps(job)]
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"} if job[0] == "peak" else None
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    return json.loads(done.stdout)


def table(dtypes: Sequence[str], sizes: Sizes, rounds: int) -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| loss | dtype | s | of funcnet's | peak, MB |"
    yield "|---|---|--:|--:|--:|"
    for dtype in dtypes:
        seconds = _in_a_process("times", dtype, sizes, rounds)
        for name in (*OURS, *THEIRS):
            mb = _in_a_process("peak", name, dtype, sizes) / 1e6
            yield f"| {name} | {dtype} | {seconds[name]:.2f} | {seconds[name] / seconds[OURS[0]]:.2f} | {mb:.0f} |"


def main(arguments: list[str] | None = None) -> None:
    """Measure all rows, and print the table or write the page."""
    parser = new_parser("vocabulary", __doc__)
    parser.add_argument("--rows", type=positive, default=ROWS, help="number of rows in the batch")
    parser.add_argument("--words", type=positive, default=WORDS, help="number of words in the vocabulary")
    parser.add_argument("--features", type=positive, default=FEATURES, help="number of features")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="dtypes of the rows and the weight")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of rounds, with one turn per contender")
    parser.add_argument("--page", type=file, help="file to write the page to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measured(*json.loads(options.one))))
        return
    sizes = options.rows, options.words, options.features
    lines = printed(table(options.dtypes, sizes, options.rounds))
    if options.page:
        options.page.write_text(_head(options.dtypes, *sizes, options.rounds) + "\n".join(lines) + "\n")


def _head(dtypes: Sequence[str], rows: int, words: int, features: int, rounds: int) -> str:
    import torch

    from examples.reports.__main__ import processor

    grads = f"{4e-6 * features * (rows + words):.0f} MB in float32"
    given = {"dtypes": " ".join(dtypes), "rows": rows, "words": words, "features": features, "rounds": rounds, "grads": grads}
    return HEAD.format(torch=torch.__version__, processor=processor(), **given)


if __name__ == "__main__":
    run_command(main)
