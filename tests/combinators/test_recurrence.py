"""Layers along time compared with loops, and with recurrent nets that compute the same."""

import pytest
import torch
from twins import CLOSE, draw

import funcnet as fn
from funcnet import tree


def in_double(layer):
    return tree.cast(layer.init(0), torch.float64)


def along(layer, params, xs, carry, gys, gcarry):
    """Return the results of a scan and its gradients, computed by a loop."""
    ys, caches, gxs, total = [], [], [], tree.zeros_like(params)
    for x in xs:
        (y, carry), cache = layer.apply(params, (x, carry))
        ys.append(y)
        caches.append(cache)
    for gy, cache in zip(reversed(gys), reversed(caches), strict=True):
        gp, (gx, gcarry) = layer.vjp(params, cache, (gy, gcarry))
        total = tree.add(total, gp)
        gxs.append(gx)
    return (torch.stack(ys), carry), total, (torch.stack(gxs[::-1]), gcarry)


STEP = fn.serial(fn.Concat(), fn.Linear(5, 4), fn.Tanh(), fn.branch(fn.Linear(4, 3), fn.Linear(4, 2)))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_the_loop_over_time(steps, reverse):
    """Outputs, last carry and all gradients agree; a reverse scan is the loop from the end."""
    layer, turn = fn.scan(STEP, reverse=reverse), (lambda x: x.flip(0)) if reverse else (lambda x: x)
    params, xs, carry = in_double(STEP), draw((steps, 2, 3), 1), draw((2, 2), 2)
    gys, gcarry = draw((steps, 2, 3), 3), draw((2, 2), 4)
    y, cache = layer.apply(params, (xs, carry))
    found = y, *layer.vjp(params, cache, (gys, gcarry))
    (ys, last), gp, (gxs, first) = along(STEP, params, turn(xs), carry, turn(gys), gcarry)
    torch.testing.assert_close(found, ((turn(ys), last), gp, (turn(gxs), first)), **CLOSE)


def test_a_scan_of_a_cell_is_the_net():
    """scan(GRUCell) has the outputs and gradients of GRU, which computes them in another way."""
    cell, net = fn.scan(fn.GRUCell(3, 4), output_is_carry=True), fn.GRU(3, 4)
    params, xs, h = in_double(cell), draw((5, 2, 3)), draw((2, 4), 1)
    named = {f"{name}_l0": leaf for name, leaf in params.items()}
    y, cache = cell.apply(params, (xs, h))
    want, other = net.apply(named, (xs, h.unsqueeze(0)))
    torch.testing.assert_close(y, (want[0], want[1][0]), **CLOSE)
    gy = draw((5, 2, 4), 2), draw((2, 4), 3)
    gp, (gx, gh) = cell.vjp(params, cache, gy)
    gnamed, (gxs, ghs) = net.vjp(named, other, (gy[0], gy[1].unsqueeze(0)))
    torch.testing.assert_close(({f"{name}_l0": g for name, g in gp.items()}, gx, gh), (gnamed, gxs, ghs[0]), **CLOSE)


def test_each_step_of_a_scan_has_another_key():
    """The same key gives the same masks, and no two steps drop the same elements."""
    layer = fn.scan(fn.parallel(fn.Dropout(0.5), fn.Identity()))
    x = (torch.ones(6, 64), torch.zeros(()))
    ys, _ = layer(layer.init(0), x, 3)
    assert torch.equal(ys, layer(layer.init(0), x, 3)[0])
    assert len({tuple(row.tolist()) for row in ys}) == 6
    assert torch.equal(layer.inference()(layer.init(0), x)[0], x[0])


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_with_checkpoints_is_the_scan_bit_for_bit(every, reverse):
    """Outputs, gradients, their halves and statistics of 5 steps with dropout agree for each interval of kept carries."""
    step = fn.serial(STEP, fn.parallel(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3)), fn.Tanh()))
    plain, layer = fn.scan(step, reverse=reverse), fn.scan(step, reverse=reverse, checkpoint_every=every)
    params, x, gy = in_double(step), (draw((5, 4, 3), 1), draw((4, 2), 2)), (draw((5, 4, 3), 3), draw((4, 2), 4))
    (y, cache), (want, caches) = layer.apply(params, x, 9), plain.apply(params, x, 9)
    assert tree.equal(y, want)
    assert tree.equal(layer(params, x, 9), want)
    assert tree.equal(layer.vjp(params, cache, gy), plain.vjp(params, caches, gy))
    assert tree.equal(layer.input_grad(params, cache, gy), plain.input_grad(params, caches, gy))
    assert tree.equal(layer.update_stats(params, cache), plain.update_stats(params, caches))


