"""Fields: the constructor of every public value refuses a number, size or flag of the wrong kind, with its own error."""

import contextlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from cases import CASES
from metrics.metric_cases import CASES as METRICS
from optimizer_cases import MATRICES, OPTIMIZERS, TRANSFORMS
from schedule_cases import ALL as SCHEDULES

import funcnet as fn
from funcnet.value import Value

X = torch.ones(2)
OTHERS = [
    *[*OPTIMIZERS, *MATRICES, *TRANSFORMS],
    *SCHEDULES,
    *[metric for metric, _, _ in METRICS.values()],
    fn.ReduceOnPlateau(),
    fn.Checkpoints("folder"),
    *[fn.EMA(), fn.SWA()],
    *[fn.Constant(1.0), fn.Uniform(), fn.Normal(), fn.TruncatedNormal(), fn.VarianceScaling(), fn.Orthogonal()],
    *[fn.XavierNormal(), fn.XavierUniform(), fn.KaimingNormal(), fn.KaimingUniform(), fn.LecunNormal(), fn.LecunUniform()],
    *[fn.EarlyStopping(2, "loss", "max", 0.5)],
    *[fn.Eye(), fn.Dirac(), fn.DeltaOrthogonal(), fn.Sparse(0.5)],
]


def values_within(value: Any) -> Iterator[Value]:
    """Yield a value and the values in its fields."""
    if isinstance(value, Value):
        yield value
    parts = value if isinstance(value, tuple) else [getattr(value, name) for name in fields(value)]
    for part in parts:
        yield from values_within(part)


def fields(value: Any) -> dict[str, attrs.Attribute]:
    """Return the fields that are constructor arguments, by name; empty for anything but a value."""
    return {one.name: one for one in attrs.fields(type(value)) if one.init} if isinstance(value, Value) else {}


def kinds(annotation: Any) -> set[Any]:
    """Return the types in an annotation, including those in unions and tuples but not those of a function's arguments."""
    parts = () if typing.get_origin(annotation) is Callable else typing.get_args(annotation)
    return set().union(*map(kinds, parts)) if parts else {annotation}


FOUND = {
    type(value).__name__: value for top in (*[case.layer for case in CASES.values()], *OTHERS) for value in values_within(top)
}
FIELDS = [(name, one.name) for name, value in FOUND.items() for one in fields(value).values()]
NUMBERS = [(name, one) for name, one in FIELDS if kinds(fields(FOUND[name])[one].type) & {int, float}]
FLAGS = [(name, one) for name, one in FIELDS if bool in kinds(fields(FOUND[name])[one].type)]


def changed(name: str, field: str, got: Any) -> Value:
    """Return the value of the given name with one field changed."""
    return FOUND[name].replace(**{fields(FOUND[name])[field].alias: got})


def test_every_public_value_is_tried() -> None:
    """All public values are covered except base classes, which are not instantiated."""
    public = {name for name, kind in vars(fn).items() if isinstance(kind, type) and issubclass(kind, Value)}
    assert public - FOUND.keys() == {name for name in public if inspect.isabstract(getattr(fn, name))} | {"Value", "Callback"}
    assert len(NUMBERS) > 400
    assert len(FLAGS) > 100


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_a_number_is_a_number(name: str, field: str) -> None:
    """NaN, bools, strings, tensors and pairs with an invalid number are refused; the error names the field."""
    for got in (math.nan, True, False, "2", "", torch.ones(2), {}, (1, math.nan), (True, 1), ["1", 1]):
        with pytest.raises(ValueError, match=rf"^\w+: .*{field.strip('_')}"):
            changed(name, field, got)


@pytest.mark.parametrize("got", [math.inf, -math.inf])
def test_a_value_with_an_infinite_number_prints_as_the_call_that_makes_it(got: float) -> None:
    """The repr evaluates to the value for every field that accepts an infinity."""
    infinite = []
    for name, field in NUMBERS:
        with contextlib.suppress(ValueError):
            infinite.append(changed(name, field, got))
    assert infinite
    for value in infinite:
        assert eval(repr(value), vars(fn)) == value


@pytest.mark.parametrize(("name", "field"), FLAGS)
def test_a_flag_is_true_or_false(name: str, field: str) -> None:
    """0, 1 and strings are refused; the error names the field."""
    for got in (0, 1, "True", math.nan, (), torch.tensor(True)):
        with pytest.raises(ValueError, match=rf"^\w+: .*{field}"):
            changed(name, field, got)


