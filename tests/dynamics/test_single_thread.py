"""Flows keep NumPy's and SciPy's products to one thread where that is faster, and give the threads back."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from threadpoolctl import threadpool_limits

from dyncollapse import FlowFailed, GaussianTask, Objective, population_flow, sample_flow
from dyncollapse.dynamics import _single_thread
from dyncollapse.dynamics._single_thread import products_on_one_thread

TASK = GaussianTask.block(3, 1)
LAYER = 0.5 * torch.eye(3, dtype=torch.float64)


def threads():
    return {pool["num_threads"] for pool in _single_thread.pools().info()}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, "blas"):
        if threads() != {2}:
            pytest.skip("a library of products here takes no second thread")
        yield


def population(progress):
    population_flow((LAYER,), TASK, 1.0, progress=progress)


def runs_in_threads(progress):
    pairs = TASK.sample(5, torch.Generator().manual_seed(0))
    sample_flow((LAYER.expand(3, 3, 3),), pairs, 1.0, progress=progress, threads=2)


@pytest.mark.parametrize("flow", [population, runs_in_threads])
def test_a_flow_takes_one_thread_and_gives_the_others_back(flow):
    seen = list[set[int]]()
    flow(lambda _t, _end: seen.append(threads()))
    assert seen
    assert all(each == {1} for each in seen)
    assert threads() == {2}


def test_a_flow_that_fails_gives_them_back():
    with pytest.raises(FlowFailed):
        population_flow((LAYER, 2 * LAYER), TASK, 1e3, objective=Objective(), max_evaluations=20)
    assert threads() == {2}


def test_wide_layers_keep_theirs():
    for width, expected in ((_single_thread.WIDEST, {1}), (_single_thread.WIDEST + 1, {2})):
        with products_on_one_thread(width):
            assert threads() == expected


def test_flows_in_threads_of_their_own_give_them_back():
    with ThreadPoolExecutor(4) as pool:
        seen = list[set[int]]()
        done = [pool.submit(population, lambda _t, _end: seen.append(threads())) for _ in range(8)]
        assert all(future.exception() is None for future in done)
    assert seen
    assert threads() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_meanwhile_has_its_threads():
    with products_on_one_thread(3):
        child = os.fork()
        if child == 0:
            free = threads() == {2}
            with products_on_one_thread(3):
                os._exit(0 if free and threads() == {1} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert threads() == {1}


@pytest.mark.parametrize("at", ["limit", "setdefault"])
def test_an_interrupt_while_it_begins_leaves_nothing_taken(at, monkeypatch):
    class Interrupted(dict):
        def setdefault(self, *given):
            super().setdefault(*given)
            raise KeyboardInterrupt

    def interrupt(**_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "limit":
            patch.setattr(_single_thread.pools(), "limit", interrupt)
        else:
            patch.setattr(_single_thread, "taken", Interrupted())
        with pytest.raises(KeyboardInterrupt), products_on_one_thread(3):
            pass
    with products_on_one_thread(3):
        assert threads() == {1}
    assert threads() == {2}
