"""Test the installed wheel from outside the source tree, with the oldest supported dependencies: ``python smoke.py SOURCE``.

Every file of the package must be installed, every module must import, a net must train, and laws must hold. attrs and
typing-extensions must be the oldest versions that SOURCE supports. Warnings are errors.
"""

import importlib
import importlib.util
import pkgutil
import sys
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.simplefilter("error")
for category in (DeprecationWarning, FutureWarning):  # torch itself uses APIs that it deprecates
    warnings.filterwarnings("ignore", category=category, module="torch")

SUBCLASSED = {"funcnet.interop.sklearn": "sklearn"}
"""Packages of funcnet that cannot be imported without an extra."""


def check_files(source: Path, installed: Path) -> None:
    """Compare the files of the package with the installed files."""
    there, here = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}
        for root in (source / "funcnet", installed)
    )
    assert there == here, f"the wheel must hold the files of the package; only one of them has {sorted(there ^ here)}"


def check_versions(source: Path) -> None:
    """Require the oldest versions of attrs and typing-extensions."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    for name, _, oldest in [one.partition(">=") for one in project["dependencies"]]:
        got = version(name)
        assert name == "torch" or got.startswith(oldest), f"{name} must be of version {oldest}, got {got}"


def train() -> None:
    """Train a net to separate the points inside a disk from those outside."""
    import torch

    import funcnet as fn

    torch.set_num_threads(1)
    x = fn.random.uniform(0, (400, 2), -1.0, 1.0)
    labels = (x.square().sum(-1) < 0.6).long()
    net, opt, loss = fn.mlp([2, 16, 2]), fn.AdamW(lr=0.02), fn.CrossEntropy()
    step, params = fn.train_step(net, loss, opt), net.init(0)
    state = opt.init(params)
    for _ in range(300):
        params, state, _ = step(params, state, x, labels)
    right = (net(params, x).argmax(-1) == labels).double().mean()
    assert right > 0.95, f"the fraction of correctly classified points must be above 0.95, got {right:.3f}"


def check_laws() -> None:
    """Check laws of a layer and of an optimizer."""
    import funcnet as fn

    for layer, shape in {
        fn.serial(fn.Linear(4, 3), fn.BatchNorm1d(3), fn.Dropout(0.5)): (5, 4),
        fn.Conv2d(2, 3, 3): (2, 2, 5, 5),
        fn.MultiHeadAttention(4, 2): (2, 3, 4),
        fn.LSTM(3, 2, batch_first=True): (2, 4, 3),
    }.items():
        fn.testing.check_laws(layer, fn.random.normal(0, shape), compiled=False)
    fn.testing.check_optimizer(fn.AdamW(lr=0.1), {"w": fn.random.normal(1, (3, 4))}, compiled=False)


def lacks_extra(module: str) -> bool:
    """Return whether a module subclasses classes of a package that is not installed, such as scikit-learn's."""
    needed = [extra for package, extra in SUBCLASSED.items() if f"{module}.".startswith(f"{package}.")]
    return any(importlib.util.find_spec(extra) is None for extra in needed)


def main() -> None:
    """Run all checks."""
    source = Path(sys.argv[1]).resolve()
    package = importlib.import_module("funcnet")
    installed = Path(package.__file__).parent
    assert installed.parents[3] == Path(sys.prefix), f"funcnet must be installed in {sys.prefix}, got {installed}"
    assert version("funcnet") == package.__version__
    check_files(source, installed)
    check_versions(source)
    for module in pkgutil.walk_packages(package.__path__, "funcnet."):
        if not lacks_extra(module.name):
            importlib.import_module(module.name)
    train()
    check_laws()
    print(f"the wheel works with attrs {version('attrs')} and typing-extensions {version('typing-extensions')}")


if __name__ == "__main__":
    main()
