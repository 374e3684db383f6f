"""Code that a type checker must accept, and lines that it must reject, which end with the rules of mypy and pyright.

``test_types.py`` reads this file but does not run it.
"""
# ruff: noqa: B018

from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from funcnet.contract import Cache, Grads, Params, Rng, Size

x, target = torch.randn(8, 3), torch.randn(8, 4)
net = fn.serial(fn.Linear(3, 4), fn.Tanh())
loss, opt = fn.MSE(), fn.Adam(lr=1e-3)


# constructors: fields with their types, defaults and names

fn.Linear("a", 3)  # E: arg-type reportArgumentType
fn.Linear(3)  # E: call-arg reportCallIssue
fn.Linear(3, 4, bias="no")  # E: arg-type reportArgumentType
fn.Linear(3, 4, biases=True)  # E: call-arg reportCallIssue
fn.Linear(3, None)  # E: arg-type reportArgumentType
fn.Conv2d("3", 8, 3)  # E: arg-type reportArgumentType
fn.LSTM(input_size=[3], hidden_size=4)  # E: arg-type reportArgumentType
fn.Dropout("half")  # E: arg-type reportArgumentType
fn.serial(3, fn.Tanh())  # E: arg-type reportArgumentType
fn.Adam(lr="fast")  # E: arg-type reportArgumentType
fn.Linear(3, 4).in_features = 5  # E: misc reportAttributeAccessIssue
fn.Linear(None, 3)
fn.Linear(3, 4).in_features + 1
fn.Conv2d(None, 8, (3, 5), padding="same")
fn.RNN(3, 4, 2, "relu", False)
fn.HingeEmbedding(2.0, "none")
fn.serial(fn.Index[-1], fn.Index[:, 0])
fn.TripletMarginWithDistance(fn.PairwiseDistance(), 2.0)
fn.Checkpoints("runs", 5, every=10)
fn.Adam(lr=fn.CosineSchedule(0.1, 100))
fn.Linear(3, 4) >> fn.Tanh()


# methods of layers: params, x and keys in the right order

net.init()  # E: call-arg reportCallIssue
params = net.init(0)
net.apply(x, params)  # E: arg-type reportArgumentType
net(x, params)  # E: arg-type reportArgumentType
net(net, x)  # E: arg-type reportArgumentType
net(None, x)  # E: arg-type reportArgumentType
fn.Linear(3, 4).apply(x, params)  # E: arg-type reportArgumentType
fn.Linear(3, 4)(x, params)  # E: arg-type reportArgumentType
fn.Dropout(0.5)({}, x, "key")  # E: arg-type reportArgumentType
fn.predict(params, net, x, batch_size=4)  # E: arg-type reportArgumentType
y, cache = net.apply(params, x)
value, gy = loss.value_and_grad(y, target)
grads, gx = net.vjp(params, cache, gy)
grads = net.grads(params, cache, gy)
net(grads, x)  # E: arg-type reportArgumentType
net.init(fn.key(0))
net(params, x, fn.key(1))
params["0"]["weight"].shape
params[0]["weight"].shape
net({"0": {"weight": x}, "1": {}}, x)
net(({"weight": x, "bias": x}, {}), x)


# steps: gradients, state and params in the right order

state = opt.init(params)
opt.init(x)  # E: arg-type reportArgumentType
opt.update(params, state, grads)  # E: arg-type reportArgumentType
opt.update(grads, params, state)  # E: arg-type reportArgumentType
opt.update(grads, state)  # E: call-arg reportCallIssue
params, state = opt.update(grads, state, params)
params, state = opt.update({"0": None, "1": {}}, state, params)
step = fn.train_step(net, loss, opt)
fn.train_step(net, opt, loss)  # E: arg-type reportArgumentType
step(x, state, params, target)  # E: arg-type reportArgumentType
params, state, value = step(params, state, x, target, rng=0)
fn.fit(net, loss, opt, (x, target), epochs=1, batch_size=4)  # E: call-arg reportCallIssue
fn.fit(net, opt, loss, (x, target), epochs=1, batch_size=4, key=0)  # E: arg-type reportArgumentType
run = fn.fit(net, loss, opt, (x, target), epochs=1, batch_size=4, key=0)
params, state, history = run
fn.save(params, "params.fn")  # E: arg-type reportArgumentType
fn.report(run, "run.html", net=loss)  # E: arg-type reportArgumentType
fn.tree.map(torch.clone, params)


# custom classes


@fn.frozen
class Doubled(fn.Layer):
    """A layer with a size that may be inferred."""

    in_features: Size
    factor: float = 2.0

    def init(self, rng: fn.random.Key | int) -> dict[str, Tensor]:
        return {"weight": torch.ones(self.in_features)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        return self.factor * params["weight"] * x, x

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        return {"weight": (self.factor * gy * cache).sum(0)}, self.factor * gy * params["weight"]


Doubled(3, factor="2")  # E: arg-type reportArgumentType
Doubled(factor=2.0)  # E: call-arg reportCallIssue
Doubled(3)(x, params)  # E: arg-type reportArgumentType
Doubled(None)
Doubled(3, 1.0)(Doubled(3).init(0), x)
fn.serial(Doubled(3), fn.Tanh())
own: dict[str, Any] = {"weight": x}
Doubled(3).apply(own, x)
