"""Ports for servers that must be told theirs before they listen."""

import pathlib
import random
import socket

GIVEN_BY_THE_KERNEL = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
NODE_PORTS = range(30000, 32768)  # Kubernetes gives these to Services
given_out = set()


def free_port(count=1):
    """The first of `count` ports in a row that nobody listens on, and that this process has not been given before.

    None is a port that the kernel gives to outgoing connections, if there are others: between here and the server's bind
    there are many of those, and one to a port that nobody listens on yet may even be connected to itself.
    """
    low, high = map(int, GIVEN_BY_THE_KERNEL.read_text().split())
    ports = [port for port in range(10000, 65536) if port not in NODE_PORTS]
    ports = [port for port in ports if not low <= port <= high] or ports
    for first in random.SystemRandom().sample(ports, len(ports)):
        row = range(first, first + count)
        if given_out.isdisjoint(row) and set(row).issubset(ports) and all(map(is_free, row)):
            given_out.update(row)
            return first
    raise AssertionError(f"there are no {count} free ports in a row")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection holds nothing
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