REFUSED = {
    "depthwise_conv: multiplier must be a whole number of at least 1, got True": lambda: fn.depthwise_conv1d(2, 3, True),
    "depthwise_conv: channels must be a whole number of at least 1, got '2'": lambda: fn.separable_conv2d("2", 3, 3),
    "depthwise_conv: multiplier must be a whole number of at least 1, got 0": lambda: fn.separable_conv3d(2, 3, 3, multiplier=0),
    "mlp: sizes must be two or more whole numbers, of the input and of each layer, got a list of 2": lambda: fn.mlp([2, True]),
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got None": lambda: fn.mlp([2, 3], dropout=None),
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got False": lambda: fn.mlp([2, 3], dropout=False),
    "transformer_encoder_block: hidden must be a whole number of at least 1, or None for 4 embed_dim, got 0": lambda: fn.transformer_encoder_block(4, 2, 0),
    "MultiHeadAttention: num_heads must be a whole number of at least 1, got 0": lambda: fn.transformer_decoder_block(4, 0),
    "Conv2d: stride must be a whole number of at least 1, got 0": lambda: fn.resnet_block(2, 2, 0),
    "resnet_bottleneck: expansion must be a whole number of at least 1, got True": lambda: fn.resnet_bottleneck(2, 2, expansion=True),
    "calculate_gain: param must be a finite number, or None, got nan": lambda: fn.initializers.calculate_gain("leaky_relu", math.nan),
    "calculate_gain: param must be a finite number, or None, got True": lambda: fn.initializers.calculate_gain("relu", True),
    "fold_in: data must be a whole number, a string or an integer tensor, got a tensor of shape (2,) and dtype torch.bool": lambda: fn.fold_in(0, torch.ones(2).bool()),
    "fold_in: data must be a whole number, a string or an integer tensor, got True": lambda: fn.fold_in(0, True),
    "split: n must be a whole number of at least 0, got -1": lambda: fn.split(0, -1),
    "key: the seed must be a whole number, got 1.0": lambda: fn.key(1.0),
    "compile: step must be a function, got 3": lambda: fn.compile(3),
    "donate: the argument must be an optimizer, got MSE()": lambda: fn.donate(fn.MSE()),
    "finite_difference: step must be a finite number above 0, and side 0, 1 or -1, got step=0, side=0": lambda: fn.testing.finite_difference(torch.sin, X, X, 0),
    "finite_difference: step must be a finite number above 0, and side 0, 1 or -1, got step=0.1, side=2": lambda: fn.testing.finite_difference(torch.sin, X, X, 0.1, 2),
    "check_vjp: tolerance must be a finite number of at least 0, got nan": lambda: fn.testing.check_vjp(fn.Tanh(), X, tolerance=math.nan),
    "layer: vjp_function must be a function, got None": lambda: fn.layer(apply=len, vjp=None),
    "layer: stochastic must be True or False, got 1": lambda: fn.layer(apply=len, vjp=len, stochastic=1),
    "elementwise: df must be a function, got 1.0": lambda: fn.elementwise(torch.sin, 1.0),
    "shape_dependent: make must be a function, got 3": lambda: fn.shape_dependent(3),
    "Upsample: size must be a whole number of at least 1, or a tuple of them, got ()": lambda: fn.Upsample(()),
    "Upsample: scale_factor must be a number above 0, or a tuple of them, got ()": lambda: fn.Upsample(scale_factor=()),
    "Upsample: align_corners must be True or False, and None for area, nearest and nearest-exact, got 1": lambda: fn.Upsample(2, mode="linear", align_corners=1),
    "Split: split_size must be a whole number of at least 1, or a tuple of sizes, got ()": lambda: fn.Split(()),
    "MaskedConv: layer must be a Conv1d, Conv2d or Conv3d, got ()": lambda: fn.MaskedConv((), "A"),
    "causal_mask: length must be a whole number of at least 0, got 2.0": lambda: fn.causal_mask(2.0),
    "causal_mask: keys must be a whole number of at least 0, got -1": lambda: fn.causal_mask(2, -1),
    "local_mask: length must be a whole number of at least 0, got -2": lambda: fn.local_mask(-2, 2, (0, 0)),
    "local_mask: window must be (before, after), whole numbers of at least 0 or None, got (0, -1)": lambda: fn.local_mask(2, 2, (0, -1)),
    "local_mask: window must be (before, after), whole numbers of at least 0 or None, got (1.0, None)": lambda: fn.local_mask(2, 2, (1.0, None)),
    "padding_mask: length must be a whole number of at least 0, got 2.5": lambda: fn.padding_mask(torch.tensor([1, 2]), 2.5),
    "padding_mask: lengths must be an int32 or int64 tensor, of at least 0, got [1.0, 1.0]": lambda: fn.padding_mask(X, 2),
    "padding_mask: lengths must be an int32 or int64 tensor, of at least 0, got [1, -2]": lambda: fn.padding_mask(torch.tensor([1, -2]), 2),
    "Sum(): x must be a floating tensor, got 3": lambda: fn.Sum()({}, 3),
    "Prod(): x must be a floating tensor, got a tensor of shape () and dtype torch.int64": lambda: fn.Prod()({}, torch.tensor(3)),
    "rearrange: sizes must be a tuple of pairs, each of a name and a size, got (1, 2)": lambda: fn.rearrange("a b -> b a").replace(sizes=(1, 2)),
    "MultiHeadAttention: rotary must be a RotaryEmbedding(embed_dim // num_heads) or None, got ()": lambda: fn.MultiHeadAttention(4, 2, rotary=()),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_of_the_wrong_kind_is_refused_with_its_sentence(sentence: str) -> None:
    """Functions refuse them too: the error names the function, the rule with its numbers, and the argument."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[sentence]()
    assert sentence in str(caught.value)