def test_a_scan_with_checkpoints_keeps_x_and_some_carries():
    """The cache has x itself and a carry for every 3 of 7 steps."""
    layer, x = fn.scan(fn.GRUCell(3, 2), output_is_carry=True, checkpoint_every=3), (torch.ones(7, 4, 3), torch.zeros(4, 2))
    kept, carries, key = layer.apply(layer.init(0), x, 1)[1]
    assert kept is x
    assert key is None
    assert [carry.shape for carry in carries] == [(4, 2)] * 3
    assert carries[0] is x[1]


def test_constants_come_to_every_step_and_get_the_sum_of_gradients():
    """Outputs and gradients match the loop, in which each step has a gradient of the constants."""
    step = fn.serial(fn.Concat(), fn.Linear(7, 4), fn.Tanh(), fn.branch(fn.Linear(4, 3), fn.Linear(4, 2)))
    params, xs, carry, e = in_double(step), draw((5, 2, 3), 1), draw((2, 2), 2), draw((2, 2), 3)
    gys, gcarry = draw((5, 2, 3), 4), draw((2, 2), 5)
    y, cache = fn.scan(step).apply(params, (xs, carry, e))
    gp, (gxs, g, ge) = fn.scan(step).vjp(params, cache, (gys, gcarry))
    state, caches, total = carry, [], torch.zeros_like(e)
    for x in xs:
        (_, state), one = step.apply(params, (x, state, e))
        caches.append(one)
    back = gcarry
    for t in reversed(range(5)):
        _, (gx, back, more) = step.vjp(params, caches[t], (gys[t], back))
        total = total + more
        torch.testing.assert_close(gxs[t], gx)
    torch.testing.assert_close((y[1], g, ge), (state, back, total))
    assert tree.structure(gp) == tree.structure(params)


def test_a_scan_folds_the_statistics_of_every_step():
    """update_stats goes through the steps in order."""
    norm = fn.BatchNorm1d(2)
    layer = fn.scan(fn.parallel(norm, fn.Identity()))
    params, x = layer.init(0), (draw((3, 4, 2)).float(), torch.zeros(()))
    moved = params[0]
    for part in x[0]:
        moved = norm.update_stats(moved, norm.apply(moved, part)[1])
    torch.testing.assert_close(layer.update_stats(params, layer.apply(params, x)[1])[0], moved)


@pytest.mark.parametrize("kind", [fn.RNN, fn.GRU, fn.LSTM])
def test_bidirectional_of_a_net_is_the_bidirectional_net(kind):
    """The reverse direction has the second copy's params; outputs are concatenated, and states are a pair."""
    layer, net = fn.bidirectional(kind(3, 2)), kind(3, 2, bidirectional=True)
    params, x = in_double(layer), draw((4, 2, 3))
    named = params[0] | {f"{name}_reverse": leaf for name, leaf in params[1].items()}
    (ys, (one, other)), cache = layer.apply(params, x)
    (want, state), theirs = net.apply(named, x)
    pairs = [one, other] if kind is not fn.LSTM else [one[0], other[0]]
    torch.testing.assert_close(ys, want, **CLOSE)
    torch.testing.assert_close(torch.cat(pairs), state if kind is not fn.LSTM else state[0], **CLOSE)
    gy = draw(ys.shape, 3)
    (gp, gq, _), gx = layer.vjp(params, cache, (gy, (None, None)))
    gnamed, gxs = net.vjp(named, theirs, (gy, None))
    torch.testing.assert_close((gp | {f"{name}_reverse": g for name, g in gq.items()}, gx), (gnamed, gxs), **CLOSE)


