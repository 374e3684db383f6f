"""The contract of losses, custom ones among them, and the errors they raise."""

import pickle
import re

import attrs
import pytest
import torch
from drawn import ELEMENTWISE, NAN, REDUCTIONS, assert_agrees, by_layer, normal, reduced, shares
from torch.func import vmap

import funcnet as fn
from funcnet.losses.binary import BCE, BCEWithLogits
from funcnet.losses.classification import CrossEntropy
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import LossLayer
from funcnet.losses.regression import L1, L2, MSE
from funcnet.value import frozen

# Values, transforms, layers, messages

EVERY = {
    **{name: (ours("mean"), draw_y(1, 4, 3), draw_t(2, 4, 3)) for name, (ours, _, draw_y, draw_t) in ELEMENTWISE.items()},
    "none": (MSE("none"), normal(1, 4, 3), normal(2, 4, 3)),
    "batch": (BCEWithLogits("batch"), normal(1, 4, 3), shares(2, 4, 3)),
    "labels": (CrossEntropy(ignore_index=1), normal(1, 4, 3), torch.tensor([0, 1, 2, 2])),
    "weighted labels": (CrossEntropy((0.5, 1.0, 2.0), reduction="none"), normal(1, 4, 3), torch.tensor([0, 1, 2, 2])),
    "smoothed labels": (CrossEntropy(label_smoothing=0.1), normal(1, 4, 3), torch.tensor([0, 1, 2, -100])),
    "labels of pixels": (CrossEntropy(ignore_index=1), normal(1, 4, 3, 2), torch.tensor([[0, 1], [2, 2], [1, 1], [0, 0]])),
    "probabilities": (CrossEntropy((0.5, 1.0, 2.0)), normal(1, 4, 3), shares(2, 4, 3)),
}
everywhere = pytest.mark.parametrize(("loss", "y", "target"), EVERY.values(), ids=EVERY)


@pytest.mark.compiled
@everywhere
def test_compiled_as_one_graph_it_is_the_same(loss, y, target):
    """Each loss compiles with fullgraph, and aot_eager gives the same bits."""
    torch._dynamo.reset()
    compiled = torch.compile(loss.value_and_grad, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, target), loss.value_and_grad(y, target), rtol=0, atol=0)


@everywhere
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_vmap_is_a_loop(dims, loss, y, target):
    """Mapped over both arguments or over one, it gives the results of each pair by itself."""
    ys, targets = torch.stack([y, 0.5 * y]), torch.stack([target, target.flip(0)])
    pairs = zip(ys if dims[0] == 0 else (y, y), targets if dims[1] == 0 else (target, target), strict=True)
    alone = [loss.value_and_grad(*pair) for pair in pairs]
    mapped = vmap(loss.value_and_grad, dims)(ys if dims[0] == 0 else y, targets if dims[1] == 0 else target)
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*alone, strict=True))))


@everywhere
def test_meta_tensors_give_the_shapes(loss, y, target):
    """On the meta device value and gradient have the right shapes and dtypes."""
    want = loss.value_and_grad(y, target)
    got = loss.value_and_grad(y.to("meta"), target.to("meta"))
    assert [(g.shape, g.dtype, g.is_meta) for g in got] == [(w.shape, w.dtype, True) for w in want]


@everywhere
def test_strides_do_not_matter(loss, y, target):
    """Transposed and expanded tensors give the results of contiguous ones."""
    twisted = y.movedim(0, -1).contiguous().movedim(-1, 0)
    g = torch.ones_like(loss(y, target).flatten()[:1]).reshape([1] * loss(y, target).dim()).expand_as(loss(y, target))
    torch.testing.assert_close(by_layer(loss, twisted, target, g), by_layer(loss, y, target, g.contiguous()))


@everywhere
def test_the_gradient_of_the_value_may_be_a_number(loss, y, target):
    """A custom loss can thus weight the losses it consists of."""
    value, cache = loss.forward(y, target)
    torch.testing.assert_close(loss.backward(cache, 3.0), loss.backward(cache, torch.full_like(value, 3.0)))


