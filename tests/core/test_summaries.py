"""Summaries: each row and the total are compared with counts by hand, torch's counter, and the cache of a real step."""

from typing import Any

import pytest
import torch
from cases import CASES
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count

import funcnet as fn
from funcnet.contract import meta_key, meta_params
from funcnet.metering import storages
from funcnet.sizes import on_meta

ATEN = torch.ops.aten
N = 8


def matrix_vector(a: Any, b: Any, *others: Any, **options: Any) -> int:
    return mm_flop((1, a[0]) if len(a) == 1 else a, (*b, 1))


MISSING = {
    ATEN.mv: matrix_vector,
    ATEN.dot: matrix_vector,
    ATEN._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda gy, q, k, v, *_, **__: sdpa_backward_flop_count(
        gy, q, k, v
    ),
}
"""Formulas that torch's counter lacks."""


def counted(net: fn.Layer, x: Any) -> tuple[int, int, int]:
    """Count the FLOPs forward and backward with torch's counter, and the bytes in the cache."""
    params, x = meta_params(net), on_meta(x, None)
    with FlopCounterMode(display=False, custom_mapping=MISSING) as forward:
        y, cache = net.apply(params, x, meta_key(net))
    gy = fn.tree.map(lambda leaf: torch.empty_like(leaf) if leaf.is_floating_point() else None, y)
    with FlopCounterMode(display=False, custom_mapping=MISSING) as backward:
        net.vjp(params, cache, gy)
    kept = sum(one.nbytes() for one in storages(cache).values())
    return forward.get_total_flops(), backward.get_total_flops(), kept


KEEPS_OTHERWISE = (
    "LSTM(",
    "uniqued(",
    "EmbeddingBag(",
    "VarlenAttention(",
    "CrossEntropy(",
    "qk_norm=",
    "weighted(",
    "WithLoss(",
    "NLL(ignore_index",
)
"""Layers whose kernel keeps different memory on the meta device, or memory that depends on values."""


WITH_INPUT = [name for name in CASES if not isinstance(CASES[name].x, tuple) or CASES[name].x]
"""All layers except those without an input, because ``()`` is read as the shape of a number."""


@pytest.mark.parametrize(
    "name", [name for name in WITH_INPUT if not any(one in repr(CASES[name].layer) for one in KEEPS_OTHERWISE)]
)
def test_the_cache_of_an_entry_is_that_of_a_real_step(name: str) -> None:
    """The bytes equal those that ``apply`` keeps in main memory."""
    layer, x, params = CASES[name][:3]
    params, x = fn.tree.cast((params, x), torch.float32)
    cache = without_views(layer.apply(params, x, fn.key(0))[1])
    assert fn.summary(layer, x).total.cache_bytes == sum(one.nbytes() for one in storages(cache).values())


def without_views(cache: Any) -> Any:
    """Return a cache without the params kept by ``repeat``, which take no additional memory."""
    if isinstance(cache, dict):
        return {name: without_views(one) for name, one in cache.items() if (name, "each" in cache) != ("params", True)}
    return tuple(map(without_views, cache)) if isinstance(cache, (tuple, list)) else cache


@pytest.mark.parametrize("name", WITH_INPUT)
def test_the_totals_are_those_of_the_net_itself(name: str) -> None:
    """Every case is tried; torch's formula for grouped convolutions counts each group's weights for all groups."""
    layer, x = CASES[name].layer, CASES[name].x
    found, params = fn.summary(layer, x), meta_params(layer)
    total, (forward, backward, kept) = found.total, counted(layer, x)
    assert (total.params, total.bytes) == (fn.tree.size(params), fn.tree.nbytes(params))
    assert (total.flops, total.cache_bytes) == (forward, kept)
    assert total.backward_flops == backward or "groups=" in repr(layer)
    for column in ("params", "bytes", "flops", "backward_flops"):
        assert sum(getattr(row, column) for row in found.rows) == getattr(total, column)


