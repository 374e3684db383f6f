"""Experiments: train one network once on the disk, in funcnet or as its twin in torch.nn.

The twin has the same layers, the same initial weights, and the same batches in the same order; its loss and optimizer are
torch's, with the same settings. Both run eagerly on one thread, and only their training steps are timed.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

import funcnet as fn

FRAMEWORKS = ("funcnet", "torch.nn")
POINTS = 1000
GRID = 101
SQUARES = {"unit": (0.0, 1.0), "centred": (-1.0, 1.0), "standard": (-math.sqrt(3), math.sqrt(3))}


@frozen
class Experiment:
    """Everything that determines a result except the seed.

    ``target`` is the form of labels for the loss: "one-hot" rows of 0 and 1, "signs" rows of -1 and 1, "labels" the numbers
    themselves, "bit" a column of 0 and 1. ``square`` is "unit", [0, 1]², or the same square mapped to [-1, 1]², "centred", or to
    [-√3, √3]², "standard", so that coordinates have mean 0 and variance 1.
    """

    name: str
    net: fn.Layer
    loss: Any
    opt: Any
    epochs: int
    batch_size: int
    target: str = "one-hot"
    square: str = "unit"


@frozen
class Data:
    """Points (N, 2), their labels (N,), and the labels in the form for the loss."""

    x: Tensor
    labels: Tensor
    targets: Tensor


def data(experiment: Experiment, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Data, Data]:
    """Draw the training and the test points of a seed."""
    return tuple(_disk(experiment, key, dtype, device) for key in fn.split(fn.key(seed), 2))  # type: ignore[return-value]


def _disk(experiment: Experiment, key: Tensor, dtype: torch.dtype, device: str) -> Data:
    x = fn.random.uniform(key, (POINTS, 2)).to(device, dtype)
    labels = (((x - 0.5) ** 2).sum(1) < 1 / (2 * math.pi)).long()
    rows = torch.eye(2, dtype=dtype, device=device)[labels]
    targets = {"one-hot": rows, "signs": 2 * rows - 1, "labels": labels, "bit": rows[:, 1:]}[experiment.target]
    low, high = SQUARES[experiment.square]
    return Data((high - low) * x + low, labels, targets)


def predicted(experiment: Experiment, y: Tensor) -> Tensor:
    """Return the predicted label: the larger of two outputs, or whether a single one is above ½."""
    return (y[:, 0] > 0.5).long() if experiment.target == "bit" else y.argmax(1)


def measures(experiment: Experiment, y: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 averaged over the two classes; a class never predicted counts as 0."""
    said = predicted(experiment, y)
    hits, claims, truths = (
        [float(((a == c) & (b == c)).sum()) for c in (0, 1)] for a, b in ((said, labels), (said, said), (labels, labels))
    )
    precision = [h / max(n, 1) for h, n in zip(hits, claims, strict=True)]
    recall = [h / max(n, 1) for h, n in zip(hits, truths, strict=True)]
    f1 = [2 * p * r / max(p + r, 1e-12) for p, r in zip(precision, recall, strict=True)]
    scores = {"precision": precision, "recall": recall, "f1": f1}
    return {"accuracy": sum(hits) / len(labels)} | {name: sum(pair) / 2 for name, pair in scores.items()}


def orders(experiment: Experiment, seed: int, epochs: int, device: str) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batches of row numbers for each epoch."""
    for epoch in range(epochs):
        rows = fn.random.permutation(fn.fold_in(fn.fold_in(seed, 7), epoch), POINTS)
        yield rows.to(device).split(experiment.batch_size)


Batches = Iterable[tuple[Tensor, Tensor]]
Train = Callable[[Batches], list[Tensor]]
Predict = Callable[[Tensor], Tensor]


def funcnet_training(experiment: Experiment, params: Any) -> tuple[Train, Predict, Callable[[], Any]]:
    """Return funcnet's training on batches, its prediction, and a function that returns its params."""
    opt = fn.donate(experiment.opt)
    step = fn.train_step(experiment.net, experiment.loss, opt)
    params = fn.tree.map(torch.clone, params)  # a copy, since the optimizer writes to it and the twin starts from the same params
    state = opt.init(params)
    judged = experiment.net.inference()

    def train(batches: Batches) -> list[Tensor]:
        nonlocal params, state
        values = []
        with torch.inference_mode():
            for x, target in batches:
                params, state, value = step(params, state, x, target)
                values.append(value)
        return values

    return train, lambda x: judged(params, x), lambda: params


def torch_training(experiment: Experiment, params: Any) -> tuple[Train, Predict, Callable[[], Any]]:
    """Return the same three for the twin in torch.nn."""
    net = torch_net(experiment.net, params)
    criterion, optimizer = torch_loss(experiment.loss), torch_optimizer(experiment.opt, net)

    def train(batches: Batches) -> list[Tensor]:
        values = []
        for x, target in batches:
            optimizer.zero_grad()
            value = criterion(net(x), target)
            value.backward()
            optimizer.step()
            values.append(value.detach())
        return values

    def predict(x: Tensor) -> Tensor:
        net.eval()
        with torch.inference_mode():
            y: Tensor = net(x)
        net.train()
        return y

    return train, predict, lambda: fn.tree.from_names(dict(net.state_dict()), params)


TRAININGS: dict[str, Callable[..., Any]] = dict(zip(FRAMEWORKS, (funcnet_training, torch_training), strict=True))

