"""Combinators: their algebra, the names of their params, sums of gradients, and errors with their place in the net."""

import pickle

import pytest
import torch
from torch import nn

import funcnet as fn

F, G, H = fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2)
STEP = fn.reversible(fn.Linear(3, 3), fn.Tanh())
X = fn.random.normal(1, (5, 3), dtype=torch.float64)


def parts(net, params, x, *rng):
    """Return y, gparams and gx, with a gradient drawn from a key."""
    y, cache = net.apply(params, x, *rng)
    gy = fn.tree.map(lambda leaf: fn.random.normal(2, tuple(leaf.shape), dtype=leaf.dtype), y)
    return y, *net.vjp(params, cache, gy)


def double(net, rng=0):
    return fn.tree.cast(net.init(rng), torch.float64)


def test_serial_of_nothing_is_the_identity():
    """serial() returns x, and gy as its gradient, which must be a valid one of x."""
    y, cache = fn.serial().apply((), X)
    assert y is X
    assert fn.serial().vjp((), cache, X) == ((), X)
    assert fn.serial().grads((), cache, X) == ()
    with pytest.raises(ValueError, match=r"gy must have the shape of y, \(5, 3\), got gy of shape \(3,\)"):
        fn.serial().input_grad((), cache, X[0])


def test_serial_is_associative():
    """However layers and their params are grouped, output and gradients agree bit for bit."""
    pf, pg, ph = double(F), (), double(H)
    pg = {}
    flat = parts(fn.serial(F, G, H), (pf, pg, ph), X)
    left = parts(fn.serial(fn.serial(F, G), H), ((pf, pg), ph), X)
    right = parts(fn.serial(F, fn.serial(G, H)), (pf, (pg, ph)), X)
    for grouped in (left, right):
        assert torch.equal(grouped[0], flat[0])
        assert torch.equal(fn.tree.ravel(grouped[1]), fn.tree.ravel(flat[1]))
        assert torch.equal(grouped[2], flat[2])


def test_identity_is_the_unit_of_serial():
    """An Identity before or after a layer changes nothing."""
    params = double(F)
    alone = parts(F, params, X)
    for net, ps in ((fn.serial(fn.Identity(), F), ({}, params)), (fn.serial(F, fn.Identity()), (params, {}))):
        y, gparams, gx = parts(net, ps, X)
        assert torch.equal(y, alone[0])
        assert torch.equal(fn.tree.ravel(gparams), fn.tree.ravel(alone[1]))
        assert torch.equal(gx, alone[2])


def test_the_names_of_a_serial_are_the_keys_of_torch_s_state_dict():
    """A state_dict of nn.Sequential loads by name, and gives the same output."""
    net = fn.serial(F, G, H, fn.serial(fn.BatchNorm1d(2), fn.Linear(2, 1)))
    twin = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)))
    params = fn.tree.from_names(dict(twin.state_dict()), net.init(0))
    assert list(fn.tree.names(net.init(0))) == list(twin.state_dict())
    torch.testing.assert_close(net(params, X.float()), twin(X.float()).detach())


def test_a_named_serial_is_the_unnamed_one_by_names():
    """Params are a dict, and layers are found by name, position and slice."""
    named, plain = fn.serial(hidden=F, act=G, out=H), fn.serial(F, G, H)
    params = double(plain)
    by_name = dict(zip(("hidden", "act", "out"), params, strict=True))
    assert double(named).keys() == by_name.keys()
    assert fn.tree.equal(tuple(double(named).values()), params)
    y, gparams, gx = parts(named, by_name, X)
    assert fn.tree.equal((y, tuple(gparams.values()), gx), parts(plain, params, X))
    assert (named["act"], named[0], named[1:], plain[:2], len(plain), list(plain)) == (
        G, F, fn.serial(act=G, out=H), fn.serial(F, G), 3, [F, G, H])  # fmt: skip


