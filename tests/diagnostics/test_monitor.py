import dataclasses
import json

import pytest
import torch
from helpers.constants import set_constant
from helpers.monitor import ROUND_OFF, assert_same, gaussian, watched
from helpers.reference import normal, seeded
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse import Monitor, contrastive_covariance, diagnose
from dyncollapse.diagnostics.spectra import covariance_spectrum, noise_floor

# --- Batches, order, merging


@given(st.integers(0, 2**31), st.integers(0, 3), st.lists(st.integers(0, 60), max_size=8).map(sorted))
def test_any_split_into_batches_gives_the_same_report(seed, others, splits):
    views = gaussian(seed, others=others)
    assert_same(watched(views, *splits).compute(), watched(views).compute())


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_merging_in_any_order_equals_one_monitor(seed, others):
    views = gaussian(seed, others=others)

    def part(start, stop):
        return watched([view[start:stop] for view in views])

    whole = watched(views).compute()
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        parts = [part(*bounds) for bounds in ((0, 7), (7, 40), (40, 60))]
        left, middle, right = (parts[k] for k in order)
        left.merge(middle)
        left.merge(right)
        assert_same(left.compute(), whole)
    nested, tail = part(7, 40), part(40, 60)
    nested.merge(tail)
    first = part(0, 7)
    first.merge(nested)
    assert_same(first.compute(), whole)
    assert tail.compute().samples == 20  # what was merged is left as it was


def test_merging_nothing_changes_nothing_and_into_nothing_copies(generator):
    z = normal(generator, 30, 3)
    monitor, empty = watched([z]), Monitor()
    before = monitor.compute()
    monitor.merge(Monitor())
    assert_same(monitor.compute(), before)
    empty.merge(monitor)
    assert_same(empty.compute(), before)
    empty.update(z)
    assert (empty.compute().samples, monitor.compute().samples) == (60, 30)


def test_batches_without_rows_change_nothing(generator):
    z = normal(generator, 30, 3)
    monitor = Monitor()
    for batch in (z[:0], z[:12], z[:0], z[12:]):
        monitor.update(batch)
    assert_same(monitor.compute(), watched([z]).compute())


def test_order_of_rows_does_not_matter(generator):
    views = gaussian(1, others=2)
    order = torch.randperm(60, generator=generator)
    assert_same(watched([view[order] for view in views]).compute(), watched(views).compute())


def test_reset_forgets_everything():
    monitor = watched(gaussian(0, others=2), sample=16)
    monitor.reset()
    with pytest.raises(ValueError, match="spread of 0 sample"):
        monitor.compute()
    later = gaussian(1, d=4)
    monitor.update(later[0])
    assert_same(monitor.compute(), watched(later, sample=16).compute())


def test_reporting_changes_nothing():
    views = gaussian(3, others=1)
    monitor = watched([view[:20] for view in views])
    first, second = monitor.compute(), monitor.compute()
    assert first.as_values() == second.as_values()
    monitor.update(*(view[20:] for view in views))
    assert_same(monitor.compute(), watched(views, 20).compute())


def test_memory_does_not_grow_with_the_rows():
    def held(monitor):
        moments = [t for half in monitor.sums.summed().halves for m in half.all for t in vars(m).values()]
        kept = [t for r in monitor.reservoirs for t in (r.rows, r.keys)]
        tensors = [t for t in (*moments, *kept) if torch.is_tensor(t)]
        return [(t.shape, t.dtype, t.untyped_storage().nbytes()) for t in tensors]

    few, many = (Monitor(sample=16) for _ in range(2))
    few.update(*gaussian(0, n=40, others=2))
    for seed in range(50):
        many.update(*gaussian(seed, n=100, others=2))
    assert many.sums.count == 5000
    assert held(many) == held(few)


