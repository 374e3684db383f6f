"""``python -m funcnet``: print versions, processor, kernel choices and torch's private names; check the laws of some layers."""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

import torch

from funcnet.combinators.sequential import serial
from funcnet.contract import Layer
from funcnet.kernels.choices import CHOICES
from funcnet.kernels.private_names import FOUND
from funcnet.kernels.processor import this_processor
from funcnet.layers.activation.self_gated import GELU
from funcnet.layers.activation.sigmoids import Tanh
from funcnet.layers.activation.softmaxes import Softmax
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.conv.conv import Conv2d
from funcnet.layers.conv.conv_transpose import ConvTranspose1d
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout
from funcnet.layers.norm.batch_norm import BatchNorm2d
from funcnet.layers.norm.layer_norm import LayerNorm
from funcnet.layers.pooling.avg_pool import AvgPool2d
from funcnet.layers.pooling.max_pool import MaxPool2d
from funcnet.layers.recurrent.nets import LSTM
from funcnet.random.continuous import normal
from funcnet.tables import aligned
from funcnet.testing.laws import check_laws

SAMPLE: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "Linear": (Linear(5, 3), (4, 5)),
    "Conv2d": (Conv2d(2, 3, 3, padding=1), (2, 2, 4, 4)),
    "ConvTranspose1d": (ConvTranspose1d(3, 2, 3, stride=2), (2, 3, 4)),
    "MaxPool2d": (MaxPool2d(2), (2, 2, 4, 4)),
    "AvgPool2d": (AvgPool2d(2), (2, 2, 4, 4)),
    "BatchNorm2d": (BatchNorm2d(3), (4, 3, 2, 2)),
    "LayerNorm": (LayerNorm(6), (4, 6)),
    "LSTM": (LSTM(2, 3, batch_first=True), (2, 3, 2)),
    "MultiHeadAttention": (MultiHeadAttention(4, 2, is_causal=True), (2, 3, 4)),
    "GELU": (GELU(), (4, 5)),
    "Softmax": (Softmax(), (4, 5)),
    "Dropout": (Dropout(0.3), (4, 5)),
    "serial": (serial(Linear(5, 4), Tanh(), Linear(4, 2)), (4, 5)),
}
"""Layers with the shapes of their inputs: at least one layer for each family of kernels."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    new = argparse.ArgumentParser("python -m funcnet", description=(__doc__ or "").partition(": ")[2].capitalize())
    about = "check the laws of sample layers (default: yes) in under 20 s; the exit status is 1 if a law is broken"
    new.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help=about)
    new.add_argument("--compiled", action="store_true", help="check compiled layers too; it needs a C++ compiler and minutes")
    return new


def facts() -> Iterator[str]:
    """Yield the versions, the number of threads, the processor, and the GPUs if there are any."""
    threads = torch.get_num_threads()
    own = import_module("funcnet").__version__
    versions = f"funcnet {own}, torch {torch.__version__}, Python {platform.python_version()}"
    yield f"{versions}, {threads} thread{'s' * (threads != 1)}"
    yield str(this_processor())
    yield from [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def choices() -> Iterator[str]:
    """Yield a line for each choice between kernels: its name, the option in use, and all options."""
    rows = [(name, one.describe(one.value), " | ".join(one.options)) for name, one in sorted(CHOICES.items())]
    yield from aligned([("choice", "here", "options"), *rows], 3)


def names() -> str:
    """Report how many private names of torch were found, and which ones this release of torch lacks or rejects."""
    missing = sorted(name for name, is_found in FOUND.items() if not is_found)
    if not missing:
        return f"private names of torch: all {len(FOUND)} found"
    found = len(FOUND) - len(missing)
    return f"private names of torch: {found} of {len(FOUND)} found; plain code replaces {', '.join(missing)}"


def broken(name: str, compiled: bool) -> str | None:
    """Return the message about the law that a sample layer breaks; ``None`` if all laws hold."""
    layer, shape = SAMPLE[name]
    try:
        check_laws(layer, normal(0, shape), compiled=compiled, dtypes=(torch.float64, torch.float32))
    except Exception as error:  # whatever a kernel of this machine raises
        return str(error).strip() or type(error).__name__
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print everything, line by line, and return the exit status."""
    options = parser().parse_args(arguments)
    print("\n".join([*facts(), "", *choices(), "", names()]), flush=True)
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
