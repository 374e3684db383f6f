"""Convert every classification model of torchvision with ``from_torch``, and compare the net with its module.

Each model has random weights. Models of up to 40 million parameters are compared in float64, in training and in evaluation;
larger ones in float32, in evaluation. It takes a quarter of an hour, and up to 15 GB of memory.

    python -m examples.torchvision_models --models resnet18,vgg11 --out out
"""

import argparse
import gc
from pathlib import Path

import torch
from tqdm import tqdm

from examples.torchvision_models import library
from examples.torchvision_models.judging import Judged, judge

HEAD = """# Models of torchvision

Made by `python -m examples.torchvision_models` with torch {torch} and torchvision {torchvision}, on the CPU.

Every classification model, with random weights, is converted by `from_torch` and compared with its module: outputs, gradients of
all parameters and, in training, running statistics. A difference is the largest one, relative to the tensor's largest number; for
a gradient that is 0 up to rounding, relative to 1e-5 of the model's largest gradient. Dropout and stochastic depth are switched
off. Models of up to 40 million parameters are compared in float64, in training and in evaluation; larger ones in float32, in
evaluation.

A model agrees if all differences are below 1e-7 in float64 and 1e-4 in float32. `mobilenet_v3` differs by 3e-8 because torch
rounds the 1/6 in the gradient of `hardsigmoid` to float32.

{agree} of {all} models agree.

| model | parameters | dtype | outputs | gradients | running statistics | agrees |
| --- | ---: | --- | ---: | ---: | ---: | --- |
"""


def row(one: Judged) -> str:
    """Write the row of a model: the larger difference of both modes."""
    if one.reason:
        return f"| `{one.name}` | {one.params / 1e6:.1f} M | {one.dtype} | | | | no |\n"
    modes = [mode for mode in (one.training, one.evaluation) if mode]
    y, g = (f"{max(mode[i] for mode in modes):.1e}" for i in (0, 1))
    stats = f"{one.training[2]:.1e}" if one.training else ""
    return f"| `{one.name}` | {one.params / 1e6:.1f} M | {one.dtype} | {y} | {g} | {stats} | {'yes' if one.agrees else 'no'} |\n"


def page(found: list[Judged]) -> str:
    """Write the page: the table, and the reasons for models that are not converted."""
    versions = {"torch": torch.__version__.partition("+")[0], "torchvision": library.version()}
    text = HEAD.format(**versions, agree=sum(one.agrees for one in found), all=len(found)) + "".join(map(row, found))
    reasons = [f"- `{one.name}`: {one.reason}\n" for one in found if one.reason]
    return text + "".join(["\n## Not converted\n\n", *reasons] if reasons else [])


def main(given: list[str] | None = None) -> None:
    """Compare the models, print a line for each, and write the page."""
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models", default="", help="comma-separated names; all models by default")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the page torchvision.md")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[Judged] = []
    for name in tqdm(options.models.split(",") if options.models else library.names(), desc="models"):
        found.append(judge(name))
        tqdm.write(f"{name}: {found[-1].reason or ('agrees' if found[-1].agrees else found[-1])}")
        (options.out / "torchvision.md").write_text(page(found))
        gc.collect()
    print(f"{sum(one.agrees for one in found)} of {len(found)} models agree; the table is in {options.out / 'torchvision.md'}")


if __name__ == "__main__":
    main()
