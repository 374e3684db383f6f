"""Fine-tuning, run small: few params train, the others do not change, merging changes no output, and the picture is saved."""

import re

import torch

import funcnet as fn
from examples import lora


def test_adapters_learn_the_new_digits(tmp_path, capsys):
    """After 12 epochs adapters, a twentieth of the params, beat the head only, and merge into the plain net."""
    lora.main(["--epochs", "12", "--seed", "1", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    rows = {name: (int(size), float(right)) for name, size, right in re.findall(r"^(\w.*?) +(\d+) +(0\.\d+)$", out, re.MULTILINE)}
    assert list(rows) == ["head only", "LoRA", "all weights", "from scratch"]
    assert rows["all weights"][0] == fn.tree.size(lora.net.init(0))
    assert rows["LoRA"][0] < rows["all weights"][0] / 15
    assert rows["LoRA"][1] > max(rows["head only"][1], 0.75)
    assert float(re.search(r"the plain net again \(True\), .* to (\S+)$", out, re.MULTILINE)[1]) < 1e-3
    assert (tmp_path / "lora.png").read_bytes().startswith(b"\x89PNG")


def test_each_way_starts_from_the_trunk_and_leaves_the_rest():
    """Frozen trunk and adapters first predict like the plain net; one step changes only params with gradients."""
    pretrained, x, target = lora.net.init(0), fn.random.uniform(1, (6, 1, 8, 8)), torch.arange(6) % 5
    found = lora.ways(pretrained, fn.key(2))
    want = lora.net(found["all weights"][1], x)
    for name, moved in {"head only": {"head"}, "LoRA": {"head", "lora_A", "lora_B"}}.items():
        net, params, _ = found[name]
        assert torch.equal(net(params, x), want)
        opt = fn.SGD(lr=0.1)
        for _ in range(2):  # the first leaves lora_A where it is, as lora_B is 0
            after = fn.train_step(net, lora.loss, opt)(params, opt.init(params), x, target)[0]
            params, before = after, params
        changed = [path for path, leaf in fn.tree.names(after).items() if not torch.equal(leaf, fn.tree.at(before, path))]
        assert changed
        assert all(moved & set(path.split(".")) for path in changed)
