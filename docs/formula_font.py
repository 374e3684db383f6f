"""The font of formulas and code: mathematical characters of DejaVu Sans Mono, and others that it lacks, all of one width.

The fonts of phones and many desktops lack ᵢ, ⱼ or ℓ and fall back to a font of another width, which breaks the columns of a
formula. The font comes from the copy of DejaVu in matplotlib, so nothing is downloaded. Its license is in the same folder.

    python docs/formula_font.py            writes docs/_static/formulas.woff and docs/_static/LICENSE_DEJAVU
"""

import shutil
from pathlib import Path

import matplotlib as mpl
from fontTools.misc.transform import Transform
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

STATIC = Path(__file__).parent / "_static"
FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
RANGES = [
    *[(0x20, 0x17F), (0x2B0, 0x2FF), (0x300, 0x345), (0x370, 0x3FF), (0x1D2C, 0x1DBF), (0x1E00, 0x1EFF), (0x2000, 0x206F)],
    *[(0x2070, 0x209F), (0x2100, 0x214F), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2308, 0x230B), (0x2500, 0x257F)],
    *[(0x25A0, 0x25FF), (0x2713, 0x2717), (0x27E8, 0x27EB), (0x2C7C, 0x2C7D), (0x141F, 0x141F)],
]


def wanted() -> set[int]:
    """Return the code points of the font."""
    return {point for first, last in RANGES for point in range(first, last + 1)}


def add_missing(font: TTFont, other: TTFont) -> None:
    """Add the characters that only the proportional font has, made as narrow as the others."""
    ours, theirs = font.getBestCmap(), other.getBestCmap()
    width = font["hmtx"]["x"][0]
    for point in sorted(wanted() & theirs.keys() - ours.keys()):
        name = f"uni{point:04X}"
        add_glyph(font, name, other, theirs[point], width)
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap[point] = name


def add_glyph(font: TTFont, name: str, other: TTFont, glyph: str, width: int) -> None:
    """Draw a glyph of another font centered in this width, narrowed if it is wider."""
    glyphs = other.getGlyphSet()
    outline = DecomposingRecordingPen(glyphs)
    glyphs[glyph].draw(outline)
    scale = min(1.0, width / glyphs[glyph].width) if glyphs[glyph].width else 1.0
    shift = (width - scale * glyphs[glyph].width) / 2
    pen = TTGlyphPen(None)
    outline.replay(TransformPen(pen, Transform(scale, 0, 0, 1, shift, 0)))
    font["glyf"][name] = pen.glyph()
    font["hmtx"][name] = (width, max(0, round(shift)))


def rename(font: TTFont) -> None:
    """Rename the font, as its license requires for modified copies."""
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 6, 16):
            record.string = "Formulas"


def main() -> None:
    """Write the font and its license."""
    font, other = TTFont(FONTS / "DejaVuSansMono.ttf"), TTFont(FONTS / "DejaVuSans.ttf")
    add_missing(font, other)
    options = Options(
        drop_tables=["FFTM"],
        hinting=False,
        layout_features=["mark", "mkmk", "ccmp"],
        name_IDs=[1, 2, 4, 6, 13, 14],
        notdef_outline=True,
    )
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=wanted())
    subsetter.subset(font)
    rename(font)
    font.flavor = "woff"
    font.save(STATIC / "formulas.woff")
    shutil.copy(FONTS / "LICENSE_DEJAVU", STATIC / "LICENSE_DEJAVU")


if __name__ == "__main__":
    main()
