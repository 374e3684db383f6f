"""The cost of interop: nets made from modules beside the modules, the border to autograd, and exported nets and steps.

    python -m examples.benchmarks.interop --page examples/benchmarks/results/INTEROP.md

It takes about four minutes. ``--quick`` measures the two smallest nets in few rounds, without compiling.
"""

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from torch import Tensor, nn

import funcnet as fn
from examples import common, exporting
from examples.benchmarks.border import border
from examples.benchmarks.command import file, new_parser, positive, printed, run_command
from examples.benchmarks.interop_nets import Case, cases
from examples.benchmarks.turns import Ways, table
from examples.interop import with_our_block
from examples.reports.__main__ import processor
from examples.torchvision_models import library
from funcnet.interop import onnx
from funcnet.interop.torch_nn import from_torch, lift

RATE, MOMENTUM = 1e-3, 0.9
FROM_TORCHVISION = ("resnet50", "mobilenet_v3_small", "densenet121", "vit_b_16")

HEAD = """# Cost of PyTorch interop

`python -m examples.benchmarks.interop --page examples/benchmarks/results/INTEROP.md`,
torch {torch}, {processor}, one thread.

Times are ms of CPU time. Contenders take turns in one process, in another order each round; a time is the median over the rounds.
All contenders, modules too, keep freed memory (`kernels.retain_freed_memory`).
"""

STEPS = """
## Nets made from modules

`from_torch(module)` beside the module: the forward pass without gradients, the forward and backward pass, and a training step
with SGD and momentum, donated in funcnet and `torch.optim.SGD` in torch.
"""

COMPILED = """
The same steps compiled with `fn.compile` and `torch.compile`:
"""

CONVERSION = """
## Conversion

Seconds of CPU time of `from_torch`, which copies all parameters:
"""

BORDER = """
## The border to autograd

`as_module` beside the same modules of torch.nn and beside the bare net: one forward and backward pass, as
`python -m examples.benchmarks.border` prints it; and a step of ResNet-18 in which one block is replaced.
"""

LIFT = """
## Lifted modules

`lift(module, x)`: `apply` and `vjp` of the layer, which call autograd internally, beside plain autograd.
"""

EXPORT = """
## Exported steps and nets

The training step of `examples/exporting.py` on 50 digits: eager, compiled, as an `ExportedProgram`, whose operations Python calls
one by one, and as an AOTInductor package.
"""

ONNX = """
An inference net in ONNX Runtime, with one thread, beside the eager net:
"""


def step_of(
    net: fn.Layer, params: Any, x: Tensor, labels: Tensor, wrap: Callable[[Any], Any] = lambda step: step
) -> Callable[[], Any]:
    """Return a training step of a net that keeps its params and state."""
    opt = fn.donate(fn.SGD(lr=RATE, momentum=MOMENTUM))
    params = fn.tree.map(torch.clone, params)
    step, held = wrap(fn.train_step(net, fn.CrossEntropy(), opt)), [params, opt.init(params)]

    def run() -> Any:
        held[0], held[1], value = step(*held, x, labels)
        return value

    return run


def step_of_module(module: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Any]:
    """Return a training step of a copy of a module."""
    module = copy.deepcopy(module)
    opt = torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)

    def run() -> Any:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(module(x), labels)
        loss.backward()
        opt.step()
        return loss.detach()

    return run


def _last_of(way: Callable[[], Any], times: int) -> Any:
    return [way() for _ in range(times)][-1]


def repeated(ways: Ways, times: int) -> Ways:
    """Return functions that each repeat the work ``times`` times."""
    return {name: partial(_last_of, way, times) for name, way in ways.items()}


def passes(case: Case) -> Ways:
    """Return the forward pass, both passes and the step of a net made from a module, each beside the module's."""
    make, x, times = case
    torch.manual_seed(0)
    module = make()
    net, params = from_torch(module)
    labels, leaves = torch.randint(10, (len(x),)), [*module.parameters()]
    gy = torch.ones(len(x), 10)
    ways = {
        "forward": lambda: net(params, x),
        "torch.nn": torch.no_grad()(lambda: module(x)),
        "gradients": lambda: net.grads(params, net.apply(params, x)[1], gy),
        "torch.nn ": lambda: torch.autograd.grad(module(x), leaves, gy),
        "step": step_of(net, params, x, labels),
        "torch.nn  ": step_of_module(module, x, labels),
    }
    return repeated(ways, times)


def compiled(case: Case) -> Ways:
    """Return the compiled steps of a net and of its module."""
    make, x, times = case
    torch.manual_seed(0)
    module, labels = make(), torch.randint(10, (len(x),))
    ways = {
        "fn.compile": step_of(*from_torch(module), x, labels, fn.compile),
        "torch.compile": step_of_module(cast(nn.Module, torch.compile(module)), x, labels),
    }
    return repeated(ways, times)


def replaced(case: Case) -> Ways:
    """Return steps of a ResNet, of a copy with one block wrapped in ``as_module``, and of the whole ResNet as a net."""
    make, x, _ = case
    module, labels = make(), torch.zeros(len(x), dtype=torch.int64)
    return {
        "torch.nn": step_of_module(module, x, labels),
        "one block by as_module": step_of_module(with_our_block(module), x, labels),
        "funcnet": step_of(*from_torch(module), x, labels),
    }


