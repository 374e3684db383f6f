"""Helpers of the small examples: options, digits, and the folder of pictures."""

import importlib

import pytest
import torch
from matplotlib import pyplot as plt

import funcnet as fn
from examples import common


@pytest.mark.parametrize("name", ["siamese", "ensemble", "private", "lora", "saliency"])
def test_the_examples_have_help_and_refuse_to_do_nothing(name, capsys):
    """--help names the options, and 0 epochs are a usage error."""
    main = importlib.import_module(f"examples.{name}").main
    for arguments, code in ((["--help"], 0), (["--epochs", "0"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    out, error = capsys.readouterr()
    assert all(option in out for option in ("--epochs", "--seed", "--out"))
    assert "--epochs must be at least 1, got 0" in error


def test_the_digits_are_parted_by_the_key():
    """All 1797 appear once, in an order determined by the key; pixels are between 0 and 1."""
    (images, labels), (held, held_labels) = common.digits(fn.key(1))
    assert (len(images), len(labels), len(held), len(held_labels)) == (1437, 1437, 360, 360)
    everything = torch.cat((images, held)).flatten(1)
    again = torch.cat([part[0] for part in common.digits(fn.key(2), test=100)]).flatten(1)
    assert torch.equal(everything.sum(1).sort().values, again.sum(1).sort().values)
    assert not torch.equal(everything, again)
    assert (float(everything.min()), float(everything.max())) == (0.0, 1.0)


def test_a_picture_is_saved_where_the_options_say(tmp_path, capsys):
    """The folder is created."""
    options = common.arguments("A doc.", ["--out", str(tmp_path / "new"), "--seed", "3"], epochs=2)
    assert (options.epochs, options.seed) == (2, 3)
    common.save(plt.subplots()[0], options, "name")
    assert (tmp_path / "new" / "name.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"picture: {tmp_path / 'new' / 'name.png'}\n"
