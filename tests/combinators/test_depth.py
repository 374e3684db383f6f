"""Copies in series: ``repeat`` equals ``serial`` bit for bit, and compiled code is a loop."""

import pytest
import torch
from twins import draw

import funcnet as fn
from funcnet import tree

DTYPES = torch.float32, torch.float64


def block(size, more=2):
    """Return a block with keys, batch statistics, a shortcut, and products of odd sizes."""
    inner = fn.Linear(size, size + more), fn.BatchNorm1d(size + more), fn.Tanh(), fn.Dropout(0.2), fn.Linear(size + more, size)
    return fn.residual(fn.serial(*inner))


def copy(values, i):
    return tree.map(lambda leaf: leaf[i], values)


def assert_copies(stacked, each):
    """Compare a stack bit for bit with its copies."""
    assert tree.leaves(stacked)
    for i, one in enumerate(each):
        assert tree.equal(copy(stacked, i), one)


@pytest.mark.parametrize("size", [3, 16, 25, 33, 90])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeat_is_serial_bit_for_bit(size, dtype):
    """Initial params, y, gradients, their halves and moved statistics agree, with one key."""
    n, key = 4, fn.key(5)
    many, plain = fn.repeat(block(size), n), fn.serial(*[block(size)] * n)
    params, each = (tree.cast(net.init(3), dtype) for net in (many, plain))
    assert_copies(params, each)
    x, gy = draw((6, size), 1).to(dtype), draw((6, size), 2).to(dtype)
    (y, cache), (want, caches) = many.apply(params, x, key), plain.apply(each, x, key)
    assert torch.equal(y, want)
    assert torch.equal(many(params, x, key), want)
    (gparams, gx), (geach, gwant) = many.vjp(params, cache, gy), plain.vjp(each, caches, gy)
    assert torch.equal(gx, gwant)
    assert torch.equal(many.input_grad(params, cache, gy), gwant)
    assert_copies(gparams, geach)
    assert_copies(many.grads(params, cache, gy), geach)
    assert_copies(many.update_stats(params, cache), plain.update_stats(each, caches))


def test_repeat_of_invertible_layers_is_serial_bit_for_bit():
    """Restored caches, noise, running statistics and inverses agree too."""
    layer, key = fn.reversible(block(3), fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3))), fn.key(5)
    many, plain = fn.repeat(layer, 3), fn.serial(*[layer] * 3)
    params, each = many.init(3), plain.init(3)
    x, gy = (draw((6, 3), 1).float(), draw((6, 3), 2).float()), (draw((6, 3), 3).float(), draw((6, 3), 4).float())
    (y, cache), (want, caches) = many.apply(params, x, key), plain.apply(each, x, key)
    assert tree.equal(y, want)
    (gparams, gx), (geach, gwant) = many.vjp(params, cache, gy), plain.vjp(each, caches, gy)
    assert tree.equal(gx, gwant)
    assert tree.equal(many.input_grad(params, cache, gy), gwant)
    assert_copies(gparams, geach)
    assert_copies(many.grads(params, cache, gy), geach)
    assert_copies(many.update_stats(params, cache), plain.update_stats(each, caches))
    assert tree.equal(many.inverse(params, y, key), plain.inverse(each, y, key))
    assert many.invertible


@pytest.mark.parametrize("n", [2, 9])
def test_repeat_of_invertible_layers_keeps_one_output(n):
    """The number of copies does not matter."""
    net = fn.repeat(fn.reversible(fn.Linear(3, 3), fn.Tanh()), n)
    y, cache = net.apply(net.init(0), (draw((6, 3), 1).float(), draw((6, 3), 2).float()))
    assert [id(leaf) for leaf in tree.leaves(cache)] == [id(leaf) for leaf in tree.leaves(y)]


def test_statistics_move_and_weights_stay_where_they_are():
    """The new params contain the old stacks of weights, which are not copied."""
    net = fn.repeat(block(4), 3)
    params = net.init(0)
    moved = tree.names(net.update_stats(params, net.apply(params, draw((6, 4), 1).float(), 1)[1]))
    stay = {path for path, leaf in tree.names(params).items() if moved[path] is leaf}
    assert {path for path in moved if path not in stay} == {path for path in moved if "running" in path or "tracked" in path}


