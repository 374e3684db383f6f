"""Damage: flipped bits and truncation of the newest file, in every part of the format."""

import warnings
from collections.abc import Callable
from pathlib import Path

import funcnet as fn
from examples.faults.judging import Judge
from examples.faults.table import Row, row_of


def parts(path: Path) -> dict[str, range]:
    """Return the bytes of each part of a file, by name, as ``funcnet/saving/file_format.py`` describes them."""
    content = path.read_bytes()
    header = range(32, 32 + int.from_bytes(content[16:24], "little"))
    padding = range(header.stop, -(-header.stop // 64) * 64)
    found = {
        "the magic number": range(8),
        "the version": range(8, 12),
        "the checksum of the header": range(12, 16),
        "the lengths": range(16, 32),
        "the header": header,
        "the first padding": padding,
        "the tensors": range(padding.stop, len(content) - 4),
        "the last checksum": range(len(content) - 4, len(content)),
    }
    return {name: places for name, places in found.items() if places}


def flips(judge: Judge, count: int) -> list[Row]:
    """Flip ``count`` bits in every part of the newest file, one at a time."""

    def flipped(content: bytes, at: int) -> bytes:
        return content[:at] + bytes([content[at] ^ (1 << judge.random.randrange(8))]) + content[at + 1 :]

    return _damages(judge, count, "A bit flipped in", flipped)


def cuts(judge: Judge, count: int) -> list[Row]:
    """Cut the newest file off at ``count`` places in every part."""
    return _damages(judge, count, "A file cut off in", lambda content, at: content[:at])


def _damages(judge: Judge, count: int, what: str, damaged: Callable[[bytes, int], bytes]) -> list[Row]:
    """Damage the newest file and load after each damage; after the last one in every part, repeat the call of ``fit``."""
    begun = judge.begun()
    path = begun / f"step-{fn.Checkpoints(begun).steps()[-1]:09d}.fn"
    content, rows = path.read_bytes(), []
    for name, places in parts(path).items():
        tries = [damaged(content, judge.random.choice(places)) for _ in range(count)]
        lost = [_losses(path, one) for one in tries]
        lost[-1] += judge.losses_again(judge.new_folder(like=begun))
        path.write_bytes(content)
        rows.append(row_of(f"{what} {name}", lost, "the previous checkpoint is loaded, with a warning"))
    return rows


def _losses(path: Path, content: bytes) -> list[str]:
    """Write the damaged file, and describe violations: loading must warn once and return the previous checkpoint."""
    path.write_bytes(content)
    checkpoints = fn.Checkpoints(path.parent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = checkpoints.load()
    before = checkpoints.load(checkpoints.steps()[-2])
    found = ["another tree was loaded"] * (
        loaded["steps"] != before["steps"] or not fn.tree.equal(loaded["params"], before["params"])
    )
    return found + [f"{len(caught)} warnings"] * ([path.name in str(one.message) for one in caught] != [True])
