"""Rows: a worker's part of a batch."""

from typing import Any

from funcnet import tree
from funcnet.distributed.workers import workers_of
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.transforms.accumulation import row_count


def shard_rows(batch: Tree, group: Any = None) -> Tree:
    """Return this worker's rows of a batch that all workers have.

        rows ⌊n r / size⌋ to ⌊n (r + 1) / size⌋ of n, for rank r

    The shards of all workers, in order, are the batch, so the order of the data does not depend on the number of workers. If a
    batch has fewer rows than there are workers, some shards are empty, which ``data_parallel`` accepts.

    Args:
        batch: A tree of tensors with the same number of rows, such as ``(x, target)``.
        group: The process group; by default all processes.

    Raises:
        ValueError: If leaves have no rows or different numbers of rows, or there is no process group.
    """
    workers = workers_of("shard_rows", group)
    sizes = {row_count(leaf) for leaf in tree.leaves(batch)}
    if len(sizes) != 1 or -1 in sizes:
        raise value_error("shard_rows", "the tensors of a batch must be dense, with the same number of rows", describe(batch))
    (n,) = sizes
    first, end = (n * (workers.rank + i) // workers.size for i in (0, 1))
    return tree.map(lambda leaf: leaf[first:end], batch)
