"""Interrupted examples: the same command continues them, and prints and draws the same as an undisturbed run."""

import importlib
import re

import pytest

import funcnet as fn
from examples import characters, common

SMALL = {
    "flow": ({"POINTS": 400}, ["--epochs", "4"]),
    "translation": ({"TEST": 5, "BATCH": 4}, ["--steps", "20"]),
    "characters": ({"text": characters.text[:3000], "LENGTH": 16, "BATCH": 2}, ["--steps", "10", "--sample", "3"]),
    "maml": ({"STEPS_PER_EPOCH": 2, "TASKS": 2}, ["--epochs", "3"]),
}


def ran(main, arguments, capsys):
    """Run an example, and return its output without times and paths."""
    main(arguments)
    out = capsys.readouterr().out
    return re.sub(r"(training +|MAML +|pretrained +)\d+\.\d+( s)?|^(picture|sample|continuing).*\n", "", out, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_example_continues(name, tmp_path, monkeypatch, capsys):
    """Ctrl-C interrupts the example at the second checkpoint; the checkpoints are deleted at the end."""
    example, (constants, arguments) = importlib.import_module(f"examples.{name}"), SMALL[name]
    for constant, value in constants.items():
        monkeypatch.setattr(example, constant, value)
    saved, save = [], fn.Checkpoints.save

    def interrupted(kept, step, *rest):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(step)
        save(kept, step, *rest)

    undisturbed = ran(example.main, [*arguments, "--out", str(tmp_path / "undisturbed")], capsys)
    again = [*arguments, "--out", str(tmp_path / "again")]
    with monkeypatch.context() as patch:
        patch.setattr(fn.Checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            example.main(again)
    assert len(saved) == len(list((tmp_path / "again" / "checkpoints").rglob("*.fn"))) == 2
    capsys.readouterr()
    assert ran(example.main, again, capsys) == undisturbed
    pictures = [(tmp_path / folder / f"{name}.png").read_bytes() for folder in ("undisturbed", "again")]
    assert pictures[0] == pictures[1]
    assert not (tmp_path / "again" / "checkpoints").exists()


def kept_of(tmp_path, *arguments):
    """Return the checkpoints of an example for the given arguments."""
    return common.checkpoints(common.arguments("A doc.", ["--out", str(tmp_path), *arguments], epochs=2), "name")


def test_every_training_has_its_folder(tmp_path):
    """Another seed or number of epochs is another training; the common folder is deleted with the last one."""
    folders = [kept_of(tmp_path, *words).folder for words in ([], ["--seed", "1"], ["--epochs", "3"])]
    assert [folder.name for folder in folders] == ["name-epochs-2-seed-0", "name-epochs-2-seed-1", "name-epochs-3-seed-0"]
    for words in ([], ["--seed", "1"]):
        kept_of(tmp_path, *words).save(1, {})
    common.finished(kept_of(tmp_path))
    assert kept_of(tmp_path, "--seed", "1").steps() == [1]
    common.finished(kept_of(tmp_path, "--seed", "1"))
    assert not (tmp_path / "checkpoints").exists()


def test_fresh_begins_anew(tmp_path, capsys):
    """``--fresh`` deletes the checkpoints, unless a process is training with them."""
    kept_of(tmp_path).save(1, {})
    kept = kept_of(tmp_path)
    assert kept.steps() == [1]
    assert capsys.readouterr().out == f"continuing the training in {kept.folder}; --fresh starts again\n"
    with kept.locked(), pytest.raises(ValueError, match="train"):
        kept_of(tmp_path, "--fresh")
    assert kept.steps() == [1]
    assert kept_of(tmp_path, "--fresh").steps() == []
    assert capsys.readouterr().out == ""
    kept_of(tmp_path, "--fresh").save(2, {})  # the folder is made again


def test_batches_are_made_step_by_step():
    """There are about ten epochs, of which the last may be smaller."""
    for steps, epochs, sizes in ((20, 10, [2] * 10), (23, 10, [2] * 11 + [1]), (3, 10, [1] * 3), (7, 2, [3, 3, 1])):
        batches, count = common.in_epochs(lambda i: i, steps, epochs)
        made = [[*batches(epoch)] for epoch in range(count)]
        assert [len(one) for one in made] == sizes
        assert [i for one in made for i in one] == [*range(1, steps + 1)]