def test_the_rows_of_a_net() -> None:
    """The rows are computed by hand: x (8, 2) → 25 → tanh → 3."""
    first, last = fn.Linear(2, 25), fn.Linear(25, 3)
    found = fn.summary(fn.serial(first, fn.Tanh(), last), torch.ones(N, 2))
    assert [tuple(row) for row in found.rows] == [
        ("0", first, (N, 25), 75, 300, N * 2 * 4, 2 * N * 2 * 25, 4 * N * 2 * 25),
        ("1", fn.Tanh(), (N, 25), 0, 0, N * 25 * 4, 0, 0),
        ("2", last, (N, 3), 78, 312, N * 25 * 4, 2 * N * 25 * 3, 4 * N * 25 * 3),
    ]
    assert found.total.cache_bytes == N * (2 + 25) * 4, "tanh's y is the last layer's x, and is kept once"
    assert found.total.output_shape == (N, 3)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution(groups: int) -> None:
    """There is a product for each weight at each position, in y, or in x if transposed; twice as many backward."""
    for layer, places in ((fn.Conv2d(4, 8, 3, groups=groups), 16), (fn.ConvTranspose2d(4, 8, 3, groups=groups), 36)):
        total = fn.summary(layer, (N, 4, 6, 6)).total
        assert total.flops == 2 * N * places * 4 * 8 * 9 // groups
        assert total.backward_flops == 2 * total.flops


def test_shared_params_count_once() -> None:
    """Params may be tied, or belong to one layer for several inputs; the work counts each time."""
    net = fn.tied(fn.serial(fn.Embedding(65, 8), fn.Linear(8, 65, bias=False)), ("0.weight", "1.weight"))
    found = fn.summary(net, (N, 4), torch.int64)
    assert [(row.path, row.params, row.flops) for row in found.rows] == [("0", 520, 0), ("1", 0, 2 * N * 4 * 520)]
    assert found.total.params == 520
    twice = fn.summary(fn.shared(fn.Linear(4, 3)), ((N, 4), (N, 4))).total
    assert (twice.params, twice.flops, twice.output_shape) == (15, 4 * N * 12, ((N, 3), (N, 3)))


@fn.frozen
class Recomputed(fn.Wrapper):
    """A layer whose cache is computed again in the backward pass."""

    layer: fn.Layer

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.layer(params, x, rng), (x, rng)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return self.layer.vjp(params, self.layer.apply(params, *cache)[1], gy)


def test_what_is_computed_again_is_backward_work_and_keeps_nothing() -> None:
    """Only the input of the whole is kept, in the wrapper's row or in the row of a layer that keeps it too."""
    plain = fn.serial(fn.Linear(4, 16), fn.Tanh(), fn.Linear(16, 4))
    before, after = fn.summary(plain, (N, 4)), fn.summary(Recomputed(plain), (N, 4))
    assert after.total.backward_flops == before.total.backward_flops + before.total.flops
    assert after.total.cache_bytes == N * 4 * 4 < before.total.cache_bytes
    assert [row.cache_bytes for row in after.rows] == [N * 4 * 4, 0, 0]


REAL = {
    "mlp": (fn.mlp((7, 16, 16, 3)), (N, 7)),
    "transformer": (fn.transformer_encoder_block(32, 4, 64), (N, 64, 32)),
    "convolutions": (fn.serial(fn.Conv2d(3, 8, 3), fn.ReLU(), fn.MaxPool2d(2), fn.Flatten()), (N, 3, 16, 16)),
    "gru": (fn.GRU(8, 16), (N, 10, 8)),
}


@pytest.mark.parametrize("name", REAL)
def test_the_cache_is_that_of_a_real_step(name: str) -> None:
    """In main memory, attention keeps no matrix of queries by keys."""
    net, shape = REAL[name]
    cache = net.apply(net.init(0), fn.random.normal(0, shape))[1]
    assert fn.summary(net, shape).total.cache_bytes == sum(one.nbytes() for one in storages(cache).values())