@pytest.mark.parametrize(
    "net",
    [
        fn.serial(F, G, H),
        fn.serial(a=F, b=fn.Dropout(0.1)),
        fn.serial(),
        fn.parallel(F, G),
        fn.branch(F, G),
        fn.branch(F, F, merge=fn.Add()),
        fn.residual(G),
        fn.graph("x", h=(F, "x"), y=(G, "h")),
        fn.graph("a", "b", h=(fn.Add(), "a", "b"), k=(G, "h"), output=("h", "k")),
        fn.ensemble(F, 3),
        fn.ensemble(F, 3, shared_input=False),
    ],
    ids=repr,
)
def test_a_net_is_a_value(net):
    """Its repr evaluates to an equal net with an equal hash, and it pickles."""
    again = eval(repr(net), dict(vars(fn)))
    assert again == net
    assert hash(again) == hash(net)
    assert pickle.loads(pickle.dumps(net)) == net


def test_parallel_is_block_diagonal():
    """Each layer gets its own entry, whose gradient comes from its own output."""
    net, xs = fn.parallel(F, H), (X, fn.random.normal(3, (5, 4), dtype=torch.float64))
    params = double(net)
    y, gparams, gx = parts(net, params, xs)
    for i, layer in enumerate((F, H)):
        assert fn.tree.equal((y[i], gparams[i], gx[i]), parts(layer, params[i], xs[i]))


def test_branch_sums_the_gradients_of_its_input():
    """x -> (f(x), g(x)) has the sum of the gradients of f and g."""
    net = fn.branch(F, fn.serial(F, G))
    params = double(net)
    y, _, gx = parts(net, params, X)
    each = [parts(layer, p, X) for layer, p in zip(net.layers, params, strict=True)]
    assert fn.tree.equal(y, tuple(one[0] for one in each))
    torch.testing.assert_close(gx, each[0][2] + each[1][2])


def test_a_branch_with_merge_is_a_branch_and_the_merge_in_series():
    """branch(f, g, merge=m) is serial(branch(f, g), m), with the params side by side."""
    merged, plain = fn.branch(F, F, merge=fn.Concat()), fn.serial(fn.branch(F, F), fn.Concat())
    params = double(merged)
    assert fn.tree.structure(params) == ({"weight": "*", "bias": "*"}, {"weight": "*", "bias": "*"}, {})
    y, gparams, gx = parts(merged, params, X)
    want = parts(plain, (params[:2], params[2]), X)
    assert fn.tree.equal((y, gx), (want[0], want[2]))
    assert torch.equal(fn.tree.ravel(gparams), fn.tree.ravel(want[1]))


@pytest.mark.parametrize("shortcut", [fn.Identity(), fn.Linear(3, 3, bias=False)], ids=repr)
def test_residual_adds_layer_and_shortcut(shortcut):
    """y = f(x) + s(x), and the gradient of x is the sum of both."""
    net = fn.residual(fn.serial(fn.Linear(3, 3), G), shortcut)
    params = double(net)
    y, _, gx = parts(net, params, X)
    f, s = (parts(layer, p, X) for layer, p in zip(net.layers, params[:2], strict=True))
    assert torch.equal(y, f[0] + s[0])
    torch.testing.assert_close(gx, f[2] + s[2])


def test_a_node_used_twice_gets_the_sum_of_its_gradients():
    """The graph of h + tanh(h) has the gradient of h from both uses."""
    net = fn.graph("x", h=(fn.Linear(2, 25), "x"), a=(fn.Tanh(), "h"), y=(fn.Add(), "a", "h"), output="y")
    params, x = double(net), X[:, :2]
    y, gparams, gx = parts(net, params, x)
    w, b = params["h"]["weight"].clone().requires_grad_(), params["h"]["bias"].clone().requires_grad_()
    leaf = x.clone().requires_grad_()
    h = torch.nn.functional.linear(leaf, w, b)
    want = torch.tanh(h) + h
    gs = torch.autograd.grad(want, (w, b, leaf), fn.random.normal(2, tuple(y.shape), dtype=torch.float64))
    torch.testing.assert_close((y, gparams["h"]["weight"], gparams["h"]["bias"], gx), (want.detach(), *gs))


