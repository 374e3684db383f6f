"""Signatures in the reference: types as written, defaults as values, stars before keyword-only arguments."""

import attrs
import pytest

import funcnet as fn
from docs._ext import public_names
from docs._ext.api_signatures import shown_default, signature_of

CALLABLE = {name: value for name, value in public_names.documented().items() if public_names.kind(value) in ("class", "function")}


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        (
            fn.Linear,
            ('(in_features: Size, out_features: int, bias: bool = True, initializer: str | Initializer = "xavier_normal")', None),
        ),
        (fn.serial, ("(*layers: Layer, **named: Layer)", "Serial")),
        (fn.key, ("(seed: int)", "Key")),
        (fn.Layer.vjp, ("(params: Params, cache: Cache, gy: Any)", "tuple[Grads, Any]")),
    ],
)
def test_a_signature_is_that_of_the_source(value, signature):
    """A class, functions, and a method without ``self`` are tried."""
    assert signature_of(value) == signature


def test_a_star_is_before_arguments_for_keywords():
    """There is only one star."""
    assert ", *, epochs: int, batch_size: int | None = None, " in signature_of(fn.fit)[0]
    assert "*, " not in signature_of(fn.serial)[0]


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ("a", '"a"'),
        (1e-8, "1e-08"),
        (None, "None"),
        (fn.Constant(0.5), "Constant(value=0.5)"),
        (len, "len"),
        (lambda: 0, "..."),
        (object(), "..."),
        (attrs.NOTHING, "..."),
    ],
)
def test_a_default_is_what_one_would_pass(default, text):
    """Values that only the package can make are shown as dots."""
    assert shown_default(default) == text


@pytest.mark.parametrize("name", CALLABLE)
def test_no_signature_shows_an_address_or_a_module(name):
    """Signatures are also short enough to read."""
    shown, returned = signature_of(CALLABLE[name])
    text = f"{shown} {returned}"
    assert not any(sign in text for sign in ("<", "0x", "NOTHING", "funcnet.", "typing.", "factory"))
