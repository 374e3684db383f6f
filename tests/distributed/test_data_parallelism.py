"""Data parallelism: the step of all workers equals the step of one process on the whole batch."""

import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed import data_parallel, shard_rows
from funcnet.distributed.replicas.shares import weighed_gy

STEPS = 10


def normal(seed, *shape):
    return fn.random.normal(fn.key(seed), shape, dtype=torch.float64)


def as_lists(tree):
    return {path: leaf.tolist() for path, leaf in fn.tree.names(tree).items()}


def perceptron():
    return fn.serial(fn.Linear(6, 16), fn.Tanh(), fn.residual(fn.serial(fn.Linear(16, 16), fn.GELU())), fn.Linear(16, 3))


def train(net, loss, opt, x, target, *, parallel, accumulate=1):
    step = fn.train_step(net, loss, opt, accumulate=accumulate)
    step = data_parallel(step) if parallel else step
    params = fn.tree.cast(net.init(0), torch.float64)
    state, values = opt.init(params), []
    batch = shard_rows((x, target)) if parallel else (x, target)
    for _ in range(STEPS):
        params, state, value = step(params, state, *batch)
        values.append(value)
    return params, state, torch.stack(values)


def differences(make, rows, accumulate):
    """Return the largest differences of params, state and values from steps of one process."""
    net, loss, opt, x, target = make(rows)
    alone = train(net, loss, opt, x, target, parallel=False)
    together = train(net, loss, opt, x, target, parallel=True, accumulate=accumulate)
    return [float((a - b).abs().max()) for a, b in zip(*map(fn.tree.leaves, (alone, together)), strict=True) if a.numel()]


def classified(rows):
    target = torch.arange(rows) % 3
    target[::4] = -100
    return perceptron(), fn.CrossEntropy(), fn.Adam(lr=0.01), normal(1, rows, 6), target


def summed(rows):
    loss = fn.MSE() + 0.1 * fn.L1(reduction="sum")
    return perceptron(), loss, fn.SGD(lr=0.01, momentum=0.9), normal(1, rows, 6), normal(2, rows, 3)


def together(accumulate):
    return [max(differences(make, rows, accumulate)) for make in (classified, summed) for rows in (8, 7, 3, 1)]


def test_the_step_is_that_of_the_whole_batch():
    """Shards are uneven or empty, with ignored labels and sums of losses."""
    for size in (1, 2, 4):
        for accumulate in (1, 3):
            for found in run(size, together, accumulate):
                assert max(found) < 1e-12, (size, accumulate, found)


def deep(width=8, layers=50):
    return fn.serial(*[fn.Linear(width, width) for _ in range(layers)])


def counted():
    """Return the messages in a step of a net of a hundred leaves, before and after the first layer's turn."""
    import torch.distributed as dist

    sent, at_first = [], []

    @fn.frozen
    class First(fn.Linear):
        def grads(self, params, cache, gy):
            at_first.append(len(sent))
            return super().grads(params, cache, gy)

    net = fn.serial(First(8, 8), *deep().layers[1:])
    step, opt = data_parallel(fn.train_step(net, fn.MSE(), fn.SGD(lr=0.1))), fn.SGD(lr=0.1)
    params = net.init(0)
    for name in ("all_reduce", "all_gather_object", "broadcast", "barrier"):
        original = getattr(dist, name)
        setattr(dist, name, lambda *a, original=original, name=name, **k: (sent.append(name), original(*a, **k))[1])
    counts = []
    for _ in range(2):
        sent.clear(), at_first.clear()
        step(params, opt.init(params), torch.ones(4, 8), torch.ones(4, 8))
        counts.append((at_first[0], [*sent]))
    return counts


def climbed():
    """Return the difference of weights from one process after a step of SAM; each shard has the statistics of the whole batch."""
    net, opt = fn.serial(fn.Linear(6, 4), fn.BatchNorm1d(4), fn.Linear(4, 3)), fn.SAM(fn.SGD(lr=0.1), rho=0.1)
    x, target = (torch.cat((one, one)) for one in (normal(1, 4, 6), normal(2, 4, 3)))
    alone, together = (train(net, fn.MSE(), opt, x, target, parallel=parallel)[0] for parallel in (False, True))
    start = fn.tree.cast(net.init(0), torch.float64)
    return [float((one[0]["weight"] - other[0]["weight"]).abs().max()) for one, other in ((alone, together), (alone, start))]


def test_an_optimizer_of_several_gradients_moves_params_and_statistics():
    """The statistics are from the first gradient, and the params from the optimizer's step."""
    for difference, step in run(2, climbed):
        assert difference < 1e-12
        assert step > 0.01


def begun():
    net, opt = perceptron(), fn.Adam(lr=0.1)
    params = fn.tree.cast(net.init(0), torch.float64)
    batch = shard_rows((normal(1, 8, 6), normal(2, 8, 3)))
    return data_parallel(fn.train_step(net, fn.MSE(), opt)), params, opt.init(params), *batch