TWINS: dict[type, Callable[[Any], nn.Module]] = {
    fn.Linear: lambda f: nn.Linear(f.in_features, f.out_features, f.bias),
    fn.BatchNorm1d: lambda f: nn.BatchNorm1d(f.num_features, f.eps, f.momentum, f.affine, f.track_running_stats),
    fn.ReLU: lambda f: nn.ReLU(),
    fn.LeakyReLU: lambda f: nn.LeakyReLU(f.negative_slope),
    fn.Sigmoid: lambda f: nn.Sigmoid(),
    fn.Tanh: lambda f: nn.Tanh(),
}


def torch_net(net: Any, params: Any) -> nn.Module:
    """Make the twin of a serial, with the same layers and weights."""
    twin = nn.Sequential(*[TWINS[type(layer)](layer) for layer in net])
    leaf = next(leaf for leaf in fn.tree.leaves(params) if leaf.is_floating_point())
    twin.to(leaf.device, leaf.dtype).load_state_dict(fn.tree.names(params))
    return twin


def torch_loss(loss: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torch's loss of the same name; a sum over features and mean over rows is torch's sum divided by N."""
    makers: dict[Any, Any] = {fn.MSE: nn.MSELoss, fn.L1: nn.L1Loss, fn.BCE: nn.BCELoss, fn.CrossEntropy: nn.CrossEntropyLoss}
    make = makers[type(loss)]
    if loss.reduction != "batch":
        return make(reduction=loss.reduction)  # type: ignore[no-any-return]
    total = make(reduction="sum")
    return lambda y, target: total(y, target) / len(y)


def torch_optimizer(opt: Any, net: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimizer with the same settings."""
    if isinstance(opt, fn.Adam):
        settings: Any = opt.lr, opt.betas, opt.eps
        return torch.optim.Adam(net.parameters(), *settings)
    if not opt.averaged:
        return torch.optim.SGD(net.parameters(), opt.lr, opt.momentum)
    # v <- m v + (1 - m) g from v = 0 is torch's dampened momentum, but torch's first step sets v = g, so v is set to 0 here.
    twin = torch.optim.SGD(net.parameters(), opt.lr, opt.momentum, dampening=opt.momentum)
    twin.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in net.parameters()})
    return twin


def perform(
    experiment: Experiment, framework: str, seed: int, device: str = "cpu", tick: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    """Train once, and return the numbers for tables and figures, which JSON can hold.

    ``seconds`` is the time of training only; ``curves`` has the mean training ``loss`` of each epoch, and each measure on the
    training and the test points after it; ``final`` has their last values and the last losses; ``map`` is the prediction on a
    grid.
    """
    train, test = data(experiment, seed, device=device)
    fit, predict, _ = TRAININGS[framework](experiment, first_params(experiment, seed, device))
    curves: dict[str, list[float]] = {}
    seconds = 0.0
    for order in orders(experiment, seed, experiment.epochs, device):
        batches = [(train.x[rows], train.targets[rows]) for rows in order]
        began = time.perf_counter()
        values = fit(batches)
        losses = torch.stack(values).tolist()  # waits for the device
        seconds += time.perf_counter() - began
        _note(curves, {"loss": sum(losses) / len(losses), **_judge(experiment, predict, train, test)})
        tick()
    final = {name: column[-1] for name, column in curves.items()} | _losses(experiment, predict, train, test)
    return {"seconds": seconds, "curves": curves, "final": final, "map": grid_map(experiment, predict, device)}


def first_params(experiment: Experiment, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Return the initial weights of a seed, which both frameworks start from."""
    return fn.tree.to(fn.tree.cast(experiment.net.init(fn.fold_in(seed, 1)), dtype), device)


def _note(curves: dict[str, list[float]], row: dict[str, float]) -> None:
    for name, number in row.items():
        curves.setdefault(name, []).append(number)


def _judge(experiment: Experiment, predict: Predict, train: Data, test: Data) -> dict[str, float]:
    pairs = (("train", train), ("test", test))
    return {
        f"{part} {name}": v
        for part, points in pairs
        for name, v in measures(experiment, predict(points.x), points.labels).items()
    }


def _losses(experiment: Experiment, predict: Predict, train: Data, test: Data) -> dict[str, float]:
    return {f"{part} loss": float(experiment.loss(predict(d.x), d.targets)) for part, d in (("train", train), ("test", test))}


def grid_map(experiment: Experiment, predict: Predict, device: str = "cpu") -> list[list[float]]:
    """Return the net's output for "inside" on a grid of the square: the difference of two outputs, or one minus ½."""
    axis = torch.linspace(*SQUARES[experiment.square], GRID, device=device)
    y = predict(torch.cartesian_prod(axis, axis))
    inside = y[:, 0] - 0.5 if experiment.target == "bit" else y[:, 1] - y[:, 0]
    return [[round(v, 3) for v in row] for row in inside.reshape(GRID, GRID).T.tolist()]


def first_epoch_gap(experiment: Experiment, seed: int) -> float:
    """Return the largest difference of a weight between funcnet and torch.nn after one epoch in float64."""
    train, _ = data(experiment, seed, torch.float64)
    ends = []
    for framework in FRAMEWORKS:
        fit, _, params = TRAININGS[framework](experiment, first_params(experiment, seed, dtype=torch.float64))
        fit([(train.x[rows], train.targets[rows]) for rows in next(orders(experiment, seed, 1, "cpu"))])
        ends.append(fn.tree.ravel(params()))
    return float((ends[0] - ends[1]).abs().max())
