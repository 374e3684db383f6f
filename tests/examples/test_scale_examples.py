"""The examples for several workers, run small: two workers print the same as one process, and resume."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch.distributed as dist
from distributed.launching import run

import funcnet as fn
from examples import characters
from examples.scale import characters as scale_characters
from examples.scale import pipeline, tensor_parallel
from funcnet import distributed

ROOT = Path(__file__).parents[2]
SMALL = {
    "text": characters.text[:20_000],
    "net": fn.serial(
        fn.Embedding(len(characters.alphabet), 16),
        fn.transformer_encoder(16, 2, 1, is_causal=True, rotary=fn.RotaryEmbedding(8)),
        fn.Linear(16, len(characters.alphabet)),
        fn.Flatten(0, 1),
    ),
}
"""A part of the text, and a small net."""

CHARACTERS = ["--steps", "4", "--batch", "3", "--sample", "3"]


def printed(main, *arguments):
    """Run an example in the current process group, with a small net and part of the text, and return this worker's output."""
    out = io.StringIO()
    group = {"init_process_group": mock.DEFAULT, "destroy_process_group": mock.DEFAULT}
    with mock.patch.multiple(dist, **group), mock.patch.multiple(characters, **SMALL), redirect_stdout(out):
        main([*arguments])
    return out.getvalue()


def numbers(out):
    """Return the lines with measured numbers."""
    return re.findall(r"^step .*|^transformer .*|^held out .*|^test accuracy .*", out, re.MULTILINE)


def of_two_workers(folder):
    """Return the output of each example on this worker."""
    shards = {shard: ["--shard", shard, "--out", f"{folder}/{shard}"] for shard in scale_characters.SHARD}
    found = {shard: printed(scale_characters.main, *CHARACTERS, *words) for shard, words in shards.items()}
    found["pipeline"] = printed(pipeline.main, "--steps", "5", "--microbatches", "4", "--schedule", "zero_bubble")
    found["tensor_parallel"] = printed(tensor_parallel.main, "--steps", "2", "--batch", "2")
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the output of two workers, by rank and example."""
    folder = tmp_path_factory.mktemp("scale")
    return folder, run(2, of_two_workers, str(folder))


def alone(main, monkeypatch, capsys, *arguments):
    """Return the output of an example in a single process."""
    for name, value in SMALL.items():
        monkeypatch.setattr(characters, name, value)
    main([*arguments])
    return capsys.readouterr().out


def test_the_characters_of_two_workers_are_those_of_one(two, tmp_path, monkeypatch, capsys):
    """Every division is tried; only rank 0 prints, writes the sample and removes the checkpoints."""
    folder, (first, second) = two
    expected = alone(scale_characters.main, monkeypatch, capsys, *CHARACTERS, "--out", str(tmp_path))
    assert len(numbers(expected)) == 5
    for shard in scale_characters.SHARD:
        assert numbers(first[shard]) == numbers(expected)
        assert "workers                2\n" in first[shard]
        assert [path.name for path in (folder / shard).rglob("*") if path.is_file()] == ["scale-characters.txt"]
        assert second[shard] == ""


def test_a_pipeline_and_divided_matrices_learn_what_one_process_learns(two, monkeypatch, capsys):
    """The schedule is drawn, and each worker has fewer params; the embedding of an odd alphabet stays whole."""
    _, (first, second) = two
    for name, main, arguments in (
        ("pipeline", pipeline.main, ["--steps", "5", "--microbatches", "4"]),
        ("tensor_parallel", tensor_parallel.main, ["--steps", "2", "--batch", "2"]),
    ):
        assert numbers(first[name]) == numbers(alone(main, monkeypatch, capsys, *arguments)) != []
        assert second[name] == ""
    assert len(re.findall(r"^stage \d  ", first["pipeline"], re.MULTILINE)) == 2
    whole, part = map(float, re.search(r"params: (\S+) MB, of which a worker holds (\S+) MB", first["tensor_parallel"]).groups())
    assert part < 0.8 * whole


def interrupted(folder):
    """Return the output of two workers when a training is interrupted after its second save."""
    saved, save = [], distributed.Checkpoints.save

    def second_fails(kept, step, *rest):
        if saved:
            raise KeyboardInterrupt
        saved.append(step)
        save(kept, step, *rest)

    arguments = [*CHARACTERS, "--shard", "optimizer", "--out", folder]
    with mock.patch.object(scale_characters, "EVERY", 1):
        with mock.patch.object(distributed.Checkpoints, "save", second_fails), pytest.raises(KeyboardInterrupt):
            printed(scale_characters.main, *arguments)
        return printed(scale_characters.main, *arguments)


def test_two_workers_resume_an_interrupted_training(two, tmp_path):
    """The workers continue from the checkpoint with the same numbers."""
    again, _ = run(2, interrupted, str(tmp_path))
    assert "continuing after step 1 of" in again
    assert numbers(again) == numbers(two[1][0]["optimizer"])[1:]


@pytest.mark.parametrize("script", ["characters", "pipeline", "tensor_parallel"])
def test_a_script_finds_the_examples(script, monkeypatch):
    """``torchrun`` and ``python`` add the folder of the script to the path; the root replaces it."""
    folder = ROOT / "examples" / "scale"
    monkeypatch.setattr(sys, "path", [str(folder), *[path for path in sys.path if Path(path) != ROOT]])
    runpy.run_path(str(folder / f"{script}.py"), run_name="script")
    assert sys.path[0] == str(ROOT)
