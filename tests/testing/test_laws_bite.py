"""The laws themselves: each rejects the layers that break it, which are correct ones with one change."""

from typing import Any

import pytest
import torch
from broken_kernels import (
    ExpandedInit,
    ItemInFloat32,
    OtherHalfInFloat16,
    OutputInFloat32,
    OutputOfHalfInFloat32,
    Recognized,
    RecognizedInCache,
    RowsCoupledInFloat32,
    Scratch,
    SharedInit,
    SquaresInHalf,
    SquaresOfScaled,
    StorageReadInHalf,
    SummedInHalf,
    Total,
    WrittenWorkspace,
    WrongBackInFloat32,
    WrongInFloat32,
)
from broken_layers import (
    BiasNotSummed,
    BranchOnValues,
    ChanceWithoutKey,
    ClippedGradient,
    CoupledLater,
    ForgottenBias,
    GradientInFloat32,
    GradientOfNumbers,
    GraphBreak,
    GyIgnored,
    GySquared,
    HashOfTheObject,
    HoldsTensor,
    InferenceOfOtherShape,
    Item,
    KeyByDefault,
    LeakOnlyBackward,
    LyingRepr,
    MadeOnTheCPU,
    MeanForSum,
    Mutable,
    NaNOfEmptyBatch,
    NoBiasGradient,
    NoEmptyBatch,
    NoGradientOfTheSecond,
    NoInputGradient,
    NotUnbroadcast,
    NoWeightGradient,
    OneOfTwoUses,
    OtherEachTime,
    OtherHalfOfInput,
    OtherHalfOfParams,
    OtherOrderOfParams,
    OtherPrediction,
    OtherSideOfKink,
    OutputInFloat64,
    PoppedCache,
    ReprOfAnother,
    RowsCoupled,
    SeededByItself,
    StaleCache,
    StorageRead,
    Unpicklable,
    Unreversed,
    ViewOfGy,
    ViewOfX,
    WeightGradientTransposed,
    WeightNotTransposed,
    WrittenBackToTheSame,
    WrittenBehindItsBack,
    WrittenCache,
    WrittenGy,
    WrittenInput,
    WrittenParams,
    WrittenUnderVmap,
    WrongScale,
    ZeroOverZero,
)
from sound_layers import Affine, Centred, Chain, Counted, HalfTrained, Lookup, Noise, Rectifier, Sum

import funcnet as fn
from funcnet import tree
from funcnet.testing import LAWS, check_laws

ROWS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7], [-0.4, 0.9, 1.1], [0.2, -0.6, 0.8]])
PAIR = (ROWS, ROWS[:1] * 2)
NUMBERS = torch.tensor([3, 0, 3, 4])
TUPLED = Mutable(notes=())  # type: ignore[arg-type]  # the same value with a tuple, which has a hash

