"""The cost of a training step on n devices, by formula: computation, bytes, latency, and their overlap.

The seconds of collectives of B bytes in a ring of n devices, each with bandwidth β and latency α:

    reduce-scatter, all-gather    (n - 1) α + (n - 1)/n B/β
    all-reduce                    both of them: 2 (n - 1) α + 2 (n - 1)/n B/β

If nodes of k devices have faster internal links, the collectives run within each node on B bytes, and then between nodes on B/k
bytes for each position in a node. A backward pass of w seconds hides the all-reduce of its gradients, sent in b buckets of c
seconds, except for

    exposed = max(c, b c - w (b - 1)/b)

References:
    Thakur, Rabenseifner & Gropp 2005, section 4 (rings); Narayanan et al. 2021, sections 2 and 3 (tensor and pipeline parallel);
    Rajbhandari et al. 2020, section 7 (sharded optimizers and params).
"""

from attrs import frozen

STRATEGIES = ("data parallel", "sharded optimizer", "sharded params", "tensor × data", "pipeline × data")


@frozen
class Link:
    """A link of one device: latency in seconds, bandwidth in bytes per second in each direction."""

    latency: float
    bandwidth: float

    def send(self, size: float) -> float:
        """Return the seconds to send bytes to the neighbor."""
        return self.latency + size / self.bandwidth

    def gather(self, n: float, size: float) -> float:
        """Return the seconds of an all-gather, or a reduce-scatter, of ``size`` bytes in a ring of n."""
        return (n - 1) * self.latency + (n - 1) / n * size / self.bandwidth


