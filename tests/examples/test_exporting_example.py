"""The example of exported steps."""

from examples import exporting


def test_training_goes_on_without_funcnet(tmp_path, capsys):
    """The losses of the program match the eager step, up to rounding."""
    exporting.main(["--epochs", "1", "--compiled", "0", "--out", str(tmp_path)])
    *_, eager, program = capsys.readouterr().out.splitlines()
    assert eager.startswith("eager")
    assert program.startswith("program, without funcnet")
    assert float(program.split()[-1]) < 1e-5
