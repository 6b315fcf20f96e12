"""A worker that dies again and again: the survivors form an epoch with each new one, and grow by nothing."""

import os
import signal

import pytest
from clients import Client, assert_equal
from pipeline import counts, resident_bytes, wait_until

ROUNDS = int(os.environ.get("ECHELON_FORMATIONS", "30"))
GROWTH_BYTES = 8 << 20  # of a survivor's memory over all rounds: allocators keep what threads freed


@pytest.mark.slow
def test_many_formations_leak_nothing(start, net):
    run = start.run(net.model, 3, f"--restarts={ROUNDS}", name="net").wait_ready()
    survivors = {rank: pid for rank, pid in run.pids().items() if rank != 1}
    inputs, outputs = net.runs[0]
    seen, early, memory = set(), {}, {}
    for round_number in range(ROUNDS):
        seen.add(run.status()["epoch"])
        os.kill(run.pids()[1], signal.SIGKILL)
        again = lambda: (s := run.status())["formed"] and s["epoch"] not in seen  # noqa: E731
        wait_until(again, f"formation {round_number + 1}")
        with Client("grpc", run) as client:
            assert_equal(client.infer(inputs), outputs, 1e-5)
        if round_number == min(5, ROUNDS - 1):  # thread pools and arenas are filled by now
            early = {rank: counts(pid) for rank, pid in survivors.items()}
            memory = {rank: resident_bytes(pid) for rank, pid in survivors.items()}
    assert len(seen) == ROUNDS
    joins = {rank["rank"]: rank["joins"] for rank in run.status()["ranks"]}
    assert joins == {0: 1, 1: ROUNDS + 1, 2: 1}
    for rank, pid in survivors.items():
        assert run.pids()[rank] == pid
        settled = lambda r=rank, p=pid: all(n <= e + 4 for n, e in zip(counts(p), early[r]))  # noqa: E731
        wait_until(settled, f"rank {rank} is back at {early[rank]} (descriptors, threads)", 15)
        growth = resident_bytes(pid) - memory[rank]
        print(f"rank {rank}: (descriptors, threads) {early[rank]} -> {counts(pid)}, {growth} bytes")
        assert growth < GROWTH_BYTES
    assert run.stop() == 0
