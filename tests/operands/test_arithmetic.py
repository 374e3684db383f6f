"""Operations on several operands compared with torch and autograd in float64, and the errors they raise."""

import pytest
import torch
from twins import draw

import funcnet as fn

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


def by_autograd(f, gy_seed, *leaves):
    """Return the output of f and the gradients of its arguments, by autograd."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = f(*leaves)
    return y.detach(), torch.autograd.grad(y, leaves, draw(y.shape, gy_seed))


PAIRS = {
    "Add": (fn.Add(), torch.add),
    "Sub": (fn.Sub(), torch.sub),
    "Mul": (fn.Mul(), torch.mul),
    "Div": (fn.Div(), torch.div),
    "Pow": (fn.Pow(), torch.pow),
}
BROADCASTS = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), ()),
    ((), ()),
    ((0, 4), (4,)),
    ((1,), (5,)),
]


@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_an_operation_agrees_with_torch_and_sums_over_repeated_axes(name, shapes):
    """Value and both gradients are torch's, and each gradient has its operand's shape."""
    layer, f = PAIRS[name]
    a, b = draw(shapes[0], 1).abs() + 0.5, draw(shapes[1], 2)
    want, gs = by_autograd(f, 3, a, b)
    y, cache = layer.apply({}, (a, b))
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 3))[1], tuple(gs), **CLOSE)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
                                    ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 5)), ((0, 3), (3, 2))], ids=str)  # fmt: skip
def test_matmul_agrees_with_torch(shapes):
    """Vectors, matrices and batches of them are tried, with broadcast batch axes."""
    a, b = draw(shapes[0], 1), draw(shapes[1], 2)
    want, gs = by_autograd(torch.matmul, 3, a, b)
    y, cache = fn.MatMul().apply({}, (a, b))
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(fn.MatMul().vjp({}, cache, draw(y.shape, 3))[1], tuple(gs), **CLOSE)


@pytest.mark.parametrize("layer", [fn.Add(), fn.Mul(), fn.Concat(), fn.Concat(0)], ids=repr)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_operations_on_any_number_of_operands(layer, count):
    """Sum, product and concatenation take one operand or more."""
    functions = {
        fn.Add: lambda *xs: sum(xs),
        fn.Mul: lambda *xs: torch.stack(xs).prod(0),
        fn.Concat: lambda *xs: torch.cat(xs, layer.dim),
    }
    xs = tuple(draw((3, 2), i) for i in range(count))
    want, gs = by_autograd(functions[type(layer)], 9, *xs)
    y, cache = layer.apply({}, xs)
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 9))[1], tuple(gs), **CLOSE)


def test_a_product_with_zeros_has_exact_gradients():
    """Nothing is divided by a factor, so two zeros in a product of three give no NaN."""
    xs = tuple(torch.tensor([0.0, 0.0, 2.0]) if i < 2 else torch.tensor([0.0, 5.0, 3.0]) for i in range(3))
    cache = fn.Mul().apply({}, xs)[1]
    gs = fn.Mul().vjp({}, cache, torch.ones(3))[1]
    assert torch.equal(torch.stack(gs), torch.tensor([[0.0, 0.0, 6.0], [0.0, 0.0, 6.0], [0.0, 0.0, 4.0]]))


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_powers_of_zero_have_torch_s_gradients(exponent):
    """At base 0 the gradients match torch.pow, including infinite ones."""
    a, b = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.full((2,), exponent, dtype=torch.float64)
    want, gs = by_autograd(torch.pow, 3, a, b)
    y, cache = fn.Pow().apply({}, (a, b))
    torch.testing.assert_close((y, *fn.Pow().vjp({}, cache, draw((2,), 3))[1]), (want, *gs), **CLOSE)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1, (0, 2), (-1, -2)], ids=str)
def test_mean_agrees_with_torch(dim, keepdim):
    """The axes may be all, one, or several, kept or not."""
    x = draw((2, 3, 4))
    want, (gx,) = by_autograd(
        lambda x: x.mean(dim, keepdim=keepdim) if dim is not None else x.mean((0, 1, 2), keepdim=keepdim), 3, x
    )
    layer = fn.Mean(dim, keepdim)
    y, cache = layer.apply({}, x)
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 3))[1], gx, **CLOSE)


X = torch.ones(2, 3)
MESSAGES = {
    "Add(): the operands must broadcast together, got shapes (2, 3) and (3, 2)": lambda: fn.Add()({}, (X, X.T)),
    "Add(broadcast=False): the operands must have the same shape, got shapes (2, 3) and (3,)": lambda: fn.Add(broadcast=False)({}, (X, X[0])),
    "Sub(): x must be a tuple of 2 tensors, got a tuple of 3": lambda: fn.Sub()({}, (X, X, X)),
    "Mul(): x must be a tuple of one or more tensors, got a tensor of shape (2, 3) and dtype torch.float32": lambda: fn.Mul()({}, X),
    "Div(): the operands must have the same dtype, got torch.float32 and torch.float64": lambda: fn.Div()({}, (X, X.double())),
    "MatMul(): the last axis of a must match the second-to-last axis of b, and the axes before them must broadcast, got shapes (2, 3) and (2, 3)": lambda: fn.MatMul()({}, (X, X)),
    "Concat(): the operands must have the same size along every axis except -1, got shapes (2, 3) and (1, 3)": lambda: fn.Concat()({}, (X, X[:1])),
    "Mean(dim=5): x must have an axis 5, got x of shape (2, 3)": lambda: fn.Mean(5)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the caller, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
