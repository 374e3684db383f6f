"""The benchmark of training in two processes: collectives are recorded, replaced and repeated; and the page."""

import pytest
import torch
import torch.distributed as dist
from pages import cells

from examples.benchmarks import collectives, distributed, pipelines, processes


def in_two():
    """Record an all-reduce, replace it with a no-op, and repeat it; return this worker's result, the calls and their bytes."""
    own = torch.full((3,), dist.get_rank() + 1.0)
    with collectives.recorded() as calls:
        dist.all_reduce(own, async_op=True).wait()
    with collectives.silent():
        dist.all_reduce(own, async_op=True).wait()
    collectives.again(calls)()
    return own.tolist(), calls, collectives.nbytes(calls)


def test_collectives_are_recorded_and_replaced():
    """With two workers, the tensor is summed only once, because the second all-reduce is silent."""
    for found, calls, nbytes in processes.together(2, in_two):
        assert found == [3.0] * 3
        assert calls == [("all_reduce", [((3,), torch.float32)])]
        assert nbytes == 12


def test_both_frameworks_take_turns_in_two_processes():
    """One round of the tiny net gives the times of each worker, and equal losses within a framework."""
    for found in processes.together(2, distributed.times_of, "disk_mlp", 1, 0.001):
        labels = {one for ours, theirs in distributed.families().values() for one in (ours, *theirs)} & {*found["times"]}
        assert {
            "funcnet, data parallel",
            "DistributedDataParallel",
            "ZeroRedundancyOptimizer",
            "fully_shard, whole net",
        } <= labels
        for framework in ("funcnet, ", ""):
            losses = [found["losses"][one] for one in labels if one.startswith("funcnet") == bool(framework)]
            assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)
        assert found["sent"]["torch, communication"] == (1, 4 * found["parameters"])


def test_the_bubble_is_the_share_of_waiting():
    """In two stages of 10 s, one computes for 8 s, the other for 6."""
    assert pipelines.idle_share([[(0.0, 5.0), (7.0, 10.0)], [(2.0, 8.0)]]) == pytest.approx(0.3)
    assert pipelines.idle_share([[(1.0, 2.0), (2.0, 4.0)]]) == 0


def test_pipelines_of_both_frameworks_tell_when_they_compute():
    """Each schedule runs in two processes; a stage has a span for each micro-batch forward and backward, or its halves."""
    for found in processes.together(2, distributed.pipelines_of, 1, 0.001):
        assert found["notes"] == []
        counts = {label: len(spans[0]) for label, spans in found["spans"].items()}
        assert counts == {label: (12 if "zero_bubble" in label else 8) for label in counts}
        assert len(counts) == 5


def test_the_page_has_a_row_for_each_workload_and_kind(capsys, monkeypatch, tmp_path):
    """The numbers are given: quotients are medians of the rounds', and memory is the mean of the workers'."""
    families = distributed.families()
    labels = {one: 10.0 for _, theirs in families.values() for one in theirs} | dict.fromkeys(
        [f[0] for f in families.values()], 5.0
    )
    labels |= {f"{one}, {half}": 4.0 for one in ("funcnet", "torch") for half in ("computation", "communication")}
    times = {label: [ms, ms, 9 * ms] for label, ms in labels.items()}
    sent = {f"{one}, communication": (3, 2e6) for one in ("funcnet", "torch")}
    stages = {f"{one}, {name}": [6.0] for one in ("funcnet", "torch") for name in ("gpipe", "1f1b")}
    given = {
        "times_of": lambda name, *_: [{"times": times, "sent": sent, "notes": ["a note"]}] * 2,
        "memory_of": lambda name, label: [labels[label] - 1, labels[label] + 1],
        "pipelines_of": lambda *_: (
            [{"times": stages, "spans": {one: [[(0.0, 3.0), (4.0, 4.0)]] for one in stages}, "notes": []}] * 2
        ),
    }
    monkeypatch.setattr(distributed, "together", lambda size, work, *args: given[work.__name__](*args))
    distributed.main(["bigmlp", "--page", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page.strip() in capsys.readouterr().out
    steps, hidden = cells(page, "bigmlp")[:3], cells(page, "bigmlp")[3:]
    assert [row[1] for row in steps] == [*distributed.KINDS]
    assert all(row[2:5] == ["5", "10", "0.50"] and row[6:] == ["5.0", "10.0", "0.50"] for row in steps)
    assert [row[1:] for row in hidden] == [
        ["funcnet", "3", "2", "5", "4", "4", "75 %"],
        ["torch", "3", "2", "10", "4", "4", "-50 %"],
    ]
    assert cells(page, "gpipe") == [["gpipe", "6", "6", "1.00", "0.25", "0.25", "0.20"]]
    assert "- bigmlp: a note" in page