# --- Formats, gradients


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32, torch.int8]
)
def test_every_format_is_measured_at_its_own_values(dtype, generator):
    rows = (20 * normal(generator, 80, 4)).round() if not dtype.is_floating_point else normal(generator, 80, 4)
    rows = rows.clamp(-100, 100).to(dtype)
    report = watched([rows], 33).compute()
    exact = rows.to(torch.float64)
    torch.testing.assert_close(report.spectrum, covariance_spectrum(exact), rtol=ROUND_OFF, atol=0)
    stated = report.conventions["dtype"], report.conventions["precision"]
    assert stated == (str(dtype).removeprefix("torch."),) * 2
    floor = noise_floor(exact.square().mean(0), float(report.spectrum[0]), dtype)
    # Whole numbers with a standard deviation of 20 count as rounded, which has the variance 1/12.
    floor = floor if dtype.is_floating_point else max(floor, 4 / 12)
    assert report.noise_floor == pytest.approx(floor, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_of_half_precision_are_compared_in_full(dtype, generator):
    # x' - x of close numbers needs more digits than half precision has; the sums must see the exact difference.
    z = normal(generator, 200, 3).to(dtype)
    near = (z.double() + 0.01 * normal(generator, 200, 3)).to(dtype)
    pairs = watched([z, near], 77).compute().pairs
    expected = contrastive_covariance(
        z.double(), near.double(), torch.full((200, 200), 1 / 200, dtype=torch.float64), near.double()
    )
    torch.testing.assert_close(pairs.augmentation, expected.augmentation, rtol=ROUND_OFF, atol=1e-16)


def test_training_goes_on_as_if_nobody_watched(generator):
    layer = torch.nn.Linear(6, 4)
    monitor = Monitor()
    for _ in range(3):
        x = normal(generator, 20, 6).float()
        z, z_pos = layer(x), layer(x + 0.1)
        monitor.update(z, z_pos)
        (z * z_pos).sum().backward()
    held = [t for half in monitor.sums.summed().halves for m in half.all for t in (m.mean, m.covariance)]
    assert not any(t.requires_grad for t in (*held, monitor.reservoir.rows))
    report = monitor.compute()
    assert not report.spectrum.requires_grad
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    g = seeded(generator.initial_seed())
    for _ in range(3):
        x = normal(g, 20, 6).float()
        (layer(x) * layer(x + 0.1)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, gradient, rtol=0, atol=0)


def test_svd_of_embeddings_with_a_graph_keeps_none(generator):
    z = normal(generator, 30, 3).requires_grad_()
    report = diagnose(z, svd=True)
    assert not report.spectrum.requires_grad
    assert_same(report, diagnose(z.detach(), svd=True))


@pytest.mark.parametrize("at", ["start", "update", "compute", "all"])
def test_works_in_inference_mode_and_out_of_it(at):
    views = gaussian(2, others=2)
    expected = watched(views, 20).compute()
    with torch.inference_mode(at in ("start", "all")):
        monitor = Monitor()
        if at == "start":
            monitor.update(*(view[:20] for view in views))
    with torch.inference_mode(at in ("update", "all")):
        if at != "start":
            monitor.update(*(view[:20].clone() for view in views))
    with torch.inference_mode(at == "all"):
        monitor.update(*(view[20:] for view in views))
    with torch.inference_mode(at in ("compute", "all")):
        report = monitor.compute()
    assert_same(report, expected)
    with torch.no_grad():
        assert_same(monitor.compute(), expected)


@pytest.mark.parametrize("seed", range(3))
def test_fast_is_right_to_single_precision_and_says_so(seed):
    views = [view.float() for view in gaussian(seed, n=3000, d=8, others=2)]
    slow, fast = (watched(views, 1000, fast=f).compute() for f in (False, True))
    eps = torch.finfo(torch.float32).eps
    largest = float(slow.spectrum[0])
    assert fast.noise_floor >= 16 * eps * largest * (1 - 1e-6) > 100 * slow.noise_floor
    # Weyl: no eigenvalue is off by more than the sums, for which the floor speaks.
    torch.testing.assert_close(fast.spectrum, slow.spectrum, rtol=0, atol=fast.noise_floor)
    for name, value in slow.measures.items():
        # Smallest over largest eigenvalue is 1e-2, so relative errors are 1600 eps at most.
        assert fast.measures[name] == pytest.approx(value, rel=1600 * eps), name
    torch.testing.assert_close(fast.ratios, slow.ratios, rtol=1600 * eps, atol=0)
    assert fast.conventions["accumulation"].startswith("float32")
    assert slow.conventions["accumulation"] == "float64"


def test_fast_refuses_what_float32_cannot_square():
    z = gaussian(0)[0]
    for scale, message in ((1e-20, "squares vanish in float32"), (1e25, "overflow")):
        with pytest.raises(ValueError, match=message):
            diagnose(z * scale, fast=True)
        assert diagnose(z * scale).collapsed == 0


# --- The report as data


def test_evidence_examined_again_is_the_same_report():
    from dyncollapse.diagnostics.report import examine

    monitor = watched(gaussian(0, others=1))
    again = examine(dataclasses.replace(monitor.evidence(), space="representation"))
    values = monitor.compute().as_values() | {"space": "representation"}
    values["conventions"] = values["conventions"] | {"augmentation_space": "representation"}
    assert again.as_values() == values
    assert json.loads(json.dumps(values)) == values


def test_progress_counts_rows_to_the_end(monkeypatch):
    set_constant(monkeypatch, "diagnostics.monitor.BLOCK_BYTES", 8 * 5 * 7)
    seen = []
    z, positive = gaussian(0, others=1)
    report = diagnose(z, positive, loss="infonce", progress=lambda *what: seen.append(what))
    assert seen[:9] == [("embeddings", min(7 * k, 60), 60) for k in range(1, 10)]
    assert seen[-1] == ("pairs", 60, 60)
    monkeypatch.undo()
    assert_same(report, diagnose(z, positive, loss="infonce"))


def test_rows_of_one_source_are_not_merged_twice(generator):
    z = normal(generator, 30, 3)
    first, second = watched([z[:10]]), watched([z[10:]])
    whole = watched([z]).compute()
    first.merge(second)
    for again in (first, second):
        with pytest.raises(ValueError, match="already share rows"):
            first.merge(again)
    assert_same(first.compute(), whole)
    second.reset()
    second.update(z[10:])
    first.merge(second)  # what came after a reset is another source
    assert first.compute().samples == 50


# --- Fewer rows than dimensions


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_fewer_rows_than_dimensions_are_summed_in_their_span(others, mean, generator):
    n, d = 12, 60
    views = [view + mean for view in gaussian(generator.initial_seed(), n=n, d=d, others=others)]
    held, summed = watched(views, 5), watched(views, 5)
    summed.sums.sum_rows()
    narrow, wide = held.compute(), summed.compute()
    assert (narrow.frame is None) == (wide.frame is not None)
    assert narrow.frame.shape == (d, n * (1 + others))
    scale = float(wide.spectrum[0])
    torch.testing.assert_close(narrow.spectrum, wide.spectrum, rtol=1e-9, atol=1e-13 * scale)
    assert narrow.noise_floor == pytest.approx(wide.noise_floor, rel=1e-9)
    assert narrow.verdict.fates == wide.verdict.fates
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        assert narrow.measures[name] == pytest.approx(wide.measures[name], rel=1e-8)
        assert narrow.intervals[name] == pytest.approx(wide.intervals[name], rel=1e-6)
    if others:
        back = narrow.frame @ narrow.pairs.data @ narrow.frame.T
        torch.testing.assert_close(back, wide.pairs.data, rtol=0, atol=1e-12 * scale + 1e-9 * (mean > 0))


def test_merging_passes_from_rows_to_sums_where_there_are_enough(generator):
    views = gaussian(generator.initial_seed(), n=40, d=24, others=1)
    parts = [watched([view[start : start + 8] for view in views]) for start in range(0, 40, 8)]
    first, *rest = parts
    for part in rest:
        first.merge(part)
        assert part.compute().samples == 8
    assert first.compute().frame is None
    assert_same(first.compute(), watched(views).compute())


def test_cost_of_wide_embeddings_follows_the_samples():
    z = torch.randn(2, 200_000, generator=seeded(0))
    report = diagnose(z, z + torch.randn(2, 200_000, generator=seeded(1)))  # d x d would take 320 GB
    assert report.verdict.fates.count("unseen") == 199_999
