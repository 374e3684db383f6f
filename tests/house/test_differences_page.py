"""The page of differences names every difference between the signatures of torch's and funcnet's classes."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import funcnet as fn

PAGE = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()
ROWS = [row for row in PAGE.splitlines() if row.startswith("| ")]
NAMED = {
    "MultiheadAttention": "MultiHeadAttention",
    "Sequential": "serial",
    "Transformer": "transformer",
    "TransformerEncoder": "transformer_encoder",
    "TransformerDecoder": "transformer_decoder",
    "TransformerEncoderLayer": "transformer_encoder_block",
    "TransformerDecoderLayer": "transformer_decoder_block",
}
"""Classes whose names differ by more than the suffix Loss."""
ABSENT = {"inplace", "device", "dtype", "size_average", "reduce"}
"""Arguments that no layer and no loss has; the rows about all layers and about reductions name them."""
OF_OPTIMIZERS = {"params", "foreach", "fused", "capturable", "differentiable", "donated"}
"""Arguments that no optimizer has, and an argument that all have."""


def classes() -> dict[str, Any]:
    """Return torch's modules and optimizers that have a counterpart by name."""
    homes = ((nn, nn.Module), (torch.optim, torch.optim.Optimizer))
    return {
        name: one for home, base in homes for name, one in vars(home).items() if inspect.isclass(one) and issubclass(one, base)
    }


def counterpart(name: str) -> Any:
    """Return funcnet's counterpart of one of torch's classes, or ``None``."""
    return getattr(fn, NAMED.get(name, name), None) or getattr(fn, name.removesuffix("Loss"), None)


def signature(one: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of the arguments by name."""
    parameters = inspect.signature(one).parameters
    return {name: each.default for name, each in parameters.items() if name not in {"args", "kwargs", "layers", "named"}}


def differences(theirs: Any, ours: Any) -> set[str]:
    """Return the names of arguments that only one of both has, or whose defaults differ."""
    a, b = signature(theirs), signature(ours)
    return {name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name]}


PAIRS = {name: (theirs, counterpart(name)) for name, theirs in classes().items() if counterpart(name) and name != "Optimizer"}


def rows_about(name: str) -> str:
    """Return the rows of the table about a class; the rows about transformers name all of their classes."""
    family = (
        re.sub(r"(Loss|[123]d)$", "", name).replace("Layer", "") if "Transformer" in name else re.sub(r"(Loss|[123]d)$", "", name)
    )
    words = [family, "transformer"] if "Transformer" in name else [family, NAMED.get(name, name)]
    return "\n".join(row for row in ROWS if any(word in row for word in words))


@pytest.mark.parametrize("name", PAIRS)
def test_a_difference_of_signatures_is_named(name):
    """A row about the class names it, except for arguments that no layer, or no optimizer, has."""
    known = OF_OPTIMIZERS if issubclass(PAIRS[name][0], torch.optim.Optimizer) else ABSENT
    rows = rows_about(name)
    assert sorted(one for one in differences(*PAIRS[name]) - known if not re.search(rf"\b{one}\b", rows)) == []


def test_the_arguments_that_nothing_has_are_named():
    """They are in the rows about all layers, reductions and optimizers."""
    assert [name for name in sorted(ABSENT | OF_OPTIMIZERS) if not re.search(rf"\b{name}|donate\b", PAGE)] == []


def test_what_has_no_counterpart_is_named():
    """These are containers, lazy modules, and an optimizer for sparse gradients."""
    bases = {"Module", "RNNBase", "RNNCellBase", "NLLLoss2d", "Optimizer"}
    missing = [name for name in classes() if name not in PAIRS and name not in bases and not name.startswith("Lazy")]
    assert [name for name in missing if name not in PAGE] == []
    assert len(missing) < 12
    assert "LazyLinear" in PAGE