def lifted(case: Case) -> Ways:
    """Return both passes of a lifted module and of the module."""
    make, x, times = case
    module = make()
    layer, params = lift(copy.deepcopy(module), x)
    leaves, gy = [*module.parameters()], torch.ones(len(x), 10)
    ways = {
        "lift": lambda: layer.grads(params, layer.apply(params, x)[1], gy),
        "autograd": lambda: torch.autograd.grad(module(x), leaves, gy),
    }
    return repeated(ways, times)


def exported(folder: Path) -> Ways:
    """Return the functions that run an exported step."""
    (images, labels), _ = common.digits(fn.key(0))
    params = exporting.net.init(fn.key(0))
    x, target, key = next(exporting.batches(images, labels, fn.key(1), 1))
    args = (params, exporting.opt.init(params), x, target, key)
    steps: dict[str, Any] = {"eager": exporting.step, "fn.compile": fn.compile(exporting.step)}
    steps["ExportedProgram"] = fn.export(exporting.step, args, batch=("x", "target")).module()
    package = folder / "step.pt2"
    fn.export(exporting.step, args, package, batch=("x", "target"), compiled=True)
    steps["AOTInductor"] = torch._inductor.aoti_load_package(str(package))
    return repeated({name: partial(step, *args) for name, step in steps.items()}, 20)


def in_onnx_runtime(case: Case, path: Path) -> Ways:
    """Return an inference net, eager and in ONNX Runtime."""
    import onnxruntime

    make, x, times = case
    net, params = from_torch(make())
    onnx.export(net, params, x, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    given, net = {session.get_inputs()[0].name: x.numpy()}, net.inference()
    return repeated({"eager": lambda: net(params, x), "ONNX Runtime": lambda: session.run(None, given)}, times)


def conversions(makers: dict[str, Callable[[], nn.Module]]) -> Iterator[str]:
    """Yield the lines of the table of conversions."""
    yield "| | parameters | seconds |"
    yield "|---|--:|--:|"
    for name, make in makers.items():
        module, began = make(), process_time()
        from_torch(module)
        yield f"| {name.split(',')[0]} | {sum(p.numel() for p in module.parameters()):,} | {process_time() - began:.2f} |"


def lines(rounds: int, quick: bool) -> Iterator[str]:
    """Yield the lines of the page."""
    chosen = cases()
    names = [*chosen]
    few = {name: chosen[name] for name in names[:2]}
    pairs = {f"{name} / nn": (name, "torch.nn" + " " * i) for i, name in enumerate(("forward", "gradients", "step"))}
    rows = lambda ways, some: [(name, ways(case)) for name, case in some.items()]
    yield from STEPS.splitlines()
    yield ""
    yield from table(rows(passes, few if quick else chosen), pairs, rounds)
    yield from CONVERSION.splitlines()
    yield ""
    from_library = () if quick else FROM_TORCHVISION
    makers = {name: make for name, (make, _, _) in chosen.items()}
    yield from conversions(makers | {name: partial(library.make, name) for name in from_library})
    yield from LIFT.splitlines()
    yield ""
    yield from table(rows(lifted, few), {"lift / autograd": ("lift", "autograd")}, rounds)
    if not quick:
        yield from slow_lines(chosen, rounds)


def slow_lines(chosen: dict[str, Case], rounds: int) -> Iterator[str]:
    """Yield the lines on compiled and other slow parts."""
    names = [*chosen]
    yield from BORDER.splitlines()
    yield ""
    yield from border(rounds)
    yield ""
    resnet = [(names[4], replaced(chosen[names[4]]))]
    yield from table(resnet, {"block / torch.nn": ("one block by as_module", "torch.nn")}, rounds)
    yield from COMPILED.splitlines()
    yield ""
    some: Iterable[tuple[str, Ways]] = [(name, compiled(chosen[name])) for name in (names[0], names[2])]
    yield from table(some, {"fn / torch": ("fn.compile", "torch.compile")}, rounds)
    with tempfile.TemporaryDirectory() as folder:
        yield from EXPORT.splitlines()
        yield ""
        yield from table([("20 steps", exported(Path(folder)))], {"AOTInductor / eager": ("AOTInductor", "eager")}, rounds)
        yield from ONNX.splitlines()
        yield ""
        ran = [(names[4], in_onnx_runtime(chosen[names[4]], Path(folder) / "net.onnx"))]
        yield from table(ran, {"ONNX Runtime / eager": ("ONNX Runtime", "eager")}, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all tables, and print or write the page."""
    parser = new_parser("interop", __doc__)
    parser.add_argument("--rounds", type=positive, default=15, help="number of rounds, with one turn per contender")
    parser.add_argument("--page", type=file, help="file to write the page to")
    parser.add_argument("--quick", action="store_true", help="measure the two smallest nets only, and compile nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fn.kernels.retain_freed_memory()
    page = HEAD.format(torch=torch.__version__, processor=processor()).splitlines()
    page += printed(lines(options.rounds, options.quick))
    if options.page:
        options.page.write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    run_command(main)
