import pytest
import torch
from helpers.forks import run_together
from helpers.monitor import gaussian, watched

# --- Several processes

WORKER = """
import sys, torch, torch.distributed as dist
from dyncollapse import Monitor
rank, meeting, data, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
reports = []
for views, bounds, sample in torch.load(data):
    monitor = Monitor(sample=sample)
    start, stop = bounds[rank]
    middle = (start + stop) // 2
    monitor.update(*(view[start:middle] for view in views))
    monitor.update(*(view[middle:stop] for view in views))
    monitor.all_reduce()
    refused = []
    for action in (monitor.all_reduce, lambda: monitor.update(*views), lambda: monitor.merge(Monitor())):
        try:
            action()
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) == 3 and all("after all_reduce would count rows of other processes again" in r for r in refused)
    reports.append((monitor.compute().as_values(), monitor.reservoir.rows))
torch.save(reports, out + str(rank))
dist.destroy_process_group()
"""


def test_processes_together_equal_one(tmp_path):
    half = [view.bfloat16() for view in gaussian(5, others=1)]
    cases = [
        (gaussian(0), [(0, 13), (13, 60)], 4096),
        (gaussian(1, others=1), [(0, 47), (47, 60)], 4096),
        (gaussian(2, others=3), [(0, 30), (30, 60)], 4096),
        (half, [(0, 13), (13, 60)], 4096),
        (gaussian(3), [(0, 0), (0, 60)], 4096),
        (gaussian(4, n=400), [(0, 100), (100, 400)], 50),
        (gaussian(6, n=400), [(0, 20), (20, 400)], 50),
    ]
    data, out = tmp_path / "data.pt", tmp_path / "out"
    torch.save(cases, data)
    run_together(*(["-c", WORKER, rank, tmp_path / "meeting", data, out] for rank in range(2)))
    found = [torch.load(f"{out}{rank}") for rank in range(2)]
    for case, ((views, _, sample), *both) in enumerate(zip(cases, *found, strict=True)):
        (first, rows), (second, other_rows) = both
        assert first == second, case
        assert torch.equal(rows, other_rows)
        expected = watched(views, sample=sample).compute().as_values()
        for name in ("samples", "spectrum", "measures", "augmentation_ratio", "collapsed"):
            _assert_close(first[name], expected[name], skip="participation_ratio_unbiased" if sample < 100 else "")
        if sample >= len(views[0]):
            assert torch.equal(rows, views[0])
            _assert_close(first["intervals"], expected["intervals"])
        else:
            # A subset of all rows, each once.
            assert len({tuple(row) for row in rows.tolist()}) == len(rows) == sample
            assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in views[0].tolist()}


def _assert_close(got, expected, skip=""):
    # The unbiased ratio takes its tails from the sample, which is another one in other processes.
    if isinstance(got, dict):
        assert got.keys() == expected.keys()
        got, expected = ([part for name, part in v.items() if name != skip] for v in (got, expected))
    if isinstance(got, list):
        for mine, theirs in zip(got, expected, strict=True):
            _assert_close(mine, theirs)
    else:
        assert got == (expected if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-14))


UNLIKE = """
import sys, torch, torch.distributed as dist
from dyncollapse import Monitor
rank, meeting, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
z, told = torch.randn(20, 3), []
unlike = [
    (Monitor(), [z] if rank else None),
    (Monitor(), [z, z + 1] if rank else [z]),
    (Monitor(), [z.double()] if rank else [z]),
    (Monitor(views="one-sided" if rank else "two-sided"), [z, z + 1]),
    (Monitor(sample=30 + rank), [z]),
]
for monitor, views in unlike:
    if views:
        monitor.update(*views)
    try:
        monitor.all_reduce()
        told.append("nothing")
    except ValueError as error:
        told.append(str(error))
apart = Monitor(sample=8)
for _ in range(20):
    apart.update(torch.arange(40.0).view(-1, 1))
torch.save((told, apart.reservoir.keys), out + str(rank))
dist.destroy_process_group()
"""


def test_unlike_processes_are_told_on_all_and_draw_apart(tmp_path):
    arguments = [str(tmp_path / "meeting"), str(tmp_path / "out")]
    run_together(*(["-c", UNLIKE, rank, *arguments] for rank in range(2)))
    (told, keys), (other_told, other_keys) = (torch.load(f"{arguments[1]}{rank}") for rank in range(2))
    assert told == other_told
    assert told[0] == "process(es) [0] have seen no embeddings; update every monitor before all_reduce"
    assert all(text.startswith("monitors of the processes differ in ") for text in told[1:])
    assert not set(keys.tolist()) & set(other_keys.tolist())
