"""The page about arrays of other libraries: its claims about warnings and errors hold; ``test_pages`` runs its snippets."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import funcnet as fn

PAGE = (Path(__file__).parents[2] / "docs" / "interchange.md").read_text()


def test_there_are_snippets_for_each_section():
    """There are three to NumPy, two from it, and one for JAX."""
    assert [len(re.findall("```python", part)) for part in PAGE.split("\n## ")] == [0, 3, 2, 1]


def test_a_read_only_array_warns():
    """Only from_numpy warns, as the page says."""
    rows = np.ones(3, np.float32)
    rows.flags.writeable = False
    with pytest.warns(UserWarning, match="not writable"):
        torch.from_numpy(rows)
    assert torch.equal(torch.tensor(rows), torch.ones(3))


def test_arrays_without_a_counterpart_are_refused():
    """Torch rejects negative strides, NumPy bfloat16, and DLPack tensors that require a gradient."""
    with pytest.raises(ValueError, match="negative"):
        torch.from_numpy(np.arange(3)[::-1])
    with pytest.raises(TypeError, match="BFloat16"):
        np.asarray(torch.ones(2, dtype=torch.bfloat16))
    with pytest.raises(Exception, match="require"):
        jax.dlpack.from_dlpack(torch.ones(2, requires_grad=True))


def test_bfloat16_goes_to_jax_and_back():
    """They share memory."""
    params = fn.tree.cast(fn.Linear(3, 2).init(0), torch.bfloat16)
    arrays = fn.tree.map(jax.dlpack.from_dlpack, params)
    assert arrays["weight"].dtype == jax.numpy.bfloat16
    assert torch.from_dlpack(arrays["weight"]).data_ptr() == params["weight"].data_ptr()
