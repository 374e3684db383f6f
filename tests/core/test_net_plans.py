"""Plans: for arguments like those of earlier calls, a net computes the same bits without checks, and raises the same errors."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet.combinator import errors_at
from funcnet.combinators.sequential import Serial
from funcnet.kernels import choices
from funcnet.plans import KEPT, Plan, Plans
from funcnet.testing import check_laws

X = fn.random.normal(1, (10, 4))
GY = fn.random.normal(2, (10, 3))
LABELS = torch.arange(10) % 3

NETS: dict[str, fn.Layer] = {
    "tanh": fn.serial(fn.Linear(4, 8), fn.Tanh(), fn.Linear(8, 3)),
    "relu": fn.serial(fn.Tanh(), fn.Linear(4, 8, bias=False), fn.ReLU(), fn.Linear(8, 3)),
    "softplus": fn.serial(fn.Linear(4, 8), fn.Softplus(), fn.Linear(8, 3), fn.Sigmoid()),
    "norms": fn.serial(fn.Linear(4, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Linear(8, 3)),
    "nested": fn.serial(fn.Linear(4, 8), fn.serial(fn.Tanh(), fn.Linear(8, 8), fn.serial(fn.ReLU())), fn.Linear(8, 3)),
    "residual": fn.serial(fn.Linear(4, 8), fn.residual(fn.serial(fn.Linear(8, 8), fn.Tanh())), fn.Linear(8, 3)),
}
LOSSES: dict[str, tuple[fn.Loss, Tensor]] = {
    "MSE": (fn.MSE(), GY),
    "MSE, summed": (fn.MSE("sum"), GY),
    "CrossEntropy": (fn.CrossEntropy(), LABELS),
    "CrossEntropy, by rows": (fn.CrossEntropy(reduction="batch"), LABELS),
    "CrossEntropy of probabilities": (fn.CrossEntropy(), torch.softmax(GY, 1)),
    "weighted": (fn.CrossEntropy(weight=(1.0, 2.0, 0.0)), LABELS),
    "sum": (fn.MSE() + fn.L1(), GY),
}


def bits(tree: Any) -> list[Any]:
    """List the leaves of a tree, dense tensors as bytes, so that NaN equals NaN and 0 is not -0, and others as words."""
    is_dense = lambda x: isinstance(x, Tensor) and x.layout is torch.strided and not x.is_nested and x.is_cpu
    return [(x.shape, x.dtype, x.numpy().tobytes()) if is_dense(x) else str(x) for x in fn.tree.leaves(tree)]


def met(net: fn.Layer, params: Any, x: Any, times: int = 3) -> Any:
    """Return an equal net that has seen the arguments, with gradients from both verbs, and the last y and cache."""
    net = net.replace()  # it has its own plans, and NETS have none
    for _ in range(times):
        y, cache = net.apply(params, x)
        net.vjp(params, cache, torch.ones_like(y))
        net.grads(params, cache, torch.ones_like(y))
    return net, y, cache


def plans(net: Any) -> tuple[int, int]:
    """Return the number of plans of a serial for ``apply``, and for the backward verbs."""
    return len(net._forward.known), len(net._backward.known)


def checked(monkeypatch: pytest.MonkeyPatch, f: Callable[..., Any]) -> Any:
    """Return the result of a function when no plan is found."""
    with monkeypatch.context() as patch:
        patch.setattr(Plans, "find", lambda self, arguments: None)
        return f()


@pytest.mark.parametrize("name", NETS)
def test_plans_give_the_bits_of_the_checks(name: str, monkeypatch: pytest.MonkeyPatch):
    """Verbs with plans and with checks call the same kernels: y, caches and gradients have the same bits."""
    net, params = NETS[name], NETS[name].init(0)
    fast, _, _ = met(net, params, X)
    assert plans(fast) == (1, int(name != "residual"))  # the cache of a sum has shapes, not tensors
    for x, gy in ((X, GY), (X * 1e30, GY), (X * torch.nan, GY), (X, torch.zeros_like(GY)), (X.clone(), -GY)):
        y, cache = checked(monkeypatch, lambda x=x: net.apply(params, x))
        back = checked(monkeypatch, lambda cache=cache, gy=gy: (net.vjp(params, cache, gy), net.grads(params, cache, gy)))
        again = fast.apply(params, x)
        assert bits(again) == bits((y, cache))
        assert bits((fast.vjp(params, again[1], gy), fast.grads(params, again[1], gy))) == bits(back)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_value_and_grads_by_plan(name: str, loss: str, monkeypatch: pytest.MonkeyPatch):
    """Forward, loss and backward have a common plan if net and loss have one; the bits match the checked results."""
    f, (kind, target) = NETS[name], LOSSES[loss]
    both, params = fn.value_and_grads(f, kind), f.init(0)
    expected = bits(checked(monkeypatch, lambda: both(params, X, target)))
    assert [bits(both(params, X, target)) for _ in range(5)] == [expected] * 5
    assert len(both._plans.known) == (loss not in ("CrossEntropy of probabilities", "weighted", "sum"))


def test_labels_that_checks_must_look_at(monkeypatch: pytest.MonkeyPatch):
    """Ignored rows and infinite logits give the same with a plan as with checks, and an invalid label gives its error."""
    net = fn.serial(fn.Linear(4, 3), fn.ReLU())
    params, both = net.init(0), fn.value_and_grads(net, fn.CrossEntropy())
    for _ in range(3):
        both(params, X, LABELS)
    some, none = torch.where(LABELS == 1, -100, LABELS), torch.full_like(LABELS, -100)
    for x, labels in ((X, some), (X, none), (X * torch.inf, LABELS), (X * 1e38, LABELS), (X * torch.inf, some)):
        expected = checked(monkeypatch, lambda x=x, labels=labels: both(params, x, labels))
        assert bits(both(params, x, labels)) == bits(expected)
    with pytest.raises(ValueError, match=r"every label must be from 0 to 2, or ignore_index=-100, got 3"):
        both(params, X, LABELS + 1)


def test_batches_whose_variance_needs_float64(monkeypatch: pytest.MonkeyPatch):
    """A batch norm with a plan detects statistics beyond float32, and returns to the checks."""
    net = fn.serial(fn.Linear(4, 8, initializer="ones"), fn.BatchNorm1d(8))
    params, fast = net.init(0), met(net, net.init(0), X)[0]
    expected = checked(monkeypatch, lambda: net.apply(params, X * 1e25))
    assert bits(fast.apply(params, X * 1e25)) == bits(expected)


def reference(net: fn.Layer, verb: str, *arguments: Any) -> Any:
    """Compute a verb of a net layer by layer, each through its own guard, and add the layer to an error."""
    if not isinstance(net, Serial):
        return getattr(net, verb)(*arguments)
    rows, params = [*enumerate(net)], net.entries(arguments[0])
    if verb == "apply":
        x, caches = arguments[1], []
        for i, layer in rows:
            with errors_at(net, i):
                x, cache = reference(layer, verb, params[i], x)
            caches.append(cache)
        return x, tuple(caches)
    cache, gy, gparams = net._checked(arguments[1]), arguments[2], []
    for i, layer in reversed(rows):
        with errors_at(net, i):
            gp, gy = reference(layer, "vjp", params[i], cache[i], gy)
        gparams.append(gp)
    return tuple(gparams[::-1]), gy


def said(f: Callable[[], Any]) -> tuple[Any, ...]:
    """Return the type, the text and the notes of the error that a call raises, or the bits of its result."""
    try:
        result = f()
    except Exception as error:
        return type(error), str(error), getattr(error, "__notes__", [])
    return ("no error", *bits(result))


def misfits(params: Any) -> dict[str, tuple[Any, Any]]:
    """Return params and an x that do not fit, each in another way."""
    i = next(i for i, p in enumerate(params) if p and "weight" in p)
    changed = lambda **new: (*params[:i], {**params[i], **new}, *params[i + 1 :])
    w = params[i]["weight"]
    return {
        "features": (params, X[:, :3]),
        "no rows": (params, X[0]),
        "dtype": (params, X.double()),
        "integers": (params, X.long()),
        "meta": (params, X.to("meta")),
        "sparse": (params, X.to_sparse()),
        "nested": (params, torch.nested.nested_tensor([X[:3], X[3:]])),
        "no tensor": (params, 1.0),
        "none": (params, None),
        "fewer entries": (params[:-1], X),
        "list": ([*params], X),
        "no params": (None, X),
        "turned weight": (changed(weight=w.t().contiguous()), X),
        "other dtype of a weight": (changed(weight=w.double()), X),
        "additional leaf": (changed(other=w), X),
        "no weight": ((*params[:i], {}, *params[i + 1 :]), X),
        "wide bias": (changed(bias=w[:1, :1]), X),
        "last weight": ((*params[:-1], {**params[-1], "weight": w.new_ones(2, 2)}) if params[-1] else params, X),
    }


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", NETS)
def test_errors_of_apply_are_those_of_the_guards(name: str):
    """A net with plans gives the errors of its layers one by one, with the same notes, whatever does not fit."""
    net, params = NETS[name], NETS[name].init(0)
    fast, _, _ = met(net, params, X)
    for what, arguments in misfits(params).items():
        expected = said(lambda arguments=arguments: reference(net, "apply", *arguments))
        assert said(lambda arguments=arguments: fast.apply(*arguments)) == expected, what


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", NETS)
def test_errors_backward_are_those_of_the_guards(name: str):
    """The backward verbs of a net with plans refuse gy, caches and params as its layers do."""
    net, params = NETS[name], NETS[name].init(0)
    fast, _, cache = met(net, params, X)
    wide = fast.apply(params, X[:4])[1]
    gys = (GY[:, :2], GY[:4], GY.double(), GY.long(), GY.to("meta"), GY.to_sparse(), None, 1.0, GY[0], (GY,))
    found = [(params, cache, gy) for gy in gys] + [(params, wide, GY), (params, cache[1:], GY), (params, None, GY)]
    found += [(broken, cache, GY) for broken, x in misfits(params).values() if x is X]
    for arguments in found:
        expected = said(lambda arguments=arguments: reference(net, "vjp", *arguments))
        assert said(lambda arguments=arguments: fast.vjp(*arguments)) == expected


@pytest.mark.parametrize("name", NETS)
def test_laws_where_every_call_makes_a_plan(name: str, monkeypatch: pytest.MonkeyPatch):
    """All laws hold when each call makes a plan and the next one uses it."""
    made: list[Any] = []
    init = Plan.__init__
    monkeypatch.setattr(Plans, "is_due", lambda self: fn.kernels.tracing.is_eager())
    monkeypatch.setattr(Plan, "__init__", lambda self, *arguments: (made.append(self), init(self, *arguments))[1])
    check_laws(NETS[name].replace(), X)
    assert made


def test_shapes_have_a_plan_each():
    """The latest plans are kept, one for each shape; a new shape gets one at its second to fourth call."""
    net = fn.serial(fn.Linear(4, 8), fn.Tanh())
    params = net.init(0)
    for n in range(1, 9):
        for _ in range(40):
            net.apply(params, X[:n])
    assert 2 <= len(net._forward.known) <= KEPT
    assert bits(net.apply(params, X[:8])) == bits(fn.serial(*net).apply(params, X[:8]))


def test_other_arguments_have_no_plan():
    """Half precision, integers, empty batches, params that require grad, a gradient in progress and autocast use checks."""
    net = fn.serial(fn.Linear(4, 8), fn.Tanh())
    params = net.init(0)
    learned = [(params, X[:0]), (fn.tree.map(lambda p: p.clone().requires_grad_(), params), X)]
    learned += [(fn.tree.cast(params, dtype), X.to(dtype)) for dtype in (torch.bfloat16, torch.float16)]
    for p, x in learned:
        for _ in range(5):
            net.apply(p, x)
    with torch.autocast("cpu"):
        for _ in range(9):
            net.apply(params, X)
    for _ in range(17):
        torch.func.vmap(net, (None, 0))(params, X[:, None])
    assert net._forward.known == ()


def test_transforms_of_a_net_with_plans():
    """``vmap``, ``jvp`` and ``grad`` of ``torch.func`` treat a net with plans like one without."""
    net = NETS["tanh"]
    params = net.init(0)
    fast, y, _ = met(net, params, X)
    assert torch.allclose(torch.func.vmap(lambda x: fast.apply(params, x[None])[0][0])(X), y, atol=1e-6)
    for f in (lambda x: fast.apply(params, x)[0], lambda x: net.apply(params, x)[0]):
        slope = torch.func.jvp(f, (X,), (torch.ones_like(X),))[1]
        expected = torch.autograd.functional.jvp(f, X, torch.ones_like(X))[1]
        assert torch.allclose(slope, expected, atol=1e-6)


def test_compiled_nets_have_no_plans():
    """Dynamo traces a net with plans completely, and once: plans made later are not in its guards."""
    net = fn.serial(fn.Linear(4, 8), fn.Tanh())
    params, count = net.init(0), []

    def counting(graph: Any, inputs: Any) -> Any:
        count.append(graph)
        return graph.forward

    compiled = torch.compile(net.apply, backend=counting, fullgraph=True)
    first = compiled(params, X)
    met(net, params, X)
    for _ in range(3):
        net.apply(params, X)
    assert (plans(net)[0], len(count)) == (1, 1)
    assert bits(compiled(params, X)) == bits(first)
    assert len(count) == 1


def test_a_class_that_overrides_a_verb_is_called():
    """Layers of users, even those derived from ours, are applied through their own verbs."""

    @fn.frozen
    class Twice(fn.Linear):
        """A linear map, doubled."""

        def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
            y, cache = super().apply(params, x)
            return 2 * y, cache

    @fn.frozen
    class Loud(fn.Tanh):
        """A tanh, doubled."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.tanh(x)
            return 2 * y, y

    @fn.frozen
    class Half(fn.MSE):
        """Half of the squared error."""

        def total(self, kept: Any, c: Any) -> Tensor:
            return super().total(kept, c) / 2

    linear, plain = Twice(4, 3), fn.Linear(4, 3)
    for net, like in ((fn.serial(linear), lambda p: 2 * plain(p[0], X)), (fn.serial(Loud()), lambda p: 2 * X.tanh())):
        p = net.init(0)
        for _ in range(5):
            assert torch.equal(net.apply(p, X)[0], like(p))
    params = fn.serial(plain).init(0)
    both = fn.value_and_grads(fn.serial(plain), Half())
    assert len({both(params, X, GY)[0].item() for _ in range(5)}) == 1


