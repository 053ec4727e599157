import signal
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.experiment.processes import Machine, Processes, joined, lost, shares
from ifttn.vocabulary import IfttnError


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.none() | st.integers(1, 8))
def test_the_shares_of_all_processes_are_the_batch_and_their_weights_its_mean(count, batch, world, micro_batch):
    order = np.random.default_rng(0).permutation(count)
    plans = [shares(order, batch, Processes(rank, world), micro_batch) for rank in range(world)]
    assert {len(plan) for plan in plans} == {-(-count // batch)}  # every process takes every step
    values = np.arange(count) ** 2.0
    for step, rows in enumerate(np.split(order, range(batch, count, batch))):
        parts = [part for plan in plans for part in plan[step]]
        assert sorted(row for part in parts if part.weight for row in part.rows) == sorted(rows)
        assert all(0 < len(part.rows) <= (micro_batch or batch) for part in parts)
        # DistributedDataParallel takes the mean over processes.
        mean = sum(part.weight * values[part.rows].mean() for part in parts) / world
        np.testing.assert_allclose(mean, values[rows].mean())


def test_one_process_and_no_micro_batches_weigh_nothing():
    assert [[part.weight for part in step] for step in shares(np.arange(10), 4, Processes(), None)] == [[1.0]] * 3


def test_a_cpu_computes_in_single_precision_unless_told():
    assert Machine().dtype("cpu") == torch.float32
    with Machine(precision="bf16").autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with Machine().autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with pytest.raises(IfttnError, match="unknown precision 'half': choose from auto, fp32"):
        Machine(precision="half")
    with pytest.raises(IfttnError, match="at least 1"):
        Machine(micro_batch=0)


def test_one_process_is_joined_by_nobody_and_ends_with_a_line_when_told_to():
    before = signal.getsignal(signal.SIGTERM)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (Processes(), "cpu")
        processes.wait()
        assert processes.gather(3) == [3]
        with pytest.raises(IfttnError, match="the last checkpoint is complete"):
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_lost_process_is_told_from_other_errors():
    assert lost(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert not lost(RuntimeError("CUDA out of memory"))
