"""A recorded program behaves like the function: views of arguments, order of keys, autocast and errors."""

import inspect
import logging
import pickle
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch

import funcnet as fn
from funcnet.codec import TreeCodec
from funcnet.compilation import inductor
from funcnet.compilation.kinds import Kind
from funcnet.compilation.programs import Program, Traced
from funcnet.kernels.versions import minor_version

pytestmark = pytest.mark.compiled

X = fn.random.uniform(1, (2, 3))


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@fn.frozen
class Step(fn.Value):
    """A value of the package that calls a function, so that its programs are kept."""

    function: object

    def __call__(self, *arguments):
        return self.function(*arguments)


@pytest.mark.parametrize("name", ["T", "mT", "H", "mH", "real", "imag", "data"])
@pytest.mark.parametrize("computes", [False, True])
@pytest.mark.usefixtures("without_kernels")
def test_an_attribute_of_an_argument_is_that_of_this_call(name, computes):
    """A view of the argument that Dynamo creates is not a constant, whether or not a kernel computes something else.

    From torch 2.14 on, transposes are part of the graph, so their program is kept.
    """
    x = torch.complex(X, X + 1)
    step = Step(lambda x, y: (getattr(x, name), 2 * y if computes else None))
    fast = fn.compile(step)
    for one in (x, x + 1, x + 2):
        torch.testing.assert_close(fast(one, X), step(one, X))
    in_graph = name in ("T", "mT", "H", "mH") and minor_version(torch.__version__) >= (2, 14)
    assert (type(fast._last) is Traced) is not in_graph


@pytest.mark.usefixtures("without_kernels")
def test_the_gradient_of_an_argument_is_that_of_this_call():
    """It is an input of the kernel, but not an argument."""
    fast = fn.compile(Step(lambda x: x * x.grad))
    for scale in (1.0, 2.0, 3.0):
        x = X.clone()
        x.grad = torch.full_like(X, scale)
        assert torch.equal(fast(x), scale * X)


@pytest.mark.usefixtures("without_kernels")
def test_keys_come_in_the_order_of_the_caller():
    """A function can iterate over a dict, also deep in a tree, or over an OrderedDict."""
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(1) + 1
    step = Step(lambda x: torch.cat([*x["in"].values(), x["out"]]))
    fast = fn.compile(step)
    for kind in (dict, OrderedDict):
        for inner in ({"a": a, "b": b}, {"b": b, "a": a}):
            for x in ({"in": kind(inner), "out": c}, {"out": c, "in": kind(inner)}):
                for _ in range(2):
                    assert torch.equal(fast(x), step(x))
    assert type(fast._last) is Program


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_an_ordered_codec_refuses_another_order_and_other_keys(kind):
    """This holds for a generated codec and for one that works node by node."""
    read = TreeCodec((kind(a=1, b=kind(c=2)), kind(c=3, d=4)), ordered=True).read
    assert read((kind(a=1, b=kind(c=2)), kind(c=3, d=4))) == [1, 2, 3, 4]
    for other in [
        (kind(b=kind(c=2), a=1), kind(c=3, d=4)),
        (kind(a=1, b=kind(c=2)), kind(d=4, c=3)),
        (kind(a=1, b=kind(c=2), c=3), kind(c=3, d=4)),
        (kind(a=1, b=kind(c=2), c=3), kind(d=4)),
        (kind(a=1, b=kind(c=2)), kind(c=3, e=4)),
        (kind(a=1, b=kind(e=2)), kind(c=3, d=4)),
    ]:
        with pytest.raises(LookupError):
            read(other)


NETS = {
    "small": (fn.serial(fn.Linear(4, 3), fn.Tanh(), fn.Linear(3, 4)), (2, 4)),
    "large": (fn.serial(fn.Linear(64, 128), fn.ReLU(), fn.Linear(128, 4)), (64, 64)),
    "images": (fn.serial(fn.Conv2d(2, 3, 3), fn.ReLU()), (2, 2, 6, 6)),
}


