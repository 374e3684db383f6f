"""Print which layers and modules convert between torch.nn and funcnet, and write it to docs/torch_interop.md.

python -m examples.torch_interop
"""

import operator
import textwrap
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from funcnet.interop.torch_nn.exporting import containers, operations
from funcnet.interop.torch_nn.exporting.registry import MODULES
from funcnet.interop.torch_nn.importing import refused
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS, LAYERS
from funcnet.layers.shape.without_gradient import NoGradient

PAGE = Path(__file__).parents[1] / "docs" / "torch_interop.md"

PROGRAM = """
import torch
from torch import nn

from funcnet.interop.torch_nn import as_module, from_torch, to_torch

module, x = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()), torch.randn(16, 4)

net, params = from_torch(module)          # a net; net.inference() computes what module.eval() does
native = to_torch(net, params)            # modules of torch.nn, where torch.nn has them
wrapped = as_module(net, params)          # one module; its backward pass is the VJP of the net

for one in (native, wrapped):
    assert torch.allclose(one.eval()(x), module.eval()(x), atol=1e-6)
"""

KEYS = """\
The paths of params are the keys of the `state_dict`, in both directions. A module takes several inputs as separate arguments; a
net takes them as a tuple. In a net, masks are True where attention is allowed."""

WRAPPED = """\
`as_module` converts every other layer, and each layer with an option that torch.nn lacks, such as
`Conv1d(..., padding="causal")` or `Softmax(temperature=2.0)`."""


FAMILIES = {
    "linear maps": "linear adaptive",
    "convolutions": "conv fold",
    "pooling": "pooling",
    "normalization": "batchnorm instancenorm normalization",
    "recurrent layers": "rnn",
    "attention and transformers": "transformer",
    "embeddings": "sparse",
    "activations": "activation",
    "noise": "dropout",
    "shapes": "flatten channelshuffle pixelshuffle padding upsampling",
    "distances": "distance",
}
"""The files of torch.nn.modules that define the modules of each family."""

GROUPS = {
    "arithmetic": "arithmetic",
    "activations": "elementwise",
    "with_weights": "with weights among the tensors",
    "pooling": "pooling, resizing, padding, dropout",
    "reducing": "along axes",
    "shapes": "shapes",
    "indexing": "indexing",
    "joining": "joining and splitting",
    "moving": "order of elements",
    "choosing": "choices, comparisons, dtypes",
    "creating": "new tensors",
    "random": "random tensors",
    "passing": "handed on, with a gradient or without",
    "of_torchvision": "of torchvision",
}
"""The purpose of the functions in each file of converters."""

FUNCTIONS_SAID = """\
In a traced forward it converts these functions and methods in each form that torch has: `torch.name`,
`torch.nn.functional.name`, `x.name()`, in place (`x.name_()`), and as operators."""


def classes() -> dict[str, list[str]]:
    """Return the names of all layers that ``to_torch`` converts, by the kind of module that they become."""
    kinds: dict[str, list[str]] = {"native": [], "containers": [], "operations": []}
    for one in MODULES:
        is_container = any(one is held for held in vars(containers).values())
        kind = "operations" if one in (*operations.OPERATIONS, NoGradient) else "containers" if is_container else "native"
        kinds[kind].append(one.__name__)
    return {kind: sorted(names) for kind, names in kinds.items()}


def sources() -> dict[str, list[str]]:
    """Return the names of the modules of torch.nn that ``from_torch`` converts, and of those it rejects."""
    known = {one for one in LAYERS if one.__module__.startswith("torch.")}
    losses = {one for one in known if one in refused.LOSSES}
    others = {one for one in known - losses if one in refused.LAZY or one is nn.CrossMapLRN2d}
    kinds = {"converted": known - losses - others, "losses": losses, "refused": others}
    return {kind: sorted(one.__name__ for one in found) for kind, found in kinds.items()}


def by_family(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of modules of torch.nn by family."""
    homes = {home: family for family, homes in FAMILIES.items() for home in homes.split()}
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in names:
        home = "transformer" if name == "MultiheadAttention" else getattr(nn, name, nn.Linear).__module__.rpartition(".")[2]
        found[homes[home]].append(name)
    return found


def functions() -> dict[str, list[str]]:
    """Return the names of the functions and methods that traced code can call, by purpose."""
    found: dict[str, set[str]] = {group: set() for group in GROUPS.values()}
    for target, convert in FUNCTIONS.items():
        name = target.rpartition(".")[2] if isinstance(target, str) else target.__name__
        is_refused = convert.__name__.startswith("_refuse")
        if not (is_refused or name.startswith("_") or name.endswith("_") or target in vars(operator).values()):
            plain = name.removeprefix("special_").replace("linalg_", "linalg.")
            found[GROUPS[convert.__module__.rpartition(".")[2]]].add(plain)
    return {group: sorted(names) for group, names in found.items()}


def table(head: str, rows: dict[str, list[str]]) -> str:
    """Return a table of two columns: a family, and its names."""
    lines = [f"| {family} | {', '.join(f'`{name}`' for name in names)} |" for family, names in rows.items()]
    return "\n".join([f"| {head} | names |", "| --- | --- |", *lines])


def listed(names: Iterable[str]) -> str:
    """Return names as a wrapped paragraph."""
    return textwrap.fill(", ".join(names) + ".", 120)


def page() -> str:
    """Return the page."""
    to, of = classes(), sources()
    parts = [
        "# torch.nn and funcnet",
        "Made by `python -m examples.torch_interop`.",
        f"## Both ways\n\n```python{PROGRAM}```",
        KEYS,
        f"## From torch.nn\n\n`from_torch` converts {len(of['converted'])} modules of torch.nn:",
        table("family", by_family(of["converted"])),
        "It traces the forward of any other module with `torch.fx`, and names the functions that it cannot convert.",
        FUNCTIONS_SAID,
        table("what they do", functions()),
        f"It rejects {len(of['losses'])} losses, such as `nn.MSELoss`: use funcnet's, such as `fn.MSE`. It also rejects:",
        listed(of["refused"]),
        f"## To torch.nn\n\n`to_torch` converts {len(to['native'])} layers to modules of torch.nn, or to subclasses of them:",
        listed(to["native"]),
        f"These {len(to['containers'])} combinators become containers of the modules of their layers:",
        listed(to["containers"]),
        f"These {len(to['operations'])} layers without params become modules that call the layer; autograd differentiates it:",
        listed(to["operations"]),
        WRAPPED,
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print the page and write it."""
    text = page()
    PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
