"""Two hosts train together over a slow, lossy link until it is cut, with the same bits as on one host, and without hanging."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from distributed import small_training
from distributed.hosts import ADDRESSES, DEVICE, Hosts
from distributed.launching import run

import funcnet as fn

ROOT = Path(__file__).parents[2]
ENDLESS, TIMEOUT = 100_000, 8
"""Number of steps of the interrupted training, and the timeout of its collectives in seconds."""


def torchrun(host, *options):
    """Return the command that starts one of two workers on a host."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    return [*start, f"--rdzv-endpoint={ADDRESSES[0]}:29400", f"--local-addr={ADDRESSES[host]}", *options, small_training.__file__]


def environment():
    """Return the environment of both hosts: their device, and a new store for restarted workers."""
    path = f"{ROOT}:{ROOT / 'tests'}"
    return {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, "PYTHONPATH": path, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def digests_of(output):
    """Return the digests printed by a host, by step."""
    return {int(step): found for step, found in re.findall(r"^step (\d+) (\w{64})$", output.read_text(), re.MULTILINE)}


def wait_for(hosts, outputs, done, seconds=600.0):
    """Wait until ``done`` is true for the output of every host."""
    end = time.monotonic() + seconds
    while not all(done(output) for output in outputs):
        ended = [process.poll() for process in hosts.processes]
        assert ended == [None, None], (ended, *[output.read_text() for output in outputs])
        assert time.monotonic() < end, [output.read_text() for output in outputs]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """Return the output of two hosts, their exit codes, the link and the checkpoints; the link is cut after step 8."""
    folder = tmp_path_factory.mktemp("hosts")
    outputs = [folder / f"host-{host}.txt" for host in (0, 1)]
    arguments = [str(folder / "checkpoints"), str(ENDLESS), str(TIMEOUT)]
    commands = [[*torchrun(host, "--rdzv-backend=static", f"--node-rank={host}"), *arguments] for host in (0, 1)]
    with Hosts(commands, outputs, environment()) as hosts:
        wait_for(hosts, outputs, lambda output: len(digests_of(output)) >= 8)
        hosts.link.cut()
        codes = hosts.wait(300)
    return outputs, codes, hosts.link, fn.Checkpoints(folder / "checkpoints")


def test_a_slow_link_that_loses_packets_changes_no_bit(cut_off):
    """After every step, both hosts have the params of a training on one host, although packets were lost."""
    outputs, _, link, _ = cut_off
    first, second = map(digests_of, outputs)
    expected = dict(enumerate(run(2, small_training.digests, max(*first, *second))[0], start=1))
    assert first.items() <= expected.items() >= second.items()
    assert min(len(first), len(second)) >= 8
    assert link.carried > link.lost > 0


def test_both_hosts_of_a_cut_link_end_and_name_the_missing_rank(cut_off):
    """Each names the other one."""
    outputs, codes, _, _ = cut_off
    assert 0 not in codes
    for output, other in zip(outputs, (1, 0), strict=True):
        assert re.search(rf"WorkerError: .*\brank {other}\b", output.read_text()), output.read_text()


def test_the_last_checkpoint_before_the_cut_loads(cut_off):
    """It has the bits of its step, the last one that rank 0 printed."""
    outputs, _, _, checkpoints = cut_off
    first = digests_of(outputs[0])
    assert checkpoints.latest() == max(first)
    assert small_training.digest(checkpoints.load()) == first[max(first)]


@pytest.mark.long
def test_two_hosts_go_on_when_the_link_is_mended(tmp_path):
    """With ``--max-restarts`` they continue from the last checkpoint to the same result; repeated steps have the same digests."""
    outputs = [tmp_path / f"host-{host}.txt" for host in (0, 1)]
    commands = [
        [*torchrun(host, "--rdzv-backend=c10d", f"--rdzv-conf=is_host={host == 0}", "--max-restarts=3"), str(tmp_path), "40", "5"]
        for host in (0, 1)
    ]
    with Hosts(commands, outputs, environment()) as hosts:
        wait_for(hosts, outputs, lambda output: len(digests_of(output)) >= 8)
        hosts.link.cut()
        wait_for(hosts, outputs[:1], lambda output: "WorkerError" in output.read_text())
        hosts.link.mend()
        assert hosts.wait(300) == [0, 0]
    expected = dict(enumerate(run(2, small_training.digests, 40)[0], start=1))
    for output in outputs:
        assert digests_of(output) == expected
        assert len(re.findall(r"^step", output.read_text(), re.MULTILINE)) >= 40