@pytest.mark.parametrize(("net", "shape"), NETS.values(), ids=NETS)
def test_autocast_is_part_of_the_kind(net, shape):
    """Autocast can be on, off, or use another dtype: each call has the dtype and the numbers of eager mode."""
    params, x = net.init(0), fn.random.uniform(1, shape)
    fast = fn.compile(net)
    for dtype in (torch.bfloat16, None, torch.float16, torch.bfloat16, None):
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            got, want = fast(params, x), net(params, x)
        assert got.dtype is (dtype or torch.float32)
        torch.testing.assert_close(got, want, rtol=1e-5 if dtype is None else 0.02, atol=1e-5 if dtype is None else 0.01)
    assert len(fast._kept) == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_autocast_is_seen_by_the_check_of_the_last_kind(enabled):
    """The check compares whether autocast is on, and its dtype; torch compiles nothing here."""
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        kind = Kind((X,))
        assert kind.leaves((X,)) is not None
    with torch.autocast("cpu", torch.bfloat16, enabled=not enabled):
        assert kind.leaves((X,)) is None
    with torch.autocast("cpu", torch.float16):
        assert kind.leaves((X,)) is None


EMBED = fn.serial(fn.Embedding(5, 3))


def embed(params, x):
    """Embed x in a plain function."""
    return EMBED(params, x)


@pytest.mark.parametrize("step", [EMBED, embed], ids=["layer", "function"])
@pytest.mark.parametrize("warm", [False, True])
def test_an_index_out_of_range_is_refused_by_the_layer(step, warm):
    """The first call and later ones raise the error of eager mode with its location, without the kernel's own error."""
    params, fast = EMBED.init(0), fn.compile(step)
    if warm:
        fast(params, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="x must be from 0 to num_embeddings - 1 = 4") as caught:
        fast(params, torch.tensor([1, 7]))
    assert caught.value.__notes__ == ["  in serial, layer 0"]
    assert "cpp_fused" not in f"{caught.value.__context__!r}{caught.value.__cause__!r}"
    torch.testing.assert_close(fast(params, torch.tensor([1, 2])), EMBED(params, torch.tensor([1, 2])))


def test_a_class_out_of_range_is_refused_by_the_loss():
    """This is a train step that has been called before."""
    net, loss = fn.Linear(3, 4), fn.CrossEntropy()
    step, params = fn.value_and_grads(net, loss), net.init(0)
    fast = fn.compile(step)
    fast(params, X, torch.tensor([0, 3]))
    with pytest.raises(ValueError) as want:  # noqa: PT011 (the message is compared)
        step(params, X, torch.tensor([0, 4]))
    with pytest.raises(ValueError) as got:  # noqa: PT011
        fast(params, X, torch.tensor([0, 4]))
    assert str(got.value) == str(want.value)


@pytest.mark.usefixtures("without_kernels")
def test_a_failure_that_eager_mode_does_not_have_is_raised(monkeypatch):
    """The program's own error is raised."""
    fast = fn.compile(fn.Tanh())
    fast({}, X)

    def fail(*inputs):
        raise MemoryError("none left")

    monkeypatch.setattr(fast._last, "_kernel", fail)
    with pytest.raises(MemoryError, match="none left"):
        fast({}, X)


@pytest.mark.usefixtures("without_kernels")
def test_sizes_and_named_tuples_are_trees():
    """They can be arguments and results, of a plain function and of a value."""
    for wrap in (Step, lambda function: function):
        fast = fn.compile(wrap(lambda x, shape: (x.reshape(shape), x.shape)))
        for shape in (torch.Size([3, 2]), torch.Size([6, 1]), torch.Size([3, 2])):
            y, found = fast(X, shape)
            assert torch.equal(y, X.reshape(shape))
            assert (found, type(found)) == (X.shape, torch.Size)
        fast = fn.compile(wrap(lambda p: Point(p.x + p.y, p.x - p.y)))
        for _ in range(3):
            got = fast(Point(X, 2 * X))
            assert type(got) is Point
            torch.testing.assert_close((got.x, got.y), (3 * X, -X))


