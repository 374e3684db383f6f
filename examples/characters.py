"""Characters: a causal transformer learns to write like the help texts of Python itself, character by character.

The text is ``pydoc_data.topics``, which is part of every Python: 0.47 million characters, of which the last tenth is held out. A
step uses 32 pieces of 128 characters, and predicts each character from the previous ones in its piece. The baselines are the
frequencies of characters (unigram) and of pairs of characters (bigram) in the training text.

    python -m examples.characters --steps 800 --seed 0 --out out
"""

import re
from pydoc_data import topics
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.contract import Params
from funcnet.random.keys import Key

LENGTH, BATCH, WIDTH, HEADS, BLOCKS, LR = 128, 32, 128, 4, 3, 2e-3
PROMPT = "The "

text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
alphabet = sorted(set(text))
codes = {character: code for code, character in enumerate(alphabet)}
loss = fn.CrossEntropy()

# Rotations of queries and keys encode the positions; the outputs of all pieces form one long list of rows.
net = fn.serial(
    fn.Embedding(len(alphabet), WIDTH),
    fn.transformer_encoder(WIDTH, HEADS, BLOCKS, is_causal=True, rotary=fn.RotaryEmbedding(WIDTH // HEADS)),
    fn.Linear(WIDTH, len(alphabet)),
    fn.Flatten(0, 1),
)


def encoded(words: str) -> Tensor:
    """Return the codes of a text's characters."""
    return torch.tensor([codes[character] for character in words])


def split_text() -> tuple[Tensor, Tensor]:
    """Return the codes of the text: nine tenths for training, and the last tenth."""
    data = encoded(text)
    return data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]


def pieces(data: Tensor, rng: Key, count: int) -> tuple[Tensor, Tensor]:
    """Draw pieces of the text, and for each position the next character."""
    starts = fn.random.permutation(rng, len(data) - LENGTH)[:count]
    rows = data[starts[:, None] + torch.arange(LENGTH + 1)]
    return rows[:, :-1], rows[:, 1:].flatten()


def in_order(data: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return a whole text as batches of consecutive pieces."""
    rows = data[: (len(data) - 1) // LENGTH * LENGTH + 1]
    x, target = rows[:-1].view(-1, LENGTH).split(BATCH), rows[1:].view(-1, LENGTH).split(BATCH)
    return [(part, after.flatten()) for part, after in zip(x, target, strict=True)]


def by_counting(train: Tensor, test: Tensor) -> tuple[float, float]:
    """Return the loss of the unigram and of the bigram model, with add-one smoothing."""
    n = len(alphabet)
    singles = torch.bincount(train, minlength=n).double() + 1
    pairs = torch.bincount(train[:-1] * n + train[1:], minlength=n * n).view(n, n).double() + 1
    bigram = (pairs / pairs.sum(1, keepdim=True)).log()[test[:-1], test[1:]]
    return float(-(singles / singles.sum()).log()[test].mean()), float(-bigram.mean())


def optimizer(steps: int) -> fn.Optimizer:
    """Return the optimizer for ``steps`` training steps."""
    return fn.AdamW(lr=fn.WarmupCosineSchedule(LR, min(100, steps), steps + 1), betas=(0.9, 0.95))


def trained(train: Tensor, test: Tensor, steps: int, rng: Key, checkpoints: fn.Checkpoints | None = None) -> fn.Fit:
    """Train on pieces drawn at each step, and measure the held-out loss ten times."""
    first, drawn = fn.split(rng)
    batches, epochs = common.in_epochs(lambda i: pieces(train, fn.fold_in(drawn, i), BATCH), steps)
    how: dict[str, Any] = {"params": net.init(first), "validation": in_order(test), "checkpoints": checkpoints}
    return fn.fit(net, loss, optimizer(steps), batches, epochs=epochs, key=drawn, **how)


def sample(params: Params, count: int, rng: Key, temperature: float = 0.7) -> str:
    """Write ``count`` characters, each drawn from the net's probabilities after the ``LENGTH`` characters before it."""
    written = encoded(PROMPT)
    with torch.inference_mode():
        for i in range(count):
            scores = net(params, written[-LENGTH:][None])[-1] / temperature
            written = torch.cat((written, fn.random.categorical(fn.fold_in(rng, i), scores)[None]))
    return "".join(alphabet[code] for code in written.tolist())


def nats_of(params: Params, codes: Tensor) -> Tensor:
    """Return the loss of each character after the first ``LENGTH``, predicted from the ``LENGTH`` characters before it."""
    rows = codes.unfold(0, LENGTH + 1, 1)
    with torch.inference_mode():
        losses = loss.replace(reduction="none")(net(params, rows[:, :-1]), rows[:, 1:].flatten())
    return losses.view(-1, LENGTH)[:, -1]


def passage(test: Tensor) -> tuple[Tensor, str]:
    """Return the codes and the words of a held-out paragraph, at most eight lines; ``LENGTH`` codes of its context come first."""
    held_out = "".join(alphabet[code] for code in test.tolist())[LENGTH:]
    paragraphs = [*re.finditer(r"(?<=\n\n)[A-Z].*(\n.+){0,7}", held_out)] or [*re.finditer(r".*(\n.*){0,7}", held_out)][:1]
    found = max(paragraphs, key=lambda one: one[0].count("\n"))
    return test[found.start() : found.end() + LENGTH], found[0]


def draw_passage(panel: Any, words: str, nats: Tensor) -> Any:
    """Draw a text; the higher the loss of a character, the darker its background."""
    lines = words.split("\n")
    grid = torch.full((len(lines), max(map(len, lines))), torch.nan)
    left = iter(nats.tolist())
    for i, line in enumerate(lines):
        for j, character in enumerate(line):
            grid[i, j] = next(left)
            color = "white" if grid[i, j] > 4 else "black"
            panel.text(j, i, character, color=color, ha="center", va="center", family="monospace", size=9)
        next(left, None)  # the end of the line
    panel.set(xticks=[], yticks=[], title="a held-out passage: the loss of each character")
    return panel.imshow(grid.numpy(), cmap="OrRd", vmin=0, vmax=6, aspect="auto")


def picture(params: Params, history: fn.History, counted: dict[str, float], test: Tensor) -> Any:
    """Draw the losses beside those of the counting models, and which characters of a passage the net finds hard to predict."""
    figure, (curves, panel) = plt.subplots(2, figsize=(9, 6.5), height_ratios=(1.2, 1), layout="constrained")
    for name, label in (("loss", "training"), ("validation_loss", "held out")):
        curves.plot(history["epoch"], history[name], label=f"transformer, {label}")
    for (name, value), style in zip(counted.items(), ("--", ":"), strict=True):
        curves.axhline(value, ls=style, color="black", lw=1, label=f"{name}, held out")
    curves.set(title="a causal transformer on Python's help texts", xlabel="tenth of the steps", ylabel="nats per character")
    curves.legend()
    codes, words = passage(test)
    figure.colorbar(draw_passage(panel, words, nats_of(params, codes)), ax=panel, label="nats")
    return figure


def main(given: list[str] | None = None) -> None:
    """Train, print the losses, write a sample and save the picture."""
    others = {"sample": (600, "number of characters to write")}
    options = common.arguments(__doc__, given, others, threads=None, steps=800)
    train, test = split_text()
    train_key, sample_key = fn.split(fn.key(options.seed))
    checkpoints = common.checkpoints(options, "characters", every=20)
    params, _, history = trained(train, test, options.steps, train_key, checkpoints)
    counted: dict[str, float] = dict(zip(("unigram", "bigram"), by_counting(train, test), strict=True))
    print(f"parameters             {fn.tree.size(params)}")
    print(f"training               {sum(history['seconds']):.1f} s")
    for name, value in {"transformer": history["validation_loss"][-1], **counted}.items():
        print(f"{name:12} held out  {value:.3f} nats per character")
    words = sample(params, options.sample, sample_key)
    print(f"\n{words}\n")
    common.save(picture(params, history, counted, test), options, "characters")
    (options.out / "characters.txt").write_text(words + "\n")
    print(f"sample: {options.out / 'characters.txt'}")
    common.finished(checkpoints)


if __name__ == "__main__":
    main()
