"""The table of faults, in Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEAD = """# Faults

Made by `{command}` with torch {torch}, on the CPU.

A convolutional net with batch norm and dropout trains with AdamW, a schedule and a checkpoint every {every} steps, until a fault
strikes. The training survives if no complete checkpoint is lost, no fault goes unnoticed, and the repeated call ends with the
params, optimizer state and history of an undisturbed training, bit for bit.

In the rows about workers, three workers train another net in a gloo group and save every 4 steps. The group's timeout is a
minute, or 10 seconds if a worker hangs. All must end soon after the timeout at the latest, with an error that names the rank; the
restarted job must end with the same bits.

| fault | tried | survived | lost | what happens |
| --- | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True)
class Row:
    """A fault: the number of tries, the losses in each try, and the effect."""

    fault: str
    tried: int
    lost: Sequence[str]
    happens: str

    def __str__(self) -> str:
        """Write the row."""
        return f"| {self.fault} | {self.tried} | {self.tried - len(self.lost)} | {len(self.lost)} | {self.happens} |"


def row_of(fault: str, tries: Sequence[Sequence[str]], happens: str) -> Row:
    """Make the row of a fault from the losses of each try."""
    return Row(fault, len(tries), ["; ".join(one) for one in tries if one], happens)


def repeated(fault: str, count: int, once: Callable[[], Sequence[str]], happens: str) -> Row:
    """Try a fault ``count`` times, and make its row; ``once`` returns the losses."""
    return row_of(fault, [once() for _ in range(count)], happens)


def page(rows: Sequence[Row], **facts: object) -> str:
    """Write the page: the head, the rows, and the losses."""
    lost = [f"- {row.fault}: {what}\n" for row in rows for what in row.lost]
    return HEAD.format(**facts) + "".join(f"{row}\n" for row in rows) + "".join(["\n## Lost\n\n", *lost] if lost else [])
