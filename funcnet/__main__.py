"""``python -m funcnet``: versions, the processor, the kernels chosen, and the laws of a sample of layers on this machine."""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence

import torch

import funcnet as fn
from funcnet.kernels.choices import CHOICES
from funcnet.kernels.processor import this_processor
from funcnet.tables import aligned
from funcnet.testing import check_laws

SAMPLE: dict[str, tuple[fn.Layer, tuple[int, ...]]] = {
    "Linear": (fn.Linear(5, 3), (4, 5)),
    "Conv2d": (fn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 5)),
    "ConvTranspose1d": (fn.ConvTranspose1d(3, 2, 3, stride=2), (2, 3, 5)),
    "MaxPool2d": (fn.MaxPool2d(2), (2, 3, 6, 6)),
    "AvgPool2d": (fn.AvgPool2d(2), (2, 3, 6, 6)),
    "BatchNorm2d": (fn.BatchNorm2d(3), (4, 3, 2, 2)),
    "LayerNorm": (fn.LayerNorm(6), (4, 6)),
    "LSTM": (fn.LSTM(3, 4, batch_first=True), (2, 3, 3)),
    "MultiHeadAttention": (fn.MultiHeadAttention(8, 2, is_causal=True), (2, 3, 8)),
    "GELU": (fn.GELU(), (4, 5)),
    "Softmax": (fn.Softmax(), (4, 5)),
    "Dropout": (fn.Dropout(0.3), (4, 5)),
    "serial": (fn.serial(fn.Linear(5, 4), fn.Tanh(), fn.Linear(4, 2)), (4, 5)),
}
"""Layers with the shapes of their inputs: at least one of each family of kernels."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    new = argparse.ArgumentParser("python -m funcnet", description=(__doc__ or "").partition(": ")[2].capitalize())
    about = "check the laws of the sample (yes): about 20 s; the exit status is 1 if one is broken"
    new.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help=about)
    new.add_argument("--compiled", action="store_true", help="check compiled layers too; needs a C++ compiler, takes minutes")
    return new


def facts() -> Iterator[str]:
    """Yield the versions, the number of threads, the processor, and the GPUs if there are any."""
    threads = torch.get_num_threads()
    versions = f"funcnet {fn.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    yield f"{versions}, {threads} thread{'s' * (threads != 1)}"
    yield str(this_processor())
    yield from [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def choices() -> Iterator[str]:
    """Yield a line for each choice between kernels: its name, what it takes here, and its options."""
    rows = [(name, one.describe(one.value), " | ".join(one.options)) for name, one in sorted(CHOICES.items())]
    yield from aligned([("choice", "here", "options"), *rows], 3)


def broken(name: str, compiled: bool) -> str | None:
    """Return the law that a layer of the sample breaks, in words, or ``None``."""
    layer, shape = SAMPLE[name]
    try:
        check_laws(layer, fn.random.normal(0, shape), compiled=compiled, dtypes=(torch.float64, torch.float32))
    except Exception as error:  # whatever a kernel of this machine raises
        return str(error).strip() or type(error).__name__
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print everything, line by line, and return the exit status."""
    options = parser().parse_args(arguments)
    print("\n".join([*facts(), "", *choices()]), flush=True)
    if not options.check:
        return 0
    print(f"\nlaws of {len(SAMPLE)} layers{', compiled too' * options.compiled}", flush=True)
    faults = 0
    for name in SAMPLE:
        fault = broken(name, options.compiled)
        faults += fault is not None
        print(f"{name:20}{fault or 'hold'}", flush=True)
    print(f"{faults} of {len(SAMPLE)} layers break a law" if faults else "All laws hold.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
