"""by_path: groups of params, each with its own optimizer."""

import copy
import pickle

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

NET = fn.serial(fn.Linear(3, 4), fn.LayerNorm(4), fn.Tanh(), fn.Linear(4, 2))


def start() -> tuple[Tree, Tree]:
    """Return params and gradients of a net."""
    params = NET.init(0)
    return params, tree.map(torch.cos, params)


def test_each_group_steps_as_its_optimizer_does() -> None:
    """The leaves of a group match its optimizer by itself, for several steps."""
    params, grads = start()
    opt, sgd, adam = fn.by_path({"*.bias": fn.SGD(0.5), "*": fn.AdamW(0.1)}), fn.SGD(0.5), fn.AdamW(0.1)
    state, states, runs = opt.init(params), [sgd.init(params), adam.init(params)], [params, params]
    for _ in range(3):
        params, state = opt.update(grads, state, params)
        for i, one in enumerate((sgd, adam)):
            runs[i], states[i] = one.update(grads, states[i], runs[i])
    wanted = [tree.names(one) for one in runs]
    for path, leaf in tree.names(params).items():
        assert torch.equal(leaf, wanted[0 if path.endswith("bias") else 1][path]), path


def test_the_first_group_that_takes_a_leaf_has_it() -> None:
    """The dict determines the order; functions get the path and the leaf."""
    params, grads = start()
    deep = lambda path, leaf: path.startswith("3.") and leaf.dim() == 2
    opt = fn.by_path({deep: None, fn.is_matrix: fn.SGD(1.0), "1.*": fn.SGD(2.0), "*": fn.SGD(0.0)})
    after, _ = opt.update(grads, opt.init(params), params)
    rates = {"0.weight": 1.0, "0.bias": 0.0, "1.weight": 2.0, "1.bias": 2.0, "3.weight": 0.0, "3.bias": 0.0}
    fn.testing.assert_close(
        tree.names(after), {path: p - rates[path] * tree.at(grads, path) for path, p in tree.names(params).items()}
    )
    assert after[3]["weight"] is params[3]["weight"]


def test_muon_for_matrices_and_adamw_for_the_others_in_one_line() -> None:
    """The optimizer trains in float32, even with ``train_step`` in eager mode."""
    opt = fn.by_path({"3.*": fn.AdamW(0.05), fn.is_matrix: fn.Muon(0.05), "*": fn.AdamW(0.05)})
    params, x = NET.init(0), fn.random.normal(1, (32, 3))
    state, step, values = opt.init(params), fn.train_step(NET, fn.MSE(), opt), []
    for _ in range(60):
        params, state, value = step(params, state, x, torch.sin(x[:, :2]))
        values.append(value.item())
    assert values[-1] < values[0] / 5
    assert [path for path in tree.names(state) if "momentum_buffer" in path] == ["1.momentum_buffer.0.weight"]


def test_a_pattern_takes_the_leaves_of_a_layer_by_itself() -> None:
    """``"*.bias"`` matches ``"bias"`` too."""
    params = fn.Linear(2, 3).init(0)
    opt = fn.by_path({"*.bias": None, "*": fn.SGD(1.0)})
    after, _ = opt.update(params, opt.init(params), params)
    assert after["bias"] is params["bias"]
    assert not after["weight"].any()


def test_a_leaf_without_a_group_is_refused_with_its_path() -> None:
    """``init`` and ``update`` refuse it; counters need no group."""
    params, grads = start()
    opt = fn.by_path({"*.weight": fn.SGD(0.1), "0.*": None})
    for call in (lambda: opt.init(params), lambda: opt.update(grads, ({"step": torch.tensor(0)}, {}), params)):
        with pytest.raises(ValueError, match=r"every floating leaf of params must belong to a group.*got none for '1.bias'"):
            call()
    counted = {"weight": torch.ones(2), "count": torch.tensor(3)}
    opt = fn.by_path({"*.weight": fn.SGD(0.1)})
    after, _ = opt.update({"weight": torch.ones(2), "count": None}, opt.init(counted), counted)
    assert after["count"] is counted["count"]


def test_freeze_params_leaves_leaves_alone() -> None:
    """Leaves that a pattern or a function selects are returned as the same tensors, and have no state."""
    params, grads = start()
    opt = fn.freeze_params(fn.Adam(0.1), "0.*", lambda path, leaf: leaf.dim() == 2)
    state = opt.init(params)
    after, _ = opt.update(grads, state, params)
    kept = {path for path, leaf in tree.names(after).items() if leaf is tree.at(params, path)}
    assert kept == {"0.weight", "0.bias", "3.weight"}
    assert {path.split(".", 2)[2] for path in tree.names(state) if "exp_avg." in path} == {"1.weight", "1.bias", "3.bias"}


