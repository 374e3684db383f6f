"""Packing compared with torch.nn.utils.rnn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import rnn
from twins import draw

import funcnet as fn


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from([(), (2,), (2, 3)]), st.booleans(), st.integers(0, 9))
@settings(max_examples=30)
def test_sequences_are_padded_and_packed_as_torch_does(counts, features, batch_first, seed):
    """The padded tensor, the packed rows of decreasing lengths, and the inverses of both agree."""
    counts = sorted(counts, reverse=True)
    sequences = [draw((count, *features), seed + i) for i, count in enumerate(counts)]
    padded = fn.pad_sequence(sequences, batch_first=batch_first, padding_value=2.0)
    assert torch.equal(padded, rnn.pad_sequence(sequences, batch_first=batch_first, padding_value=2.0))
    for got, want in zip(fn.unpad_sequence(padded, counts, batch_first=batch_first), sequences, strict=True):
        assert torch.equal(got, want)
    data = fn.pack_padded(padded, counts, batch_first=batch_first)
    packed = rnn.pack_padded_sequence(padded, torch.tensor(counts), batch_first=batch_first)
    assert torch.equal(data, packed.data)
    again = fn.pad_packed(data, counts, batch_first=batch_first, total_length=6)
    assert torch.equal(again, rnn.pad_packed_sequence(packed, batch_first=batch_first, total_length=6)[0])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any), st.integers(0, 9))
@settings(max_examples=20)
def test_padding_and_packing_are_each_other_s_transposes(counts, seed):
    """⟨g, pack x⟩ = ⟨pad g, x⟩ for lengths in any order, including 0."""
    x, g = draw((4, len(counts), 2), seed), draw((sum(counts), 2), seed + 1)
    torch.testing.assert_close((g * fn.pack_padded(x, counts)).sum(), (fn.pad_packed(g, counts, total_length=4) * x).sum())


X = torch.ones(3, 2)
MESSAGES = {
    "pack_padded: lengths must be whole numbers, one for each sequence, from 0 to 3, the number of steps, got [4, 1]": lambda: fn.pack_padded(X, [4, 1]),
    "unpad_sequence: lengths must be whole numbers, one for each sequence, from 0 to 3, the number of steps, got [0.5, 1.0]": lambda: fn.unpad_sequence(X, [0.5, 1.0]),
    "pad_packed: data must have a row for each of 4 steps, got a tensor of shape (3, 2)": lambda: fn.pad_packed(X, [2, 2]),
    "pad_sequence: sequences must be one or more dense tensors that differ only in their first axis, got a list of 2": lambda: fn.pad_sequence([X, X[:, :1]]),
    "pad_packed: lengths must be whole numbers, one for each sequence, from 0, got [True, True]": lambda: fn.pad_packed(X, [True, True]),
    "pad_packed: lengths must be whole numbers, one for each sequence, from 0, got [-1, 4]": lambda: fn.pad_packed(X, [-1, 4]),
    "pad_packed: total_length must be a whole number from 0 to below 2**31, or None, got 2.5": lambda: fn.pad_packed(X, [2, 1], total_length=2.5),
    "pad_sequence: padding_value must be a number, got '0'": lambda: fn.pad_sequence([X], padding_value="0"),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
