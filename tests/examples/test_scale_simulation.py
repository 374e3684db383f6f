"""The simulation of many devices: its formulas in limiting cases and against an event simulation, and its page."""

import math
from itertools import pairwise

import pytest
from attrs import evolve
from pages import cells

from examples.scale import costs, inputs, simulation
from examples.scale.costs import STRATEGIES, Link, Machine, Net, bubble_share, exposed, step_cost

NET = Net(layers=4, params=1e9, forward=2e13, backward=4e13, activation=1e8, kept=1e9)
MACHINE = inputs.CLUSTER


def test_a_ring_sends_each_part_to_every_device():
    """There are n - 1 hops, each with an n-th of the bytes."""
    link, n, size = Link(1e-5, 1e9), 5, 1e7
    assert link.gather(n, size) == pytest.approx(sum(link.send(size / n) for _ in range(n - 1)))
    assert link.gather(1, size) == 0


def test_nodes_gather_within_and_between():
    """Each of the 8 devices of a node sends an eighth of the bytes to the other nodes; a single node needs no other."""
    within, between = MACHINE.within, MACHINE.between
    assert MACHINE.gather(32, 8e9) == pytest.approx(within.gather(8, 8e9) + between.gather(4, 1e9))
    assert MACHINE.gather(8, 8e9) == within.gather(8, 8e9)
    assert MACHINE.gather(1, 8e9) == 0


def events(bucket, buckets, window):
    """Return the time after the backward pass: buckets are ready after their part of the window, and sent in turn."""
    end = 0.0
    for i in range(1, buckets + 1):
        end = max(end, window * i / buckets) + bucket
    return end - window


@pytest.mark.parametrize("bucket", [0.01, 0.1, 0.3, 2.0])
def test_what_is_exposed_is_what_events_say(bucket):
    """Without overlap all communication is exposed, otherwise at least the last bucket."""
    for buckets in (1, 2, 8):
        for window in (0.0, 0.5, 1.0, 20.0):
            assert exposed(bucket, buckets, window) == pytest.approx(events(bucket, buckets, window))
            assert exposed(bucket, buckets, window, overlap=0.0) == pytest.approx(buckets * bucket)
            assert exposed(bucket, buckets, window) >= bucket


def test_bubbles():
    """The share is (p - 1)/(m + p - 1), and 0 for one stage; the zero-bubble schedule has a third of the idle time."""
    assert bubble_share(1, 4) == 0
    assert bubble_share(4, 8) == pytest.approx(3 / 11)
    assert bubble_share(4, 8, zero_bubble=True) == pytest.approx(1 / 9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_device_neither_communicates_nor_waits(strategy):
    """One device computes all sequences in turn, and updates."""
    cost = step_cost(strategy, NET, MACHINE, 1, 64)
    update = NET.params * NET.update_bytes / MACHINE.update
    assert (cost.communication, cost.bubble) == (0, 0)
    assert cost.seconds == pytest.approx(64 * 6e13 / MACHINE.flops + update)
    assert cost.memory == pytest.approx(16e9 + 1e9, rel=0.15)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_devices_take_less_time_at_less_efficiency(strategy):
    """More devices never need more memory; without latency, infinite links cost nothing."""
    column = [step_cost(strategy, NET, MACHINE, n, 1024) for n in simulation.DEVICES]
    for fewer, more in pairwise(column):
        assert more.seconds < fewer.seconds
        assert more.efficiency <= fewer.efficiency <= 1
        assert more.memory <= fewer.memory
    free = evolve(MACHINE, within=Link(0, math.inf), between=Link(0, math.inf))
    assert step_cost(strategy, NET, free, 256, 1024).communication == 0


def test_what_is_sharded_is_divided():
    """Params and gradients take 8 bytes per param, the state another 8."""
    memory = {one: step_cost(one, NET, MACHINE, 1000, 8000).memory - NET.kept for one in STRATEGIES[:3]}
    assert memory["data parallel"] == pytest.approx(16e9)
    assert memory["sharded optimizer"] == pytest.approx(8e9, rel=0.01)
    assert memory["sharded params"] == pytest.approx(2 * NET.size / NET.layers + 16e6, rel=0.01)


def test_processes_share_cores():
    """Four on two cores are as fast as two, each with half the rate; without overlap nothing is hidden."""
    machine = Machine(1e9, 1e9, 0, 1, Link(1e-4, 1e9), Link(1e-4, 1e9), overlap=0.0, cores=2, overhead=1e-3)
    net = Net(1, 1e6, 1e9, 2e9, 0, 0)
    four = step_cost("data parallel", inputs.part_of(net, 4), machine, 4, 4, buckets=3)
    assert four.computing == pytest.approx(3 / 4 * 2)
    assert four.communication == pytest.approx(3 * 6 * 1e-4 + 2 * 3 / 4 * 4e6 / 1e9)
    assert four.seconds == pytest.approx(four.computing + four.communication + 2 * (1e-3 + 28e6 / 1e9))


def test_the_net_on_paper_has_the_flops_of_the_formula():
    """A block multiplies x with 12 d² weights and attends to T steps; the head multiplies with the vocabulary."""
    net, d, t = inputs.gpt(), inputs.WIDTH, inputs.LENGTH
    formula = inputs.BLOCKS * (24 * d * d * t + 4 * t * t * d) + 2 * t * d * inputs.VOCABULARY
    assert net.forward == pytest.approx(formula, rel=0.01)
    assert 2 * net.forward <= net.backward <= 2.2 * net.forward
    assert net.params == pytest.approx(12 * d * d * inputs.BLOCKS + 2 * d * inputs.VOCABULARY, rel=0.01)


def test_the_page_has_inputs_results_and_the_check(capsys, monkeypatch, tmp_path):
    """Measured times are given here; the plot is a picture."""
    monkeypatch.setattr(inputs, "link", lambda n, count: Link(1e-4, 1e9))
    given = {
        "single": {"batch": 0.02, "update": 0.004, "overhead": 0.001, "whole": 0.025},
        "parallel_step": (0.03, 4),
    }
    monkeypatch.setattr(simulation, "together", lambda n, work, *args: [given[work.__name__]] * n)
    simulation.main(["--out", str(tmp_path)])
    page = (tmp_path / "SIMULATION.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    for name in STRATEGIES:
        (row,) = cells(page, name)
        assert len(row) == len(simulation.DEVICES) + 3
    for name in simulation.CHECKED:
        assert [row[1] for row in cells(page, name)] == ["2", "4"]
        assert all(row[7] == "30.0" for row in cells(page, name))
    assert (tmp_path / "simulation.png").read_bytes().startswith(b"\x89PNG")


def test_costs_are_the_sum_of_their_parts():
    """The parts are computation, the update, exposed communication, and the bubble, for each strategy."""
    for strategy in STRATEGIES:
        cost = costs.step_cost(strategy, NET, MACHINE, 64, 1024)
        update = cost.seconds - cost.computing - cost.communication - cost.bubble
        assert 0 < update <= NET.params * NET.update_bytes / MACHINE.update * 1.001
