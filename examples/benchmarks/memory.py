"""What the backward pass costs in memory: caches and peaks of deep nets and long scans, with and without recomputation.

Each row is measured in its own process, on one thread. The cache is the bytes of its tensors, a shared one counted once, without
those of params and x. The peak is how far one forward and one backward pass raise the resident memory, params' gradients and
whatever the allocator holds included.

    python -m examples.benchmarks.memory --page examples/benchmarks/results/MEMORY.md
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from math import isqrt
from pathlib import Path

DEPTHS, STEPS = (32, 128), (64, 256)
NETS = ("serial", "remat in √n segments", "repeat", "repeat of remat")
SCANS = ("scan", "scan, checkpoint_every=√T")


def made(name, n, size, rows):
    """Return a net of n blocks, or a scan, and its input."""
    import torch

    import funcnet as fn

    if name.startswith("scan"):
        every = isqrt(n) if "checkpoint" in name else None
        x = torch.randn(n, rows, size), (torch.randn(rows, size), torch.randn(rows, size))
        return fn.scan(fn.LSTMCell(size, size), output_is_carry=True, checkpoint_every=every), x
    inner = fn.serial(fn.LayerNorm(size), fn.Linear(size, 4 * size), fn.GELU(), fn.Linear(4 * size, size))
    block = fn.residual(inner)
    nets = {
        "serial": lambda: fn.serial(*[block] * n),
        "remat in √n segments": lambda: fn.remat(fn.serial(*[block] * n), segments=isqrt(n)),
        "repeat": lambda: fn.repeat(block, n),
        "repeat of remat": lambda: fn.repeat(fn.remat(block), n),
    }
    return nets[name](), torch.randn(rows, size)


def bytes_of(values, *without):
    """Count the bytes of the memory of a tree's tensors, each once, but for the memory of other trees."""
    from funcnet import tree

    def memories(one):
        storages = [leaf.untyped_storage() for leaf in tree.leaves(one) if hasattr(leaf, "untyped_storage")]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    known = memories(without)
    return sum(size for place, size in memories(values).items() if place not in known)


def measure(name, n, size, rows):
    """Return the bytes of the cache and of the peak, and the ms of a forward and a backward pass, in this process."""
    import torch

    from funcnet import tree

    torch.set_num_threads(1)
    net, x = made(name, n, size, rows)
    small, tiny = made(name, n, size, 1)
    params = net.init(0)
    y, cache = small.apply(params, tiny)
    small.vjp(params, cache, y)  # loads the kernels
    del y, cache
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(3):
        began = time.perf_counter()
        y, cache = net.apply(params, x)
        gradients = net.vjp(params, cache, tree.map(torch.ones_like, y))
        times.append(1e3 * (time.perf_counter() - began))
        kept = bytes_of(cache, params, x)
        del y, cache, gradients
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return kept, peak, statistics.median(times)


def table(size, rows):
    """Yield the lines of the table, as Markdown."""
    yield "| net | n | cache, MB | peak, MB | ms |"
    yield "|---|--:|--:|--:|--:|"
    for names, lengths in ((NETS, DEPTHS), (SCANS, STEPS)):
        for name in names:
            for n in lengths:
                kept, peak, ms = _in_a_process([name, n, size, rows])
                yield f"| {name} | {n} | {kept / 1e6:.1f} | {peak / 1e6:.0f} | {ms:.0f} |"


def _in_a_process(one):
    command = [sys.executable, "-m", "examples.benchmarks.memory", "--one", json.dumps(one)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


HEAD = """# Memory of the backward pass

`python -m examples.benchmarks.memory --page examples/benchmarks/results/MEMORY.md`,
torch {torch}, {machine}, one thread, float32.

A block is `residual(serial(LayerNorm({size}), Linear({size}, {wide}), GELU(), Linear({wide}, {size})))` on {rows} rows, and there
are n of them. A scan is of n steps of `LSTMCell({size}, {size})` on {rows} rows. The cache is what the forward pass keeps for
the backward pass, without params and x. The peak is how far a forward and a backward pass raise the memory of the process; the
gradients of the params are in it. The time is that of both passes.

"""


def main(arguments=None):
    """Measure all rows, and print the table or write the page."""
    about = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="features of a row")
    parser.add_argument("--rows", type=int, default=512, help="rows of x")
    parser.add_argument("--page", type=Path, help="file to write the page to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    lines = []
    for line in table(options.size, options.rows):
        print(line, flush=True)
        lines.append(line)
    if options.page:
        import torch

        words = {"size": options.size, "wide": 4 * options.size, "rows": options.rows, "torch": torch.__version__}
        options.page.write_text(HEAD.format(machine=platform.machine(), **words) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
