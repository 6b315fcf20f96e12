"""Clients that ask without a pause, and what became of each of their requests."""

import dataclasses
import threading
import time

from clients import Client, Refused
from pipeline import wait_until


@dataclasses.dataclass
class Request:
    kind: str
    begun: float  # of time.monotonic
    ended: float
    code: str  # OK, or what it was refused with


class Load:
    """Clients of both doors, each with one request at a time; `with` ends them."""

    def __init__(self, run, inputs, clients=6, timeout_s=30):
        self.run, self.inputs, self.timeout_s = run, inputs, timeout_s
        self.done, self.waiting = [], {}  # waiting: client -> begun
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.ask, args=(number, ("grpc", "http")[number % 2]))
            for number in range(clients)
        ]

    def ask(self, number, kind):
        with Client(kind, self.run, timeout_s=self.timeout_s) as client:
            while not self.stopping.is_set():
                self.waiting[number] = begun = time.monotonic()
                try:
                    client.answer(self.inputs, ["output"])
                    code = "OK"
                except Refused as refused:
                    code = refused.code
                self.done.append(Request(kind, begun, time.monotonic(), code))
                if code != "OK":
                    self.stopping.wait(0.02)  # refused at once: no need to ask a thousand times

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        flowing = lambda: sum(r.code == "OK" for r in self.done) >= 2 * len(self.threads)  # noqa: E731
        wait_until(flowing, "requests flow")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(self.timeout_s + 10)
        assert not any(thread.is_alive() for thread in self.threads), "a request never ended"

    def in_flight_at(self, moment):
        """Requests begun before a moment and not ended by it; waits until all of those have ended."""
        wait_until(
            lambda: all(begun >= moment for begun in list(self.waiting.values())),
            "requests in flight end",
            within_s=self.timeout_s + 10,
        )
        requests = [r for r in list(self.done) if r.begun < moment <= r.ended]
        assert requests, "no request was in flight"
        return requests
