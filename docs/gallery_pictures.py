"""The pictures of the gallery: run the examples, and keep each picture as a small file in docs/_static/gallery.

    python docs/gallery_pictures.py                 all of them: a quarter of an hour on one core
    python docs/gallery_pictures.py digits flow     only these

Needs the extra `examples`. A picture is at most 1000 pixels wide and has at most 128 colors.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "_static" / "gallery"
WIDTH, COLORS = 1000, 128


def names() -> list[str]:
    """Return the names of the examples that the gallery shows with a picture."""
    return re.findall(r"_static/gallery/(\w+)\.png", (ROOT / "docs" / "gallery.md").read_text())


def shrunk(picture: Path, kept: Path) -> None:
    """Save a picture with fewer pixels and colors."""
    with Image.open(picture) as image:
        size = (min(WIDTH, image.width), round(image.height * min(1.0, WIDTH / image.width)))
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(kept, optimize=True)


def draw(name: str, out: Path) -> None:
    """Run an example with its default settings, and keep its picture."""
    subprocess.run([sys.executable, "-m", f"examples.{name}", "--out", str(out)], cwd=ROOT, check=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    shrunk(out / f"{name}.png", KEPT / f"{name}.png")


def main(arguments: list[str] | None = None) -> None:
    """Draw the requested pictures."""
    parser = argparse.ArgumentParser(prog="docs/gallery_pictures.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())} (all)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder for the examples' own pictures")
    given = parser.parse_args(arguments)
    for name in given.names or names():
        draw(name, given.out.resolve())


if __name__ == "__main__":
    main()
