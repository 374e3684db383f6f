"""The galleries: every example that draws a picture is shown with its command, and its picture exists and is small."""

import re
from pathlib import Path

import pytest
from PIL import Image

from docs import gallery_pictures

ROOT = Path(__file__).parents[2]
GALLERY = (ROOT / "docs" / "gallery.md").read_text()
REPORTS = (ROOT / "docs" / "gallery_reports.md").read_text()


def test_every_example_is_shown():
    """Each file of the folder that is a program has a picture, or is in the table."""
    programs = [path.stem for path in (ROOT / "examples").glob("*.py") if "__main__" in path.read_text()]
    assert len(programs) > 15
    assert [name for name in programs if f"(../examples/{name}.py)" not in GALLERY] == []


@pytest.mark.parametrize("name", gallery_pictures.names())
def test_an_entry_is_complete(name):
    """An entry has a picture, two or three sentences, its command, and a link to its file."""
    section = next(part for part in GALLERY.split("\n### ") if f"gallery/{name}.png" in part)
    text = section.split("\n\n")[2]
    assert 2 <= len(re.findall(r"[.:](?: |$)", text)) <= 4
    assert re.search(rf"^python (-m examples\.{name}|examples/{name}\.py)$", section, re.MULTILINE)
    assert f"(../examples/{name}.py)" in section


@pytest.mark.parametrize("name", ["pychrot", "ten_folds", "hotgrad", "eighteen_networks", "twenty_runs"])
def test_a_report_is_complete(name):
    """Each of the five has the same parts."""
    section = next(part for part in REPORTS.split("\n## ") if f"results/{name}/" in part)
    (picture,) = re.findall(r"\]\((\S+\.png)\)", section)
    assert (ROOT / "docs" / picture).is_file()
    assert f"python -m examples.reports --only {name}" in section
    assert f"(../examples/reports/{name}.py)" in section


def test_the_pictures_are_small():
    """Each is below 150 kB, and all together are below 1.5 MB."""
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "_static" / "gallery").iterdir()}
    assert sorted(sizes) == sorted(f"{name}.png" for name in gallery_pictures.names())
    assert max(sizes.values()) < 150_000
    assert sum(sizes.values()) < 1_500_000


def test_a_picture_is_shrunk(tmp_path):
    """The picture gets the maximal width, keeps its proportions, and has few colors."""
    Image.effect_noise((2000, 1000), 50).convert("RGB").save(tmp_path / "big.png")
    gallery_pictures.shrunk(tmp_path / "big.png", tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (1000, 500)
        assert len(small.getcolors()) <= 128
