import math
import pickle

import pytest
import torch
from helpers.constants import set_constant
from helpers.forks import run_together
from helpers.monitor import assert_same, gaussian, watched

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from dyncollapse.integrations.reporting import scalars  # noqa: E402
from dyncollapse.integrations.torchmetrics import CollapseMetric  # noqa: E402


def metric_of(others=1, dim=5, **settings):
    return CollapseMetric(dim, others=others, dtype=torch.float64, **settings)


def fill(metric, views, *splits):
    for start, stop in zip((0, *splits), (*splits, len(views[0])), strict=True):
        metric.update(*(view[start:stop] for view in views))
    return metric


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("intervals", [False, True])
def test_it_reports_what_a_monitor_does(others, intervals):
    views = gaussian(0, others=others)
    metric = fill(metric_of(others, intervals=intervals), views, 2, 33)
    values = metric.compute()
    expected = watched(views, sample=1024).compute(intervals=intervals)
    assert_same(metric.report, expected)
    assert values.keys() == scalars(expected).keys()
    for name, value in scalars(expected).items():
        assert values[name].shape == ()
        assert float(values[name]) == pytest.approx(value, rel=1e-9, nan_ok=True)


def test_a_sample_smaller_than_the_stream_is_uniform_over_batches():
    kept = torch.zeros(60)
    numbers = torch.arange(60.0, dtype=torch.float64).view(-1, 1)
    for seed in range(300):
        metric = fill(metric_of(0, dim=1, sample=20, seed=seed), [numbers], 10, 25, 50)
        kept[metric.rows[0, :, 0].long()] += 1
    # Each row is kept with probability 1/3: 100 of 300 times, with a standard deviation of 8.2.
    assert float((kept - 100).abs().max()) < 5 * 8.2
    assert float(kept.sum()) == 300 * 20


def test_reset_starts_anew_and_the_report_stays_at_hand():
    metric = fill(metric_of(), gaussian(0, others=1), 30)
    metric.compute()
    metric.reset()
    assert metric.report.samples == 60
    with pytest.warns(UserWarning, match="before the ``update`` method"), pytest.raises(ValueError, match="0 sample"):
        metric.compute()
    later = gaussian(1, others=1)
    fill(metric, later).compute()
    assert_same(metric.report, watched(later, sample=1024).compute(intervals=False))


def test_state_is_saved_where_it_is_wanted_and_goes_on_as_before():
    views = gaussian(2, others=1)
    metric = fill(metric_of(sample=16), [view[:40] for view in views])
    assert not metric.state_dict()
    metric.persistent(True)
    saved = metric.state_dict()
    before = {name: tensor.clone() for name, tensor in saved.items()}
    for resumed in (metric_of(sample=16), metric_of(sample=16), pickle.loads(pickle.dumps(metric)), metric.clone()):
        resumed.persistent(True)
        resumed.load_state_dict(saved)
        whole = fill(resumed, [view[40:] for view in views]).compute()
        assert all(torch.equal(saved[name], tensor) for name, tensor in before.items())
    fill(metric, [view[40:] for view in views])
    assert {name: str(value) for name, value in metric.compute().items()} == {k: str(v) for k, v in whole.items()}
    assert metric.report.as_values() == resumed.report.as_values()


def test_formats_are_kept_apart_from_the_model_s():
    metric = CollapseMetric(5, others=0).half()
    assert (metric.scatter.dtype, metric.rows.dtype) == (torch.float64, torch.float32)
    z = gaussian(0)[0]
    metric.update(z.bfloat16())
    metric.compute()
    assert metric.report.conventions["precision"] == "bfloat16"
    with pytest.raises(ValueError, match=r"are torch\.float64, which torch\.float32 does not hold"):
        metric.update(z)


def test_it_updates_in_inference_mode_and_out_of_it():
    views = gaussian(3, others=1)
    metric = metric_of()
    with torch.inference_mode():
        metric.reset()
        fill(metric, [view[:20] for view in views])
    fill(metric, [view[20:] for view in views]).compute()
    assert_same(metric.report, watched(views, sample=1024).compute(intervals=False))


def test_in_a_collection_forward_reports_on_the_batch_and_compute_on_all():
    views = gaussian(4, others=1)
    metrics = torchmetrics.MetricCollection({"z": metric_of(), "again": metric_of(seed=1, prefix="other/")})
    first = metrics(*(view[:20] for view in views))
    second = metrics(*(view[20:] for view in views))
    everything = metrics.compute()
    assert [float(values["collapse/samples"]) for values in (first, second, everything)] == [20, 40, 60]
    assert float(everything["other/rankme"]) == pytest.approx(float(everything["collapse/rankme"]))
    assert_same(metrics["z"].report, watched(views, sample=1024).compute(intervals=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "give 1 dimension or more"),
        ({"dim": 3, "others": -1}, "0 other views or more"),
        ({"dim": 3, "views": "both"}, "views"),
        ({"dim": 3, "sample": 1}, "sample"),
    ],
)
def test_it_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseMetric(**arguments)


def test_batches_of_another_shape_are_refused():
    metric = metric_of(others=1)
    for views in ([torch.ones(3, 5)], [torch.ones(3, 4)] * 2, [torch.ones(3, 5)] * 3):
        with pytest.raises(ValueError, match="this batch has"):
            metric.update(*views)


WORKER = """
import sys, torch, torch.distributed as dist
from dyncollapse.integrations.torchmetrics import CollapseMetric
rank, meeting, data, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
results = []
for views, bounds in torch.load(data):
    metric = CollapseMetric(views[0].shape[1], others=len(views) - 1, dtype=torch.float64, intervals=True)
    start, stop = bounds[rank]
    for part in (slice(start, (start + stop) // 2), slice((start + stop) // 2, stop)):
        metric.update(*(view[part] for view in views))
    values = metric.compute()
    alone = int(metric.count[:, 0].sum())  # synchronising is undone
    metric.update(*(view[:1] for view in views))
    results.append((values, metric.report.as_values(), alone))
torch.save(results, out + str(rank))
dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path):
    cases = [
        (gaussian(0), [(0, 13), (13, 60)]),
        (gaussian(1, others=1), [(0, 47), (47, 60)]),
        (gaussian(2, others=2), [(0, 0), (0, 60)]),
    ]
    data, out = tmp_path / "data.pt", tmp_path / "out"
    torch.save(cases, data)
    run_together(*(["-c", WORKER, rank, tmp_path / "meeting", data, out] for rank in range(2)))
    found = [torch.load(f"{out}{rank}") for rank in range(2)]
    for (views, bounds), *both in zip(cases, *found, strict=True):
        assert both[0][1] == both[1][1]
        assert [alone for *_, alone in both] == [stop - start for start, stop in bounds]
        expected = watched(views, sample=1024).compute()
        for name, value in scalars(expected).items():
            assert float(both[0][0][name]) == pytest.approx(value, rel=1e-9, nan_ok=True)
            assert not math.isnan(value) or name.endswith("alpha_req")  # 5 dimensions are too few for a power law


def test_rows_before_a_nan_stay_added_with_their_sample(monkeypatch):
    set_constant(monkeypatch, "diagnostics.monitor.BLOCK_BYTES", 8 * 5 * 10)  # blocks of ten rows
    views = gaussian(0, others=1)
    metric = fill(metric_of(), [view[:20] for view in views])
    views[0][45, 2] = math.nan
    with pytest.raises(ValueError, match="row 25 of view 1 holds NaN"):
        metric.update(*(view[20:] for view in views))
    metric.compute()
    assert_same(metric.report, watched([view[:40] for view in views], sample=1024).compute(intervals=False))
