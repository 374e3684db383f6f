"""PyTorch interop: a ResNet-18 of torch.nn becomes a net, trains like its module, is converted back, and runs in ONNX Runtime.

The module is defined here in torch.nn, with random weights and the layers and names of ResNet-18 for small images. The example
compares and prints outputs, gradients and running statistics in float64 and float32, and the losses of a few steps with the same
optimizer. It also compares the outputs of the module that ``to_torch`` returns for the trained params, of a module with one block
wrapped in ``as_module``, and of the ONNX file with two batch sizes. Finally it times a training step.

    python -m examples.interop --steps 5 --width 64 --out out
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples import common
from examples.benchmarks import turns
from funcnet.contract import Params
from funcnet.interop import onnx
from funcnet.interop.torch_nn import as_module, from_torch, to_torch

CLASSES, RATE = 10, 0.01


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + x)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        y: Tensor = self.relu(out)
        return y


class ResNet(nn.Module):
    """ResNet-18 (He et al. 2016, table 1) with a stem that keeps the size of small images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        stages = [nn.Sequential(BasicBlock(a, b, 1 if a == b else 2), BasicBlock(b, b, 1)) for a, b in pairwise(sizes)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each class."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        y: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return y


def furthest(ours: Any, theirs: Any) -> float:
    """Return the largest difference between two trees, relative to the largest number of each leaf."""
    pairs = zip(fn.tree.leaves(ours), fn.tree.leaves(theirs), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs if b.is_floating_point())


def gradients(module: torch.nn.Module, x: Tensor, labels: Tensor) -> tuple[Any, ...]:
    """Return the output of a module and its gradients by path, computed by autograd."""
    module.zero_grad()
    y = module(x)
    nn.functional.cross_entropy(y, labels).backward()
    return y.detach(), {path: parameter.grad for path, parameter in module.named_parameters()}


def compared(module: torch.nn.Module, x: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Compare a module with its net in training: return the differences of outputs, gradients and running statistics."""
    net, params = from_torch(module)
    want, grads = gradients(module, x, labels)
    y, cache = net.apply(params, x)
    _, gy = fn.CrossEntropy().value_and_grad(y, labels)
    found = net.grads(params, cache, gy)
    stats = net.update_stats(params, cache)
    buffers = dict(module.named_buffers())
    ours = {path: fn.tree.at(found, path) for path in grads}, {path: fn.tree.at(stats, path) for path in buffers}
    return furthest(y, want), furthest(ours[0], grads), furthest(ours[1], buffers)


def own_rounding(module: torch.nn.Module, x: Tensor, labels: Tensor) -> float:
    """Return the error of torch's own float32 gradients, which is large where rounding switches a ReLU."""
    exact = gradients(copy.deepcopy(module).double(), x.double(), labels)[1]
    return furthest(gradients(copy.deepcopy(module), x, labels)[1], exact)


def trained(module: torch.nn.Module, x: Tensor, labels: Tensor, steps: int) -> tuple[fn.Layer, Params, list[tuple[float, float]]]:
    """Train a net and its module with SGD and momentum; return the net, its params and the losses of both."""
    net, params = from_torch(module)
    opt = fn.SGD(lr=RATE, momentum=0.9)
    step, state = fn.train_step(net, fn.CrossEntropy(), opt), opt.init(params)
    theirs = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    losses = []
    for _ in range(steps):
        params, state, value = step(params, state, x, labels)
        theirs.zero_grad()
        loss = nn.functional.cross_entropy(module(x), labels)
        loss.backward()
        theirs.step()
        losses.append((float(value), float(loss.detach())))
    return net, params, losses


def with_our_block(module: Any) -> torch.nn.Module:
    """Return a copy of a module in which one block is a funcnet net, differentiated by its own VJP."""
    module = copy.deepcopy(module)
    module.layer2[1] = as_module(*from_torch(module.layer2[1]))
    return module  # type: ignore[no-any-return]


def main(given: list[str] | None = None) -> None:
    """Convert, compare, train, go back, export and time; print each result."""
    numbers = {"width": (64, "number of channels of the first stage"), "size": (32, "image size in pixels")}
    options = common.arguments(__doc__, given, numbers, resumable=False, steps=5, batch=16)
    torch.manual_seed(options.seed)
    module = ResNet(options.width)
    images = torch.randn(options.batch, 3, options.size, options.size)
    # Both get images in the memory order that funcnet's convolutions prefer: in another order torch's float32 sums round
    # differently, and a gradient jumps if a value crosses the kink of a ReLU.
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (options.batch,))
    print(f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters, {options.batch} images")
    for dtype in (torch.float64, torch.float32):
        y, grads, stats = compared(copy.deepcopy(module).to(dtype), images.to(dtype), labels)
        print(f"{dtype}: outputs differ by {y:.1e}, gradients by {grads:.1e}, running statistics by {stats:.1e}")
    print(f"torch's own gradients in float32 differ from those in float64 by {own_rounding(module, images, labels):.1e}")

    net, params, losses = trained(copy.deepcopy(module), images, labels, options.steps)
    print("losses of funcnet and torch:", ", ".join(f"{ours:.4f} {theirs:.4f}" for ours, theirs in losses))

    back = to_torch(net, params).eval()
    want = net.inference()(params, images)
    print(f"back in torch.nn: the same names ({back.state_dict().keys() == module.state_dict().keys()}), ", end="")
    print(f"outputs differ by {furthest(back(images).detach(), want):.1e}")

    mixed = with_our_block(module)
    (y, grads), (want, theirs) = gradients(mixed, images, labels), gradients(copy.deepcopy(module), images, labels)
    print(f"one block by as_module: outputs differ by {furthest(y, want):.1e}, gradients by {furthest(grads, theirs):.1e}")

    options.out.mkdir(parents=True, exist_ok=True)
    exported(net, params, images, options.out / "resnet.onnx")
    times(module, images, labels)


def exported(net: fn.Layer, params: Params, images: Tensor, path: Path) -> None:
    """Write the net for ONNX Runtime, run it with other batch sizes, and print the differences of the outputs."""
    import onnxruntime

    onnx.export(net, params, images, path)
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    for count in (1, len(images)):
        (got,) = session.run(None, {name: images[:count].numpy()})
        difference = furthest(torch.from_numpy(got), net.inference()(params, images[:count]))
        print(f"ONNX Runtime, {count} images: outputs differ by {difference:.1e}")


def times(module: torch.nn.Module, images: Tensor, labels: Tensor) -> None:
    """Print the time of a training step of the net, of its module, and of the module with one block in ``as_module``."""
    net, params = from_torch(module)
    opt = fn.donate(fn.SGD(lr=RATE, momentum=0.9))
    step, state = fn.train_step(net, fn.CrossEntropy(), opt), opt.init(params)
    ways: dict[str, Callable[[], Any]] = {"funcnet": lambda: step(params, state, images, labels)}
    for name, one in {"torch.nn": copy.deepcopy(module), "one block by as_module": with_our_block(module)}.items():
        ways[name] = theirs(one, images, labels)
    found = turns.measured(ways, rounds=5)
    print("a training step:", ", ".join(f"{name} {time:.0f} ms ({time / found['torch.nn']:.2f})" for name, time in found.items()))


def theirs(module: torch.nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step of a module."""
    opt = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)

    def step() -> None:
        opt.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        opt.step()

    return step


if __name__ == "__main__":
    main()