def test_a_value_given_twice_to_one_node_gets_both_gradients():
    """x ⊙ x has the gradient 2 x gy."""
    net = fn.graph("x", y=(fn.Mul(), "x", "x"))
    y, _, gx = parts(net, net.init(0), X)
    torch.testing.assert_close(gx, 2 * X * fn.random.normal(2, tuple(y.shape), dtype=torch.float64))


def test_a_graph_takes_several_inputs_and_gives_several_outputs_in_any_order_of_nodes():
    """A node may come before the nodes that it depends on; inputs and outputs are tuples in the order of names."""
    net = fn.graph("a", "b", y=(fn.Add(), "h", "b"), h=(F, "a"), output=("y", "h"))
    params, xs = double(net), (X, fn.random.normal(5, (5, 4), dtype=torch.float64))
    (y, h), gparams, (ga, gb) = parts(net, params, xs)
    assert torch.equal(y, h + xs[1])
    assert list(gparams) == list(params) == ["y", "h"]
    assert ga.shape == xs[0].shape
    assert gb.shape == xs[1].shape


@fn.frozen
class Counting(fn.Layer):
    """The identity, which counts the calls for its input's gradient."""

    seen: list

    def apply(self, params, x):
        return x, ()

    def vjp(self, params, cache, gy):
        self.seen.append(1)
        return params, gy


def test_a_graph_names_its_outputs():
    """y and gy are dicts with the keys in order; the repr is the call that makes it."""
    net = fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), output={"last": "a", "first": "h"})
    plain = net.replace(output_keys=None)
    params, x = net.init(0), fn.random.normal(0, (4, 3))
    (y, cache), (parts, _) = net.apply(params, x), plain.apply(params, x)
    assert [*y] == ["last", "first"]
    torch.testing.assert_close(tuple(y.values()), parts)
    gy = {"first": y["last"], "last": y["first"]}
    torch.testing.assert_close(net.vjp(params, cache, gy), plain.vjp(params, cache, (gy["last"], gy["first"])))
    assert eval(repr(net), vars(fn)) == net != plain


def test_grads_of_a_graph_computes_no_gradient_for_what_needs_none():
    """The backward pass skips nodes that do not depend on params; vjp visits all nodes."""
    before, behind = Counting([]), Counting([])
    net = fn.graph("x", a=(before, "x"), h=(F, "a"), b=(behind, "h"))
    params = double(net)
    y, cache = net.apply(params, X)
    grads = net.grads(params, cache, y)
    assert (len(before.seen), len(behind.seen)) == (0, 1)
    assert fn.tree.equal(grads, net.vjp(params, cache, y)[0])
    assert (len(before.seen), len(behind.seen)) == (1, 2)


def test_grads_of_a_serial_stops_at_the_first_layer_with_params():
    """Layers before it have no backward pass, and their entries of gparams have no leaves."""
    before = Counting([])
    net = fn.serial(before, fn.serial(before), F, G)
    params = double(net)
    y, cache = net.apply(params, X)
    grads = net.grads(params, cache, y)
    assert before.seen == []
    assert fn.tree.equal(grads, net.vjp(params, cache, y)[0])


def test_one_key_makes_every_layer_s_params_and_noise():
    """Child i gets the key fold_in(rng, i), so two equal layers differ, and the same key gives the same net and noise."""
    net = fn.serial(fn.Linear(4, 4), fn.Dropout(0.5), fn.Linear(4, 4), fn.Dropout(0.5))
    params = net.init(7)
    assert fn.tree.equal(params, net.init(fn.key(7)))
    assert not torch.equal(params[0]["weight"], params[2]["weight"])
    assert fn.tree.equal(params[2], fn.Linear(4, 4).init(fn.fold_in(7, 2)))
    x = torch.ones(8, 4)
    assert torch.equal(net(params, x, 1), net.apply(params, x, fn.key(1))[0])
    caches = net.apply(params, x, 1)[1]
    assert not torch.equal(caches[1][0], caches[3][0])