@pytest.mark.parametrize("wrapped", [fn.time_distributed(fn.Linear(3, 2)), fn.map_over(fn.Linear(3, 2), 3)], ids=repr)
def test_map_over_gives_what_the_layer_gives_row_by_row(wrapped):
    """For a layer that takes any leading axes it changes nothing."""
    layer, x, gy = fn.Linear(3, 2), draw((2, 4, 5, 3)), draw((2, 4, 5, 2), 1)
    params = in_double(layer)
    y, cache = wrapped.apply(params, x)
    want, other = layer.apply(params, x)
    torch.testing.assert_close((y, *wrapped.vjp(params, cache, gy)), (want, *layer.vjp(params, other, gy)), **CLOSE)


def test_map_over_lets_a_convolution_take_frames():
    """Every frame of (N, T, channels, length) is convolved as one of a batch."""
    layer, x = fn.Conv1d(2, 3, 2), draw((2, 4, 2, 5))
    params = in_double(layer)
    want = torch.stack([layer(params, row) for row in x])
    torch.testing.assert_close(fn.time_distributed(layer)(params, x), want, **CLOSE)


X = torch.ones(3, 2, 3)
MESSAGES = {
    "scan: x must be a pair (xs, carry) or a triple (xs, carry, constants), steps along the first axis of xs, got a tensor of shape (3, 2, 3)": lambda: fn.scan(fn.Tanh())({}, X),
    "scan: the tensors of xs must have the same number of steps, at least 1, got 2 and 3": lambda: fn.scan(fn.Tanh())({}, ((X, X[:2]), X)),
    "scan: the tensors of xs must have the same number of steps, at least 1, got 0": lambda: fn.scan(fn.Tanh())({}, (X[:0], X)),
    "bidirectional: params must be a tuple of 3, one entry per layer, got a tuple of 2": lambda: fn.bidirectional(fn.Tanh())(({}, {}), X),
    "bidirectional: x must be a sequence, or a pair (sequence, (carry, carry))": lambda: fn.bidirectional(fn.Tanh())(({}, {}, {}), (X, X)),
    "bidirectional: x must have an axis of steps, dim=0, got a tensor of shape () and dtype": lambda: fn.bidirectional(fn.Tanh())(({}, {}, {}), X[0, 0, 0]),
    "bidirectional: x must have an axis of steps, dim=3, got a tensor of shape (3, 2, 3)": lambda: fn.bidirectional(fn.Tanh(), dim=3)(({}, {}, {}), X),
    "bidirectional: x must have an axis of steps, dim=0, got 'abc'": lambda: fn.bidirectional(fn.Tanh())(({}, {}, {}), "abc"),
    "bidirectional: x must have an axis of steps, dim=0, got 1.0": lambda: fn.bidirectional(fn.Tanh())(({}, {}, {}), [1.0]),
    "bidirectional: x must be a sequence, or a pair (sequence, (carry, carry)), got a tuple of 3": lambda: fn.bidirectional(fn.Tanh())(({}, {}, {}), (X, X, X)),
    "scan: the tensors of xs must have the same number of steps, at least 1, got 0 and 3": lambda: fn.scan(fn.Tanh())({}, (("ab", X), X)),
    "uniqued: x must be integers with at least one axis, got a tensor of shape (2,) and dtype torch.complex64": lambda: fn.uniqued(fn.Embedding(2, 2))(fn.Embedding(2, 2).init(0), torch.ones(2) + 1j),
    "map_over: x must have 2 leading axes, the same in all its parts, got 'abc'": lambda: fn.map_over(fn.Tanh())({}, "abc"),
    "map_over: x must have 2 leading axes, the same in all its parts, got a list of 1": lambda: fn.map_over(fn.Tanh())({}, [1.0]),
    "map_over: x must have 4 leading axes, the same in all its parts, got a tensor of shape (3, 2, 3)": lambda: fn.map_over(fn.Tanh(), 4)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "x", "note"),
    [
        (fn.scan(fn.GRUCell(3, 4), output_is_carry=True), (X, X[0]), "in scan, step 0"),
        (fn.time_distributed(fn.Linear(4, 2)), X, "in map_over"),
        (fn.bidirectional(fn.Linear(4, 2)), X, "in bidirectional, forward"),
    ],
)
def test_a_layer_s_error_says_where_it_happened(layer, x, note):
    """A note is added to the layer's own message."""
    with pytest.raises(ValueError, match="must be") as caught:
        layer(layer.init(0), x)
    assert note in "".join(caught.value.__notes__)
