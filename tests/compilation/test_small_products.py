"""Small products in compiled code: the loops return the results of torch's products in all memory orders that occur."""

import sys
import warnings

import pytest
import torch
from torch._inductor.utils import fresh_inductor_cache
from torch.fx.experimental.proxy_tensor import make_fx

import funcnet as fn
from funcnet.compilation import inductor, options, product_loops, product_template
from funcnet.kernels import forced, small_products

pytestmark = pytest.mark.compiled

SIZES = ((1, 1, 1), (3, 2, 5), (17, 25, 2), (33, 40, 65))


def normal(seed, *shape, dtype=torch.float32):
    """Sample a tensor."""
    return fn.random.normal(seed, shape, dtype=dtype)


def transposed(x):
    """Return the same numbers, stored by columns."""
    return x.mT.contiguous().mT


def products(a, b, addends):
    """Return the products of each pair of memory orders, and the product with each addend."""
    pairs = [(one, other) for one in (a, transposed(a)) for other in (b, transposed(b))]
    plain = [one @ other for one, other in pairs]
    add = torch.addmm if a.dim() == 2 else torch.baddbmm
    return plain + [add(addend, one, other) for addend, (one, other) in zip(addends, pairs, strict=True)]


def several(groups):
    """Return the products of several pairs of matrices, in one graph."""
    return [products(*group) for group in groups]


def group(seed, sizes, *matrices, dtype=torch.float32):
    """Sample two factors, and an addend for each pair of orders: for rows, for columns, a single number, and transposed."""
    rows, inner, columns = sizes
    a, b = normal(seed, *matrices, rows, inner, dtype=dtype), normal(seed + 1, *matrices, inner, columns, dtype=dtype)
    full = normal(seed + 2, *matrices, rows, columns, dtype=dtype)
    return a, b, [full[..., :1], full[..., :1, :] if matrices else full[0], full, transposed(full)]


@pytest.fixture
def replaced(monkeypatch):
    """Return a list to which the operators of every graph are added, after the pass."""
    found, replace = [], small_products.replace_small_products

    def recorded(graph):
        replace(graph)
        found.extend(str(node.target) for node in graph.nodes if node.op == "call_function")

    monkeypatch.setattr(small_products, "replace_small_products", recorded)
    return found


@pytest.mark.parametrize(("dtype", "matrices"), [(torch.float32, ()), (torch.float64, (3,))])
def test_products_of_all_sizes_and_orders(dtype, matrices, replaced):
    """This covers rows and columns beyond whole vectors and blocks, transposed factors, and all broadcast addends."""
    groups = [group(3 * i, sizes, *matrices, dtype=dtype) for i, sizes in enumerate(SIZES)]
    with fresh_inductor_cache():
        torch.testing.assert_close(fn.compile(several)(groups), several(groups), rtol=1e-5, atol=1e-5)
    assert replaced.count("funcnet.small_product.default") > 4 * len(SIZES)
    assert not {"aten.mm.default", "aten.bmm.default"} & {*replaced}


def test_operands_that_overlap_or_lie_apart(replaced):
    """This covers the same matrix twice, an expanded entry, slices with steps and offsets, and results of the graph itself."""
    x, w = normal(1, 12, 18), normal(2, 3, 18, 6)

    def several(x, w):
        y = torch.tanh(x)
        return x @ x.T, y @ y.T, x[2::3, 1::2] @ w[1, ::2, 1::2], torch.bmm(x.expand(3, -1, -1), w), (y @ w[0]).T @ x

    with fresh_inductor_cache():
        torch.testing.assert_close(fn.compile(several)(x, w), several(x, w), rtol=1e-5, atol=1e-5)
    assert replaced.count("funcnet.small_product.default") >= 6


def test_infinite_numbers_and_nan_stay_in_their_rows():
    """The padding of a row's last vector does not affect a result, not even as 0 · ∞."""
    x, w = normal(1, 5, 7), normal(2, 3, 7)
    x[0, 0], x[1, 1], w[2, 3] = torch.inf, torch.nan, torch.inf
    several = lambda x, w: (x @ w.T, x.T @ x, w @ x.T)
    torch.testing.assert_close(fn.compile(several)(x, w), several(x, w), equal_nan=True)