def test_replaced_layers_are_called():
    """``intermediates`` replaces layers with recorders, and sees every layer of a net with plans."""
    net = NETS["nested"]
    params = net.init(0)
    fast, y, _ = met(net, params, X)
    found = fn.intermediates(fast, params, X)
    assert torch.equal(found["2"], y)
    assert {"0", "1", "1.0", "1.1", "1.2", "1.2.0", "2"} <= found.keys()


def test_tensors_in_two_places_must_be_there_again():
    """A cache holds one layer's output as the next one's input; if either is a copy, checks run, and bits are equal."""
    net = NETS["tanh"]
    params = net.init(0)
    fast, _, cache = met(net, params, X)
    first, y, same = cache
    assert y is same
    copied = (first, y, y.clone())
    assert fast._backward.find((params, cache, GY)) is not None
    assert fast._backward.find((params, copied, GY)) is None
    assert bits(fast.vjp(params, copied, GY)) == bits(fast.vjp(params, cache, GY))


def test_another_choice_of_kernels_has_no_plan():
    """A plan holds only for the choice of kernels under which it was made."""
    net = fn.serial(fn.Linear(4, 8), fn.Tanh())
    params = net.init(0)
    for _ in range(3):
        net.apply(params, X)
    assert net._forward.find((params, X)) is not None
    with choices.forced("tanh", "onednn"):
        assert net._forward.find((params, X)) is None
    assert net._forward.find((params, X)) is not None


