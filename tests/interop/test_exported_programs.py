"""``fn.export``: whole steps as programs that equal the eager step, do not write to arguments, and run without funcnet."""

import re
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from torch.export import Dim

import funcnet as fn
from funcnet import tree

NET = fn.serial(fn.Linear(3, 4, bias=False), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.3), fn.Linear(4, 2))


def drawn(*shape, seed=1, dtype=torch.float32):
    return fn.random.normal(seed, shape, dtype=dtype)


def batches(dtype=torch.float32):
    """Yield 20 batches of 4, 5 and 6 rows, with keys."""
    for i in range(20):
        yield drawn(4 + i % 3, 3, seed=2 * i, dtype=dtype), drawn(4 + i % 3, 2, seed=2 * i + 1, dtype=dtype), fn.key(i)


def apart(one, other):
    """Return the largest relative difference of two trees with the same structure and dtypes."""
    pairs = [*zip(tree.leaves(one), tree.leaves(other), strict=True)]
    assert tree.structure(one) == tree.structure(other)
    assert all(a.dtype is b.dtype and a.shape == b.shape for a, b in pairs)
    return max((a.double() - b.double()).abs().max().item() / (1 + b.double().abs().max().item()) for a, b in pairs if a.numel())


def run(step, params, state, dtype=torch.float32):
    params, state = tree.map(torch.clone, (params, state))
    values = []
    for x, target, key in batches(dtype):
        params, state, value = step(params, state, x, target, key)
        values.append(value)
    return params, state, values


def started(opt, net=NET, dtype=torch.float32):
    params = tree.cast(net.init(fn.key(0)), dtype)
    return params, opt.init(params)


def example(params, state, dtype=torch.float32):
    return params, state, drawn(6, 3, dtype=dtype), drawn(6, 2, dtype=dtype), fn.key(0)


OPTIMIZERS = [
    fn.SGD(fn.CosineSchedule(0.1, 20), momentum=0.9, nesterov=True),
    fn.donate(fn.chain(fn.ClipByGlobalNorm(1.0), fn.AdamW(fn.LinearSchedule(0.1, 0.01, 12)))),
    fn.by_path({"*.bias": fn.SGD(0.1), "*.running_*": fn.SGD(0.1), fn.is_matrix: fn.Muon(0.1, ns_dtype=None), "*": fn.Adam(0.1)}),
    fn.donate(fn.MasterWeights(fn.Adam(0.1))),
    fn.SAM(fn.SGD(0.1), 0.05),
]


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=lambda opt: type(opt).__name__)
def test_a_step_equals_the_eager_step_over_20_batches(opt):
    """Counts, schedules, keys and running statistics go in and out; batches have any size; float64 agrees to 1e-12."""
    step, (params, state) = fn.train_step(NET, fn.MSE(), opt), started(opt, dtype=torch.float64)
    before = tree.map(torch.clone, (params, state))
    program = fn.export(step, example(params, state, torch.float64), batch=("x", "target")).module()
    assert apart(run(program, params, state, torch.float64), run(step, params, state, torch.float64)) < 1e-12
    program(params, state, *next(batches(torch.float64)))
    assert tree.equal(before, (params, state))


@pytest.mark.long
def test_every_optimizer_can_be_exported():
    """This covers the catalogue of optimizers, also donated, and with updates in the backward pass if possible."""
    from optimizer_cases import OPTIMIZERS as CATALOGUE

    for opt in [opt for opt in CATALOGUE if not isinstance(opt, fn.LBFGS)]:
        params, state = started(opt, dtype=torch.float64)
        steps = [fn.train_step(NET, fn.MSE(), one) for one in (opt, fn.donate(opt))]
        steps += [fn.train_step(NET, fn.MSE(), opt, in_backward=True)] if opt.acts_on != "tree" else []
        for step in steps:
            program = fn.export(step, example(params, state, torch.float64), batch=("x", "target")).module()
            assert apart(run(program, params, state, torch.float64), run(step, params, state, torch.float64)) < 1e-12, step


