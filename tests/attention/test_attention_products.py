"""Attention's backward pass in bfloat16 with matrix products: the results, the sizes for which it is used, and compiled code."""

import pytest
import torch
from cases import attention
from twins import draw

import funcnet as fn
from funcnet.kernels import attention_products as kernels
from funcnet.kernels.choices import NEVER, forced
from funcnet.kernels.processor import Processor
from funcnet.testing import LAWS

HALF = torch.bfloat16
SHAPES = [((2, 2, 40, 16), 40), ((1, 2, 300, 8), 300), ((2, 1, 130, 8), 7), ((1, 2, 5, 8), 260), ((1, 1, 1, 1), 1)]


def gradients(layer, q, k, v, gy):
    """Return the gradients of q, k and v."""
    _, cache = layer.apply({}, (q, k, v))
    return layer.vjp({}, cache, gy)[1]


def drawn(shape, keys):
    """Draw q, k, v and gy in bfloat16."""
    n, heads, length, size = shape
    return [draw((n, heads, steps, size), i).to(HALF) for i, steps in enumerate((length, keys, keys, length))]


@pytest.mark.parametrize("causal", [False, True], ids=["all keys", "causal"])
@pytest.mark.parametrize(("shape", "keys"), SHAPES, ids=str)
def test_gradients_are_those_of_float64(shape, keys, causal):
    """Results agree to the rounding of bfloat16, for one block and several, with more and with fewer queries than keys."""
    layer, given = fn.ScaledDotProductAttention(causal), drawn(shape, keys)
    with forced(kernels.BACKWARD.name, "products"):
        found = gradients(layer, *given)
    want = gradients(layer, *[x.double() for x in given])
    for one, other in zip(found, want, strict=True):
        assert one.dtype is HALF
        assert (one - other).norm() <= torch.finfo(HALF).eps * other.norm()


@pytest.mark.parametrize("keys", [40, 513], ids=["few keys", "many keys"])
def test_the_choice_goes_by_size(monkeypatch, keys):
    """Products are used from some size on, for up to 512 keys; smaller sizes and float32 use the flash kernel."""
    calls, backward = [], kernels.backward
    monkeypatch.setattr(kernels, "backward", lambda *args: calls.append(args[0].shape[2]) or backward(*args))
    layer = fn.ScaledDotProductAttention()
    with forced(kernels.BACKWARD.name, 2 * 2 * 20 * keys * 16):
        for length in (19, 20):
            gradients(layer, *drawn((2, 2, length, 16), keys))
        gradients(layer, *[x.float() for x in drawn((2, 2, 20, 16), keys)])
    assert calls == [20] * (keys == 40)


def test_grouped_heads_and_masks_stay_with_the_flash_kernel(monkeypatch):
    """The products do not support them."""
    monkeypatch.setattr(kernels, "backward", None)
    q, k, v, gy = drawn((2, 2, 6, 4), 6)
    with forced(kernels.BACKWARD.name, "products"):
        gradients(fn.ScaledDotProductAttention(enable_gqa=True), q, k[:, :1], v[:, :1], gy)
        gradients(fn.ScaledDotProductAttention(window=2), q, k, v, gy)


def test_compiled_code_gives_the_same():
    """A causal layer with two blocks has the same gradients from one graph."""
    layer, given = fn.ScaledDotProductAttention(is_causal=True), drawn((1, 2, 150, 8), 150)
    with forced(kernels.BACKWARD.name, "products"):
        found = torch.compile(lambda *args: gradients(layer, *args), fullgraph=True)(*given)
        want = gradients(layer, *given)
    torch.testing.assert_close(found, want, rtol=2**-6, atol=2**-8)


def test_results_repeat_bit_for_bit():
    """Blocks are always summed in the same order."""
    layer, given = fn.ScaledDotProductAttention(is_causal=True), drawn((2, 2, 300, 16), 300)
    with forced(kernels.BACKWARD.name, "products"):
        once, again = gradients(layer, *given), gradients(layer, *given)
    assert all(one.equal(other) for one, other in zip(once, again, strict=True))


def test_values_far_from_zero_and_infinite_keys():
    """A large offset of the values costs only its rounding; a NaN in a head stays in that head."""
    layer, (q, k, v, gy) = fn.ScaledDotProductAttention(), drawn((1, 2, 12, 8), 12)
    far = v + 100
    broken = k.clone()
    broken[:, 1, 0, 0] = torch.inf
    with forced(kernels.BACKWARD.name, "products"):
        found, partly = gradients(layer, q, k, far, gy), gradients(layer, q, broken, v, gy)
    want = gradients(layer, *[x.double() for x in (q, k, far, gy)])
    assert (found[0] - want[0]).abs().max() <= 100 * torch.finfo(HALF).eps * gy.abs().sum(-1).max()
    assert all(leaf[:, 0].isfinite().all() and leaf[:, 1].isnan().any() for leaf in partly)


def test_the_rule_asks_for_instructions_for_bfloat16():
    """Other processors multiply bfloat16 more slowly than float32."""
    assert kernels.BACKWARD.rule(Processor("amd", avx512=True)) == NEVER
    assert kernels.BACKWARD.rule(Processor("intel", avx512=True, bf16=True, amx=True)) < NEVER


@pytest.mark.parametrize("law", ["pure", "structure", "halves"])
@pytest.mark.parametrize("case", attention.CASES.values(), ids=attention.CASES)
def test_the_law_holds_with_products(law, case):
    """``tests/testing/test_laws.py`` only tries the kernel that is chosen for the size and the processor."""
    with forced(kernels.BACKWARD.name, "products"):
        LAWS[law](case.layer, case.x, case.params)
