"""Trees: anything but a tree of tensors is refused with an error that names the place and the value."""

import pytest
import torch

from funcnet import tree

PARAMS = {"a": {"weight": torch.ones(2, 3)}, "b": None}
WORDS = {"a": {"weight": "x"}}

MESSAGES = {
    "norm: every leaf must be a tensor, got 'x' at 'a.weight'": lambda: tree.norm(WORDS),
    "ravel: every leaf must be a tensor, got 3": lambda: tree.ravel(3),
    "zeros_like: every leaf must be a tensor, got 'x' at 'a.weight'": lambda: tree.zeros_like(WORDS),
    "dot: the tensors of the trees must fit each other, got": lambda: tree.dot(torch.ones(2), torch.ones(3)),
    "add: every leaf must be a tensor, got 'x' at 'a.weight'": lambda: tree.add({"a": {"weight": torch.ones(2)}}, WORDS),
    "scale: factor must be a number, or a tensor that fits the leaves, got 'x'": lambda: tree.scale(PARAMS, "x"),
    "sub: every leaf must be a tensor, got 'x' at 'a.weight'": lambda: tree.sub({"a": {"weight": torch.ones(2)}}, WORDS),
    "mul: the tensors of the trees must fit each other, got": lambda: tree.mul(torch.ones(2), torch.ones(3)),
    "lerp: weight must be a number, or a tensor that fits the leaves, got 'x'": lambda: tree.lerp(PARAMS["a"], PARAMS["a"], "x"),
    "clip: low must be at most high, got low=1, high=0": lambda: tree.clip(PARAMS, 1, 0),
    "clip: low and high must be numbers, or tensors that fit the leaves, or None, got 'x'": lambda: tree.clip(PARAMS, "x"),
    "where: condition must be a bool tensor that fits the leaves, or a tree of them": lambda: tree.where(torch.ones(5) > 0, PARAMS["a"], PARAMS["a"]),
    "reduce: f must be a function, got 1": lambda: tree.reduce(1, PARAMS, 0),
    "cast: dtype must be a torch.dtype, got 'half'": lambda: tree.cast(PARAMS, "half"),
    "to: device must be a torch.device, or the name of one, got 'nowhere'": lambda: tree.to(PARAMS, "nowhere"),
    "map: f must be a function, got None": lambda: tree.map(None, PARAMS),
    "map_with_path: f must be a function, got 3": lambda: tree.map_with_path(3, PARAMS),
    "update: f must be a function, got 0.1": lambda: tree.update(0.1, PARAMS, PARAMS),
    "partition: predicate must be a function, got 'a'": lambda: tree.partition(PARAMS, "a"),
    "at: path must be a str, names joined by dots, got 0": lambda: tree.at(PARAMS, 0),
    "replace: path must be a str, names joined by dots, got None": lambda: tree.replace(PARAMS, None, 1),
    "from_names: named must be a dict of leaves by their names, got a list of 1": lambda: tree.from_names(["a"]),
    "unravel: the vector must have the 6 elements of like, got a list of 6": lambda: tree.unravel([1] * 6, PARAMS),
    "unravel: every leaf of like must be a tensor, got 'x'": lambda: tree.unravel(torch.ones(0), WORDS),
    "describe: every leaf must be a tensor, got 'x' at 'a.weight'": lambda: tree.describe(WORDS),
    "describe: every leaf must hold real numbers, got a tensor of shape (2,) and dtype torch.complex64 at 'c'": lambda: tree.describe({"c": torch.ones(2) * 1j}),
    "describe: every leaf must hold real numbers, got a tensor of shape (2,) and dtype torch.float32": lambda: tree.describe(torch.ones(2, device="meta")),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_no_tree_of_tensors_is_refused_with_its_message(message):
    """The error names the function, the rule and the value."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_an_error_of_the_users_function_stays_what_it_was():
    """The tree functions did not cause it."""

    def broken(leaf):
        raise AttributeError("mine")

    for call in (lambda: tree.map(broken, PARAMS), lambda: tree.update(lambda p, g: broken(p), PARAMS, PARAMS)):
        with pytest.raises(AttributeError, match=r"^mine$"):
            call()
