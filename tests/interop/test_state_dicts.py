"""load_state_dict: torch state dicts loaded into params."""

import collections
import warnings

import pytest
import torch
from torch import nn

import funcnet as fn
from funcnet.interop.torch_nn import lift, load_state_dict

torch.manual_seed(0)


class Block(nn.Module):
    """A residual block, as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        return torch.relu(self.bn1(self.conv1(x)) + self.downsample(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.encoder(ids))


MODULES = {
    "resnet": (Block, torch.randn(2, 3, 4, 4)),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (torch.randn(2, 3, 8), torch.randn(2, 3, 8))),
    "lstm": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), torch.randn(2, 3, 3)),
    "tied": (Tied, torch.tensor([[1, 2]])),
}
WHO = "load_state_dict: "


@pytest.mark.parametrize("name", MODULES)
def test_the_state_dict_of_another_module_gives_its_outputs(name):
    """This covers a residual block, a Transformer, an LSTM and tied weights; given params are neither modified nor shared."""
    make, x = MODULES[name]
    layer, params = lift(make().eval(), x)
    trained, before = make().eval(), fn.tree.map(torch.clone, params)
    loaded = load_state_dict(params, trained.state_dict())
    want = trained(*x) if isinstance(x, tuple) else trained(x)
    torch.testing.assert_close(layer(loaded, x), want)
    assert fn.tree.equal(params, before)
    for leaf in trained.parameters():
        nn.init.zeros_(leaf)
    torch.testing.assert_close(layer(loaded, x), want)
    assert not any(leaf.requires_grad for leaf in fn.tree.leaves(loaded))


def test_layers_of_funcnet_have_the_names_of_torch():
    """A serial loads the state dict of a Sequential, with its running statistics."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    net = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2))
    module(torch.randn(5, 3))
    given = module.state_dict()
    given = given if "num_batches_tracked" in net.init(0)[1] else {k: v for k, v in given.items() if not k.endswith("tracked")}
    params, x = load_state_dict(net.init(0), given), torch.randn(5, 3)
    torch.testing.assert_close(net.inference()(params, x), module.eval()(x))


