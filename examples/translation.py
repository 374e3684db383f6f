"""Translation: a transformer reads numbers aloud in German, which puts ones before tens: 742 is sieben hundert zwei und vierzig.

The source is the digits of a number below a million, padded at the end; the target is its words. Every seventh number is held
out. To write, the net chooses the most likely word at each step; a carry holds the keys and values of the digits and of the
previous words. The picture shows the attention of the decoder to the digits while it writes.

    python -m examples.translation --steps 400 --seed 0 --out out
"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, finished, in_epochs, save
from funcnet.contract import Params
from funcnet.random.keys import Key

WIDTH, HEADS, BATCH, TEST, DIGITS, STEPS = 64, 4, 128, 600, 6, 12
SMALL = ["", *["ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]]
TENS = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
WORDS = ["padding", "start", "end", *SMALL[1:], "eins", "sech", "sieb", *TENS, "und", "hundert", "tausend"]

# Rotations encode the decoder's positions; the encoder's positions are embedded.
translator = fn.transformer(WIDTH, HEADS, 2, 2, 2 * WIDTH, rotary=fn.RotaryEmbedding(WIDTH // HEADS))
net = fn.graph(
    *("source", "target", "mask"),
    digits=(fn.serial(fn.Embedding(11, WIDTH), fn.LearnedPositions(DIGITS, WIDTH)), "source"),
    words=(fn.Embedding(len(WORDS), WIDTH), "target"),
    translator=(translator, "digits", "words", "mask"),
    scores=(fn.serial(fn.Linear(WIDTH, len(WORDS)), fn.Transpose(1, 2)), "translator"),
)
loss = fn.CrossEntropy(ignore_index=0)


def spoken(n: int) -> list[str]:
    """Return the words of a number below a million."""
    if n >= 1000:
        return [*spoken(n // 1000), "tausend", *spoken(n % 1000)]
    words, tens, ones = [SMALL[n // 100], "hundert"] if n >= 100 else [], n % 100 // 10, n % 10
    if tens > 1:
        return words + ([SMALL[ones], "und"] if ones else []) + [TENS[tens - 2]]
    if n % 100 > 12:
        return [*words, {6: "sech", 7: "sieb"}.get(ones, SMALL[ones]), "zehn"]
    return words + ([SMALL[n % 100]] if n % 100 else [])


def encoded(numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the digits (N, 6) and their mask, and the words (N, 13), from start to end."""
    words = [[*spoken(n)[:-1], "eins" if spoken(n)[-1] == "ein" else spoken(n)[-1]] for n in numbers]
    rows = [[int(digit) + 1 for digit in str(n)] for n in numbers], [[1, *map(WORDS.index, one), 2] for one in words]
    source, target = (
        torch.tensor([row + [0] * (size - len(row)) for row in some])
        for some, size in zip(rows, (DIGITS, STEPS + 1), strict=True)
    )
    return source, fn.padding_mask((source > 0).sum(1), DIGITS), target


def numbers(rng: Key, count: int, *, held_out: bool) -> list[int]:
    """Draw numbers of 1 to 6 digits, each length equally often; numbers with remainder 3 modulo 7 are held out."""
    lengths, places = fn.split(rng)
    most = 10.0 ** fn.random.randint(lengths, (10 * count,), 1, DIGITS + 1)
    drawn = (1 + fn.random.uniform(places, most.shape, dtype=torch.float64) * (most - 1)).long()
    return drawn[(drawn % 7 == 3) == held_out][:count].tolist()


def trained(steps: int, rng: Key, checkpoints: fn.Checkpoints | None = None) -> fn.Fit:
    """Train on new numbers at each step."""
    first, drawn = fn.split(rng)

    def batch(i: int) -> tuple[Any, Tensor]:
        source, mask, target = encoded(numbers(fn.fold_in(drawn, i), BATCH, held_out=False))
        return (source, target[:, :-1], mask), target[:, 1:]

    opt = fn.AdamW(lr=fn.WarmupCosineSchedule(3e-3, min(50, steps), steps + 1))
    batches, epochs = in_epochs(batch, steps)
    return fn.fit(net, loss, opt, batches, epochs=epochs, key=first, checkpoints=checkpoints)


def written(params: Params, source: Tensor, mask: Tensor) -> Tensor:
    """Write the most likely words one by one, (N, 12)."""
    digits = net["digits"](params["digits"], source)
    carry = translator.init_carry(len(source), STEPS, params=params["translator"], source=(digits, mask))
    words = [torch.ones(len(source), 1, dtype=torch.int64)]
    for _ in range(STEPS):
        y, carry = translator.decode(params["translator"], net["words"](params["words"], words[-1]), carry)
        words.append(net["scores"](params["scores"], y).argmax(1))
    return torch.cat(words[1:], 1)


def attention(params: Params, source: Tensor, mask: Tensor, words: Tensor) -> Tensor:
    """Return the attention of each word to each digit, (N, 12, 6), averaged over heads and blocks."""
    seen = fn.intermediates(net, params, (source, words, mask))
    memory, found = seen["translator.encoder.norm"], []
    for i, p in enumerate(params["translator"]["decoder"]["layers"]):
        path = f"translator.decoder.layers.{i}"
        look = fn.at(net, f"{path}.multihead_attn").replace(need_weights=True)
        found.append(look(p["multihead_attn"], (seen[f"{path}.norm2"], memory, memory, mask))[1])
    return torch.stack(found).mean(0)


def picture(params: Params, chosen: Sequence[int]) -> Figure:
    """Draw the attention of the decoder to the digits for each word it writes."""
    source, mask, target = encoded(chosen)
    weights = attention(params, source, mask, target[:, :-1])
    figure, panels = plt.subplots(1, len(chosen), figsize=(3.3 * len(chosen), 4.2), layout="constrained")
    image: Any = None
    for panel, n, rows, words in zip(panels, chosen, weights, target[:, 1:].tolist(), strict=True):
        count, names = words.index(2) + 1, [WORDS[word] for word in words]
        image = panel.imshow(rows[:count, : len(str(n))].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(str(n))), str(n))
        panel.set_yticks(range(count), names[:count])
    panels[0].set(xlabel="digit read", ylabel="word written")
    figure.colorbar(image, ax=panels, label="attention weight, mean over heads and blocks")
    figure.suptitle("attention of each written word to the digits")
    return figure


def main(given: list[str] | None = None) -> None:
    """Train, write held-out numbers, and save the picture."""
    options = arguments(__doc__, given, steps=400)
    fit_key, test = fn.split(fn.key(options.seed))
    kept = checkpoints(options, "translation")
    params, _, history = trained(options.steps, fit_key, kept)
    print(f"training  {sum(history['seconds']):.1f} s, loss {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    with torch.inference_mode():
        chosen = numbers(test, TEST, held_out=True)
        source, mask, target = encoded(chosen)
        words = written(params, source, mask)
        right = ((words == target[:, 1:]) | (target[:, 1:] == 0)).all(1)
        for n, row in zip(chosen[:3], words.tolist(), strict=False):
            print(f"{n:7}  {' '.join([WORDS[word] for word in row[: row.index(2) if 2 in row else STEPS]])}")
        print(f"held-out numbers, every word right  {float(right.double().mean()):.3f}")
        save(picture(params, (21, 3742, 586913)), options, "translation")
    finished(kept)


if __name__ == "__main__":
    main()