@everywhere
def test_nothing_is_written_to(loss, y, target):
    """Both arguments keep their versions, in the value and both gradients, and a cache can be used twice."""
    versions, layer = (y._version, target._version), loss.as_layer()
    value, cache = layer.apply({}, (y, target))
    once, twice = (layer.vjp({}, cache, torch.ones_like(value)) for _ in range(2))
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    assert (y._version, target._version) == versions


@everywhere
def test_a_loss_is_a_value(loss, y, target):
    """Its repr and its pickle give an equal loss, and equal losses have equal hashes; the same holds for its layer."""
    for one in (loss, loss.as_layer()):
        again = eval(repr(one), vars(fn))
        assert again == one == pickle.loads(pickle.dumps(one))
        assert hash(again) == hash(one)
    assert loss.as_layer() == LossLayer(loss)


@everywhere
def test_half_precision_keeps_its_dtype(loss, y, target):
    """In bfloat16 the value and both gradients are bfloat16, and close to float64's."""
    cast = target.bfloat16() if target.is_floating_point() else target
    got, want = loss.value_and_grad(y.bfloat16(), cast), loss.value_and_grad(y, target)
    torch.testing.assert_close(got, tuple(w.bfloat16() for w in want), rtol=0.1, atol=0.02)


def test_the_layer_has_no_params_and_mixes_the_batch():
    """No seed makes params; a mean depends on every row."""
    assert MSE().as_layer().init(0) == {}
    assert MSE().as_layer().batch_dependent
    assert repr(MSE("sum").as_layer()) == "MSE(reduction='sum').as_layer()"


def test_defaults_are_torchs():
    """The defaults are the mean, no weights, ignore_index -100 and no smoothing."""
    assert repr(CrossEntropy(None, -100, "mean", 0.0)) == "CrossEntropy()"
    assert repr(BCEWithLogits("mean", None)) == "BCEWithLogits()"


@frozen
class LogCosh(ElementwiseLoss):
    """A custom loss: log cosh (y - t)."""

    def cache(self, y, t):
        return y - t

    def loss(self, kept):
        return kept.cosh().log()

    def dloss_dy(self, kept, c):
        return kept.tanh() * c

    def dloss_dt(self, kept, c):
        return -kept.tanh() * c


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_custom_loss_is_four_lines(reduction):
    """A subclass of Elementwise gets the reductions, the gradients and the layer."""
    assert_agrees(LogCosh(reduction), reduced(lambda y, t: (y - t).cosh().log()), normal(1, 4, 3), normal(2, 4, 3))


