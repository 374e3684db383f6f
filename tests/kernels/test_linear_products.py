"""The library for matrix products: layers satisfy the laws with either library, and return the same numbers."""

import pytest
import torch
from cases import CASES, Case, attention, linear, recurrent

import funcnet as fn
from funcnet.kernels import linear as products
from funcnet.kernels.choices import NEVER
from funcnet.testing import LAWS

FAMILIES = {name: case for family in (linear, attention, recurrent) for name, case in family.CASES.items()}
TRIALS = [
    pytest.param(law, case, id=f"{law}: {name}")
    for law in ("structure", "strides")  # laws that use float32
    for name, case in FAMILIES.items()
]


def used(monkeypatch):
    """Count the products that oneDNN computes."""
    calls = []
    formed = products._by_onednn
    monkeypatch.setattr(products, "_by_onednn", lambda *tensors: calls.append(1) or formed(*tensors))
    return calls


@pytest.mark.parametrize(("law", "case"), TRIALS)
def test_the_law_holds_by_onednn(law: str, case: Case) -> None:
    """``tests/testing/test_laws.py`` checks the laws with the library that size and processor determine; here it is oneDNN."""
    with fn.kernels.matmul_library("onednn"):
        LAWS[law](case.layer, case.x, case.params)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_libraries_agree(case: Case) -> None:
    """They agree up to float32 rounding, forward and backward."""
    found = []
    for library in ("mkl", "onednn"):
        with fn.kernels.matmul_library(library):
            arguments = (case.params, case.x, fn.key(0)) if case.layer.stochastic else (case.params, case.x)
            y, cache = case.layer.apply(*arguments)
            gy = fn.tree.map(lambda leaf: torch.ones_like(leaf) if leaf.is_floating_point() else None, y)
            found.append((y, case.layer.vjp(case.params, cache, gy)))
    torch.testing.assert_close(*map(fn.tree.leaves, found), rtol=1e-3, atol=1e-4, equal_nan=True)


def test_the_choice_goes_by_size(monkeypatch):
    """With a threshold of n multiplications, oneDNN computes products of n but not of fewer, also backward."""
    calls = used(monkeypatch)
    layer = fn.Linear(5, 6)
    params = layer.init(0)
    with fn.kernels.forced("matrix products", 4 * 5 * 6):
        for rows, times in ((3, 0), (4, 3)):
            y, cache = layer.apply(params, fn.random.normal(0, (rows, 5)))
            layer.vjp(params, cache, torch.ones_like(y))
            assert len(calls) == times


def test_double_precision_and_someones_autograd_stay_with_torchs_own(monkeypatch):
    """OneDNN has no float64, and autograd has no derivative of its product."""
    calls = used(monkeypatch)
    with fn.kernels.matmul_library("onednn"):
        products.linear(torch.ones(2, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64))
        y = products.linear(torch.ones(2, 3, requires_grad=True), torch.ones(4, 3))
        torch.func.vmap(lambda x: products.linear(x, torch.ones(4, 3)))(torch.ones(5, 2, 3))
    assert y.requires_grad
    assert calls == []


def test_bfloat16_goes_to_onednn_but_for_the_weights_gradient(monkeypatch):
    """This holds on processors with bfloat16 instructions. Results equal those of float64, up to bfloat16 rounding."""
    calls, layer = used(monkeypatch), fn.Linear(5, 6)
    x, gy = (fn.random.normal(i, (4, n)).bfloat16() for i, n in ((1, 5), (2, 6)))
    params = {"weight": fn.random.normal(3, (6, 5)).bfloat16(), "bias": fn.random.normal(4, (6,)).bfloat16()}
    with fn.kernels.matmul_library("onednn"):
        y, cache = layer.apply(params, x)
        gparams, gx = layer.vjp(params, cache, gy)
    assert len(calls) == (2 if torch.bfloat16 in products._DTYPES else 0)
    wide = fn.tree.cast(params, torch.float64)
    exact, cache = layer.apply(wide, x.double())
    want = exact.bfloat16(), layer.vjp(wide, cache, gy.double())[1].bfloat16()
    torch.testing.assert_close((y, gx), want, rtol=2**-7, atol=1e-6)
    assert gparams["weight"].dtype is torch.bfloat16