def test_leaves_keep_dtype_and_strides():
    """Torch's modules convert too; a leaf on the meta device gets memory."""
    like = {
        "weight": torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        "count": torch.tensor(0),
    }
    given = {"weight": torch.randn(2, 3, 4, 4), "count": torch.tensor([3])}  # torch 0.3 saved counts this way
    loaded = load_state_dict(like, given)
    assert loaded["weight"].dtype is torch.bfloat16
    assert loaded["weight"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(loaded["weight"], given["weight"].bfloat16())
    assert loaded["count"].shape == ()
    assert int(loaded["count"]) == 3
    on_meta = load_state_dict(fn.tree.to(like, "meta"), given)
    assert torch.equal(on_meta["weight"], given["weight"].bfloat16())


def test_prefixes_and_new_names():
    """A prefix selects one module and is removed; patterns and functions work as in load."""
    params, value = {"new": {"weight": torch.zeros(2)}}, torch.ones(2)
    for given, options in [
        ({"module.new.weight": value}, {"prefix": "module."}),
        ({"encoder.new.weight": value, "head.weight": value}, {"prefix": "encoder."}),
        ({"encoder.new.weight": value, "new.weight": value + 1}, {"prefix": "encoder."}),
        ({"old.weight": value}, {"rename": {"old.*": "new.*"}}),
        ({"model.old.weight": value, "model.head": value}, {"prefix": "model.", "rename": {"old.*": "new.*", "head": None}}),
        ({"WEIGHT": value}, {"rename": lambda name: f"new.{name.lower()}"}),
    ]:
        assert torch.equal(load_state_dict(params, given, **options)["new"]["weight"], value)


PARAMS = {"a": {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "n": torch.tensor(0)}
STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(4)}


def test_all_differences_are_in_one_error():
    """It lists missing names (such as the count in an old file), unexpected names and wrong shapes."""
    given = {"a.weight": torch.ones(3, 2), "b": torch.ones(1), "c": torch.ones(1)}
    said = "shape (3, 2) instead of (2, 3) at 'a.weight'; missing 'a.bias', 'n'; unexpected 'b', 'c'"
    with pytest.raises(ValueError, match=WHO) as caught:
        load_state_dict(PARAMS, given)
    assert str(caught.value) == f"{WHO}state_dict must hold the names and shapes of params, got {said}"


def test_what_fits_is_loaded_without_strict():
    """Missing and unexpected names are ignored; other shapes and a dict with nothing to load are refused."""
    loaded = load_state_dict(PARAMS, {"a.bias": torch.ones(2), "b": torch.ones(1)}, strict=False)
    assert torch.equal(loaded["a"]["bias"], torch.ones(2))
    assert loaded["a"]["weight"] is PARAMS["a"]["weight"]
    with pytest.raises(
        ValueError, match=r"the values of state_dict must fit params, got shape \(3,\) instead of \(2,\) at 'a.bias'"
    ):
        load_state_dict(PARAMS, {"a.bias": torch.ones(3)}, strict=False)
    with pytest.raises(ValueError, match=r"no name of params, such as 'a\.weight', but 'b'"):
        load_state_dict(PARAMS, {"b": torch.ones(3)}, strict=False)


def test_both_names_of_a_tie_are_taken():
    """This requires ``None`` in params and equal values, or the same memory; other names are unexpected."""
    weight = torch.randn(7, 4)
    for params in (
        {"encoder": {"weight": torch.zeros(7, 4)}, "decoder": {"weight": None}},
        {"encoder": {"weight": torch.zeros(7, 4)}},
    ):
        loaded = load_state_dict(params, {"encoder.weight": weight, "decoder.weight": weight})
        assert torch.equal(loaded["encoder"]["weight"], weight)
        assert loaded.keys() == params.keys()
        for other in (weight + 1, *([weight.clone()] if len(params) == 1 else [])):
            with pytest.raises(ValueError, match=r"unexpected 'decoder\.weight'"):
                load_state_dict(params, {"encoder.weight": weight, "decoder.weight": other})
    absent = {"encoder": {"weight": torch.zeros(7, 4)}, "decoder": {"weight": None}}
    assert load_state_dict(absent, {"encoder.weight": weight, "decoder.weight": weight.clone()})["decoder"] == {"weight": None}


def test_what_lies_beside_the_tensors_is_passed_over_or_named():
    """Module versions are ignored; extra state has no counterpart in params."""
    given = collections.OrderedDict(STATE)
    given._metadata = {"": {"version": 1}}
    assert int(load_state_dict(PARAMS, given)["n"]) == 4
    assert int(load_state_dict(PARAMS, {**STATE, "_metadata": {"": {}}})["n"]) == 4
    with pytest.raises(ValueError, match=r"unexpected 'a\._extra_state'"):
        load_state_dict(PARAMS, {**STATE, "a._extra_state": {"any": 1}} | {"a._extra_state": "words"})
    assert int(load_state_dict(PARAMS, {**STATE, "a._extra_state": "words"}, strict=False)["n"]) == 4


with warnings.catch_warnings(action="ignore"):  # torch will remove them
    QUANTIZED = torch._make_per_tensor_quantized_tensor(torch.ones(2, dtype=torch.int8), 0.5, 0)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (nn.Linear(3, 2), {}, r"as module\.state_dict\(\) returns, got a module, Linear"),
        ([torch.ones(2)], {}, "state_dict must be a dict of tensors by name.*got a list of 1"),
        ({1: torch.ones(2)}, {}, "state_dict must be a dict of tensors by name"),
        ({"epoch": 3, **STATE}, {}, "state_dict must be a dict of tensors by name.*got 3 at 'epoch'"),
        ({"state_dict": STATE}, {}, r"pass the inner dict, state_dict\['state_dict'\], got a dict with the keys"),
        (STATE, {"strict": 1}, "strict must be True or False, got 1"),
        (STATE, {"prefix": None}, "prefix must be a str, got None"),
        (STATE, {"prefix": "module."}, "a name must begin with the prefix 'module.', got 'a.weight' and the like"),
        (STATE, {"rename": {"b": "c"}}, "every pattern of rename must match"),
        (STATE, {"rename": 3}, "rename must be a dict of new names by pattern"),
        ({**STATE, "n": torch.empty((), device="meta")}, {}, "no values yet at 'n'"),
        ({**STATE, "a.bias": torch.ones(2).to_sparse()}, {}, "no dense tensor at 'a.bias'"),
        ({**STATE, "a.bias": QUANTIZED}, {}, "no dense tensor at 'a.bias'"),
        ({**STATE, "n": torch.tensor(2.5)}, {}, "fractions instead of torch.int64 at 'n'"),
        ({**STATE, "n": torch.tensor(float("nan"))}, {"strict": False}, "fractions instead of torch.int64 at 'n'"),
        ({**STATE, "a.bias": torch.ones(2) * 1j}, {}, "torch.complex64 instead of torch.float32 at 'a.bias'"),
        ({**STATE, "a.bias": nn.UninitializedParameter()}, {}, "no values yet at 'a.bias'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(given, options, said):
    """The error has the function and the value."""
    with pytest.raises(ValueError, match=f"{WHO}.*{said}"):
        load_state_dict(PARAMS, given, **options)


@pytest.mark.parametrize("params", [fn.Linear(3, 2), 3, "weights"])
def test_params_that_are_no_tree_are_refused(params):
    """An example is a net instead of its params."""
    with pytest.raises(ValueError, match=f"{WHO}params must be a tree of tensors, as net.init returns, got"):
        load_state_dict(params, STATE)


def test_whole_numbers_in_floats_are_counts():
    """An example is a module whose buffers were cast."""
    assert int(load_state_dict(PARAMS, {**STATE, "n": torch.tensor(5.0, dtype=torch.float64)})["n"]) == 5
