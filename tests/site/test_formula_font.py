"""The font of formulas: it has every character in docstrings and pages, with one width."""

from pathlib import Path

from fontTools.ttLib import TTFont

ROOT = Path(__file__).parents[2]
FONT = TTFont(ROOT / "docs" / "_static" / "formulas.woff")


def test_every_sign_is_in_the_font():
    """A missing character would come from another font and shift the columns: add it in docs/formula_font.py."""
    files = [
        *(ROOT / "funcnet").rglob("*.py"),
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
    used = {sign for file in files for sign in file.read_text()} - {"\n", "\t"}
    assert len(used) > 150
    assert sorted(sign for sign in used if ord(sign) not in FONT.getBestCmap()) == []


def test_all_signs_are_of_one_width():
    """Combining characters have the same width; text shaping puts them above the previous character."""
    assert len({FONT["hmtx"][name][0] for name in FONT.getBestCmap().values()}) == 1


def test_the_license_is_beside_it():
    """The license requires it."""
    assert "Bitstream" in (ROOT / "docs" / "_static" / "LICENSE_DEJAVU").read_text()
