"""PyTorch interop, run small: every comparison is within rounding; and the table of torchvision's models."""

import re

import torch

from examples import interop
from examples.torchvision_models import judging, library
from examples.torchvision_models.__main__ import page


def test_the_example_compares_and_exports(tmp_path, capsys):
    """float64 agrees within 1e-10, float32 within 1e-5, and losses, names, gradients and the ONNX file agree."""
    interop.main(["--steps", "2", "--batch", "4", "--width", "4", "--size", "16", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    doubles, singles = (
        re.findall(r"by (\S+?)(?:,|$)", line) for line in re.findall(r"^torch\.float\d\d: .*$", out, re.MULTILINE)
    )
    assert max(map(float, doubles)) <= 1e-10
    assert max(map(float, singles)) <= 1e-5
    losses = re.findall(r"(\d\.\d+) (\d\.\d+)", re.search(r"^losses .*$", out, re.MULTILINE)[0])
    assert len(losses) == 2
    assert all(abs(float(a) - float(b)) < 1e-3 for a, b in losses)
    assert "the same names (True)" in out
    block = re.search(r"one block by as_module: outputs differ by (\S+), gradients by (\S+)", out)
    assert max(map(float, block.groups())) <= 1e-5
    onnx = re.findall(r"ONNX Runtime, (\d) images: outputs differ by (\S+)", out)
    assert [int(count) for count, _ in onnx] == [1, 4]
    assert all(float(difference) < 1e-5 for _, difference in onnx)


class Branching(torch.nn.Module):
    """A module that cannot be converted."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


def test_the_table_shows_which_models_agree(monkeypatch):
    """A residual net agrees in both modes; a refused module has its reason on the page."""
    made = {"resnet": lambda: interop.ResNet(4), "branching": Branching}
    monkeypatch.setattr(library, "make", lambda name: made[name]())
    monkeypatch.setattr(library, "size", lambda name, module: 16)
    monkeypatch.setattr(library, "version", lambda: "0")
    found = [judging.judge(name) for name in made]
    assert [one.agrees for one in found] == [True, False]
    assert found[0].dtype == "float64"
    text = page(found)
    assert "1 of 2 models agree." in text
    assert "- `branching`: Branching cannot be converted: its forward cannot be traced" in text
