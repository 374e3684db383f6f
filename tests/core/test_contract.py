"""The contract: values and their reprs, the defaults of a custom layer, and the explanation of errors."""

import pickle

import attrs
import pytest
import torch
from attrs import field
from cases import CASES
from hypothesis import given
from hypothesis import strategies as st

import funcnet as fn
from funcnet.checks import params_error
from funcnet.contract import Layer
from funcnet.explanations import explain_error
from funcnet.layers.linear.linear import Linear
from funcnet.value import Value, frozen


@frozen
class Point(Value):
    """A value with fields of every kind."""

    x: float
    y: float = 0.0
    label: str = "origin"
    parts: tuple[object, ...] = ()
    flag: bool = field(default=True, kw_only=True)
    made: tuple[int, ...] = field(factory=tuple)
    _hidden: int = 0
    derived: int = field(default=7, init=False)


@frozen
class Doubled(Layer):
    """A custom layer with three methods: y = 2 x + w, and gw = Σ gy."""

    def init(self, rng):
        return {"w": torch.zeros(())}

    def apply(self, params, x):
        return 2 * x + params["w"], x.shape

    def vjp(self, params, cache, gy):
        return {"w": gy.sum()}, 2 * gy


@frozen
class Noisy(Layer):
    """A layer that takes a key."""

    stochastic = True

    def apply(self, params, x, rng):
        return x + rng, None

    def vjp(self, params, cache, gy):
        return {}, gy


# values

REPRS = [
    (Point(1.0), "Point(x=1.0)"),
    (Point(0.0), "Point(x=0.0)"),
    (Point(1.0, 2.0), "Point(x=1.0, y=2.0)"),
    (Point(1.0, 0), "Point(x=1.0, y=0)"),
    (Point(1.0, label="a'b"), 'Point(x=1.0, label="a\'b")'),
    (Point(1.0, parts=(Point(2.0), (3,))), "Point(x=1.0, parts=(Point(x=2.0), (3,)))"),
    (Point(1.0, flag=False), "Point(x=1.0, flag=False)"),
    (Point(1.0, hidden=4), "Point(x=1.0, hidden=4)"),
]


@pytest.mark.parametrize(("value", "text"), REPRS)
def test_repr_is_the_call_that_makes_the_value(value, text):
    """The repr has arguments that differ from their defaults; 0 differs from 0.0, which would evaluate to another value."""
    assert repr(value) == text
    assert eval(repr(value)) == value


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans()
)
def test_repr_evaluates_back(x, y, label, flag):
    """Any values of the fields are tried."""
    value = Point(x, y, label, flag=flag)
    assert eval(repr(value)) == value


def test_a_value_is_frozen():
    """Fields can be neither set nor added."""
    value = Doubled()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(1.0).x = 2.0
    with pytest.raises(AttributeError):
        value.other = 1


def test_replace_gives_another_value():
    """The original does not change, and fields are validated again."""
    layer = Linear(4, 3)
    assert layer.replace(out_features=5, bias=False) == Linear(4, 5, bias=False)
    assert layer == Linear(4, 3)
    with pytest.raises(ValueError, match="Linear: out_features must be a whole number of at least 1, got 0"):
        layer.replace(out_features=0)


def test_replace_refuses_a_field_that_is_not_there():
    """A misspelled name is not ignored."""
    with pytest.raises(TypeError, match="out_feature"):
        Linear(4, 3).replace(out_feature=5)


def test_equal_values_hash_alike():
    """Values of another class or with other fields are not equal."""
    assert hash(Linear(4, 3)) == hash(Linear(4, 3, bias=True))
    assert Linear(4, 3) != Linear(3, 4)
    assert Doubled() != Noisy()
    assert {Linear(4, 3): 1}[Linear(4, 3)] == 1


@pytest.mark.parametrize("value", [Doubled(), Linear(4, 3, bias=False), Point(1.0, parts=(Doubled(),))], ids=repr)
def test_a_value_pickles(value):
    """The copy is equal."""
    assert pickle.loads(pickle.dumps(value)) == value


def test_frozen_can_compare_by_identity():
    """``eq=False`` is for values that hold functions."""

    @frozen(eq=False)
    class Call(Value):
        f: object

    call = Call(abs)
    assert {call: 1}[call] == 1
    assert call != Call(abs)