y43, t43, labels4 = torch.zeros(4, 3), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
wrong4 = torch.tensor([0, 1, 12, 0])
WORDS = {
    "MSE(): target must have the shape of y, (4, 3), got shape (3,)": lambda: MSE()(y43, t43[0]),
    "MSE(reduction='sum'): target must have the shape of y, (4, 1), got shape (4,)": lambda: MSE("sum")(y43[:, :1], t43[:, 0]),
    "L1(): target must have the shape of y, (4, 3), got shape (4, 1)": lambda: L1().value_and_grad(y43, t43[:, :1]),
    "L2(): target must have the shape of y, (4, 3), got shape ()": lambda: L2().as_layer().apply({}, (y43, t43[0, 0])),
    "MSE(): target must have the dtype of y, torch.float32, or hold integers or booleans, got torch.float64": lambda: MSE()(
        y43, t43.double()
    ),
    "MSE(): y must be a floating tensor, got a tensor of shape (4,) and dtype torch.int64": lambda: MSE()(labels4, labels4),
    "MSE(): y must be a floating tensor, got 1.0": lambda: MSE()(1.0, t43),
    "MSE(): target must be a tensor, got a list of 2": lambda: MSE()(y43, [1.0, 2.0]),
    "BCE(): target must have the shape of y, (4, 3), got shape (4,)": lambda: BCE()(y43, t43[:, 0]),
    "BCE(): y must hold probabilities, from 0 to 1, got numbers from -0.25 to 1.5": lambda: BCE()(
        torch.tensor([-0.25, 1.5]), torch.zeros(2)
    ),
    "BCE(): target must hold probabilities, from 0 to 1, got numbers from 0 to 2": lambda: BCE()(
        torch.zeros(2), torch.tensor([0.0, 2.0])
    ),
    "BCE(): y must hold probabilities, from 0 to 1, got a tensor of shape (3,) and dtype torch.float32": lambda: vmap(BCE())(
        y43 - 1, t43
    ),
    "BCEWithLogits(): target must have the shape of y, (4, 3), got shape (4,)": lambda: BCEWithLogits()(y43, t43[:, 0]),
    "BCEWithLogits(pos_weight=(1.0, 2.0)): the last axis of y must have the size of pos_weight, 2, got y of shape (4, 3)": (
        lambda: BCEWithLogits(pos_weight=(1.0, 2.0))(y43, t43)
    ),
    "CrossEntropy(): labels must be integers of shape (4,), the shape of y (4, 3) without axis 1, the classes, "
    "got a tensor of shape (4, 1) and dtype torch.int64": lambda: CrossEntropy()(y43, labels4[:, None]),
    "CrossEntropy(): labels must be integers of shape (4, 2), the shape of y (4, 3, 2) without axis 1, the classes, "
    "got a tensor of shape (4,) and dtype torch.int64": lambda: CrossEntropy()(torch.zeros(4, 3, 2), labels4),
    "CrossEntropy(): labels must be integers of shape (4,), the shape of y (4, 3) without axis 1, the classes, "
    "got a tensor of shape (4,) and dtype torch.complex64": lambda: CrossEntropy()(y43, labels4 + 0j),
    "CrossEntropy(): a floating target must hold probabilities in the shape of y, (4, 3), and its dtype, torch.float32; "
    "labels must be integers, got a tensor of shape (4,) and dtype torch.float32": lambda: CrossEntropy()(y43, labels4.float()),
    "CrossEntropy(): a floating target must hold probabilities in the shape of y, (4, 3), and its dtype, torch.float32; "
    "labels must be integers, got a tensor of shape (4, 3) and dtype torch.float64": lambda: CrossEntropy()(y43, t43.double()),
    "CrossEntropy(ignore_index=0): ignore_index must be negative if the target holds probabilities, got 0": lambda: CrossEntropy(
        ignore_index=0
    )(y43, t43),
    "CrossEntropy(): every label must be from 0 to 2, or ignore_index=-100, got 12": lambda: CrossEntropy()(y43, wrong4),
    "CrossEntropy(): every label must be from 0 to 2, or ignore_index=-100, got -1": lambda: CrossEntropy()(y43, labels4 - 1),
    "CrossEntropy(): every label must be from 0 to 2, or ignore_index=-100, got 3": lambda: CrossEntropy()(
        torch.zeros(1, 3, 2), torch.tensor([[0, 3]])
    ),
    "CrossEntropy(label_smoothing=0.1): every label must be from 0 to 2, or ignore_index=-100, got 12": lambda: CrossEntropy(
        label_smoothing=0.1
    )(y43, wrong4),
    "CrossEntropy(reduction='none'): every label must be from 0 to 2, or ignore_index=-100, got 12": lambda: vmap(
        CrossEntropy(reduction="none")
    )(y43, wrong4),
    "CrossEntropy(weight=(1.0, 2.0)): weight must have one number for each of the 3 classes, got 2 numbers": lambda: CrossEntropy(
        (1.0, 2.0)
    )(y43, labels4),
    "CrossEntropy(): y must be a floating tensor, got a tensor of shape (4,) and dtype torch.int64": lambda: CrossEntropy()(
        labels4, labels4
    ),
    "CrossEntropy(): y must have an axis of classes, got a tensor of shape () and dtype torch.float32": lambda: CrossEntropy()(
        y43[0, 0], labels4[0]
    ),
    "MSE().as_layer(): x must be a pair (y, target), got a tensor of shape (4, 3) and dtype torch.float32": lambda: (
        MSE().as_layer().apply({}, y43)
    ),
    "MSE().as_layer(): params must be an empty dict, got weight (4, 3)": lambda: (
        MSE().as_layer().apply({"weight": y43}, (y43, t43))
    ),
    "MSE: reduction must be one of 'mean', 'sum', 'none', 'batch', got 'average'": lambda: MSE("average"),
    "CrossEntropy: reduction must be one of 'mean', 'sum', 'none', 'batch', got None": lambda: CrossEntropy(reduction=None),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such numbers, got nan": lambda: (
        BCEWithLogits(pos_weight=NAN)
    ),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such numbers, got -1.0": lambda: (
        BCEWithLogits(pos_weight=-1.0)
    ),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such numbers, got (1.0, -1.0)": lambda: (
        BCEWithLogits(pos_weight=(1.0, -1.0))
    ),
    "BCEWithLogits: pos_weight must not hold a tensor, but numbers, tuples or values; write a vector as tuple(pos_weight.tolist()); params come from init, got a tensor of shape (1,)": lambda: (
        BCEWithLogits(pos_weight=torch.ones(1))
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got [1.0, 2.0]": lambda: CrossEntropy(
        [1.0, 2.0]
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got (1.0, nan)": lambda: CrossEntropy(
        (1.0, NAN)
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got ()": lambda: CrossEntropy(()),
    "CrossEntropy: label_smoothing must be a finite number at least 0 and at most 1, got 1.5": lambda: CrossEntropy(
        label_smoothing=1.5
    ),
    "CrossEntropy: label_smoothing must be a finite number at least 0 and at most 1, got -0.1": lambda: CrossEntropy(
        label_smoothing=-0.1
    ),
    "CrossEntropy: ignore_index must be a whole number, got 0.5": lambda: CrossEntropy(ignore_index=0.5),
}


