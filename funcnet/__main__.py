"""``python -m funcnet``: the processor, and the option of each choice between kernels that it takes."""

from funcnet.kernels.choices import CHOICES
from funcnet.kernels.processor import this_processor
from funcnet.tables import aligned


def main() -> None:
    """Print the processor and a line for each choice: its name, what it takes here, and its options."""
    rows = [(name, one.describe(one.value), " | ".join(one.options)) for name, one in sorted(CHOICES.items())]
    print(this_processor())
    print()
    print("\n".join(aligned([("choice", "here", "options"), *rows], 3)))


if __name__ == "__main__":
    main()