def graph_of(function, *arguments):
    """Return the graph of operators of a function, after the pass."""
    graph = make_fx(function, tracing_mode="fake")(*arguments).graph
    small_products.replace_small_products(graph)
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_other_products_stay_with_their_library():
    """These are large, too long for the stack, empty, half precision, integer or scaled; or the choice is forced."""
    x = normal(1, 8, 8)
    small = "funcnet.small_product.default"
    assert graph_of(torch.mm, x, x) == [small]
    for other in (x.bfloat16(), x.long(), x[:0], normal(1, 256, 256), normal(1, 2, 40_000)):
        assert graph_of(torch.mm, other, other.mT) == ["aten.mm.default"]
    assert graph_of(lambda x: torch.addmm(x, x, x, alpha=2), x) == ["aten.addmm.default"]
    with forced("small compiled products", "library"):
        assert graph_of(torch.mm, x, x) == ["aten.mm.default"]


@pytest.mark.parametrize(("count", "found"), [(1, "funcnet.small_product.default"), (2, "aten.mm.default")])
def test_several_threads_share_larger_products(count, found):
    """The loops use one thread: with several the library gets products from a million multiplications on."""
    x, small, before = normal(1, 128, 128), normal(2, 64, 64), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with forced("small compiled products", 1 << 23):
            assert graph_of(torch.mm, x, x) == [found]
            assert graph_of(torch.mm, small, small) == ["funcnet.small_product.default"]
    finally:
        torch.set_num_threads(before)


def test_computed_operands_keep_the_order_of_what_they_are_computed_from():
    """Results are those of torch, whatever the order of the numbers in memory."""
    x, w, gy = transposed(normal(1, 3, 20, 17)), normal(2, 3, 9, 17), transposed(normal(3, 3, 20, 9))
    several = lambda x, w, gy: (x.sin() @ w.mT, (gy * x[..., :9]).mT @ x.cos(), (gy.sum(1, keepdim=True) * gy) @ w.exp())
    torch.testing.assert_close(fn.compile(several)(x, w, gy), several(x, w, gy))


def test_the_operator_by_itself():
    """It works in eager mode too, with the shape and strides of its meta function."""
    a, b, c = normal(1, 3, 4), normal(2, 5, 4).T, normal(3, 5)
    torch.testing.assert_close(torch.ops.funcnet.small_product(a, b, c), a @ b + c)
    torch.testing.assert_close(torch.ops.funcnet.small_product(a, b, None), a @ b)
    torch.library.opcheck(torch.ops.funcnet.small_product.default, (a, b, c))


def test_an_inductor_without_templates_gets_no_pass(monkeypatch):
    """If a release of torch lacks the private names that the loops use, products are not replaced."""
    assert "post_grad_custom_post_pass" in options.product_options()
    monkeypatch.setitem(sys.modules, "funcnet.compilation.product_template", None)
    assert options.product_options() == {}


@pytest.mark.parametrize("source", ["#error", None], ids=["C++ that does not compile", "a template that fails"])
def test_products_go_back_to_the_library_where_the_loops_fail(source, monkeypatch, replaced):
    """If a compiler or Inductor rejects the loops, everything is compiled again with a warning: bits can differ."""
    monkeypatch.setattr(product_loops, "SOURCE", source)
    if source is None:
        monkeypatch.setattr(product_template.ProductTemplate, "render", None)
    x, w = normal(1, 6, 5), normal(2, 6, 5)
    several = lambda x, w: (torch.tanh(x) @ w.T, x.T @ w)
    with fresh_inductor_cache(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.testing.assert_close(fn.compile(several)(x, w), several(x, w))
    assert any(str(one.message).startswith("compile: the loops for small products failed") for one in told)
    assert "funcnet.small_product.default" in replaced


def test_a_failure_without_loops_is_raised(monkeypatch):
    """If no loops are used, nothing is compiled again."""
    calls = []
    monkeypatch.setattr(torch._inductor, "compile", lambda *args, **options: calls.append(options) or 1 / 0)
    with forced("small compiled products", "library"), pytest.raises(ZeroDivisionError):
        inductor._compiled(None, [], {})
    assert calls == [{"options": None}]


def test_a_wish_to_trace_again_is_no_failure(monkeypatch):
    """Numbers that become tensors make Dynamo restart, with the loops."""
    calls = []

    def restart(*args, **options):
        calls.append(options)
        raise torch._dynamo.exc.RestartAnalysis(restart_reason="a number")

    monkeypatch.setattr(torch._inductor, "compile", restart)
    with pytest.raises(torch._dynamo.exc.RestartAnalysis):
        inductor._compiled(None, [], {})
    assert len(calls) == 1


def test_a_forced_choice_is_a_part_of_the_key_of_the_cache():
    """Inductor does not reuse a program that was compiled with another choice."""
    the_pass = options.product_options()["post_grad_custom_post_pass"]
    before = the_pass.uuid()
    with forced("small compiled products", "library"):
        assert the_pass.uuid() != before
    assert the_pass.uuid() == before