# a custom layer


def test_the_defaults_of_a_layer():
    """A layer is deterministic, does not mix rows, is its own inference form, and leaves statistics unchanged."""
    layer, params = Doubled(), {"w": torch.ones(())}
    assert (layer.stochastic, layer.batch_dependent, layer.inference()) == (False, False, layer)
    assert layer.update_stats(params, None) is params
    assert Noisy().init(0) == {}


def test_the_defaults_are_halves_of_apply_and_vjp():
    """``layer(params, x)`` returns y, ``grads`` the params' half of ``vjp``, and ``input_grad`` the input's half."""
    layer, params, x = Doubled(), {"w": torch.ones(())}, torch.tensor([1.0, 2.0])
    y, cache = layer.apply(params, x)
    gparams, gx = layer.vjp(params, cache, x)
    assert torch.equal(layer(params, x), y)
    assert torch.equal(layer.grads(params, cache, x)["w"], gparams["w"])
    assert torch.equal(layer.input_grad(params, cache, x), gx)


def test_a_call_hands_the_key_on():
    """A layer that takes a key gets it by position or by name."""
    assert Noisy()({}, torch.tensor(1), torch.tensor(2)) == 3
    assert Noisy()({}, torch.tensor(1), rng=2) == 3


def test_a_deterministic_layer_ignores_a_key():
    """Every method accepts and ignores a key, even if ``apply`` was written without one."""
    params, x = {"w": torch.full((), 3.0)}, torch.ones(1)
    assert Doubled()(params, x, 0) == Doubled()(params, x)
    assert Doubled().apply(params, x, 0)[0] == Doubled().apply(params, x, rng=1)[0] == 5


@pytest.mark.parametrize("missing", ["apply", "vjp"])
def test_a_layer_needs_apply_and_vjp(missing):
    """A class without either cannot be instantiated."""
    verbs = {name: getattr(Doubled, name) for name in ("apply", "vjp") if name != missing}
    with pytest.raises(TypeError, match=missing):
        frozen(type("Half", (Layer,), verbs))()


# explained errors

KERNEL_ERROR = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
RIGHT = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
WHO = "Linear(in_features=4, out_features=3)"
PARAMS_RULE = f"{WHO}: params must be a dict of weight (3, 4), bias (3,), got "

EXPLAINED = {
    "params before x": ({"weight": torch.zeros(4, 3)}, torch.zeros(8, 5), PARAMS_RULE + "weight (4, 3)"),
    "leaf that is no tensor": ({**RIGHT, "bias": None}, torch.zeros(8, 4), PARAMS_RULE + "weight (3, 4), bias None"),
    "no dict": ((1, 2), torch.zeros(8, 4), PARAMS_RULE + "a tuple of 2"),
    "empty": ({}, torch.zeros(8, 4), PARAMS_RULE + "an empty dict"),
    "x": (RIGHT, torch.zeros(8, 5), f"{WHO}: the last axis of x must be in_features=4, got x of shape (8, 5)"),
    "no tensor": (RIGHT, (1, 2), f"{WHO}: x must be a floating tensor, not tuple, got a tuple of 2"),
    "dtype": (RIGHT, torch.zeros(8, 4).half(), f"{WHO}: x must have the dtype of the params, torch.float32, got torch.float16"),
}


@pytest.mark.parametrize(("params", "x", "message"), EXPLAINED.values(), ids=EXPLAINED)
def test_a_kernels_error_is_explained(params, x, message):
    """Misfitting params are reported first, then the rule that x breaks, then dtypes."""
    error = explain_error(Linear(4, 3), params, x, KERNEL_ERROR)
    assert type(error) is ValueError
    assert str(error) == message


def test_an_error_without_explanation_stays_what_it_was():
    """A user's layer raises the same error; one of ours raises a new error with the original as its cause."""
    assert explain_error(Doubled(), {}, torch.zeros(8, 4), KERNEL_ERROR) is KERNEL_ERROR
    error = explain_error(Linear(4, 3), RIGHT, torch.zeros(8, 4), KERNEL_ERROR)
    assert str(error) == f"{WHO}: params and x must fit each other, got x of shape (8, 4)"
    assert error.__cause__ is KERNEL_ERROR


