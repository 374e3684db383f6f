"""The picture of schedules, run small: the suggested rate trains the net, and every kind of schedule is drawn."""

import re

import funcnet as fn
from examples import schedules
from funcnet.value import parts


def test_the_suggested_rate_trains_the_net(tmp_path, capsys):
    """After three epochs the validation loss has halved, and the picture is saved."""
    schedules.main(["--epochs", "3", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    first, last = map(float, re.search(r"validation loss ([\d.]+) -> ([\d.]+), learning rate", out).groups())
    assert last < first / 2
    assert 0.01 < float(re.search(r"suggestion ([\d.]+)$", out, re.MULTILINE)[1]) < 1.0
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")


def test_every_schedule_is_shown():
    """The exceptions are sums and functions, which the others consist of; rates are between 0 and 1."""
    shown = {type(part) for schedule in schedules.SHOWN.values() for part in parts(schedule)}
    public = {value for value in vars(fn).values() if isinstance(value, type) and issubclass(value, fn.Schedule)}
    assert public - shown == {fn.FormulaSchedule, fn.Schedule, fn.SumSchedule, fn.LambdaSchedule}
    for schedule in schedules.SHOWN.values():
        rates = schedules.rates(schedule)
        assert len(rates) == schedules.STEPS
        assert 0 <= rates.min() < rates.max() <= 1 or type(schedule) is fn.ConstantSchedule
