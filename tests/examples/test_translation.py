"""The translation example, run small: it learns, its German is correct, and the picture is saved."""

import importlib
import re

import torch

translation = importlib.import_module("examples.translation")

SPOKEN = {
    1: "eins",
    11: "elf",
    16: "sech zehn",
    17: "sieb zehn",
    21: "ein und zwanzig",
    60: "sechzig",
    101: "ein hundert eins",
    742: "sieben hundert zwei und vierzig",
    1000: "ein tausend",
    101_001: "ein hundert ein tausend eins",
    586_913: "fünf hundert sechs und achtzig tausend neun hundert drei zehn",
}


def test_numbers_are_spoken_as_in_german():
    """The targets are padded at the end."""
    source, mask, target = translation.encoded([*SPOKEN])
    words = [[translation.WORDS[word] for word in row] for row in target.tolist()]
    assert [" ".join(row[1 : row.index("end")]) for row in words] == [*SPOKEN.values()]
    assert all(row[0] == "start" and set(row[row.index("end") + 1 :]) <= {"padding"} for row in words)
    assert mask[:, 0, 0].sum(1).tolist() == [len(str(n)) for n in SPOKEN]
    assert [int("".join(str(digit - 1) for digit in row if digit)) for row in source.tolist()] == [*SPOKEN]


def test_held_out_numbers_are_no_training_numbers():
    """Both have 1 to 6 digits."""
    drawn = {held_out: translation.numbers(0, 600, held_out=held_out) for held_out in (True, False)}
    assert {held_out: {n % 7 == 3 for n in ns} for held_out, ns in drawn.items()} == {True: {True}, False: {False}}
    assert {len(str(n)) for n in drawn[True]} == {len(str(n)) for n in drawn[False]} == {1, 2, 3, 4, 5, 6}


def test_writing_step_by_step_gives_the_likeliest_words():
    """Decoding with the carry gives the output of the whole net for the words so far."""
    params = translation.net.init(0)
    source, mask, _ = translation.encoded([7, 4321, 999_999])
    words = translation.written(params, source, mask)
    before = torch.cat((torch.ones(3, 1, dtype=torch.int64), words[:, :-1]), 1)
    assert torch.equal(translation.net(params, (source, before, mask)).argmax(1), words)


def test_the_translator_learns(tmp_path, monkeypatch, capsys):
    """After 100 steps far more held-out numbers are right than by chance, and the picture is saved."""
    monkeypatch.setattr(translation, "TEST", 100)
    translation.main(["--steps", "100", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert float(re.search(r"every word right +(\S+)", out).group(1)) > 0.3
    assert (tmp_path / "translation.png").read_bytes().startswith(b"\x89PNG")