def test_layers_that_compute_as_one_have_one_row() -> None:
    """The row has the numbers of the whole."""
    for net in (fn.ensemble(fn.mlp((4, 5, 2)), 3), fn.lora(fn.Linear(4, 3), 2), fn.weight_norm(fn.Linear(4, 3))):
        found = fn.summary(fn.serial(net, fn.Tanh()), (N, 4))
        assert [row.layer for row in found.rows] == [net, fn.Tanh()]
        assert found.rows[0][:1] + found.rows[0][2:5] == ("0", found.total.output_shape, found.total.params, found.total.bytes)


def test_nothing_is_computed_and_sizes_are_inferred() -> None:
    """The net has 400 GB, and the batch a million rows."""
    wide = 10**5
    total = fn.summary(fn.serial(fn.Linear(None, wide), *[fn.Linear(wide, wide)] * 10), (10**6, 7)).total
    assert total.bytes == 4 * (wide * 8 + 10 * wide * (wide + 1))
    assert total.flops == 2 * 10**6 * wide * (7 + 10 * wide)


def test_the_summary_does_not_depend_on_inference_mode() -> None:
    """In that mode torch dispatches compound kernels as a whole."""
    net = fn.transformer_encoder_block(8, 2, 16)
    with torch.inference_mode():
        inside = fn.summary(net, torch.ones(2, 5, 8))
    assert inside == fn.summary(net, torch.ones(2, 5, 8))


TABLE = """\
path   layer                                    output shape  params  bytes  cache bytes   FLOPs  backward FLOPs
----------------------------------------------------------------------------------------------------------------
0      Linear(in_features=4, out_features=999)  (8, 999)       4,995  20 kB        128 B  63.9 k           128 k
1      Tanh()                                   (8, 999)           0    0 B        32 kB      0               0
2      Linear(in_features=999, out_features=3)  (8, 3)         3,000  12 kB        32 kB    48 k          95.9 k
----------------------------------------------------------------------------------------------------------------
total                                           (8, 3)         7,995  32 kB      32.1 kB   112 k           224 k"""


def test_a_summary_prints_as_a_table() -> None:
    """The shell shows it, and notebooks show HTML with escaped names."""
    found = fn.summary(fn.serial(fn.Linear(4, 999), fn.Tanh(), fn.Linear(999, 3)), (N, 4))
    assert [line.rstrip() for line in str(found).splitlines()] == TABLE.splitlines()
    assert repr(found) == str(found)
    page = fn.summary(fn.elementwise(torch.sin, torch.cos) >> fn.rearrange("a b -> b a"), (3, 2))._repr_html_()
    assert page.count("<tr>") == 4
    assert "rearrange(&#x27;a b -&gt; b a&#x27;)" in page


@pytest.mark.parametrize("number", [999, 1000, 999_499, 999_500, 10**9 - 1, 10**21, 10**25])
def test_numbers_are_short(number: int) -> None:
    """Numbers have three digits, in every unit."""
    flops = fn.summary(fn.Tanh(), (2, 2))
    cell = str(flops._replace(total=flops.total._replace(flops=number))).splitlines()[-1]
    assert "e+" not in cell


def test_what_is_no_layer_is_refused() -> None:
    """An x that does not fit is refused too, with its place."""
    with pytest.raises(ValueError, match=r"^summary: a layer is required"):
        fn.summary(torch.tanh, (2, 2))
    with pytest.raises(ValueError, match=r"the last axis of x must be in_features=4") as caught:
        fn.summary(fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.serial(fn.Tanh(), fn.Linear(4, 2), fn.Linear(4, 2))), (N, 3))
    assert caught.value.__notes__ == ["  in serial, layer 2", "  in serial, layer 2"]
