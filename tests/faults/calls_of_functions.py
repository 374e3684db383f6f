"""Calls of the public functions that create layers, walk them, train, draw and test, with small valid arguments."""

import operator
from typing import Any

import torch
from calling import Call

import funcnet as fn
from funcnet import initializers, random, testing, tree

X, T, NET = torch.ones(4, 2), torch.zeros(4, 3), fn.serial(fn.Linear(2, 4), fn.Tanh(), fn.Linear(4, 3))
PARAMS, LOSS, OPT, KEY = NET.init(0), fn.MSE(), fn.SGD(0.1, momentum=0.9), fn.key(0)
STATE, GRADS = OPT.init(PARAMS), tree.map(torch.ones_like, PARAMS)
CELL, LINEAR, SMALL = fn.GRUCell(2, 3), fn.Linear(2, 3), {"weight": torch.ones(3, 2), "bias": None}
NORMED = fn.serial(fn.Linear(2, 3), fn.RunningBatchNorm1d(3))
TREE = {"a": torch.ones(2, 3), "b": (torch.ones(2), None)}
ROWS, LENGTHS, PADDED = [torch.ones(3, 2), torch.ones(1, 2)], torch.tensor([3, 1]), torch.ones(3, 2, 2)


def call(f: Any, /, *names: str, **arguments: Any) -> Call:
    """Return a call with the name of the function."""
    family = {"funcnet.tree": "tree", "funcnet.random": "random", "funcnet.initializers": "initialize"}
    owner = ".".join(f.__module__.split(".")[:2])
    return Call(f.__name__, f, arguments, (f.__name__, *names, family.get(owner, f.__name__)))


def same_leaf(leaf: Any) -> Any:
    """Return the leaf."""
    return leaf


def paired(a: Any, b: Any) -> Any:
    """Return both arguments."""
    return a, b


def half_rule(forward: Any, x: Any, y: Any, gy: Any) -> Any:
    """Return the gradient unchanged."""
    return gy