def test_dropout_follows_the_key():
    """A different key drops other elements, an equal key the same, as in eager mode."""
    params, x = {}, torch.ones(4, 8)
    program = fn.export(fn.Dropout(0.5), (params, x, 3)).module()
    for seed in (3, 4, 5):
        assert torch.equal(program(params, x, torch.tensor(seed)), fn.Dropout(0.5)(params, x, fn.key(seed)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype):
    """The net has running statistics and is in each floating dtype."""
    step = fn.value_and_grads(NET, fn.MSE())
    args = tree.cast(NET.init(0), dtype), drawn(5, 3, dtype=dtype), drawn(5, 2, dtype=dtype), fn.key(1)
    assert apart(fn.export(step, args).module()(*args)[:2], step(*args)[:2]) <= 4 * torch.finfo(dtype).eps


def test_trees_keep_their_containers_and_none():
    """Dicts, tuples, lists and ``None`` can be arguments and results; a leaf at two paths can differ in later calls."""
    t = torch.ones(2)
    step = lambda a: {"x": [a["p"] + a["q"][1], None], "y": (a["p"],), "z": {}}
    program = fn.export(step, ({"p": t, "q": (None, t), "r": {}},)).module()
    given = {"p": torch.ones(2), "q": (None, torch.zeros(2)), "r": {}}
    found = program(given)
    assert tree.structure(found) == tree.structure(step(given))
    assert tree.equal(found, step(given))
    assert [type(found), type(found["x"]), type(found["y"])] == [dict, list, tuple]


def test_strided_arguments_and_params_that_require_grad():
    """Examples are a transposed weight and batch, and params of a module."""
    net, x = fn.Linear(3, 3), drawn(3, 5).t()
    params = {"weight": drawn(3, 3).t().requires_grad_(), "bias": torch.zeros(3, requires_grad=True)}
    program = fn.export(net, (params, x)).module()
    assert torch.allclose(program(params, x), net(params, x))


def test_a_batch_of_one_row_is_a_fine_example():
    """Torch treats a size of 1 as a constant, but the example has no effect on results."""
    net = fn.Linear(3, 2)
    params = net.init(0)
    for name in ("x", 1):
        program = fn.export(net.inference(), (params, torch.ones(1, 3)), batch=(name,)).module()
        for rows in (1, 2, 7):
            assert program(params, torch.ones(rows, 3)).shape == (rows, 2)


def test_dynamic_shapes_are_those_of_torch():
    """There is an entry for each argument, and ``None`` for fixed sizes."""
    net, x = fn.LayerNorm(4), torch.ones(2, 5, 4)
    params = net.init(0)
    program = fn.export(net, (params, x), dynamic_shapes=(None, {1: Dim("steps")})).module()
    assert program(params, torch.ones(2, 9, 4)).shape == (2, 9, 4)


OPEN = {
    "max pooling": (fn.MaxPool2d(2), (4, 2, 6, 6)),
    "resizing": (fn.Upsample(scale_factor=(1.5, 2.0), mode="bilinear"), (4, 2, 3, 5)),
    "resizing, nearest": (fn.Upsample(scale_factor=2), (4, 2, 3)),
    "resizing, cubic": (fn.Upsample(size=(5, 4), mode="bicubic"), (4, 2, 3, 5)),
    "resizing volumes": (fn.Upsample(size=(3, 2, 4), mode="trilinear", align_corners=True), (4, 1, 2, 3, 2)),
    "shrinkage": (fn.serial(fn.Softshrink(), fn.Hardshrink(0.2)), (4, 3)),
    "drop path": (fn.residual(fn.serial(fn.Linear(3, 3), fn.DropPath(0.4))), (4, 3)),
    "dropout of odd rows": (fn.Dropout(0.3), (4, 3)),
    "one scale for channels": (fn.Scale((3, 1)), (4, 3, 2)),
    "convolution": (fn.serial(fn.Conv2d(3, 4, 3), fn.BatchNorm2d(4), fn.ReLU(), fn.Flatten(), fn.Linear(64, 2)), (4, 3, 6, 6)),
    "attention": (fn.transformer_encoder_block(8, 2, hidden=8), (4, 5, 8)),
    "recurrence": (fn.LSTM(3, 4, batch_first=True), (4, 5, 3)),
}


@pytest.mark.parametrize(("layer", "shape"), OPEN.values(), ids=OPEN.keys())
def test_batches_of_any_size(layer, shape):
    """No choice of kernel fixes the batch: outputs and gradients of odd and even batches equal those of eager mode."""

    def both(params, x, rng):
        y, cache = layer.apply(params, x, rng)
        return y, layer.vjp(params, cache, y)

    params, key = tree.cast(layer.init(0), torch.float64), fn.key(2)
    program = fn.export(both, (params, drawn(*shape, dtype=torch.float64), key), batch=("x",)).module()
    for rows in (2, 3, 7):
        x = drawn(rows, *shape[1:], seed=rows, dtype=torch.float64)
        assert apart(program(params, x, key), both(params, x, key)) < 1e-12


LOSSES = {
    "MSE": (fn.MSE(), (6, 3), drawn(6, 3)),
    "CrossEntropy": (fn.CrossEntropy(label_smoothing=0.1), (6, 3), torch.tensor([0, 1, 2, 2, 1, 0])),
    "Huber by batch": (fn.Huber("batch"), (6, 3), drawn(6, 3)),
    "GaussianKL": (fn.GaussianKL(), ((6, 3), (6, 3)), None),
}


@pytest.mark.parametrize(("loss", "shape", "target"), LOSSES.values(), ids=LOSSES.keys())
def test_losses_of_batches_of_any_size(loss, shape, target):
    """Means divide by the rows of the actual batch."""
    y = tuple(drawn(*one, seed=i) for i, one in enumerate(shape)) if isinstance(shape[0], tuple) else drawn(*shape)
    program = fn.export(loss.value_and_grad, (y, target), batch=(0, 1)).module()
    for rows in (2, 5):
        few = tree.map(lambda leaf: leaf[:rows], (y, target))  # noqa: B023 (called at once)
        assert apart(program(*few), loss.value_and_grad(*few)) < 1e-6


RUNNER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "funcnet":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import torch

torch.set_num_threads(1)
kind, package, given, made = sys.argv[1:]
step = torch.export.load(package).module() if kind == "program" else torch._inductor.aoti_load_package(package)
params, state, batches = torch.load(given)
values = []
for x, target, key in batches:
    params, state, value = step(params, state, x, target, key)
    values.append(value)
assert "funcnet" not in sys.modules
torch.save((params, state, values), made)
"""


def run_elsewhere(kind, package, params, state, folder):
    """Run 20 steps of a package in a process that cannot import funcnet."""
    torch.save((params, state, [*batches()]), folder / "given.pt")
    arguments = [kind, package, folder / "given.pt", folder / "made.pt"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUNNER, *map(str, arguments)], check=True)
    return torch.load(folder / "made.pt")


def test_a_file_runs_in_a_process_without_funcnet(tmp_path):
    """It equals the program in this process bit for bit, and the eager step up to rounding."""
    opt = fn.donate(fn.AdamW(fn.CosineSchedule(0.01, 20)))
    step, (params, state) = fn.train_step(NET, fn.MSE(), opt), started(opt)
    program = fn.export(step, example(params, state), tmp_path / "step.pt2", batch=("x", "target"))
    found = run_elsewhere("program", tmp_path / "step.pt2", params, state, tmp_path)
    assert tree.equal(found, run(program.module(), params, state))
    assert apart(found, run(step, params, state)) < 1e-5


@pytest.mark.compiled
def test_a_compiled_package_runs_in_a_process_without_funcnet(tmp_path):
    """AOTInductor's machine code differs from the eager step by rounding."""
    opt = fn.chain(fn.ClipByGlobalNorm(1.0), fn.donate(fn.Adam(0.01)))
    step, (params, state) = fn.train_step(NET, fn.MSE(), opt), started(opt)
    fn.export(step, example(params, state), tmp_path / "step.pt2", batch=("x", "target"), compiled=True)
    found = run_elsewhere("compiled", tmp_path / "step.pt2", params, state, tmp_path)
    assert apart(found, run(step, params, state)) < 1e-5


Pair = namedtuple("Pair", "a b")
HELD = torch.zeros(2)
REFUSED = {
    "step must be a function, got 3": (3, (torch.ones(2),), {}),
    "args must be the tuple": (torch.sin, torch.ones(2), {}),
    "args[1] must be a tensor, None": (torch.mul, (torch.ones(2), 2), {}),
    "args[0]['a'] must be a tensor, None": (lambda a: a, ({"a": Pair(torch.ones(2), torch.ones(2))},), {}),
    "args[0] must be a dense tensor": (torch.sin, (torch.eye(2).to_sparse(),), {}),
    "step must return a tree of dicts, tuples and lists": (lambda x: Pair(x, x), (torch.ones(2),), {}),
    "must not read the loss during the update": (fn.train_step(NET, fn.MSE(), fn.LBFGS()), (), {}),
    "a tensor in a step, such as a rate": (fn.train_step(NET, fn.MSE(), fn.SGD(torch.tensor(0.1))), (), {}),
    "not write to anything but its arguments": (HELD.add_, (torch.ones(2),), {}),
    "that torch.export can trace": (lambda x: x if x.sum() > 0 else -x, (torch.ones(2),), {}),
    "the last axis of x must be in_features=3": (fn.Linear(3, 2), (fn.Linear(3, 2).init(0), torch.ones(4, 5)), {}),
    "batch must name arguments among 0, 'x', got 'y'": (lambda x: x, (torch.ones(2),), {"batch": ("y",)}),
    "batch must be a tuple": (lambda x: x, (torch.ones(2),), {"batch": "x"}),
    "batch must be a tuple of names or numbers": (lambda x: x, (torch.ones(2),), {"batch": torch.ones(2)}),
    "compiled must be True or False, got 1": (lambda x: x, (torch.ones(2),), {"compiled": 1}),
    "args[0] must have the batch as its first axis": (lambda x: x, (torch.ones(()),), {"batch": (0,)}),
    "pass only one": (lambda x: x, (torch.ones(2),), {"batch": (0,), "dynamic_shapes": (None,)}),
    "an entry for each of the 1 arguments": (lambda x: x, (torch.ones(2),), {"dynamic_shapes": (None, None)}),
    "path must end in .pt2": (lambda x: x, (torch.ones(2),), {"path": "step.onnx"}),
    "the folder of path must exist": (lambda x: x, (torch.ones(2),), {"path": "no_such_folder/step.pt2"}),
    "compiled=True needs a path": (lambda x: x, (torch.ones(2),), {"compiled": True}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_exported_is_refused_in_words(words):
    """Nothing becomes a constant silently."""
    step, args, options = REFUSED[words]
    with pytest.raises(ValueError, match=re.escape(words)):
        fn.export(step, args, **options)