BROKEN: dict[str, list[tuple[fn.Layer, fn.Layer, Any]]] = {
    "transpose": [
        (MeanForSum(), Affine(), ROWS),
        (WrongScale(), Affine(), ROWS),
        (WeightNotTransposed(), Affine(), ROWS),
        (WeightGradientTransposed(), Affine(), ROWS),
        (OtherSideOfKink(), Rectifier(), ROWS),
        (LeakOnlyBackward(), Rectifier(), ROWS),
        (Unreversed(), Chain(), ROWS),
        (OtherOrderOfParams((Affine(), Affine(), Affine())), Chain((Affine(), Affine(), Affine())), ROWS),
        (OneOfTwoUses(), Sum(), PAIR),
        (NoWeightGradient(), Affine(), ROWS),
        (NoBiasGradient(), HalfTrained(), ROWS),
        (NoGradientOfTheSecond(), Sum(), PAIR),
    ],
    "linear": [
        (GyIgnored(), Affine(), ROWS),
        (GySquared(), Rectifier(), ROWS),
        (ClippedGradient(), Affine(), ROWS),
        (ZeroOverZero(), Rectifier(), ROWS),
    ],
    "pure": [
        (WrittenCache(), Rectifier(), ROWS),
        (WrittenGy(), Rectifier(), ROWS),
        (WrittenBehindItsBack(), Rectifier(), ROWS),
        (WrittenInput(), Rectifier(), ROWS),
        (WrittenBackToTheSame(), Affine(), ROWS),
        (WrittenParams(), Counted(), ROWS),
        (PoppedCache(), Chain(), ROWS),
        (StaleCache(), Affine(), ROWS),
        (ChanceWithoutKey(), Rectifier(), ROWS),
        (OtherEachTime(), Rectifier(), ROWS),
        (SeededByItself(), Rectifier(), ROWS),
        (KeyByDefault(), Noise(), ROWS),
        (WrittenWorkspace(), Scratch(), ROWS),
        (Recognized(), Counted(), ROWS),
        (RecognizedInCache(), Rectifier(), ROWS),
    ],
    "structure": [
        (BiasNotSummed(), Affine(), ROWS),
        (NotUnbroadcast(), Sum(), PAIR),
        (GradientInFloat32(), Affine(), ROWS),
        (OutputInFloat32(), Affine(), ROWS),
        (ExpandedInit(), Affine(), ROWS),
        (SharedInit(), Affine(), ROWS),
        (ForgottenBias(), Affine(), ROWS),
        (NoInputGradient(), Affine(), ROWS),
        (GradientOfNumbers(), Lookup(), NUMBERS),
        (InferenceOfOtherShape(rows=2), Affine(rows=2), ROWS),
    ],
    "rows": [
        (RowsCoupled(), Centred(), ROWS),
        (CoupledLater(), Noise(), ROWS),
        (NoEmptyBatch(), Affine(), ROWS),
        (NaNOfEmptyBatch(), Affine(), ROWS),
    ],
    "strides": [(ViewOfGy(), Rectifier(), ROWS), (ViewOfX(), Rectifier(), ROWS), (StorageRead(), Rectifier(), ROWS)],
    "halves": [
        (OtherHalfOfParams(), Affine(), ROWS),
        (OtherHalfOfInput(), Affine(), ROWS),
        (OtherPrediction(), Rectifier(), ROWS),
    ],
    "transforms": [
        (Item(), Rectifier(), ROWS),
        (BranchOnValues(), Rectifier(), ROWS),
        (GraphBreak(), Rectifier(), ROWS),
        (MadeOnTheCPU(), Rectifier(), ROWS),
        (WrittenUnderVmap(), Rectifier(), ROWS),
    ],
    "value": [
        (LyingRepr(rows=2), Affine(rows=2), ROWS),
        (ReprOfAnother(), Rectifier(), ROWS),
        (Mutable([1]), TUPLED, ROWS),
        (Unpicklable(), Rectifier(), ROWS),
        (HoldsTensor(), Rectifier(), ROWS),
        (HashOfTheObject(), Affine(), ROWS),
    ],
}
MANY = 1 + ROWS.repeat(1, 200).abs()
BROKEN_IN: list[tuple[torch.dtype, str, fn.Layer, fn.Layer, Any]] = [
    (torch.float32, "transpose", WrongInFloat32(), Affine(), ROWS),
    (torch.float32, "transpose", WrongBackInFloat32(), Affine(), ROWS),
    (torch.bfloat16, "transpose", SummedInHalf(), Total(), MANY),
    (torch.float16, "transpose", SquaresInHalf(), SquaresOfScaled(), 300 * ROWS),
    (torch.float32, "structure", OutputInFloat64(), Affine(), ROWS),
    (torch.bfloat16, "structure", OutputOfHalfInFloat32(), Affine(), ROWS),
    (torch.float32, "rows", RowsCoupledInFloat32(), Rectifier(), ROWS),
    (torch.bfloat16, "strides", StorageReadInHalf(), Rectifier(), ROWS),
    (torch.float16, "halves", OtherHalfInFloat16(), Affine(), ROWS),
    (torch.float32, "transforms", ItemInFloat32(), Rectifier(), ROWS),
]
TRIALS = [
    pytest.param(
        law, broken, sound, x, id=f"{law}: {type(broken).__name__}", marks=[pytest.mark.compiled] * (law == "transforms")
    )
    for law, entries in BROKEN.items()
    for broken, sound, x in entries
]
FAST = {"transforms": {"compiled": False}}
SOUND = {type(sound).__name__: (sound, x) for entries in BROKEN.values() for _, sound, x in entries}


@pytest.mark.parametrize(("law", "broken", "sound", "x"), TRIALS)
def test_the_law_rejects_the_broken_layer_and_not_the_sound_one(law: str, broken: fn.Layer, sound: fn.Layer, x: Any) -> None:
    """The two differ in one thing, and the law for that thing reports it."""
    LAWS[law](sound, tree.map(torch.clone, x))
    with pytest.raises(AssertionError, match=rf"(?s)^law \d, {law}: .*; in ({type(broken).__name__}|Rectifier\(\))"):
        LAWS[law](broken, tree.map(torch.clone, x))