def test_the_way_back_takes_the_params_that_it_is_given():
    """The cache has views of the forward pass's params; the new params are equal, different, or have one leaf replaced."""
    net, x = fn.repeat(fn.serial(fn.Linear(4, 4), fn.Tanh()), 4), draw((5, 4), 1).float()
    params = net.init(0)
    _, cache = net.apply(params, x)
    others = tree.map(lambda leaf: 2 * leaf, params)
    mixed = ({**params[0], "weight": 2 * params[0]["weight"]}, params[1])
    _, bare = net.apply(tree.map(torch.clone, params), x)
    del bare["params"]
    for given in (params, tree.map(torch.clone, params), others, mixed):
        gparams, gx = net.vjp(given, cache, x)
        want, gwant = net.vjp(given, bare, x)
        assert torch.equal(gx, gwant)
        assert tree.equal(gparams, want)
        assert torch.equal(net.input_grad(given, cache, x), gwant)
    assert not torch.equal(net.vjp(others, cache, x)[1], net.vjp(params, cache, x)[1])


@pytest.mark.parametrize(("size", "kept"), [(4, {"each", "params"}), (3, {"each"})])
def test_the_cache_holds_views_of_params_but_no_copies(size, kept):
    """Matrices at odd addresses are copied for MKL, and copied again in the backward pass."""
    net, x = fn.repeat(fn.Linear(size, size), 3), draw((5, size)).float()
    params = net.init(0)
    _, cache = net.apply(params, x)
    assert {*cache} == kept
    own = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(params)}
    assert all(leaf.untyped_storage().data_ptr() in own for leaf in tree.leaves(cache.get("params", ())))


@pytest.mark.parametrize("features", [3, 4])
def test_the_way_back_follows_params_that_were_written_to(features: int):
    """A donated optimizer writes to them. Matrices of 3 features are copied for each copy, matrices of 4 are kept as views."""
    net, x = fn.repeat(fn.serial(fn.Linear(features, features), fn.Tanh()), 4), draw((5, features), 1).float()
    params = net.init(0)
    _, cache = net.apply(params, x)
    assert ("params" in cache) is (features == 4)
    for leaf in tree.leaves(params):
        leaf.mul_(2)
    assert tree.equal(net.vjp(params, cache, x), net.vjp(tree.map(torch.clone, params), cache, x))


@fn.frozen
class Shrinking(fn.Layer):
    """A layer whose gradient has another shape in each call."""

    def init(self, rng):
        return {"weight": torch.ones(100, 100)}

    def apply(self, params, x, rng=None):
        return x, x[0].numel()

    def vjp(self, params, cache, gy):
        rows = int(gy[0, 0])
        return {"weight": torch.ones(rows, 100)}, gy - 1


def test_large_gradients_must_be_alike():
    """Copying into the stack would broadcast another shape."""
    net = fn.repeat(Shrinking(), 3)
    params, x = net.init(0), torch.ones(2, 2)
    _, cache = net.apply(params, x)
    with pytest.raises(ValueError, match=r"must all be of shape \(100, 100\)"):
        net.vjp(params, cache, torch.full((2, 2), 100.0))


def test_inference_and_walking_reach_the_layer():
    """The layer within has the path of the repeat; a rewrite of it changes all copies."""
    net = fn.serial(fn.Linear(2, 3), fn.repeat(fn.serial(fn.Dropout(0.5), fn.Linear(3, 3)), 2))
    assert fn.at(net, "1.1") == fn.Linear(3, 3)
    assert fn.replace(net, "1.0", fn.Tanh())[1] == fn.repeat(fn.serial(fn.Tanh(), fn.Linear(3, 3)), 2)
    assert not net.inference().stochastic
    assert [path for path, _ in fn.walk(net)] == ["", "0", "1", "1", "1.0", "1.1"]
    assert net[1] == fn.repeat(net[1].layer, 2) == eval(repr(net[1]), vars(fn))


def test_sizes_are_inferred_once_for_all_copies():
    """The layer gets its sizes from x; if its output does not fit its input, the next copy refuses it."""
    x = torch.zeros(2, 3)
    assert fn.infer_sizes(fn.repeat(fn.Linear(None, 3), 4), x) == fn.repeat(fn.Linear(3, 3), 4)
    with pytest.raises(ValueError, match=r"the last axis of x must be in_features=3[\s\S]*in repeat, copy 1"):
        fn.infer_sizes(fn.repeat(fn.Linear(None, 4), 4), x)


def test_a_copy_may_change_the_shape_of_x():
    """Each copy halves the length by pooling, in compiled code too, which has no loop then."""
    net, x = fn.repeat(fn.AvgPool1d(2), 4), draw((2, 3, 16))
    want = x.unflatten(2, (1, 16)).mean(-1)
    torch.testing.assert_close(net({}, x), want)
    torch.testing.assert_close(fn.compile(net)({}, x), want)