@pytest.mark.parametrize("message", WORDS)
def test_misuse_is_explained(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WORDS[message]()


def test_a_loss_cannot_be_changed():
    """A loss is frozen; replace makes another one."""
    loss = CrossEntropy()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        loss.reduction = "sum"
    assert loss.replace(reduction="sum") == CrossEntropy(reduction="sum")


@pytest.mark.filterwarnings("ignore:.*nested.*")
@pytest.mark.parametrize("place", ["y", "target"])
@pytest.mark.parametrize("kind", ["sparse", "nested", "meta"])
@everywhere
def test_tensors_of_other_kinds_are_refused(loss, y, target, kind, place):
    """Every verb refuses sparse and nested tensors, and meta tensors mixed with others."""
    nested = torch.nested.nested_tensor
    change = {"sparse": torch.Tensor.to_sparse, "nested": lambda x: nested([x]), "meta": lambda x: x.to("meta")}[kind]
    given = (change(y), target) if place == "y" else (y, change(target))
    for verb in (loss, loss.value_and_grad):
        with pytest.raises(ValueError, match=r"^\w+\(.*\): .+, got .+"):
            verb(*given)


OF_LABELS = [fn.MultiMargin(), fn.MulticlassHinge(), fn.MulticlassFocal(), fn.PolyCrossEntropy(), fn.NTXent()]


@pytest.mark.parametrize("loss", OF_LABELS, ids=str)
def test_labels_on_another_device_are_refused(loss):
    """Kernels would read arbitrary memory."""
    with pytest.raises(ValueError, match="target must be on the device of y, cpu, got labels on meta"):
        loss(normal(1, 4, 3), torch.empty(4, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("loss", [fn.CrossEntropy(), fn.NLL((1.0,) * 200), fn.weighted(fn.CrossEntropy())], ids=str)
def test_labels_of_uint8_count_as_those_of_int64(loss):
    """As uint8, -100 is 156, which is not ignored."""
    y, labels = normal(1, 2, 200), torch.tensor([156, 1])
    small = labels.to(torch.uint8)
    by, small_by = [(one, torch.ones(2)) if "weighted" in str(loss) else one for one in (labels, small)]
    assert float(loss.weight_of(small_by)) == float(loss.weight_of(by)) == 2
    assert torch.equal(loss(y, small_by), loss(y, by))