@pytest.mark.parametrize(
    ("dtype", "law", "broken", "sound", "x"),
    BROKEN_IN,
    ids=[f"{law}: {type(broken).__name__}" for _, law, broken, _, _ in BROKEN_IN],
)
def test_the_law_rejects_what_is_broken_in_one_dtype(
    dtype: torch.dtype, law: str, broken: fn.Layer, sound: fn.Layer, x: Any
) -> None:
    """The layer passes in float64; the law names the dtype in which it fails."""
    LAWS[law](broken, x, **FAST.get(law, {}))
    LAWS[law](sound, x, dtype=dtype, **FAST.get(law, {}))
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(AssertionError, match=rf"(?s)^law \d, {law} in {name}: .*; in {type(broken).__name__}"):
        LAWS[law](broken, x, dtype=dtype, **FAST.get(law, {}))
    with pytest.raises(AssertionError, match=rf"^law \d, \w+ in {name}: "):
        check_laws(broken, x, compiled=False, dtypes=(torch.float64, dtype))


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (WrittenInput(), "law 3, pure: nothing may be written to, but x was"),
        (WrittenGy(), "law 3, pure: nothing may be written to, but gy was"),
        (WrittenWorkspace(), "law 3, pure: nothing may be written to, but cache.workspace was"),
        (ChanceWithoutKey(), "law 3, pure: torch's global generator must not be used"),
        (SeededByItself(), "law 3, pure: torch's global generator must not be used"),
        (OutputInFloat32(), "law 4, structure: y must be torch.float64, got torch.float32"),
        (BiasNotSummed(), "law 4, structure: the gradient of params.b must have its shape"),
        (ExpandedInit(), "law 4, structure: init must return each element in its own memory, but b is expanded"),
        (SharedInit(), "law 4, structure: init must return each element in its own memory, but w and b share memory"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_structure_and_purity_are_checked_before_derivatives(broken: fn.Layer, fault: str) -> None:
    """Structure and purity are checked before derivatives, whose error would hide the cause."""
    with pytest.raises(AssertionError) as caught:
        check_laws(broken, ROWS.clone(), compiled=False)
    assert str(caught.value).startswith(fault)
    assert str(caught.value).endswith(f"; in {broken}")


def test_the_message_ends_with_the_layer_cut_where_it_is_long() -> None:
    """Of a net with many layers the message has 200 characters."""
    net = fn.serial(*[fn.Tanh()] * 100, OutputInFloat32())
    with pytest.raises(AssertionError) as caught:
        check_laws(net, ROWS, compiled=False)
    fault, _, layer = str(caught.value).partition("; in ")
    assert fault == "law 4, structure: y must be torch.float64, got torch.float32"
    assert layer == f"{net!r:.197}..."


def test_the_error_of_a_layer_comes_before_the_layer() -> None:
    """The type of the error and its message come first."""
    with pytest.raises(AssertionError, match=r"^law 9, value: TypeError: cannot pickle this; in Unpicklable\(\)$"):
        LAWS["value"](Unpicklable(), ROWS)


@pytest.mark.compiled
def test_compiling_is_what_finds_a_graph_break() -> None:
    """Without compiling, the layer passes law 8 and all others."""
    for check in (LAWS["transforms"], check_laws):
        check(GraphBreak(), ROWS, compiled=False)
        with pytest.raises(AssertionError, match=r"(?s)^law 8, transforms: .*; in GraphBreak"):
            check(GraphBreak(), ROWS)


def test_the_other_parts_of_law_8_need_no_compiling() -> None:
    """The meta device and ``vmap`` are always tried."""
    for broken in (Item(), BranchOnValues(), MadeOnTheCPU(), WrittenUnderVmap()):
        with pytest.raises(AssertionError, match=r"^law 8, transforms: "):
            LAWS["transforms"](broken, ROWS.clone(), compiled=False)


def test_an_unknown_argument_is_no_broken_law() -> None:
    """The call raises a ``TypeError`` as for any function."""
    with pytest.raises(TypeError, match="compiled"):
        LAWS["linear"](Affine(), ROWS, compiled=False)


@pytest.mark.compiled
@pytest.mark.parametrize(("layer", "x"), SOUND.values(), ids=SOUND)
def test_the_sound_layers_keep_all_laws(layer: fn.Layer, x: Any) -> None:
    """The models of the broken layers are correct."""
    check_laws(layer, x)


def test_the_law_of_transpose_says_which_gradient_is_not_there() -> None:
    """The message has the path."""
    with pytest.raises(AssertionError, match=r"y depends on x\.1, so its gradient must not be None"):
        LAWS["transpose"](NoGradientOfTheSecond(), PAIR)


def test_the_law_of_values_says_what_takes_the_place_of_a_list() -> None:
    """The message suggests a tuple, and does not just report that a list has no hash."""
    with pytest.raises(
        AssertionError, match=r"^law 9, value: a value must not hold a list, which can change: use a tuple; in Mutable"
    ):
        LAWS["value"](Mutable([1]), ROWS)


def test_every_law_has_something_to_reject() -> None:
    """Each law rejects at least one layer."""
    assert [*BROKEN, "reach", "second order"] == list(LAWS)  # the last two are in test_reach and test_second_order


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (WrittenCache(), "x"),
        (WrittenGy(), "gy"),
        (WrittenBehindItsBack(), "gy"),
        (WrittenInput(), "x"),
        (WrittenParams(), "params.seen"),
    ],
)
def test_the_law_of_purity_says_what_was_written_to(broken: fn.Layer, path: str) -> None:
    """The message has the path; for the cache, the path of the argument that the cache holds."""
    with pytest.raises(AssertionError, match=f"nothing may be written to, but {path} was"):
        LAWS["pure"](broken, ROWS.clone())