def test_batch_norms_of_copies_fold_into_their_linear_maps():
    """A rewrite of params changes every copy."""
    net = fn.repeat(fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3)), 3)
    params, x = tree.map(lambda leaf: leaf + 0.25, net.init(0)), draw((4, 3)).float()
    folded, less = fn.fold_batch_norm(net, params)
    assert folded == fn.repeat(fn.serial(fn.Linear(3, 3)), 3)
    torch.testing.assert_close(folded(less, x), net.inference()(params, x))


@pytest.mark.parametrize("n", [0, -1, 1.5, None])
def test_n_is_a_number_of_copies(n):
    """Only a whole number of at least 1 is accepted."""
    with pytest.raises((ValueError, TypeError), match="n must be"):
        fn.repeat(fn.Tanh(), n)


def test_errors_say_which_copy():
    """Params of another number of copies, a missing key, and a copy's error forward and backward are tried."""
    net = fn.repeat(fn.Linear(3, 3), 3)
    params, x = net.init(0), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"the first axis of every leaf must be n=3"):
        net(fn.repeat(fn.Linear(3, 3), 2).init(0), x)
    with pytest.raises(ValueError, match=r"in_features=3[\s\S]*in repeat, copy 0"):
        net(params, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"in repeat, copy 2"):
        net.vjp(params, net.apply(params, x)[1], torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"key[\s\S]*in repeat, copy 0"):
        fn.repeat(fn.Dropout(0.5), 2).apply({}, x)


@pytest.mark.compiled
def test_compiled_code_is_a_loop_that_does_not_grow():
    """The graph of a compiled net has as many nodes for 40 copies as for 8, and gives the numbers of eager mode."""
    sizes = []

    def counted(graph, examples):
        sizes.append(len(graph.graph.nodes))
        return graph

    for n in (8, 40):
        net, x, key = fn.repeat(block(3), n), draw((6, 3)), fn.key(2)
        params = tree.cast(net.init(0), torch.float64)
        work = lambda net=net, params=params, x=x, key=key: _everything(net, params, x, key)
        got = torch.compile(work, fullgraph=True, backend=counted, dynamic=False)()
        torch.testing.assert_close(got, work(), rtol=1e-9, atol=1e-9)
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]


def _everything(net, params, x, key):
    y, cache = net.apply(params, x, key)
    return y, net.vjp(params, cache, y), net.grads(params, cache, y), net.input_grad(params, cache, y), net(params, x, key)


@pytest.mark.compiled
def test_caches_go_between_compiled_and_eager_code():
    """A compiled cache has its gradients in eager mode, and an eager one in compiled code."""
    net, x = fn.repeat(block(4), 5), draw((6, 4))
    params, key = tree.cast(net.init(0), torch.float64), fn.key(1)
    y, cache = net.apply(params, x, key)
    same, other = fn.compile(net.apply)(params, x, key)
    assert "each" in cache
    assert {*other} == {"all"}
    torch.testing.assert_close(same, y)
    want = net.vjp(params, cache, y)
    torch.testing.assert_close(net.vjp(params, other, y), want)
    torch.testing.assert_close(fn.compile(net.vjp)(params, cache, y), want)
    torch.testing.assert_close(net.update_stats(params, other), net.update_stats(params, cache))


@pytest.mark.compiled
@pytest.mark.parametrize("layer", [fn.Linear(3, 3), fn.freeze(fn.Linear(3, 3))], ids=repr)
def test_a_loop_may_give_nothing_but_its_last_carry(layer):
    """Examples are prediction, and the backward pass of copies whose params have no gradient."""
    net, x = fn.repeat(layer, 5), draw((6, 3))
    params = tree.cast(net.init(0), torch.float64)

    def work(params, x):
        y, cache = net.apply(params, x)
        return net(params, x), net.input_grad(params, cache, y)

    for part in (net, work):
        torch.testing.assert_close(torch.compile(part, fullgraph=True)(params, x), part(params, x), rtol=1e-9, atol=1e-9)


def test_copies_may_have_absent_params():
    """The second place of a tied net has none."""
    net, x = fn.repeat(fn.tied(fn.serial(fn.Linear(4, 4), fn.Tanh(), fn.Linear(4, 4)), ("0", "2")), 3), draw((5, 4)).float()
    params = net.init(0)
    y, cache = net.apply(params, x)
    assert tree.equal(net.vjp(params, cache, y), net.vjp(tree.map(torch.clone, params), cache, y))
