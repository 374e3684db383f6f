"""Wrong arguments to all public names are refused with one of our messages."""

import pytest
import torch
from wrong_arguments import is_good, nearly_right, trials

import funcnet as fn

MOST_BARE = 0.01


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fuzz", [trials, nearly_right])
def test_wrong_arguments_get_good_errors(fuzz, capsys):
    """At most 1 % of the calls end in a bare message of Python or torch; none crashes or hangs."""
    results = list(fuzz(8, seed=1))
    bare = [one for one in results if one]
    assert len(results) > 1000
    assert len(bare) <= MOST_BARE * len(results), "\n".join(f"{one.call[:100]}: {one.error!r}" for one in bare)


@pytest.mark.parametrize(
    ("call", "good"),
    [
        (lambda: fn.Linear("a", 2), True),
        (lambda: fn.Linear(2), True),  # Python's own errors about a signature are good
        (lambda: fn.at(fn.Linear(2, 3), "x"), True),
        (lambda: torch.ones(2) @ torch.ones(3), False),
        (lambda: fn.Linear(2, 3).nothing, False),
        (lambda: float("a"), False),
    ],
)
def test_the_judge_distinguishes_good_errors_from_bare_ones(call, good):
    """The fuzzer can therefore fail."""
    with pytest.raises(Exception, match=r".") as caught:  # any error is classified
        call()
    assert is_good(caught.value) is good