@pytest.mark.parametrize(
    "like", [torch.Size([2, 3]), (Point(1.0, (2.0,)), torch.Size([])), OrderedDict(a=torch.Size([4]))], ids=repr
)
def test_a_codec_of_sizes_and_named_tuples(like):
    """It restores their types, and refuses a plain tuple."""
    for ordered in (False, True):
        codec = TreeCodec(like, ordered=ordered)
        made = codec.write(codec.read(like))
        assert made == like
        assert isinstance(like, OrderedDict) or repr(made) == repr(like)
        with pytest.raises(LookupError):
            codec.read((2, 3))
    assert fn.tree.structure(torch.Size([2, 3])) == ("*", "*")


class Net:
    """A custom class with compiled methods."""

    bounded = fn.compile(fn.Tanh())

    def __init__(self, scale):
        self.scale = scale

    @fn.compile
    def times(self, x, power=1):
        """Scale x."""
        return self.scale**power * x


@fn.compile
def doubled(x):
    """Double x."""
    return 2 * x


@pytest.mark.usefixtures("without_kernels")
def test_a_decorated_method_binds():
    """It works for each instance and for named arguments; a compiled value in a class body is not a method, as in eager mode."""
    for scale in (2.0, 3.0):
        net = Net(scale)
        for _ in range(2):
            assert torch.equal(net.times(X), scale * X)
            assert torch.equal(net.times(X, power=2), scale**2 * X)
            assert torch.equal(Net.times(net, X), scale * X)
    assert [*inspect.signature(net.times).parameters] == ["x", "power"]
    assert net.bounded is Net.bounded


def test_a_decorated_function_pickles_by_its_name():
    """It unpickles to itself, and so does a method; a function within a function is refused."""
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert pickle.loads(pickle.dumps(Net.times)) is Net.times
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(doubled, protocol)) is doubled

    @fn.compile
    def inner(x):
        return x

    with pytest.raises(
        pickle.PicklingError, match=r"step must pickle, like a train step or a function defined with def in a module"
    ):
        pickle.dumps(inner)


class Records(logging.Handler):
    """A handler that keeps the records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logged():
    """Return the records that handlers of the fake tensors' logger get."""
    handler, logger = Records(), logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


@pytest.mark.usefixtures("without_kernels")
def test_a_wrong_shape_is_refused_by_one_sentence(logged):
    """Dynamo's traceback is not logged."""
    net = fn.serial(fn.Linear(4, 3))
    with pytest.raises(ValueError, match="the last axis of x must be in_features=4"):
        fn.compile(net)(net.init(0), torch.ones(2, 5))
    assert logged == []


def test_the_log_is_kept_from_this_thread_alone_and_passed_on_when_nothing_failed(logged):
    """Records of other threads are passed on immediately."""
    logger, records = logging.getLogger("torch._subclasses.fake_tensor"), []
    with ThreadPoolExecutor(1) as pool, inductor.withheld_log(records):
        logger.error("mine")
        pool.submit(logger.error, "another's").result()
        assert [record.msg for record in records] == ["mine"]
        assert [record.msg for record in logged] == ["another's"]
    assert [record.msg for record in logged] == ["another's", "mine"]


def test_dynamo_s_error_is_raised_with_its_log_where_eager_mode_has_none(logged, monkeypatch):
    """The withheld log is not lost."""

    def fail(graph, examples):
        logging.getLogger("torch._subclasses.fake_tensor").error("a reason")
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(inductor, "kernel_of", fail)
    with pytest.raises(Exception, match="no such kernel"):
        fn.compile(fn.Tanh())({}, X)
    assert [record.msg for record in logged] == ["a reason"]
