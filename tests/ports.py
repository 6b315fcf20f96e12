"""Ports for servers that must be told theirs before they listen."""

import pathlib
import random
import socket

RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, NODE_PORTS = 16384, 30000  # Kubernetes hands out those from 30000 on
given_out = set()


def free_port(count=1):
    """The first of `count` ports in a row that nobody listens on, and that this process has not been given before.

    None is a port that the kernel gives to outgoing connections: between here and the server's bind there are many of
    those, and one to a port that nobody listens on yet may even be connected to itself.
    """
    below = min(NODE_PORTS, int(RANGE.read_text().split()[0]))
    assert below - LOWEST > 1000, f"{RANGE} leaves no ports for tests above {LOWEST}: {RANGE.read_text().strip()}"
    for _ in range(1000):
        first = random.SystemRandom().randrange(LOWEST, below - count)
        ports = set(range(first, first + count))
        if not ports & given_out and all(map(is_free, ports)):
            given_out.update(ports)
            return first
    raise AssertionError(f"no {count} free ports in a row between {LOWEST} and {below}")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection holds nothing
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
