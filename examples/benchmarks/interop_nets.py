"""Modules of torch.nn for the interop benchmark: a transformer encoder, a U-Net, an LSTM classifier and a small MLP."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from examples.interop import CLASSES, ResNet

Case = tuple[Callable[[], nn.Module], Tensor, int]
"""A function that makes a module, its input, and the number of repetitions per turn."""


class MLP(nn.Module):
    """2-25-25-10 with tanh and a skip connection: a graph of cheap nodes."""

    def __init__(self) -> None:
        """Make three linear layers."""
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, 25), nn.Linear(25, 25), nn.Linear(25, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each class."""
        x = torch.tanh(self.first(x))
        x = x + torch.tanh(self.second(x))
        scores: Tensor = self.last(x)
        return scores


class Encoder(nn.Module):
    """A transformer encoder of two layers, and the mean over time."""

    def __init__(self) -> None:
        """Make the encoder without dropout, so that neither side draws random numbers."""
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder, self.last = nn.TransformerEncoder(layer, 2), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each class."""
        scores: Tensor = self.last(self.encoder(x).mean(1))
        return scores


class LSTMClassifier(nn.Module):
    """An embedding, an LSTM, and a linear layer on its last output."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(100, 32), nn.LSTM(32, 64, batch_first=True)
        self.last = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each class."""
        y, _ = self.lstm(self.embedding(x))
        scores: Tensor = self.last(y[:, -1])
        return scores


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    pair = [(inputs, outputs), (outputs, outputs)]
    conv = lambda a, b: [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*[layer for a, b in pair for layer in conv(a, b)])


class UNet(nn.Module):
    """A U-Net of three levels, and the mean over the image."""

    def __init__(self, width: int) -> None:
        """Make the levels, with 1, 2 and 4 times the width."""
        super().__init__()
        self.down1, self.down2 = _two_convolutions(3, width), _two_convolutions(width, 2 * width)
        self.bottom, self.pool = _two_convolutions(2 * width, 4 * width), nn.MaxPool2d(2)
        self.widen2, self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), _two_convolutions(4 * width, 2 * width)
        self.widen1, self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2), _two_convolutions(2 * width, width)
        self.last = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each class."""
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.widen2(self.bottom(self.pool(second)))
        y = self.widen1(self.up2(torch.cat([y, second], 1)))
        scores: Tensor = self.last(self.up1(torch.cat([y, first], 1))).mean((2, 3))
        return scores


def cases() -> dict[str, Case]:
    """Return the modules by name, with their inputs."""
    image = lambda n: torch.randn(n, 3, 32, 32)
    return {
        "MLP 2-25-25-10, 100 rows": (MLP, torch.randn(100, 2), 50),
        "LSTM of 64, 16×20 words": (LSTMClassifier, torch.randint(100, (16, 20)), 4),
        "transformer encoder of 64, 8×32": (Encoder, torch.randn(8, 32, 64), 4),
        "U-Net of width 16, 4 images": (lambda: UNet(16), image(4), 1),
        "ResNet-18 of width 16, 16 images": (lambda: ResNet(16), image(16), 1),
        "ResNet-18 of width 64, 8 images": (lambda: ResNet(64), image(8), 1),
    }
