"""Keys: a guard against drawing twice from one key, which gives the same numbers twice."""

from collections.abc import Iterator
from contextlib import contextmanager

from funcnet.errors import value_error
from funcnet.kernels.tracing import is_plain
from funcnet.random.keys import Key, draw_watcher


@contextmanager
def forbid_key_reuse() -> Iterator[None]:
    """Raise at the second draw from one key, or the second split of it, within a ``with`` block.

    Two draws from one key give the same numbers: two layers drop the same units, or the noise repeats at each step. Take the keys
    of draws from ``split`` or ``fold_in``.

    Nets that recompute (``remat``, ``scan`` with checkpoints, runs of ``reversible``) draw the same numbers again in their
    backward pass by design; put only their forward pass into the block. Keys in compiled code, under ``torch.func`` and on the
    meta device are not seen. The block applies to its own thread; nested blocks each see all draws inside.

    Raises:
        ValueError: At the second draw from a key.

    >>> from funcnet import random
    >>> with forbid_key_reuse():
    ...     one, other = random.split(0)
    ...     noise = random.normal(one, (2,)) + random.normal(other, (2,))
    >>> try:
    ...     with forbid_key_reuse():
    ...         noise = random.normal(one, (2,)) + random.uniform(one, (2,))
    ... except ValueError as error:
    ...     print(str(error).split(", got")[0])
    forbid_key_reuse: each key may serve one draw; split it, or fold a number in
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
            raise value_error("forbid_key_reuse", "each key may serve one draw; split it, or fold a number in", f"{word} again")
        seen.add(word)

    token = draw_watcher.set(watch)
    try:
        yield
    finally:
        draw_watcher.reset(token)
