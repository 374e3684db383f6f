"""The example of a grid search, run small: every net has a row with its best rate, and the picture is saved."""

import re

from examples import sklearn_grid


def test_every_net_is_searched(tmp_path, capsys, monkeypatch):
    """After three epochs with two rates, validated and tested nets are better than chance, the perceptron by far."""
    monkeypatch.setattr(sklearn_grid, "RATES", [1e-4, 1e-2])
    monkeypatch.delitem(sklearn_grid.NETS, "with dropout")
    sklearn_grid.main(["--epochs", "3", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    rows = {name: re.search(rf"^{name} +(\S+) +([\d.]+) % +([\d.]+) %", out, re.MULTILINE).groups() for name in sklearn_grid.NETS}
    assert {chosen for chosen, _, _ in rows.values()} == {"0.01"}
    assert float(rows["perceptron"][1]) > 85
    assert abs(float(rows["perceptron"][1]) - float(rows["perceptron"][2])) < 10
    assert re.search(r"^sklearn SVC +9\d\.\d %", out, re.MULTILINE)
    assert (tmp_path / "sklearn_grid.png").read_bytes().startswith(b"\x89PNG")
