"""Faults that ``test_bad_input`` found, as calls and the messages that they must raise."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from calls_of_distributed import in_a_group

import funcnet as fn
from funcnet import distributed, initializers, random, testing, tree

X, META = torch.ones(3, 2, 2), torch.ones(2, dtype=torch.int64, device="meta")
LINEAR, NORMED = fn.Linear(2, 3), fn.serial(fn.Linear(2, 3), fn.RunningBatchNorm1d(3))
LINEAR_PARAMS, NORM_PARAMS = NORMED.init(0)
HUGE = 10**400
NODES = (("h", fn.branch(LINEAR, LINEAR), ("x",)), ("y", fn.Select(0), ("h",)), ("z", fn.Select(1), ("h",)))
GRAPH = fn.graph("x", output={"a": "y", "b": "z"}, h=(NODES[0][1], "x"), y=(NODES[1][1], "h"), z=(NODES[2][1], "h"))
SWA = fn.SWA()
STATE = SWA.init({"w": torch.ones(2)})
DIVIDED = fn.RescaleBySize(fn.SizeArithmetic("truediv", 1, fn.InputSize(0, -1)))
PAIR = [(torch.ones(4, 2), torch.ones(4, 3))]


def lr_range(**options: Any) -> fn.RateRange:
    step = lambda params, state, x, target, lr: (params, state, float("inf"))
    return fn.lr_range(step, {}, {}, PAIR, **options)


def folded(net: Any = NORMED, linear: Any = LINEAR_PARAMS, **changes: Any) -> Any:
    return fn.fold_batch_norm(net, (linear, {**NORM_PARAMS, **changes}))


def sharded_rows(group: Any) -> Any:
    return in_a_group(distributed.shard_rows)(batch=PAIR[0], group=group)


SENTENCES: dict[str, Callable[[], Any]] = {
    "bubble: stages times microbatches must be at most 1000000, got 9 times 2147483648": lambda: distributed.bubble("gpipe", 9, 2**31),
    "shard_rows: group must be a process group, or None for all processes, got 'world'": lambda: sharded_rows("world"),
    "shard_rows: group must be a process group, or None for all processes, got a tensor": lambda: sharded_rows(X),
    "shard_rows: the tensors of a batch must be dense, with the same number": lambda: in_a_group(distributed.shard_rows)(batch=X.to_sparse()),
    "Adam(): state must be a dict of step, exp_avg, exp_avg_sq": lambda: fn.Adam().map_state(lambda one: one, {0: 1, 1: 2, 2: 3}),
    "lr_range: steps must be below 2**31, got 2147483648": lambda: lr_range(steps=2**31),
    "check_schedule: steps must be at most 1048576, got 2147483648": lambda: testing.check_schedule(fn.StepSchedule(0.1, 3), 2**31),
    "chain: transforms must not hold a tensor": lambda: fn.chain(torch.ones(()), fn.SGD()),
    "losses_of: the terms must be losses, or pairs": lambda: type(fn.losses_of(a=fn.MSE()))((torch.ones(()),)),
    "replace: no layer at slice(None, 2, None); there are 0, 1": lambda: fn.replace(NORMED, slice(2), LINEAR),
    "replace: a layer is required (a value with init, apply and vjp), got 3": lambda: fn.replace(3, "", LINEAR),
    "unpad_sequence: lengths must be a dense tensor of numbers": lambda: fn.unpad_sequence(X, META),
    "pack_padded: lengths must be a dense tensor of numbers": lambda: fn.pack_padded(X, torch.tensor([1, 1]).to_sparse()),
    "pad_packed: lengths must be a dense tensor of numbers": lambda: fn.pad_packed(X, META),
    "pad_packed: data must have a row for each of 9223372036854775808 steps": lambda: fn.pad_packed(X, [2**62, 2**62]),
    "pad_packed: total_length must be a whole number from 0 to below 2**31": lambda: fn.pad_packed(X, [2, 1], total_length=10**30),
    "pad_packed: data must be a dense tensor": lambda: fn.pad_packed(X.to_sparse(), [2, 1]),
    "pack_padded: x must be a dense tensor": lambda: fn.pack_padded(X.to_sparse(), [2, 1]),
    "pad_sequence: sequences must be one or more dense tensors": lambda: fn.pad_sequence([torch.ones(2), torch.ones(2).to("meta")]),
    "pad_sequence: padding_value must be a number": lambda: fn.pad_sequence([torch.ones(2)], padding_value=HUGE),
    "check_loss: dtypes must be a tuple of floating dtypes": lambda: testing.check_loss(fn.MSE(), X, X, dtypes=[torch.float64]),
    "ConstantPad3d: padding must be below 2**31": lambda: fn.ConstantPad3d((HUGE,) * 6, 0.0),
    "Upsample: size must be below 2**31": lambda: fn.Upsample((2**31, 2)),
    "Split: split_size must be below 2**31": lambda: fn.Split((2**31, 1)),
    "Conv1d: padding must be below 2**31": lambda: fn.Conv1d(2, 3, 3, padding=((0, HUGE),)),
    "Permute: dims must be below 2**63": lambda: fn.Permute((1, 2**64)),
    "AdaptiveAvgPool1d: output_size must be below 2**31": lambda: fn.AdaptiveAvgPool1d(2**31),
    "output_size must be at most 1048576 windows": lambda: fn.AdaptivePool1d(fn.GlobalAvgPool(), 2**21).apply({}, X),
    "fold_batch_norm: bias must be the dense tensor (3,) of RunningBatchNorm1d": lambda: folded(bias=True),
    "fold_batch_norm: weight must be the dense tensor (3, 2) of Linear": lambda: folded(linear={"weight": 1}),
    "fold_batch_norm: running_mean must be the dense tensor (3,)": lambda: folded(running_mean=torch.ones(2)),
    "fold_batch_norm: params must be on one device, got cpu and meta": lambda: folded(running_var=torch.ones(3, device="meta")),
    "ensemble: the first axis of every leaf must be n=2": lambda: folded(fn.ensemble(LINEAR, 2)),
    "graph: output_keys must be 2 different names": lambda: GRAPH.replace(output_keys=("a",)),
    "bidirectional: layers must be a pair": lambda: fn.bidirectional(LINEAR).replace(layers=(LINEAR,)),
    "initialize: the shape must be a tuple of whole numbers": lambda: initializers.initialize(0, {"a": 1}, "zeros"),
    "random: the shape must have fewer than 2**60 elements": lambda: fn.split(0, 10**30),
    "choice: a must be below 2**63": lambda: random.choice(0, 2**63),
    "Eye(): shape must be a tuple of whole numbers of at least 0, and dtype": lambda: fn.Eye()(0, (3, 3), b"a"),  # type: ignore[arg-type]
    "output_shape: x must have a shape of less than 2**63 bytes": lambda: fn.output_shape(LINEAR, (10**30, 2)),
    "output_shape: dtype must be a torch.dtype, or None": lambda: fn.output_shape(LINEAR, (3, 2), 3),  # type: ignore[arg-type]
    "draw: x must be a tensor, a shape": lambda: fn.draw(LINEAR, "meta"),
    "summary: x must be a tensor, a shape": lambda: fn.summary(LINEAR, "meta"),
    "causal_mask: device must be a torch.device": lambda: fn.causal_mask(3, device=...),
    "local_mask: device must be a torch.device": lambda: fn.local_mask(3, 3, (1, 1), device=...),
    "local_mask: before must be below 2**31": lambda: fn.local_mask(3, 3, (HUGE, 1)),
    "keep_constants: the gradients of one tensor must be alike": lambda: fn.combinator.add_gradients("keep_constants", X, ...),
    "SGD: lr must be a number, a 0-d tensor, or a schedule": lambda: fn.SGD(torch.nn.Linear(2, 3)),
    "SWA(): state must have a tensor in dtypes": lambda: SWA.params({**STATE, "average": {"w": True}}),
    "scale: factor must be a number": lambda: tree.scale(X, HUGE),
    "ScaleByRSS(): state must have a 0-d int64 tensor as step": lambda: fn.ScaleByRSS().rates({"step": X, "sum": X}),
    "dropout3 requires multihead_attn": lambda: fn.transformer_encoder_block(4, 2).replace(dropout3=fn.Dropout(0.1)),
    "walk: path must be a string, got a tensor": lambda: fn.walk(LINEAR, torch.ones(2)),  # type: ignore[arg-type]
    "walk: a layer is required": lambda: fn.walk(3),  # type: ignore[arg-type]
    "weight_and_bias: shapes must be a dict": lambda: initializers.weight_and_bias(0, None, "torch"),  # type: ignore[arg-type]
    "Tile: repeats must be below 2**31": lambda: fn.Tile((2**31, 1)),
    "ConstantPad: pad must be below 2**31": lambda: fn.ConstantPad((2**31, 0)),
    "ResizeTo: sizes must be below 2**31": lambda: fn.ResizeTo((2**31, 2)),
    "Parameter: shape must be below 2**31": lambda: fn.Parameter((2**31, 2)),
    "sizes of x used as divisors must not be 0": lambda: DIVIDED.apply({}, torch.ones(2, 0)),
    "Linear(in_features=2, out_features=3): params must be a dict of weight (3, 2), bias (3,), got a tuple of 0": lambda: fn.lsuv(LINEAR, (), torch.ones(4, 2)),
    "freeze_params: patterns must be strings": lambda: fn.freeze_params(fn.SGD(), {}),  # type: ignore[arg-type]
    "finite_difference: step must be a finite number above 0, and side 0, 1 or -1": lambda: testing.finite_difference(torch.sum, X, X, side=[0]),  # type: ignore[arg-type]
    "predict: data must have values to move to cpu": lambda: fn.predict(LINEAR, LINEAR_PARAMS, torch.ones(3, 2, device="meta")),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_found_fault_is_refused_with_its_sentence(sentence: str) -> None:
    """The message names the caller, the rule and the value."""
    with pytest.raises(ValueError, match=r".") as caught:
        SENTENCES[sentence]()
    assert sentence in str(caught.value)


def test_an_average_of_other_params_says_whose_it_is() -> None:
    """A note names it, since the helper that compares the trees cannot."""
    with pytest.raises(ValueError, match=r"must agree") as caught:
        SWA.params({**STATE, "average": torch.ones(2)})
    assert caught.value.__notes__ == ["  in SWA(), params: average against dtypes"]


def test_memory_is_that_of_the_steps_that_ran() -> None:
    """The range test stops at the first of 2³¹ - 1 steps."""
    found = lr_range(steps=2**31 - 1, low=1e-3)
    assert found.rates == (1e-3,)
    assert found.diverged


def test_a_value_prints_whole_numbers_of_any_size() -> None:
    """This includes numbers beyond the largest float."""
    assert repr(fn.frozen(type("Held", (fn.Value,), {"n": 0, "__annotations__": {"n": Any}}))(HUGE)) == f"Held(n={HUGE})"


HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda half: random.uniform(0, (2,), half, 2),
        lambda half: random.normal(0, (2,), half, half),
        lambda half: random.truncated_normal(0, (2,), half, half),
        lambda half: random.exponential(0, (2,), half),
        lambda half: fn.ClipByGlobalNorm(half).update(X, fn.ClipByGlobalNorm(half).init(X), X)[0],
        lambda half: fn.NAdam(eps=half).update(X, fn.NAdam().init(X), X)[0],
        lambda half: fn.pad_sequence([torch.ones(2), torch.ones(1)], padding_value=half),
        lambda half: fn.lsuv(LINEAR, LINEAR_PARAMS, random.normal(0, (8, 2)), tolerance=half)["weight"],
        lambda half: testing.finite_difference(torch.sum, X, X, step=half),
    ],
)
def test_a_fraction_is_a_number(draw: Callable[[Any], torch.Tensor]) -> None:
    """It gives the same bits as the float of the same value."""
    assert torch.equal(draw(HALF), draw(0.5))


def test_tolerances_may_be_fractions() -> None:
    """They are equivalent to their floats."""
    assert tree.allclose(X, X + 0.4, rtol=HALF, atol=HALF)
    assert not tree.allclose(X, X + 10, rtol=HALF, atol=HALF)
    testing.assert_close(X, X + 0.4, rtol=HALF, atol=HALF)
    testing.check_metric(fn.MeanSquaredError(), torch.ones(4, 3), torch.zeros(4, 3), tolerance=HALF)


def test_fields_hold_floats_in_place_of_fractions() -> None:
    """The same holds for numpy's numbers; a fraction beyond the largest float is refused."""
    assert fn.Dropout(HALF) == fn.Dropout(0.5) == fn.Dropout(np.float32(0.5))
    with pytest.raises(ValueError, match=r"^Adam: eps must be "):
        fn.Adam(eps=Fraction(HUGE))