def test_the_rule_of_a_base_is_not_held_against_a_users_apply():
    """A subclass's error is raised unchanged, with its cause."""

    @fn.frozen
    class Logged(fn.Flatten):
        def apply(self, params, x, rng=None):
            super().apply(params, x, rng)
            raise KeyError("no logger") from OSError("disk full")

    with pytest.raises(KeyError, match="no logger") as caught:
        fn.serial(Logged()).apply(({},), torch.ones(2, 3, 4))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ValueError, match="x must have the axes 1 to -1"):
        Logged().apply({}, torch.ones(2))


@pytest.mark.parametrize("net", [fn.serial, lambda one: fn.ensemble(fn.serial(one), 1)])
def test_nets_hide_nothing_of_how_an_error_came_about(net):
    """Both the cause and the context of an error are kept."""

    @fn.frozen
    class Failing(fn.Identity):
        def apply(self, params, x, rng=None):
            try:
                {}["root"]
            except KeyError:
                raise RuntimeError("words of a child")  # noqa: B904 (this is what the test is about)

    made = net(Failing())
    with pytest.raises(RuntimeError, match="words of a child") as caught:
        made.apply(made.init(0), torch.ones(2))
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


def test_a_layer_without_params_refuses_some():
    """Its params must be an empty dict."""
    error = params_error(Noisy(), {"w": torch.zeros(2)})
    assert str(error) == "Noisy(): params must be an empty dict, got w (2,)"


@fn.frozen
class TakesKeyByName(fn.Layer):
    def apply(self, params, x, *, rng=None):
        return 2 * x, ()

    def vjp(self, params, cache, gy):
        return params, 2 * gy


@fn.frozen
class DoubledWithoutKey(fn.Wrapper):
    layer: fn.Layer

    def apply(self, params, x):
        y, cache = self.layer.apply(params, x)
        return 2 * y, cache

    def vjp(self, params, cache, gy):
        return self.layer.vjp(params, cache, 2 * gy)


@fn.frozen
class TakesOptions(fn.Layer):
    def apply(self, params, x, rng=None, *, factor=2):
        return factor * x, ()

    def vjp(self, params, cache, gy):
        return params, 2 * gy


@fn.frozen
class TakesOptionsAlone(fn.Layer):
    def apply(self, params, x, *, factor=2):
        return factor * x, ()

    def vjp(self, params, cache, gy):
        return params, 2 * gy


@pytest.mark.parametrize("layer", [TakesOptions(), TakesOptionsAlone()])
def test_an_apply_may_have_further_arguments(layer):
    """A net leaves them at their defaults; a direct call of the layer may pass others."""
    x = torch.ones(2)
    assert (fn.serial(layer)(({},), x, 3) == 2).all()
    assert (layer.apply({}, x, factor=5)[0] == 5).all()
    assert (layer.apply({}, x, 3, factor=5)[0] == 5).all()
    with pytest.raises(TypeError, match="scale"):
        layer.apply({}, x, scale=5)


@pytest.mark.parametrize(("kind", "name"), [(staticmethod, "apply"), (classmethod, "vjp"), (staticmethod, "init")])
@pytest.mark.parametrize("base", [fn.Layer, fn.Wrapper])
def test_a_verb_must_be_a_function_of_the_layer(kind, name, base):
    """A static method would get the layer as its params."""
    verbs = {"apply": lambda *_: None, "vjp": lambda *_: None, "init": lambda *_: None}
    made = type("Static", (base,), {**verbs, name: kind(verbs[name])})
    with pytest.raises(TypeError, match=rf"^Static: {name} must be a method, def {name}\(self, ...\), got a {kind.__name__}"):
        fn.frozen(made)


def test_a_kernels_error_is_the_cause_of_what_explains_it():
    """Different dtypes are the likely reason, but not the only one."""
    layer = fn.Linear(4, 3)
    with pytest.raises(ValueError, match="x must have the dtype of the params") as caught:
        layer.apply(layer.init(0), torch.zeros(8, 4).double())
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("layer", "y"), [(TakesKeyByName(), 2.0), (DoubledWithoutKey(fn.Identity()), 2.0), (DoubledWithoutKey(TakesKeyByName()), 4.0)]
)
def test_an_apply_may_take_the_key_by_name_or_not_at_all(layer, y):
    """Nets pass keys to either kind."""
    x = torch.ones(2)
    got = fn.serial(layer)((layer.init(0),), x, 3)
    assert (got == y).all()
    assert (layer(layer.init(0), x, rng=3) == got).all()
    assert (layer.apply(layer.init(0), x, 3)[0] == got).all()


