"""Requests without a pause from several threads, and every error among them."""

import threading
import time

import numpy as np
from kube import wait_until

LEAST = 20  # answers, however soon what it is about has happened


class Traffic:
    """with Traffic(pipeline, inputs, {"old": array, "new": array}) as traffic: ...; traffic.check()

    One client keeps its gRPC connection, one its HTTP connection, one connects anew for each request. Every answer must
    be one of the arrays; `names` tells in which order they came.
    """

    def __init__(self, pipeline, inputs, answers, output="output"):
        self.pipeline, self.inputs, self.answers, self.output = pipeline, inputs, answers, output
        self.errors, self.names, self.count, self.longest_s = [], [], 0, 0.0
        self.lock, self.ending = threading.Lock(), threading.Event()

    def __enter__(self):
        runs = [(self._kept, "grpc"), (self._anew, "http"), (self._anew, "grpc")]
        self.threads = [threading.Thread(target=run, args=(kind,), daemon=True) for run, kind in runs]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, failure, *_):
        try:
            if failure is None:
                wait_until(lambda: self.errors or self.count >= LEAST, f"{LEAST} requests are answered", 60)
        finally:
            self.ending.set()
            for thread in self.threads:
                thread.join(timeout=40)

    def _kept(self, kind):
        try:
            with self.pipeline.client(kind) as client:
                while not self.ending.wait(0.02):
                    self._ask(client, f"{kind}, one connection")
        except Exception as error:  # noqa: BLE001 - a thread's error is the test's
            self._note(error, kind)

    def _anew(self, kind):
        endpoints = self.pipeline.endpoints()
        while not self.ending.wait(0.05):
            try:
                with type(self)._client(kind, endpoints) as client:
                    self._ask(client, f"{kind}, new connection")
            except Exception as error:  # noqa: BLE001
                self._note(error, kind)

    @staticmethod
    def _client(kind, endpoints):
        from pipelines import Client

        return Client(kind, endpoints, timeout_s=30)

    def _ask(self, client, how):
        began = time.monotonic()
        try:
            got = client.infer(self.inputs, [self.output])[self.output]
        except Exception as error:  # noqa: BLE001
            return self._note(error, how)
        took = time.monotonic() - began
        name = next((n for n, want in self.answers.items() if np.allclose(got, want, rtol=1e-5, atol=1e-5)), None)
        with self.lock:
            self.count += 1
            self.longest_s = max(self.longest_s, took)
            if name is None:
                self.errors.append(f"{how}: an answer that is of no model: {got.ravel()[:4]}")
            elif not self.names or self.names[-1] != name:
                self.names.append(name)
        return None

    def _note(self, error, how):
        with self.lock:
            self.errors.append(f"{time.strftime('%H:%M:%S')} {how}: {type(error).__name__}: {error}")

    def check(self):
        assert not self.errors, f"{len(self.errors)} of {self.count + len(self.errors)} failed, first: {self.errors[0]}"
        assert self.count >= LEAST, f"only {self.count} requests were made"