def test_nets_with_plans_are_values():
    """Plans are not part of a value: equality, hash, print and pickle do not change, and copies have none."""
    net = NETS["tanh"]
    fast, _, _ = met(net, net.init(0), X)
    step = fn.train_step(fast, fn.MSE(), fn.SGD(0.1))
    for one, fresh in ((fast, fn.serial(*net)), (step, fn.train_step(net, fn.MSE(), fn.SGD(0.1)))):
        assert (one, hash(one), repr(one)) == (fresh, hash(fresh), repr(fresh))
        assert pickle.loads(pickle.dumps(one)) == one
        assert len(pickle.dumps(one)) == len(pickle.dumps(fresh))
    assert plans(pickle.loads(pickle.dumps(fast))) == (0, 0)


def test_steps_repeat_bit_for_bit(monkeypatch: pytest.MonkeyPatch):
    """Twenty training steps, all but two with plans, end at the same params as with checks."""
    ends = []
    for known in (True, False):
        step = fn.train_step(fn.serial(*NETS["norms"]), fn.MSE(), fn.SGD(0.1, momentum=0.9))
        params = step.net.init(0)
        state = step.opt.init(params)
        if not known:
            monkeypatch.setattr(Plans, "find", lambda self, arguments: None)
        with torch.inference_mode():
            for _ in range(20):
                params, state, value = step(params, state, X, GY)
        ends.append(bits((params, state, value)))
    assert ends[0] == ends[1]
