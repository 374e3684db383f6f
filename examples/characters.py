"""Characters: a causal transformer learns to write like the help texts of Python itself, character by character.

The text is ``pydoc_data.topics``, which every Python carries: 0.47 million characters. The last tenth is held out. A step takes
32 pieces of 128 characters, and predicts each character from those before it in its piece. For comparison, the held-out text is
also judged by the frequencies of characters in the training text (unigram), and of pairs (bigram).

    python -m examples.characters --steps 800 --seed 0 --out out
"""

import argparse
from pathlib import Path
from pydoc_data import topics

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

import funcnet as fn

LENGTH, BATCH, WIDTH, HEADS, BLOCKS, LR = 128, 32, 128, 4, 3, 2e-3
PROMPT = "The "

text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
alphabet = sorted(set(text))
codes = {character: code for code, character in enumerate(alphabet)}
loss = fn.CrossEntropy()

# Rotations of queries and keys tell the positions; the output of all pieces is one long list of rows.
net = fn.serial(
    fn.Embedding(len(alphabet), WIDTH),
    fn.transformer_encoder(WIDTH, HEADS, BLOCKS, is_causal=True, rotary=fn.RotaryEmbedding(WIDTH // HEADS)),
    fn.Linear(WIDTH, len(alphabet)),
    fn.Flatten(0, 1),
)


def encoded(words):
    """Return the codes of a text's characters."""
    return torch.tensor([codes[character] for character in words])


def pieces(data, rng):
    """Draw pieces of the text, and for each position the character that follows."""
    starts = fn.random.permutation(rng, len(data) - LENGTH)[:BATCH]
    rows = data[starts[:, None] + torch.arange(LENGTH + 1)]
    return rows[:, :-1], rows[:, 1:].flatten()


def judged(params, data):
    """Return the mean loss over the whole of a text, in pieces that follow one another."""
    rows = data[: (len(data) - 1) // LENGTH * LENGTH + 1]
    x, target = rows[:-1].view(-1, LENGTH), rows[1:].view(-1, LENGTH)
    parts = zip(x.split(BATCH), target.split(BATCH), strict=True)
    values = [float(loss(net(params, part), after.flatten())) * len(part) for part, after in parts]
    return sum(values) / len(x)


def by_counting(train, test):
    """Return the loss of the unigram and of the bigram model, each count one more than it is."""
    n = len(alphabet)
    singles = torch.bincount(train, minlength=n).double() + 1
    pairs = torch.bincount(train[:-1] * n + train[1:], minlength=n * n).view(n, n).double() + 1
    bigram = (pairs / pairs.sum(1, keepdim=True)).log()[test[:-1], test[1:]]
    return float(-(singles / singles.sum()).log()[test].mean()), float(-bigram.mean())


def trained(train, test, steps, rng):
    """Train, and return the params, the loss of each step, and the held-out loss at ten points on the way."""
    first, batches = fn.split(rng)
    opt = fn.donate(fn.AdamW(lr=fn.WarmupCosineSchedule(LR, min(100, steps), steps + 1), betas=(0.9, 0.95)))
    step = fn.train_step(net, loss, opt)
    params = net.init(first)
    state, curve, held = opt.init(params), [], {}
    with torch.inference_mode(), tqdm(range(1, steps + 1), unit="step") as bar:
        for i in bar:
            params, state, value = step(params, state, *pieces(train, fn.fold_in(batches, i)))
            curve.append(float(value))
            if i % max(1, steps // 10) == 0 or i == steps:
                held[i] = judged(params, test)
                bar.set_postfix(loss=f"{curve[-1]:.3f}", held_out=f"{held[i]:.3f}")
    return params, curve, held


def sample(params, count, rng, temperature=0.7):
    """Write ``count`` characters, each drawn from the net's probabilities after the ``LENGTH`` characters before it."""
    written = encoded(PROMPT)
    with torch.inference_mode():
        for i in range(count):
            scores = net(params, written[-LENGTH:][None])[-1] / temperature
            written = torch.cat((written, fn.random.categorical(fn.fold_in(rng, i), scores)[None]))
    return "".join(alphabet[code] for code in written.tolist())


def picture(curve, held, counted, path):
    """Draw the loss of each step, the held-out loss, and those of the models that count."""
    mpl.use("Agg")
    figure, panel = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    panel.plot(range(1, len(curve) + 1), curve, lw=0.8, label="training, each step")
    panel.plot([*held], [*held.values()], "o-", label="held out")
    for (name, value), style in zip(counted.items(), ("--", ":"), strict=True):
        panel.axhline(value, ls=style, color="black", lw=1, label=f"{name}, held out")
    panel.set(title="a causal transformer on Python's help texts", xlabel="step", ylabel="nats a character", ylim=(0, None))
    panel.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments=None):
    """Train, print the losses, write a sample and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="steps of training")
    parser.add_argument("--seed", type=int, default=0, help="decides the first weights, the pieces and the sample")
    parser.add_argument("--sample", type=int, default=600, help="how many characters to write")
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder for characters.txt and characters.png")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    data = encoded(text)
    train, test = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    train_key, sample_key = fn.split(fn.key(options.seed))
    params, curve, held = trained(train, test, options.steps, train_key)
    counted = dict(zip(("unigram", "bigram"), by_counting(train, test), strict=True))
    print(f"parameters             {fn.tree.size(params)}")
    for name, value in {"transformer": [*held.values()][-1], **counted}.items():
        print(f"{name:12} held out  {value:.3f} nats a character")
    options.out.mkdir(parents=True, exist_ok=True)
    words = sample(params, options.sample, sample_key)
    (options.out / "characters.txt").write_text(words + "\n")
    picture(curve, held, counted, options.out / "characters.png")
    print(f"\n{words}\n\nsample and curves: {options.out / 'characters.txt'}, {options.out / 'characters.png'}")


if __name__ == "__main__":
    main()
