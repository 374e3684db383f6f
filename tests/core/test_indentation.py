"""How values print: one call on one line, or over indented lines, that evaluates to the value."""

import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet.indentation import WIDTH, indented

BLOCKS = fn.serial(fn.Linear(4, 8), *[fn.transformer_encoder_block(8, 2, 16) for _ in range(3)], fn.Linear(8, 4))

PRINTED = """\
serial(
    Linear(in_features=3, out_features=3),
    residual(Linear(in_features=3, out_features=3)),
    rearrange('n (h w), c -> n c h w', h=4)
)"""


def test_a_deep_net_prints_over_indented_lines() -> None:
    """Each line has one item; brackets within strings do not count."""
    net = fn.serial(fn.Linear(3, 3), fn.residual(fn.Linear(3, 3)), fn.Identity())
    text = repr(net).replace("Identity()", "rearrange('n (h w), c -> n c h w', h=4)")
    assert indented(text) == PRINTED
    assert str(BLOCKS).splitlines()[1:3] == ["    Linear(in_features=4, out_features=8),", "    TransformerBlock("]
    assert max(map(len, str(BLOCKS).splitlines())) <= WIDTH


def test_what_fits_on_a_line_stays_there() -> None:
    """``repr`` stays on one line, for files and errors."""
    assert str(fn.serial(fn.Linear(3, 3), fn.Tanh())) == "serial(Linear(in_features=3, out_features=3), Tanh())"
    assert "\n" not in repr(BLOCKS)
    assert str(fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(lr=0.1))).count("\n") == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(repr(case.layer)) > WIDTH])
def test_every_long_print_is_the_same_expression(name: str) -> None:
    """The two forms differ only in white space between items."""
    text = repr(CASES[name].layer)
    lines = indented(text).splitlines()
    joined = " ".join(line.strip() for line in lines)
    for opening, closing in ("()", "[]", "{}"):
        joined = joined.replace(f"{opening} ", opening).replace(f" {closing}", closing)
    assert joined == text
    assert len(lines) > 2


def test_a_print_over_lines_evaluates_to_the_value() -> None:
    """Composed, named, wrapped and graph nets are tried."""
    wide = fn.serial(**{"in": fn.Linear(4, 8), "out": BLOCKS})
    wired = fn.graph("x", h=(BLOCKS, "x"), y=(fn.Add(), "h", "x"))
    for net in (BLOCKS, wide, wired, fn.tied(wide, ("in.weight", "out.0.weight")), fn.branch(BLOCKS, BLOCKS)):
        assert "\n" in str(net)
        assert eval(str(net), vars(fn)) == net


@pytest.mark.parametrize("text", ["a" * 100, "f(" * 60 + ")" * 59, ")" * 100, "f()" + "g" * 100])
def test_text_without_items_to_break_stays_unchanged(text: str) -> None:
    """Text with no brackets, unbalanced ones or empty ones does not change."""
    assert indented(text) == text


def test_a_tuple_of_one_keeps_its_comma() -> None:
    """Without the comma the brackets would enclose an expression."""
    assert eval(indented(f"({'1 + ' * 50}1,)")) == (51,)


def test_an_error_names_the_layer_on_one_line() -> None:
    """The layer is on one line, however long its repr is."""
    with pytest.raises(ValueError, match=r"^channels_last\(serial\(.*: x must have an axis 1, got .*\Z") as caught:
        fn.channels_last(BLOCKS)(BLOCKS.init(0), torch.ones(()))
    assert "\n" not in str(caught.value)


def test_residual_prints_as_residual() -> None:
    """Its shortcut is printed too; other sums of branches print as branches."""
    one, two = fn.Linear(3, 3), fn.Linear(3, 3, bias=False)
    assert repr(fn.residual(one)) == f"residual({one!r})"
    assert repr(fn.residual(one, two)) == f"residual({one!r}, {two!r})"
    assert repr(fn.branch(one, two, merge=fn.Add())) == f"branch({one!r}, {two!r}, merge=Add())"
    assert repr(fn.parallel(one, two)) == f"parallel({one!r}, {two!r})"
    for net in (fn.residual(one), fn.residual(one, two), fn.residual(fn.residual(two))):
        assert eval(repr(net), vars(fn)) == net