STOCHASTIC = {
    "serial": fn.serial(fn.Linear(3, 3), fn.Dropout(0.5)),
    "parallel": fn.parallel(fn.Dropout(0.5)),
    "branch": fn.branch(fn.Dropout(0.5), merge=fn.Add()),
    "residual": fn.residual(fn.Dropout(0.5)),
    "graph": fn.graph("x", y=(fn.Dropout(0.5), "x")),
    "ensemble": fn.ensemble(fn.Dropout(0.5), 2),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_dropout_anywhere_needs_a_key_and_is_gone_in_inference(name):
    """Without a key the combinator refuses to run; its inference() is deterministic and takes the params."""
    net = STOCHASTIC[name]
    x = (X.float(),) if name == "parallel" else X.float()
    params = net.init(0)
    assert net.stochastic
    for run in (net.apply, net):
        with pytest.raises(ValueError, match=r"Dropout\(\): apply must be given a key") as caught:
            run(params, x)
        assert caught.value.__notes__
    assert fn.tree.equal(net(params, x, 3), net(params, x, 3))
    judged = net.inference()
    assert not judged.stochastic
    assert fn.tree.equal(judged(params, x), judged(params, x))


NORMED = {
    "serial": (fn.serial(F, fn.BatchNorm1d(4)), lambda p: p[1]),
    "named": (fn.serial(a=F, b=fn.BatchNorm1d(4)), lambda p: p["b"]),
    "branch": (fn.branch(F, fn.BatchNorm1d(3)), lambda p: p[1]),
    "graph": (fn.graph("x", h=(F, "x"), n=(fn.BatchNorm1d(4), "h")), lambda p: p["n"]),
}


@pytest.mark.parametrize("name", NORMED)
def test_update_stats_reaches_every_batch_norm_and_leaves_the_rest(name):
    """Only the statistics change; without any, nothing does."""
    net, find = NORMED[name]
    params = double(net)
    _, cache = net.apply(params, X)
    moved = net.update_stats(params, cache)
    assert int(find(moved)["num_batches_tracked"]) == 1
    assert int(find(params)["num_batches_tracked"]) == 0
    unmoved = {path for path, leaf in fn.tree.names(params).items() if torch.equal(leaf, fn.tree.names(moved)[path])}
    assert {path.rsplit(".", 1)[1] for path in fn.tree.names(params).keys() - unmoved} == {
        "running_mean", "running_var", "num_batches_tracked"}  # fmt: skip
    assert fn.tree.equal(net.inference().update_stats(params, net.inference().apply(params, X)[1]), params)


def error_of(act):
    """Return the message of the error and its notes, which say where."""
    with pytest.raises(ValueError, match=r".") as caught:
        act()
    return str(caught.value), getattr(caught.value, "__notes__", [])


NET = fn.serial(fn.Linear(4, 3), fn.Tanh(), fn.serial(fn.Tanh(), fn.Linear(4, 3)))


@pytest.mark.parametrize("run", [NET.apply, NET], ids=["apply", "call"])
def test_an_error_says_where_in_the_net(run):
    """There is a note for each level, the innermost first."""
    assert error_of(lambda: run(NET.init(0), torch.ones(8, 4))) == (
        "Linear(in_features=4, out_features=3): the last axis of x must be in_features=4, got x of shape (8, 3)",
        ["  in serial, layer 1", "  in serial, layer 2"],
    )


@pytest.mark.parametrize(
    ("net", "x", "where"),
    [
        (fn.serial(a=G, b=H), X, "  in serial, layer 'b'"),
        (fn.parallel(G, H), (X, X), "  in parallel, layer 1"),
        (fn.branch(G, H), X, "  in branch, layer 1"),
        (fn.branch(F, H, merge=fn.Add()), X, "  in branch, layer 1"),
        (fn.graph("x", y=(H, "x")), X, "  in graph, node 'y'"),
        (fn.ensemble(H, 2), X, "  in ensemble"),
    ],
    ids=lambda value: repr(value) if isinstance(value, fn.Layer) else "",
)
def test_every_combinator_says_where(net, x, where):
    """The combinator adds a note to the layer's own message, in apply and in the call."""
    for run in (net.apply, net):
        message, notes = error_of(lambda run=run: run(double(net), x))
        assert "the last axis of x must be in_features=4, got x of shape (5, 3)" in message
        assert notes == [where]


def test_an_error_on_the_way_back_says_where():
    """The layer that cannot take a gradient raises the error, with its place in the net."""
    params = double(NORMED["serial"][0])
    _, cache = NORMED["serial"][0].apply(params, X)
    with pytest.raises(ValueError, match=r"gy must have the shape of y, \(5, 4\), got gy of shape \(7, 9\)") as caught:
        NORMED["serial"][0].vjp(params, cache, torch.ones(7, 9, dtype=torch.float64))
    assert caught.value.__notes__ == ["  in serial, layer 1"]


P = double(fn.serial(F, G, H))
MESSAGES = {
    "serial: params must be a tuple of 3, one entry per layer, got a tuple of 2": lambda: fn.serial(F, G, H)(P[:2], X),
    "serial: params must be a tuple of 3, one entry per layer, got a dict with the keys 'weight', 'bias'": lambda: fn.serial(F, G, H)(P[0], X),
    "params must be a dict of weight (4, 3), bias (4,), got weight (4, 3), bias (4,), extra (1,)": lambda: fn.serial(F, G, H)(
        ({**P[0], "extra": torch.ones(1)}, *P[1:]), X
    ),
    "params must be a dict of weight (4, 3), bias (4,), got weight (4, 3)": lambda: fn.serial(F, G, H)(({"weight": P[0]["weight"]}, *P[1:]), X),
    "params must be a dict of weight (4, 3), bias (4,), got weight (8, 3), bias (8,)": lambda: fn.serial(F, G, H)(
        double(fn.serial(fn.Linear(3, 8), G, fn.Linear(8, 2))), X
    ),
    "serial: params must be a dict with the keys a, b, got a dict with the keys 'a'": lambda: fn.serial(a=F, b=G)({"a": P[0]}, X),
    "serial: the layers must be all named or all unnamed, got 1 unnamed and 1 named": lambda: fn.serial(F, a=G),
    "serial: the layers must be separate arguments, serial(*layers), got a list of 2": lambda: fn.serial([F, G]),
    "serial: layers must be layers (values with init, apply and vjp), got 3": lambda: fn.serial(F, 3),
    "ensemble: layer must be a layer (a value with init, apply and vjp), got ()": lambda: fn.ensemble((), 2),
    "branch: merge must be a layer (a value with init, apply and vjp), or None, got 'sum'": lambda: fn.branch(F, merge="sum"),
    "serial: a name must be a non-empty str without a dot, and not a number, got 'a.b'": lambda: fn.serial(**{"a.b": F}),
    "serial: a name must be a non-empty str without a dot, and not a number, got '0'": lambda: fn.serial(**{"0": F}),
    "serial: a name must be a non-empty str without a dot, and not a number, got ''": lambda: fn.serial(**{"": F}),
    "graph: a name must be a non-empty str without a dot, and not a number, got ''": lambda: fn.graph("x", **{"h..1": (G, "x")}),
    "graph: a name must be a non-empty str without a dot, and not a number, got 1": lambda: fn.graph(1, y=(G, 1)),
    "parallel: x must be a tuple of 2, one entry per layer, got a tensor of shape (5, 3)": lambda: fn.parallel(F, F)(double(fn.parallel(F, F)), X),
    "parallel: params must be a tuple of 2, one entry per layer, got a tuple of 3": lambda: fn.parallel(F, F)(P, (X, X)),
    "branch: there must be at least one layer, got none": fn.branch,
    "Add(broadcast=False): the operands must have the same shape, got shapes (5, 4) and (5, 3)": lambda: fn.residual(F)(double(fn.residual(F)), X),
    "graph: there must be at least one input and one node, got 1 inputs and 0 nodes": lambda: fn.graph("x"),
    "graph: there must be at least one input and one node, got 0 inputs and 1 nodes": lambda: fn.graph(y=(F, "y")),
    "graph: the nodes must not form a cycle, got a -> b -> a": lambda: fn.graph("x", a=(G, "b"), b=(G, "a")),
    "graph: the inputs of node 'y' must be among x, y, got 'q'": lambda: fn.graph("x", y=(G, "q")),
    "graph: the output must be among x, y, got 'z'": lambda: fn.graph("x", y=(G, "x"), output="z"),
    "graph: the output must be among x, y, got 'q'": lambda: fn.graph("x", y=(G, "x"), output={"key": "q"}),
    "graph: output_keys must be a tuple of names, got a tuple of 1": lambda: fn.graph("x", y=(G, "x"), output={1: "y"}),
    "graph: gy must be a dict with the keys 'key', got a dict with the keys 'y'": lambda: fn.graph("x", y=(G, "x"), output={"key": "y"}).vjp({"y": {}}, {"y": X}, {"y": X}),
    "graph: every input and node must lead to the output, got a that do not": lambda: fn.graph("x", a=(G, "x"), y=(G, "x")),
    "graph: names must be unique, got x, x": lambda: fn.graph("x", x=(G, "x")),
    "graph: node 'y' must be a tuple (layer, *inputs), got Tanh()": lambda: fn.graph("x", y=G),
    "graph: params must be a dict with the keys y, got a tuple of 3": lambda: fn.graph("x", y=(G, "x"))(P, X),
    "graph: x must be a tuple of 2, one entry each for a, b, got a tensor of shape (5, 3)": lambda: fn.graph("a", "b", y=(fn.Add(), "a", "b"))({"y": {}}, X),
    "ensemble: the first axis of every tensor that is not shared must be n=2, got sizes 4": lambda: fn.ensemble(F, 2)(P[0], X),
    "ensemble: n must be a whole number of at least 1, got 0": lambda: fn.ensemble(F, 0),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its names and numbers, and what it got."""
    assert message in error_of(MESSAGES[message])[0]


@pytest.mark.parametrize("names", [["for"], ["a b", "c"], ["x", "ü"]])
def test_any_name_prints_as_a_call_that_makes_the_net(names):
    """A dict allows names that are Python keywords or contain spaces."""
    sources = ["in", *names]
    nodes = {name: (fn.Tanh(), source) for name, source in zip(names, sources, strict=False)}
    made = fn.serial(**dict.fromkeys(names, fn.Tanh())), fn.graph("in", **nodes)
    for net in made:
        assert eval(repr(net), vars(fn)) == net


def test_no_layer_of_a_named_serial_is_the_serial_of_none():
    """A serial of no named layers has params and a repr like any other."""
    net = fn.serial(a=F)[0:0]
    assert net == fn.serial()
    assert net(net.init(0), X) is X


def test_an_unknown_name_in_a_serial_is_a_lookup_error_that_lists_the_names():
    """net["x"] of a net without x lists the names."""
    with pytest.raises(LookupError, match=r"serial: no layer 'x'; there are a, b"):
        fn.serial(a=F, b=G)["x"]


@pytest.mark.parametrize("cache", [None, (), ({},), "cache"], ids=repr)
@pytest.mark.parametrize(
    "net", [fn.serial(F, H), fn.serial(a=F, b=H), fn.freeze(fn.serial(F, H)), fn.serial(*[STEP] * 2)], ids=repr
)
def test_a_serial_refuses_a_cache_of_another_net(net, cache):
    """Every verb that takes a cache refuses it, whether it has a cache for each layer or for a run of them."""
    x = (X, X) if net == fn.serial(*[STEP] * 2) else X
    params = double(net)
    gy = net(params, x)
    for verb in (net.vjp, net.input_grad) if net == fn.freeze(fn.serial(F, H)) else (net.vjp, net.grads, net.input_grad):
        with pytest.raises(
            ValueError, match=r"serial: cache must be what apply returned, a tuple of 2, one entry per layer, got"
        ):
            verb(params, cache, gy)
