"""Two hosts for tests: processes in separate networks, connected by a link that delays and loses packets and can be cut.

A host is a process in new network and PID namespaces of Linux. All processes that it starts end with it, and the namespaces end
with their last process, so nothing is left after a failure or a kill. Its network has a single TUN device, whose packets a thread
of the test carries to the other host: nothing leaves the machine. This requires no kernel module and no package, but permission
to create namespaces and to open ``/dev/net/tun``, as root has.
"""

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress

ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Addresses of the hosts, from the network that RFC 2544 reserves for device tests."""

DEVICE = "link0"


class Link:
    """A link between two devices: a packet arrives after ``delay`` seconds, except for a random fraction ``loss``."""

    def __init__(self, devices: list[int], delay: float, loss: float) -> None:
        self.delay, self.loss, self.carried, self.lost, self.is_cut = delay, loss, 0, 0, False
        self._ends = dict(zip(devices, reversed(devices), strict=True))
        self._luck = random.Random(0)
        self._closed, self._closing = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drop every packet from now on, without notifying the hosts."""
        self.is_cut = True

    def mend(self) -> None:
        """Deliver packets again."""
        self.is_cut = False

    def close(self) -> None:
        """End the thread and close the devices."""
        os.close(self._closing)
        self._thread.join()
        for descriptor in (self._closed, *self._ends):
            os.close(descriptor)

    def _carry(self) -> None:
        ends, on_the_way = {*self._ends}, deque[tuple[float, int, bytes]]()
        while True:
            pause = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
            ready = select.select([self._closed, *ends], [], [], pause)[0]
            if self._closed in ready:
                return
            for end in ready:
                try:
                    packet = os.read(end, 65536)
                except OSError:  # the host has ended, and so has its network
                    ends.discard(end)
                    continue
                if self.is_cut or self._luck.random() < self.loss:
                    self.lost += 1
                else:
                    on_the_way.append((time.monotonic() + self.delay, self._ends[end], packet))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                self._deliver(*on_the_way.popleft()[1:])

    def _deliver(self, end: int, packet: bytes) -> None:
        with suppress(OSError):
            os.write(end, packet)
            self.carried += 1


class Hosts:
    """Two hosts that each run one command, and the link between them: ``with Hosts(commands, ...) as hosts``.

    Args:
        commands: The command of each host.
        outputs: A file for the output of each host.
        env: The environment of both.
        delay: Travel time of a packet in seconds.
        loss: Fraction of packets that are lost.
    """

    def __init__(self, commands, outputs, env, delay: float = 0.02, loss: float = 0.01) -> None:
        self._given, self._delay, self._loss, self._left = (commands, outputs, env), delay, loss, ExitStack()

    def __enter__(self) -> "Hosts":
        with ExitStack() as stack:  # undoes everything if a step fails
            stack.callback(lambda: [process.kill() for process in self.processes])
            self.processes, controls, devices = [], [], []
            commands, outputs, env = self._given
            for address, command, output in zip(ADDRESSES, commands, outputs, strict=True):
                here, there = socket.socketpair()
                controls.append(stack.enter_context(here))
                with there, output.open("w") as out:
                    self.processes.append(_started(there.fileno(), address, command, out, env))
                devices += _device_of(here, output)
            self.link = Link(devices, self._delay, self._loss)
            stack.callback(self.link.close)
            for control in controls:
                control.send(b"go")
            self._left = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.close()  # closes the controls too, which ends the hosts
        for process in self.processes:
            process.wait(60)

    def wait(self, seconds: float) -> list[int]:
        """Wait until both commands have ended, and return their exit codes; raise ``TimeoutExpired`` after the given seconds."""
        end = time.monotonic() + seconds
        return [process.wait(max(0.0, end - time.monotonic())) for process in self.processes]


def _started(control: int, address: str, command, out, env) -> subprocess.Popen:
    """Start a host in its own namespaces."""
    own = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", *["--map-root-user"] * (os.geteuid() != 0)]
    words = [*own, sys.executable, __file__, str(control), address, *command]
    return subprocess.Popen(words, pass_fds=[control], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)


def _device_of(control: socket.socket, output) -> list[int]:
    """Receive the device of a host, or raise an error with its output."""
    devices = socket.recv_fds(control, 2, 1)[1]
    if not devices:
        raise OSError(f"a host needs Linux, unshare, /dev/net/tun and the right to make namespaces: {output.read_text()}")
    return devices


# The code of the host itself, within its namespaces.


def _set_up(network: socket.socket, name: str) -> None:
    fcntl.ioctl(network, 0x8914, struct.pack("16sh22x", name.encode(), 0x41))  # SIOCSIFFLAGS: up, running


def _tun(address: str) -> int:
    """Create the device of the host with its address, and activate it and loopback."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sh22x", DEVICE.encode(), 0x1001))  # TUNSETIFF: packets, without a header
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as network:
        for request, value in ((0x8916, address), (0x891C, "255.255.255.0")):  # SIOCSIFADDR, SIOCSIFNETMASK
            fields = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(network, request, struct.pack("16s16s8x", DEVICE.encode(), fields))
        for name in ("lo", DEVICE):
            _set_up(network, name)
    return device


def _end_with(control: socket.socket) -> None:
    """End the host and all its processes when the test closes its end of the control or dies."""
    control.recv(1)
    os._exit(1)


def _host(control: socket.socket, address: str, command: list[str]) -> int:
    device = _tun(address)
    socket.send_fds(control, [b"up"], [device])
    os.close(device)
    control.recv(2)
    threading.Thread(target=_end_with, args=[control], daemon=True).start()
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(_host(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:]))
