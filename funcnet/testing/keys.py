"""Keys: a guard against using a key twice, which gives the same random numbers twice."""

from collections.abc import Iterator
from contextlib import contextmanager

from funcnet.errors import value_error
from funcnet.kernels.tracing import is_plain
from funcnet.random.keys import Key, draw_watcher


@contextmanager
def forbid_key_reuse() -> Iterator[None]:
    """Raise if a key is used twice, for sampling or for splitting, within a ``with`` block.

    Using a key twice gives the same numbers twice: two layers drop the same units, or the noise repeats at each step. Derive new
    keys with ``split`` or ``fold_in``.

    Nets that recompute (``remat``, ``scan`` with checkpoints, runs of ``reversible``) use the same keys again in their backward
    pass by design; put only their forward pass into the block. Keys in compiled code, under ``torch.func`` and on the meta device
    are not checked. A block only sees its thread; with nested blocks, the outer block also sees the uses in the inner block.

    Raises:
        ValueError: At the second use of a key.

    >>> from funcnet import random
    >>> with forbid_key_reuse():
    ...     one, other = random.split(0)
    ...     noise = random.normal(one, (2,)) + random.normal(other, (2,))
    >>> try:
    ...     with forbid_key_reuse():
    ...         noise = random.normal(one, (2,)) + random.uniform(one, (2,))
    ... except ValueError as error:
    ...     print(str(error).split(", got")[0])
    forbid_key_reuse: each key must be used only once; split it, or fold a number in
    """
    seen: set[int] = set()
    around = draw_watcher.get()

    def watch(rng: Key) -> None:
        if around is not None:
            around(rng)
        if not is_plain(rng):
            return
        word = int(rng)
        if word in seen:
            rule = "each key must be used only once; split it, or fold a number in"
            raise value_error("forbid_key_reuse", rule, f"{word} again")
        seen.add(word)

    token = draw_watcher.set(watch)
    try:
        yield
    finally:
        draw_watcher.reset(token)