@frozen
class Machine:
    """Devices in nodes; rates are those of one device.

    Args:
        flops: FLOP/s of a device in the products of a step.
        update: Bytes per second of the optimizer, which is bound by memory.
        memory: Bytes of memory.
        per_node: Devices in a node.
        within: The link within a node.
        between: The link between nodes.
        overlap: The fraction of communication that does not slow down simultaneous computation.
        cores: Number of devices that compute at once; more devices share their rate. ``None`` for all.
        overhead: Seconds of a step that do not depend on the batch.
    """

    flops: float
    update: float
    memory: float
    per_node: int
    within: Link
    between: Link
    overlap: float = 1.0
    cores: int | None = None
    overhead: float = 0.0

    def gather(self, n: int, size: float) -> float:
        """Return the seconds of an all-gather or a reduce-scatter over n devices, which fill one node after the other."""
        k = min(n, self.per_node)
        return self.within.gather(k, size) + self.between.gather(n // k, size / k)

    def slowdown(self, n: int) -> float:
        """Return the slowdown of n devices that share cores, relative to one."""
        return max(1.0, n / self.cores) if self.cores else 1.0


@frozen
class Net:
    """The trained net: FLOPs are those of one sequence, bytes those of the whole net.

    Args:
        layers: Number of blocks.
        params: Number of params.
        forward: FLOPs forward.
        backward: FLOPs backward.
        activation: Bytes of the output of one block for one sequence.
        kept: Bytes that the forward pass keeps for the backward pass of one sequence.
        param_bytes: Bytes of a param in memory and in messages, and of its gradient.
        state_bytes: Bytes of the optimizer's state for a param.
        update_bytes: Bytes that the optimizer reads and writes for a param.
    """

    layers: int
    params: float
    forward: float
    backward: float
    activation: float
    kept: float
    param_bytes: float = 4.0
    state_bytes: float = 8.0
    update_bytes: float = 28.0

    @property
    def size(self) -> float:
        """Bytes of the params, and of their gradients."""
        return self.params * self.param_bytes


@frozen
class Cost:
    """A step: its seconds, the seconds of computation, the seconds of waiting for communication or in a bubble, and memory."""

    seconds: float
    computing: float
    communication: float
    bubble: float
    memory: float

    @property
    def efficiency(self) -> float:
        """The fraction of the step in which devices do the work that one device would do."""
        return self.computing / self.seconds


def exposed(bucket: float, buckets: int, window: float, overlap: float = 1.0) -> float:
    """Return the seconds of communication that a backward pass does not hide."""
    total = buckets * bucket
    return (1 - overlap) * total + overlap * max(bucket, total - window * (buckets - 1) / buckets)


def bubble_share(stages: int, microbatches: float, zero_bubble: bool = False) -> float:
    """Return the fraction of a pipelined step in which a stage waits; forward and both backward halves take one unit each."""
    idle = (stages - 1) * (1 / 3 if zero_bubble else 1)
    return idle / (microbatches + idle)


def step_cost(
    strategy: str, net: Net, machine: Machine, n: int, sequences: int, buckets: int = 8, ways: int = 8, zero_bubble: bool = True
) -> Cost:
    """Return the cost of a step on n devices for a batch with this number of sequences, one micro-batch for each sequence.

    ``ways`` is the number of devices that share a replica, for tensor and pipeline parallelism.
    """
    ways = 1 if strategy in STRATEGIES[:3] else min(ways, n)
    replicas = n // ways
    own = max(1.0, sequences / replicas)  # micro-batches of a replica, one after the other
    slow = machine.slowdown(n) / machine.flops
    forward, backward = net.forward / ways * slow, net.backward / ways * slow
    shard = {"data parallel": 1, "tensor × data": ways, "pipeline × data": ways}.get(strategy, n)
    update = net.params * net.update_bytes / shard / machine.update * machine.slowdown(n)
    ideal = sequences * (net.forward + net.backward) / n * slow
    waits, bubble = _waits(strategy, net, machine, n, own, (forward, backward), buckets, ways, zero_bubble)
    seconds = own * (forward + backward) + update + waits + bubble + machine.overhead * machine.slowdown(n)
    return Cost(seconds, ideal, waits, bubble, memory_of(strategy, net, n, ways, own))


def _waits(
    strategy: str,
    net: Net,
    machine: Machine,
    n: int,
    own: float,
    times: tuple[float, float],
    buckets: int,
    ways: int,
    zero_bubble: bool,
) -> tuple[float, float]:
    """Return the seconds of exposed communication, and of the bubble."""
    forward, backward = times
    if strategy == "sharded params":
        return own * _gathered_by_layer(net, machine, n, forward, backward), 0.0
    once = _between_replicas(machine, n, ways, net.size / ways / buckets)
    if strategy == "sharded optimizer":
        return exposed(once, buckets, backward, machine.overlap) + buckets * once, 0.0
    sums = exposed(2 * once, buckets, backward, machine.overlap)
    if strategy == "tensor × data":
        return sums + own * 4 * net.layers * 2 * machine.gather(ways, net.activation), 0.0
    if strategy == "pipeline × data":
        busy = own * (forward + backward)
        share = bubble_share(ways, own, zero_bubble)
        return sums + 2 * (own + ways - 1) * machine.within.send(net.activation) * (ways > 1), busy * share / (1 - share)
    return sums, 0.0


def _between_replicas(machine: Machine, n: int, ways: int, size: float) -> float:
    """Return the seconds of one half of an all-reduce between devices in the same position of n/ways replicas."""
    if ways == 1:
        return machine.gather(n, size)
    within = max(1, min(n, machine.per_node) // ways)
    return machine.within.gather(within, size) + machine.between.gather(n // ways // within, size / within)


def _gathered_by_layer(net: Net, machine: Machine, n: int, forward: float, backward: float) -> float:
    """Return the seconds that a micro-batch waits for layers' params or for the reduction of their gradients.

    A layer's params are gathered while the previous layer computes, forward and backward; its gradients are sent meanwhile.
    """
    one = machine.gather(n, net.size / net.layers)
    f, b = forward / net.layers * machine.overlap, backward / net.layers * machine.overlap
    rest = net.layers - 1
    return one + rest * max(0.0, one - f) + 2 * one + rest * max(0.0, 2 * one - b)


def memory_of(strategy: str, net: Net, n: int, ways: int, own: float) -> float:
    """Return the bytes that a device holds: params, gradients, state, and the caches of micro-batches in flight."""
    divided = n if strategy == "sharded params" else ways
    state = net.params * net.state_bytes / (n if strategy.startswith("sharded") else ways)
    together = min(own, ways) if strategy == "pipeline × data" else 1.0
    layer = net.size / net.layers if strategy == "sharded params" else 0.0
    return 2 * net.size / divided + 2 * layer + state + net.kept / ways * together
