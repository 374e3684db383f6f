"""Print the tables of extremes and write them to docs/extremes.md; takes about a minute.

python -m examples.extremes
python -m examples.extremes --only activations --out out/extremes.md
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from examples.extremes.judging import judge_all
from examples.extremes.tables import FAMILIES, page, rows_of

PAGE = Path(__file__).parents[2] / "docs" / "extremes.md"


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    new = argparse.ArgumentParser("examples.extremes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="FAMILY", help=", ".join(FAMILIES))
    new.add_argument("--out", type=Path, default=PAGE, help="file for the page (%(default)s)")
    return new.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows, print the page and write it."""
    options = options_of(arguments)
    text = page({family: judge_all(rows_of(family)) for family in options.only})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
