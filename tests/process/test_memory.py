"""What a rank holds and reads of a model of more than 1 GB: its own slice."""

import pytest
from clients import Case, Client, assert_equal
from pipeline import loads, read_bytes, read_metrics, resident_bytes

MIB = 1 << 20
BASE_BYTES = 192 * MIB  # a stage process without its weights: the program's and LibTorch's pages most of all


def figures(run):
    """[(weights, resident, read)] in bytes, by rank, before any request.

    Pages that lie in the page cache are mapped, which the kernel does not count as read: the rank's own
    count has those too.
    """
    found = []
    for rank, pid in sorted(run.pids().items()):
        weights = read_metrics(run.metrics[rank])["echelon_weights_bytes"]
        (counted,) = loads(run.stderr(), rank)
        found.append((weights, resident_bytes(pid), max(counted * MIB, read_bytes(pid))))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stages", [2, 4])
def test_a_rank_reads_and_holds_its_slice_alone(start, stages):
    small = start.run(Case("mlp_skip2").model, stages, "--verbose").wait_ready()  # some KB of weights
    base = max(resident for _, resident, _ in figures(small))
    assert base < BASE_BYTES
    assert small.stop() == 0
    big = Case("big")
    assert big.model.stat().st_size > 1e9
    run = start.run(big.model, stages, "--verbose", name="big").wait_ready()
    print(f"{stages} stages, base {base / MIB:.0f} MiB")
    for rank, (weights, resident, read) in enumerate(figures(run)):
        print(
            f"  rank {rank}: slice {weights / MIB:.1f} MiB, resident {resident / MIB:.1f} = slice"
            f" x {(resident - base) / weights:.3f} + base, read x {read / weights:.4f}"
        )
        assert weights >= big.model.stat().st_size / stages * 0.9
        assert resident <= 1.05 * weights + base
        assert 0.99 * weights <= read <= 1.05 * weights
    inputs, outputs = big.runs[0]
    with Client("grpc", run) as client:
        assert_equal(client.infer(inputs), outputs, 1e-5)
    assert run.stop() == 0