def error_of(f):
    try:
        f()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def repeated(alone):
    """Fail a few times on rank 1 only or on all workers, repeat the step immediately, and return the errors and the params."""
    step, params, state, x, target = begun()
    params, state, _ = step(params, state, x, target)
    fails = not alone or torch.distributed.get_rank() == 1
    for _ in range(1 if alone else 20):
        first = error_of(lambda: step(params, state, x, target[:, :2] if fails else target))
    second = error_of(lambda: step(params, state, x, target))
    params = params if alone else step(params, state, x, target)[0]
    return first, second, as_lists(params)


def test_a_step_is_repeated_after_an_error_of_all_workers():
    """If only one worker repeated it, its numbers would be added to the previous step of the others, which still wait for it."""
    for first, second, params in (found := run(2, repeated, False)):
        assert "ValueError: MSE(): target must have the shape of y" in first
        assert second == "no error"
        assert params == found[0][2]
    for rank, (first, second, _) in enumerate(run(2, repeated, True)):
        assert ("WorkerError" if rank == 0 else "ValueError: MSE(): target must have the shape of y, (4, 3)") in first
        assert second.startswith("WorkerError: data_parallel: ")


def differing():
    """Return the errors for params with another structure on rank 1."""
    step, params, state, x, target = begun()
    others = [[*params], params[:-1], (dict(reversed(params[0].items())), *params[1:])]
    second = torch.distributed.get_rank() == 1
    return [error_of(lambda one=one: step(one if second else params, state, x, target)) for one in others]


def test_another_structure_is_found_at_the_first_step():
    """Examples are a list instead of a tuple, a missing layer, and another order of keys, which is the order of sending."""
    for found in run(2, differing):
        assert "params differs, got a tuple of 4 on rank 0 and a list of 4 on rank 1" in found[0]
        assert "params differs, got a tuple of 4 on rank 0 and a tuple of 3 on rank 1" in found[1]
        assert "params at '0.weight' differs, got params at '0.weight' on rank 0 and params at '0.bias' on rank 1" in found[2]


@fn.frozen
class Turned(fn.Layer):
    """y = x (Re w + Im w): a layer with complex params."""

    def init(self, rng):
        return {"w": torch.ones(6, dtype=torch.complex128)}

    def apply(self, params, x, rng=None):
        return x * (params["w"].real + params["w"].imag), x

    def vjp(self, params, cache, gy):
        g = (gy * cache).sum(0)
        return {"w": torch.complex(g, g)}, gy * (params["w"].real + params["w"].imag)


def complex_gradients():
    """Return the difference of complex gradients from those of the whole batch."""
    x, target = normal(1, 8, 6), normal(2, 8, 3)
    found = []
    for net in (Turned(), fn.serial(Turned(), fn.Linear(6, 3))):
        params = fn.tree.map(lambda one: one.double() if one.is_floating_point() else one, net.init(0))
        t = x * 2 if isinstance(net, Turned) else target
        one, all_of = fn.value_and_grads(net, fn.MSE()), data_parallel(fn.value_and_grads(net, fn.MSE()))
        pairs = zip(fn.tree.leaves(one(params, x, t)[:2]), fn.tree.leaves(all_of(params, *shard_rows((x, t)))[:2]), strict=True)
        found += [float((a - b).abs().max()) for a, b in pairs]
    return found


def test_complex_gradients_are_those_of_the_whole_batch():
    """The layer has only complex params, and no floating leaf."""
    for found in run(2, complex_gradients):
        assert max(found) < 1e-12


def in_half():
    """Return the weights after a step in float16, and the gradients, for samples of weight 10⁵."""
    x, target, weights = torch.ones(4, 2), torch.zeros(4, 1), torch.full((4,), 1e5)
    found, loss, opt = [], fn.weighted(fn.MSE()), fn.SGD(lr=0.125)
    for net, dtype in ((fn.cast(fn.Linear(2, 1), torch.float16), torch.float32), (fn.Linear(2, 1), torch.float16)):
        params = {"weight": torch.ones(1, 2, dtype=dtype), "bias": torch.zeros(1, dtype=dtype)}
        batch = shard_rows((x.to(dtype), (target.to(dtype), weights)))
        found.append(data_parallel(fn.train_step(net, loss, opt))(params, opt.init(params), *batch)[0]["weight"].tolist())
    return found


def test_in_half_precision_weights_do_not_overflow():
    """gy times the weight of the batch would overflow in float16, so gradients of params are weighted, in float32."""
    assert run(2, in_half) == [[[[0.5, 0.5]]] * 2] * 2


def test_the_gradient_of_y_is_weighed_in_its_own_precision():
    """In half precision gy could overflow, so the gradients of params, summed in float32, are weighted instead."""
    gy, half, params = torch.ones(2), torch.ones(2).half(), {"weight": torch.ones(2)}
    new, rest = weighed_gy(gy, 3.0, params)
    assert (new.tolist(), rest, gy.tolist()) == ([3.0, 3.0], 1.0, [1.0, 1.0])
    for case in ((half, 3.0, params), (gy, 3.0, {"weight": half}), (gy, 0.0, params), (gy, torch.tensor(3.0), params)):
        assert weighed_gy(*case)[0] is case[0]
        assert weighed_gy(*case)[1] is case[1]