def test_an_error_keeps_its_cause():
    """An error without an explanation is raised unchanged."""

    @fn.frozen
    class Failing(fn.Layer):
        def apply(self, params, x, rng=None):
            try:
                {}["inner"]
            except KeyError as error:
                raise RuntimeError("outer") from error

        def vjp(self, params, cache, gy):
            return self.apply(params, gy)

    with pytest.raises(RuntimeError, match="outer") as forward:
        fn.serial(Failing()).apply(({},), torch.ones(2))
    with pytest.raises(RuntimeError, match="outer") as backward:
        Failing().vjp({}, (), torch.ones(2))
    assert isinstance(forward.value.__cause__, KeyError)
    assert isinstance(backward.value.__cause__, KeyError)


def test_a_subclass_with_its_own_apply_is_not_affine_by_inheritance():
    """Its apply may compute something else, so folding does not change it."""

    @fn.frozen
    class Rectified(fn.Linear):
        def apply(self, params, x, rng=None):
            y, cache = super().apply(params, x, rng)
            return y.relu(), cache

    assert fn.Linear(2, 3).weight_output_axis == 0
    assert Rectified(2, 3).weight_output_axis is None
    net = fn.serial(Rectified(2, 3), fn.BatchNorm1d(3))
    params = net.init(0)
    folded, folded_params = fn.fold_batch_norm(net, params)
    x = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    assert torch.equal(folded(folded_params, x), net.inference()(params, x))


@pytest.mark.parametrize("x", [torch.tensor([7]), torch.tensor([7], dtype=torch.int32)])
def test_a_layers_own_error_is_not_blamed_on_a_dtype(x):
    """An index out of range in a user's embedding is reported as such, although indices never have the dtype of the table."""

    @fn.frozen
    class Table(fn.Layer):
        def init(self, rng):
            return {"table": torch.ones(5, 2)}

        def apply(self, params, x, rng=None):
            return params["table"][x], x

        def vjp(self, params, cache, gy):
            return params, None

    with pytest.raises(IndexError, match="out of bounds"):
        Table().apply(Table().init(0), x)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (fn.serial(fn.Conv2d(3, 4, 3), fn.ReLU(), fn.Conv2d(4, 4, 3), fn.ConvTranspose2d(4, 2, 2)), (2, 3, 8, 8)),
        (fn.serial(fn.Linear(8, 8), fn.MultiHeadAttention(8, 2)), (2, 5, 8)),
        (fn.mlp((4, 8, 2)), (3, 4)),
    ],
    ids=["convolutions", "attention", "mlp"],
)
def test_autocast_is_no_misfit(net, shape):
    """A later layer gets half precision while its params are single, and the kernels cast them."""
    with torch.autocast("cpu", torch.bfloat16):
        assert net(net.init(0), torch.ones(shape)).dtype is torch.bfloat16


@pytest.mark.parametrize("net", [fn.Linear(3, 2), fn.mlp((3, 4, 2)), fn.serial(fn.LSTM(3, 2), fn.Select(0))], ids=str)
def test_gradients_under_autocast_are_refused_with_the_way_to_train(net):
    """y is in half precision there, and x in single."""
    params, x = net.init(0), torch.ones(4, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y, cache = net.apply(params, x)
        for verb in (net.vjp, net.grads, net.input_grad):
            with pytest.raises(
                ValueError, match=r"gradients must be computed outside of torch.autocast.* use cast\(layer, dtype\)"
            ):
                verb(params, cache, y)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.layer.stochastic])
def test_a_layer_that_needs_no_key_ignores_one(name):
    """Every layer and combinator ignores it, by position too, in ``apply`` and in the call."""
    layer, x, params, *_ = CASES[name]
    for rng in (0, fn.key(0)):
        assert fn.tree.structure(layer.apply(params, x, rng)[0]) == fn.tree.structure(layer.apply(params, x)[0])
        for one, other in zip(fn.tree.leaves(layer(params, x, rng)), fn.tree.leaves(layer(params, x)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