def _as_many(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def made_by_shape(x: Any) -> fn.Layer:
    """Return the layer, whatever the input."""
    return fn.Linear(x.shape[-1], 3)


def same(path: str, layer: fn.Layer) -> fn.Layer:
    """Return the layer."""
    return layer


def applied(params: Any, x: Any) -> Any:
    """Return x and its cache."""
    return x, None


def backward(params: Any, cache: Any, gy: Any) -> Any:
    """Return no gradients of params, and gy."""
    return None, gy


def _matmul_library_for_a_moment(library: Any) -> None:
    """Set the preference and restore it, since it applies to the whole process."""
    try:
        fn.kernels.set_matmul_library(library)
    finally:
        fn.kernels.set_matmul_library("auto")


MAKING = [
    call(fn.depthwise_conv1d, "Conv1d", channels=2, kernel_size=3, multiplier=2),
    call(fn.depthwise_conv2d, "Conv2d", channels=2, kernel_size=3, multiplier=2),
    call(fn.depthwise_conv3d, "Conv3d", channels=2, kernel_size=3, multiplier=2),
    *[call(f, in_channels=2, out_channels=3, kernel_size=2, stride=1, padding=0, dilation=1) for f in (fn.separable_conv1d, fn.separable_conv2d, fn.separable_conv3d)],
    call(fn.shape_dependent, make=made_by_shape),
    Call("InputSize", fn.InputSize, {"input": 1, "axis": -1}),
    Call("InputShape", fn.InputShape, {"input": 1, "start": 0, "stop": 2}),
    Call("InputOnes", fn.InputOnes, {"input": 1, "less": 1}),
    Call("InputTensor", fn.InputTensor, {"input": 1}),
    Call("SizeArithmetic", fn.SizeArithmetic, {"name": "add", "left": 1, "right": fn.InputSize(0, 0)}),
    Call("rearrange", fn.rearrange, {"pattern": "(a b) c -> a b c", "**": {"a": 2}}),
    Call("serial", fn.serial, {"*": (fn.Tanh(), LINEAR)}),
    Call("serial", fn.serial, {"**": {"a": fn.Tanh(), "b": LINEAR}}),
    Call("parallel", fn.parallel, {"*": (fn.Tanh(), LINEAR)}),
    Call("branch", fn.branch, {"*": (fn.Tanh(), LINEAR), "merge": fn.Add()}),
    call(fn.residual, layer=fn.Tanh(), shortcut=fn.Identity()),
    Call("graph", fn.graph, {"*": ("x",), "output": "y", "**": {"h": (LINEAR, "x"), "y": (fn.Add(), "h", "h")}}),
    call(fn.ensemble, layer=LINEAR, n=2, shared_input=True),
    call(fn.shared, layer=LINEAR),
    call(fn.tied, net=fn.serial(LINEAR, LINEAR)),
    Call("tied", lambda net, groups: fn.tied(net, *_as_many(groups)), {"net": fn.serial(LINEAR, LINEAR), "groups": (("0", "1"),)}),
    call(fn.lora, layer=LINEAR, rank=1, alpha=2.0),
    call(fn.parametrize, layer=LINEAR, parametrization=fn.Square(), name="weight"),
    call(fn.weight_norm, layer=LINEAR, name="weight", dim=0),
    call(fn.spectral_norm, layer=LINEAR, name="weight", n_power_iterations=1, eps=1e-12, dim=0),
    call(fn.orthogonal, layer=LINEAR, name="weight", orthogonal_map="cayley", use_trivialization=True),
    call(fn.channels_last, layer=fn.Conv1d(2, 3, 2), dim=1),
    call(fn.uniqued, layer=fn.Embedding(3, 2)),
    call(fn.scan, layer=CELL, reverse=False, output_is_carry=True, checkpoint_every=2),
    call(fn.bidirectional, layer=fn.GRU(2, 3), backward=fn.GRU(2, 3), merge=fn.Add(), dim=0),
    call(fn.map_over, layer=LINEAR, axes=2),
    call(fn.time_distributed, layer=LINEAR),
    call(fn.repeat, layer=fn.Linear(3, 3), n=2),
    call(fn.remat, layer=NET, segments=2),
    call(fn.freeze, layer=LINEAR),
    call(fn.reversible, f=fn.Linear(2, 3), g=fn.Linear(3, 2)),
    call(fn.affine_coupling, f=fn.branch(LINEAR, LINEAR), g=fn.branch(fn.Linear(3, 2), fn.Linear(3, 2))),
    call(fn.cast, layer=LINEAR, dtype=torch.float64),
    call(fn.keep_constants, layer=fn.Add()),
    Call("serial_with_constants", fn.serial_with_constants, {"*": (fn.Add(), fn.Mul())}),
    call(fn.scale_gradient, c=0.5),
    call(fn.reverse_gradient, "scale_gradient", c=0.5),
    call(fn.clip_gradient, bound=0.5),
    call(fn.straight_through, layer=fn.Sign()),
    call(fn.with_vjp, layer=fn.Tanh(), rule=half_rule),
    call(fn.checked, layer=LINEAR),
    call(fn.tap, layer=LINEAR, on_apply=print, on_vjp=None),
    call(fn.profiled, layer=LINEAR, name="net"),
    call(fn.mlp, sizes=(2, 4, 3), activation=fn.ReLU(), output_activation=fn.Tanh(), dropout=0.1, bias=True),
    *[call(f, embed_dim=4, num_heads=2, hidden=8, dropout=0.1, activation=fn.GELU(), norm=fn.LayerNorm(4), norm_first=True) for f in (fn.transformer_encoder_block, fn.transformer_decoder_block)],
    *[call(f, "transformer", embed_dim=4, num_heads=2, num_layers=2, hidden=8, final_norm=True) for f in (fn.transformer_encoder, fn.transformer_decoder)],
    call(fn.transformer, embed_dim=4, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, hidden=8, final_norm=True, is_causal=True),
    call(fn.resnet_block, in_channels=2, out_channels=3, stride=2, activation=fn.ReLU()),
    call(fn.resnet_bottleneck, in_channels=2, channels=3, stride=2, expansion=2, activation=fn.ReLU()),
    call(fn.layer, apply=applied, vjp=backward),
    call(fn.elementwise, f=torch.sin, df=torch.cos),
    call(fn.frozen, cls=type("A", (), {}), eq=True),
    call(fn.Zeros), call(fn.Ones),
]  # fmt: skip

NETS = [
    call(fn.infer_sizes, net=fn.serial(fn.Linear(None, 4), fn.Linear(None, 3)), x=X, dtype=torch.float32),
    call(fn.output_shape, "infer_sizes", net=NET, x=X, dtype=None),
    Call("walk", lambda **given: [*fn.walk(**given)], {"net": NET, "path": "a"}),
    call(fn.at, net=NET, path="0"),
    call(fn.replace, net=NET, path="0", layer=LINEAR),
    call(fn.map_layers, f=same, net=NET, with_path=True),
    call(fn.fold_batch_norm, net=NORMED, params=NORMED.init(0)),
    call(fn.add_lora, "lora", net=NET, params=PARAMS, rank=1, rng=KEY, alpha=2.0),
    call(fn.merge_lora, net=fn.serial(fn.lora(LINEAR, 1)), params=fn.serial(fn.lora(LINEAR, 1)).init(0)),
    call(fn.summary, net=NET, x=X, dtype=None),
    call(fn.draw, net=NET, x=X, dtype=None),
    call(fn.accumulate, net=NET, loss=LOSS, k=2),
    call(fn.per_example_grads, net=NET, loss=LOSS),
    call(fn.per_example_norms, net=NET, loss=LOSS),
    call(fn.clipped_grads, net=NET, loss=LOSS, max_norm=1.0, batch_size=4),
    call(fn.intermediates, net=NET, params=PARAMS, x=X, rng=KEY),
    call(fn.jacobian, net=NET, params=PARAMS, x=X),
    call(fn.lsuv, net=NET, params=PARAMS, x=fn.random.normal(0, (8, 2)), rng=KEY, tolerance=0.1, iterations=2),
    call(fn.value_and_grads, net=NET, loss=LOSS),
    call(fn.train_step, net=NET, loss=LOSS, opt=OPT, in_backward=False),
    call(fn.compile, step=fn.train_step(NET, LOSS, OPT)),
    call(fn.scan_steps, step=fn.train_step(NET, LOSS, OPT), k=2),
    call(fn.refresh_stats, net=NORMED, params=NORMED.init(0), batches=[X, X], momentum=0.1, rng=KEY),
    call(fn.decay_mask, net=NET, params=PARAMS),
    call(fn.lr_range, step=fn.train_step(NET, LOSS, OPT), params=PARAMS, state=STATE, batches=[(X, T)], low=1e-4, high=1.0, steps=5),
    Call("losses_of", fn.losses_of, {"**": {"a": fn.MSE(), "b": (0.5, fn.L1())}}),
    call(fn.weighted, loss=LOSS),
    call(fn.by_path, groups={"*.bias": OPT, fn.is_matrix: fn.Adam(), "*": None}),
    Call("freeze_params", lambda optimizer, patterns: fn.freeze_params(optimizer, *_as_many(patterns)), {"optimizer": OPT, "patterns": ("*.bias",)}, ("by_path",)),
    call(fn.is_matrix, path="a", leaf=torch.ones(2, 2)),
    Call("chain", fn.chain, {"*": (fn.ClipByValue(1.0), OPT)}),
    call(fn.donate, optimizer=OPT),
    call(fn.accuracy, "Accuracy", y=T, target=torch.tensor([0, 1, 2, 0]), ignore_index=-100),
    Call("metrics_of", fn.metrics_of, {"*": (fn.Accuracy(), fn.F1()), "**": {"top2": fn.Accuracy(2)}}),
    call(fn.WarmupSchedule, schedule=fn.StepSchedule(0.1, 5), warmup=3, start=0.0),
    call(fn.WarmupConstantSchedule, peak=0.1, warmup=3, start=0.0),
    call(fn.WarmupLinearSchedule, peak=0.1, warmup=3, steps=9, end=0.0, start=0.0),
    call(fn.WarmupCosineSchedule, peak=0.1, warmup=3, steps=9, end=0.0, start=0.0, exponent=1.0),
    call(fn.WarmupExponentialSchedule, peak=0.1, warmup=3, gamma=0.9, steps=2, staircase=True, begin=1, end=0.01, start=0.0),
    Call("LambdaSchedule", lambda function: fn.LambdaSchedule(function)(3), {"function": operator.neg}),
]  # fmt: skip


def steps() -> list[Call]:
    """Return calls of the steps that functions such as ``train_step`` return."""
    some = {"params": PARAMS, "x": X, "target": T, "rng": KEY}
    makers = [fn.value_and_grads, fn.per_example_grads, fn.per_example_norms]
    found = [Call(f"{f.__name__}()", f(NET, LOSS), some, (f.__name__,)) for f in makers]
    found += [Call("accumulate()", fn.accumulate(NET, LOSS, 2), some, ("accumulate",))]
    found += [Call("clipped_grads()", fn.clipped_grads(NET, LOSS, 1.0), some, ("clipped_grads",))]
    for in_backward in (False, True):
        step = fn.train_step(NET, LOSS, OPT, in_backward=in_backward)
        found += [Call("train_step()", step, {"state": STATE, **some}, ("train_step",))]
    for opt in (fn.SAM(OPT), fn.LBFGS(), fn.MultiSteps(OPT, 2)):
        step = fn.train_step(NET, LOSS, opt)
        found += [Call("train_step()", step, {"state": opt.init(PARAMS), **some}, ("train_step",))]
    return found


SEQUENCES = [
    call(fn.pack_padded, x=PADDED, lengths=LENGTHS, batch_first=False),
    call(fn.pad_packed, data=torch.ones(4, 2), lengths=LENGTHS, batch_first=True, total_length=4),
    call(fn.pad_sequence, sequences=ROWS, batch_first=True, padding_value=0.0),
    call(fn.unpad_sequence, x=PADDED, lengths=LENGTHS, batch_first=False),
    call(fn.causal_mask, length=3, keys=4, device="cpu"),
    call(fn.local_mask, length=3, keys=4, window=(1, None), device="cpu"),
    call(fn.padding_mask, lengths=LENGTHS, length=3),
    Call("combine_masks", fn.combine_masks, {"*": (torch.ones(2, 2) > 0, None)}),
]

TREES = [
    call(tree.add, a=TREE, b=TREE), call(tree.sub, a=TREE, b=TREE), call(tree.mul, a=TREE, b=TREE), call(tree.dot, a=TREE, b=TREE),
    call(tree.equal, a=TREE, b=TREE), call(tree.allclose, a=TREE, b=TREE, rtol=1e-5, atol=1e-8, equal_nan=False),
    call(tree.all_finite, tree=TREE), call(tree.describe, tree=TREE), call(tree.nbytes, tree=TREE), call(tree.norm, tree=TREE),
    call(tree.size, tree=TREE), call(tree.zeros_like, tree=TREE), call(tree.ravel, tree=TREE), call(tree.leaves, tree=TREE),
    call(tree.names, tree=TREE), call(tree.structure, tree=TREE),
    call(tree.cast, tree=TREE, dtype=torch.float64), call(tree.clip, tree=TREE, low=0.0, high=1.0),
    call(tree.lerp, a=TREE, b=TREE, weight=0.5), call(tree.scale, tree=TREE, factor=2.0), call(tree.to, tree=TREE, device="cpu"),
    call(tree.where, condition=tree.map(torch.isfinite, TREE), a=TREE, b=TREE), call(tree.at, tree=TREE, path="b.0"),
    call(tree.combine, a={"a": 1, "b": None}, b={"a": None, "b": 2}), call(tree.partition, tree=TREE, predicate=lambda path: path == "a"),
    call(tree.replace, tree=TREE, path="a", value=torch.ones(2)), call(tree.unravel, vector=torch.ones(8), like=TREE),
    call(tree.from_names, named={"a": 1, "b.0": 2}, like={"a": 0, "b": (0,)}),
    Call("map", tree.map, {"f": same_leaf, "tree": ({"a": "b"}, None)}, ("tree",)),
    Call("map_with_path", tree.map_with_path, {"f": paired, "tree": TREE}, ("tree",)),
    call(tree.reduce, f=paired, tree=TREE, initial=0.0),
    call(tree.update, f=paired, params=TREE, grads=TREE),
]  # fmt: skip

DRAWS = [
    call(fn.key, seed=0), call(fn.split, rng=KEY, n=2), call(fn.fold_in, rng=KEY, data="a"), call(fn.fold_in, rng=KEY, data=3),
    call(random.as_key, rng=KEY), call(random.bits, rng=KEY, shape=(2,)),
    call(random.uniform, rng=KEY, shape=(2,), low=0.0, high=1.0, dtype=torch.float32),
    call(random.normal, rng=KEY, shape=(2,), mean=0.0, std=1.0, dtype=torch.float32),
    call(random.truncated_normal, rng=KEY, shape=(2,), mean=0.0, std=1.0, low=-2.0, high=2.0, dtype=torch.float32),
    call(random.exponential, rng=KEY, shape=(2,), rate=1.0, dtype=torch.float32), call(random.gumbel, rng=KEY, shape=(2,), dtype=torch.float32),
    call(random.bernoulli, rng=KEY, shape=(2,), p=0.5), call(random.categorical, rng=KEY, logits=torch.ones(3), shape=(2,), dim=0),
    call(random.choice, rng=KEY, a=5, shape=(2,), replace=False, p=torch.ones(5) / 5), call(random.permutation, rng=KEY, n=5),
    call(random.randint, rng=KEY, shape=(2,), low=0, high=5),
    call(initializers.calculate_gain, nonlinearity="leaky_relu", param=0.1), call(initializers.fans, shape=(3, 2)),
    call(initializers.initialize, rng=KEY, shape=(3, 2), initializer="xavier_normal"),
    call(initializers.weight_and_bias, rng=KEY, shapes={"weight": (3, 2), "bias": (3,)}, initializer="torch", fans_of_weight=(2, 3)),
    Call("set_matmul_library", _matmul_library_for_a_moment, {"library": "mkl"}),
]  # fmt: skip

TRIED = [
    call(testing.assert_close, got=TREE, want=TREE, rtol=1e-5, atol=1e-6, equal_nan=False),
    call(testing.check_laws, layer=LINEAR, x=X, params=LINEAR.init(0), rng=KEY, batched=True, compiled=False, dtypes=(torch.float64,)),
    call(testing.check_vjp, layer=LINEAR, x=X.double(), params=tree.cast(LINEAR.init(0), torch.float64), rng=KEY, tolerance=1e-7),
    call(testing.check_loss, loss=LOSS, y=T, target=T, rng=KEY, batched=True, compiled=False, dtypes=(torch.float64,)),
    call(testing.check_metric, metric=fn.MeanSquaredError(), y=T, target=T + 1, tolerance=1e-9),
    call(testing.check_optimizer, opt=OPT, params=PARAMS, rng=KEY, compiled=False),
    call(testing.check_schedule, schedule=fn.StepSchedule(0.1, 3), steps=20, compiled=False),
    call(testing.check_transform, transform=fn.ClipByValue(1.0), params=PARAMS, rng=KEY, compiled=False),
    call(testing.finite_difference, f=torch.sum, x=X, v=X, step=0.001, side=0),
    *[call(getattr(testing, name), layer=LINEAR, x=X, params=LINEAR.init(0), rng=KEY) for name in testing.__all__ if name.startswith("law_") and name != "law_transforms"],
    call(testing.law_transforms, layer=LINEAR, x=X, params=LINEAR.init(0), rng=KEY, compiled=False),
]  # fmt: skip


def all_of_functions() -> list[Call]:
    """Return all of these calls."""
    return [*MAKING, *NETS, *steps(), *SEQUENCES, *TREES, *DRAWS, *TRIED]
