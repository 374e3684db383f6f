"""The font of formulas: every sign in docstrings and pages is in it, at one width."""

from pathlib import Path

from fontTools.ttLib import TTFont

ROOT = Path(__file__).parents[2]
FONT = TTFont(ROOT / "docs" / "_static" / "formulas.woff")


def test_every_sign_is_in_the_font():
    """A sign that is missing here would come from another font and move the columns: enter it in docs/formula_font.py."""
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
    """Combining ones too, which the shaping of text then puts over the sign before."""
    assert len({FONT["hmtx"][name][0] for name in FONT.getBestCmap().values()}) == 1


def test_the_license_is_beside_it():
    """As it demands."""
    assert "Bitstream" in (ROOT / "docs" / "_static" / "LICENSE_DEJAVU").read_text()