def test_rates_and_state_are_by_group() -> None:
    """Rates are named by pattern; state is named by number, as its names show."""
    params, _ = start()
    opt = fn.by_path({"*.bias": fn.SGD(0.5), fn.is_matrix: fn.Adam(fn.LinearSchedule(1.0, 0.0, 4)), "*": None})
    state = opt.init(params)
    rates = opt.rates(state)
    assert {name: rate for name, rate in rates.items() if name.endswith(".lr")} == {"*.bias.lr": 0.5, "is_matrix.lr": 1.0}
    doubled = tree.replace(state, "1.exp_avg.0.weight", torch.full((4, 3), 2.0))
    assert tree.at(doubled, "1.exp_avg.0.weight").sum() == 24
    assert opt.map_state(lambda one: tree.map(torch.ones_like, one), state)[1]["exp_avg"][3]["weight"].sum() == 8


def test_it_compares_prints_and_pickles_as_a_value() -> None:
    """Steps do not change the value; its repr is the call that makes it."""
    opt = fn.by_path({"*.bias": fn.SGD(0.5), fn.is_matrix: fn.Adam(), "*": None})
    params, grads = start()
    opt.update(grads, opt.init(params), params)
    assert repr(opt) == "by_path({'*.bias': SGD(lr=0.5), is_matrix: Adam(), '*': None})"
    for other in (eval(repr(opt), vars(fn)), pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert other == opt
        assert hash(other) == hash(opt)


@pytest.mark.parametrize("kind", ["shape", "state", "schedule"])
def test_a_donated_update_that_a_later_group_refuses_has_written_nothing(kind: str) -> None:
    """A gradient or a state may not fit, or a schedule may return no rate."""
    params, grads = start()
    late = fn.Adam(lambda step: float("nan") if kind == "schedule" else 0.1)
    opt = fn.donate(fn.by_path({"0.*": fn.Adam(0.1), "*": late}))
    state = opt.init(params)
    if kind == "shape":
        grads = tree.replace(grads, "3.bias", torch.ones(3))
    if kind == "state":
        state = tree.replace(state, "1.exp_avg.3.bias", torch.ones(3))
    before = tree.map(torch.clone, (params, state))
    with pytest.raises(ValueError, match=r"grads at '3.bias' must|exp_avg at '3.bias' must|a schedule must return"):
        opt.update(grads, state, params)
    assert tree.equal((params, state), before)


def test_an_error_says_in_which_group() -> None:
    """A note names its pattern."""
    params, grads = start()
    opt = fn.by_path({"*.bias": fn.SGD(0.5), "*": fn.Adam()})
    state = tree.replace(opt.init(params), "1.exp_avg.0.weight", torch.ones(2))
    with pytest.raises(ValueError, match=r"exp_avg at '0.weight' must") as caught:
        opt.update(grads, state, params)
    assert caught.value.__notes__ == ["  in by_path, group '*'"]


@pytest.mark.parametrize(
    ("groups", "rule"),
    [
        ({}, "groups must be a dict of optimizers by pattern or function"),
        ([("*", fn.SGD())], "groups must be a dict"),
        ({3: fn.SGD()}, "a group must be chosen with a pattern, or with a function of path and leaf, got 3"),
        ({"*": fn.MSE()}, r"the group '\*' must have an optimizer, or None"),
        ({"*": fn.SAM(fn.SGD())}, r"must be the outermost, where train_step calls its step, got SAM"),
    ],
    ids=repr,
)
def test_other_groups_are_refused(groups: object, rule: str) -> None:
    """Each has its own message."""
    with pytest.raises(ValueError, match=rf"by_path: .*{rule}"):
        fn.by_path(groups)


def test_a_pattern_that_freezes_nothing_is_refused() -> None:
    """A typing error would train what should be frozen; patterns of optimizers may be meant for other nets."""
    params = {"body": {"weight": torch.ones(2)}, "head": {"weight": torch.ones(2)}}
    opt = fn.freeze_params(fn.SGD(0.1), "bdy.*")
    with pytest.raises(ValueError, match=r"the pattern 'bdy\.\*' of frozen params must match .* 'body\.weight', 'head"):
        opt.init(params)
    assert opt.init({}) == ({}, fn.SGD(0.1).init({}))
    fn.by_path({"*.bias": fn.SGD(0.1), "*": None}).init(params)
