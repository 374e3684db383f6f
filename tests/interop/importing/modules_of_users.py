"""Modules as users write them: residuals, U-Nets, siamese nets, sequence classifiers, auxiliary outputs."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """A block of a residual net, with an activation that is used twice."""

    def __init__(self, channels: int = 4, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        y += x
        return self.relu(y)


class ResNet(nn.Module):
    """A small residual net."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.layers = nn.Sequential(Residual(), Residual(stride=2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.layers(self.stem(x)))
        return self.fc(torch.flatten(x, 1))


class UNet(nn.Module):
    """Two levels down and up, connected by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)])
        self.up = nn.ModuleDict({"transposed": nn.ConvTranspose2d(8, 4, 2, stride=2), "joined": nn.Conv2d(8, 4, 3, padding=1)})
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = functional.relu(self.down[0](x))
        low = functional.relu(self.down[1](functional.max_pool2d(high, 2)))
        up = self.up["transposed"](low)
        return self.last(functional.relu(self.up["joined"](torch.cat([high, up], dim=1))))


class LastOutput(nn.Module):
    """A classifier of sequences that uses the last output of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 7, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(tokens))
        return self.fc(out[:, -1, :])


class LastState(nn.Module):
    """A classifier of sequences that uses the last hidden states of an LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.gru = nn.GRU(6, 7, batch_first=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.lstm(x)
        _, state = self.gru(x)
        return self.fc(torch.cat([h[-1], state.squeeze(0)], -1)) + c[-1].mean(dim=1, keepdim=True)


class Auxiliary(nn.Module):
    """A net with a second output and dropout, both only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.aux = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = functional.dropout(torch.tanh(self.norm(self.body(x))), 0.0, training=self.training)
        return (self.head(h), self.aux(h)) if self.training else self.head(h)


class Siamese(nn.Module):
    """One encoder for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.encoder(a) - self.encoder(b)).abs() @ self.scale


class Tied(nn.Module):
    """A language model whose output layer has the weights of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.out = nn.Linear(6, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.embedding(tokens)))


class Everything(nn.Module):
    """Parameters and buffers used directly, unused ones, several outputs, constants and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.unused = nn.Linear(2, 2)
        self.never = nn.Parameter(torch.randn(3))
        self.scales = nn.ParameterList([nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))])
        self.register_buffer("shift", torch.randn(6))
        self.register_buffer("ramp", torch.arange(6.0), persistent=False)
        self.register_buffer("later", torch.zeros(2))
        self.inner = nn.ModuleDict({"first": nn.Linear(6, 6), "second": nn.ModuleList([nn.Linear(6, 6)])})

    def forward(self, x: Tensor, power: float = 2.0) -> dict[str, Tensor]:
        n, length, _ = x.shape
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) * self.scales[0] + self.shift
        y = self.inner["second"][0](self.inner["first"](x) * self.ramp.to(x.dtype)) ** power
        y = y.reshape(n, -1)[:, : 6 * length]
        return {"y": y.view(n, length, 6), "sum": x.sum(dim=(1, 2))}


class Masked(nn.Module):
    """Attention with a padding mask that is passed through a module."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.encoder(x, src_key_padding_mask=mask)
        return self.attention(y, y, y, key_padding_mask=mask, need_weights=False)[0]


class OwnMask(nn.Module):
    """Attention with masks created in the code: one for padding tokens, and a causal one in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("causal", torch.ones(5, 5).triu(1).bool(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.attention(x, x, x, key_padding_mask=tokens == 0, attn_mask=self.causal)[0]


class Repeated(nn.Sequential):
    """A sequence that contains one module twice."""

    def __init__(self) -> None:
        layer = nn.Linear(6, 6)
        super().__init__(layer, nn.Tanh(), layer, nn.BatchNorm1d(6))


class Dense(nn.Module):
    """Layers that take a list of all previous outputs, as in DenseNet."""

    class Layer(nn.Module):
        """A layer that takes a list of tensors."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, 2)

        def forward(self, features: list[Tensor]) -> Tensor:
            return self.linear(torch.cat(features, -1))

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Dense.Layer(6), Dense.Layer(8)])

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, -1)


class Pair(nn.Module):
    """Modules that pass tuples and sizes on."""

    class Halves(nn.Module):
        """A module with two outputs."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a, b = x.chunk(2, dim=-1)
            return a, torch.sigmoid(b)

    class Joined(nn.Module):
        """A module that takes a tuple and a number."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, pair: tuple[Tensor, Tensor], rows: int) -> Tensor:
            a, b = pair
            return self.linear(a * b).reshape(rows, -1)

    def __init__(self) -> None:
        super().__init__()
        self.halves, self.joined = Pair.Halves(), Pair.Joined()

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self.halves(x), x.size(0))


class OwnNorm(nn.Module):
    """A layer norm that reads the shape of a parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class CausalAttention(nn.Module):
    """Attention by matrix products, with a causal mask sliced from a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        n, steps, width = x.size()
        q, k, v = self.qkv(x).split(width, dim=2)
        q, k, v = (one.view(n, steps, 2, width // 2).transpose(1, 2) for one in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) / k.size(-1) ** 0.5
        scores = scores.masked_fill(self.mask[:, :, :steps, :steps] == 0, float("-inf"))
        y = (functional.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(n, steps, width)
        return self.out(y)


class GPT(nn.Module):
    """A language model with checks of its input, positions from sizes, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        block = {"norm": OwnNorm(8), "attention": CausalAttention()}
        parts = {"tokens": nn.Embedding(20, 8), "positions": nn.Embedding(9, 8), "blocks": nn.ModuleList([nn.ModuleDict(block)])}
        self.transformer = nn.ModuleDict(parts)
        self.head = nn.Linear(8, 20, bias=False)
        self.transformer["tokens"].weight = self.head.weight

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        _, steps = tokens.size()
        assert steps <= 9, "too many steps"
        if tokens.dim() != 2 or steps < 1:
            raise ValueError("tokens must have two axes")
        places = torch.arange(0, steps, dtype=torch.long, device=tokens.device)
        x = self.transformer["tokens"](tokens) + self.transformer["positions"](places)
        for block in self.transformer["blocks"]:
            x = x + block["attention"](block["norm"](x))
        return self.head(x) if targets is not None else self.head(x[:, [-1], :])