@pytest.mark.compiled
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_goes_to_onednn_too(backend, monkeypatch):
    """A compiled step has the same products as an eager one."""
    torch.compiler.reset()  # compiled objects count towards one limit per process
    step = fn.train_step(fn.serial(fn.Linear(5, 6), fn.Tanh(), fn.Linear(6, 3)), fn.MSE(), fn.SGD(lr=0.1))
    params = step.net.init(0)
    arguments = (params, step.opt.init(params), fn.random.normal(1, (4, 5)), fn.random.normal(2, (4, 3)))
    calls = []
    monkeypatch.setattr(products, "_product", lambda *tensors: calls.append(1) or products._onednn()(*tensors, "none", [], ""))
    with torch.no_grad(), fn.kernels.matmul_library("onednn"):
        want = step(*arguments)
        assert len(calls) == 5
        torch.testing.assert_close(torch.compile(step, fullgraph=True, backend=backend)(*arguments), want)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "axes", [(0, None), (None, 0), (0, 0), (1, {"weight": 1, "bias": None}), (None, {"weight": None, "bias": 0})]
)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
def test_compiled_code_maps_over_the_product(axes, shape):
    """Compiled vmap over the rows, the params or both, along any axis, returns the results of eager vmap."""
    torch._dynamo.reset()  # it counts how often one function is compiled
    layer, n = fn.Linear(5, 6), 3
    params = {"weight": fn.random.normal(0, (6, 5)), "bias": fn.random.normal(1, (6,))}
    x_dim, p_dim = axes
    of = p_dim if isinstance(p_dim, dict) else dict.fromkeys(params, p_dim)
    params = {k: p if of[k] is None else torch.stack([p * (i + 1) for i in range(n)], of[k]) for k, p in params.items()}
    x = fn.random.normal(2, shape)
    x = x if x_dim is None else torch.stack([x + i for i in range(n)], x_dim)
    mapped = torch.func.vmap(layer, in_dims=(of, x_dim))
    with torch.no_grad(), fn.kernels.matmul_library("onednn"):
        compiled = torch.compile(mapped, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(params, x), mapped(params, x), rtol=1e-5, atol=1e-5)


def test_a_large_tanh_is_the_same_by_both():
    """They agree up to float32 rounding, at both ends and for NaN; float64, autograd and vmap use torch's kernel."""
    x = torch.cat((fn.random.normal(0, (20_000,)) * 3, torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, 1e-30, 89.0])))
    layer = fn.Tanh()
    with fn.kernels.forced("tanh", "onednn"):
        torch.testing.assert_close(layer({}, x), torch.tanh(x), rtol=3e-7, atol=0, equal_nan=True)
        torch.testing.assert_close(layer({}, x[:-6].view(100, 200).t()), torch.tanh(x[:-6].view(100, 200).t()), rtol=3e-7, atol=0)
        assert torch.equal(layer({}, x[:-6].double()), torch.tanh(x[:-6].double()))
        assert layer({}, x.clone().requires_grad_()).requires_grad
        rows = x[:-6].view(2, -1)
        assert torch.equal(torch.func.vmap(lambda row: layer({}, row))(rows), torch.tanh(rows))


def test_the_preference_ends_with_its_block():
    """The function, in contrast, sets it permanently."""
    before = products.PRODUCTS.value
    with fn.kernels.matmul_library("onednn"):
        assert products.PRODUCTS.value == 0
    assert products.PRODUCTS.value == before
    fn.kernels.set_matmul_library("mkl")
    assert products.PRODUCTS.value == NEVER
    fn.kernels.set_matmul_library("auto")
    assert products.PRODUCTS.value == before


def test_without_onednn_every_preference_is_torchs_own():
    """A torch built without oneDNN has the same options."""
    assert products._options(None) == {"mkl": NEVER, "onednn": NEVER}


def test_an_unknown_library_is_refused():
    """The message names the library."""
    with pytest.raises(ValueError, match="set_matmul_library: library must be one of 'auto', 'mkl', 'onednn', got 'blas'"):
        fn.kernels.set_matmul_library("blas")
    with pytest.raises(ValueError, match="matmul_library: library must be one of"), fn.kernels.matmul_library("blas"):
        pass
