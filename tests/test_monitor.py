import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import normal

from dyncollapse import Monitor, contrastive_covariance, diagnose
from dyncollapse.measures import lidar
from dyncollapse.spectra import covariance_spectrum, noise_floor

VIEWS = ("one-sided", "two-sided")
# Sums of a few hundred well-conditioned numbers, in two orders: a few eps of each of d^2 products.
ROUND_OFF = 1e-12


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(seed, n=60, d=5, others=0):
    """Embeddings of steep spectrum around a mean, and other views of them."""
    g = seeded(seed)
    scales = torch.logspace(0, -1, d, dtype=torch.float64)
    z = (normal(g, n, d) + 1) * scales
    return [z, *(z + 0.5 * normal(g, n, d) * scales for _ in range(others))]


def watched(arrays, *splits, **options):
    """A monitor that saw rows 0 to splits[0], splits[0] to splits[1], and so on to the end."""
    monitor = Monitor(**options)
    for start, stop in zip((0, *splits), (*splits, len(arrays[0])), strict=True):
        monitor.update(*(view[start:stop] for view in arrays))
    return monitor


def numbers(value):
    """Every number of a report in order, and all else in it as text."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        parts = [numbers(part) for part in value]
        return [n for ns, _ in parts for n in ns], [t for _, ts in parts for t in ts]
    return ([value], []) if isinstance(value, float) else ([], [value])


def assert_same(got, expected, rtol=1e-9):
    """Everything that two reports say; the largest of what is summed has ROUND_OFF, and a spectrum of 100 to 1 1e-9."""
    mine, theirs = got.as_values(), expected.as_values()
    for warned in (mine, theirs):
        # Sentences show two digits, which round-off may tip.
        del warned["warnings"], warned["verdict"]["sentence"]
    (mine_numbers, mine_text), (their_numbers, their_text) = numbers(mine), numbers(theirs)
    assert mine_text == their_text
    assert mine_numbers == pytest.approx(their_numbers, rel=rtol, abs=1e-14)
    assert len(got.warnings) == len(expected.warnings)


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
        moments = [t for half in monitor.halves for m in half.all for t in vars(m).values()]
        tensors = [t for t in (*moments, monitor.reservoir.rows, monitor.reservoir.keys) if torch.is_tensor(t)]
        return [(t.shape, t.dtype, t.untyped_storage().nbytes()) for t in tensors]

    few, many = (Monitor(sample=16) for _ in range(2))
    few.update(*gaussian(0, n=40, others=2))
    for seed in range(50):
        many.update(*gaussian(seed, n=100, others=2))
    assert sum(half.count for half in many.halves) == 5000
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
    held = [t for half in monitor.halves for m in half.all for t in (m.mean, m.covariance)]
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


# --- Pairs and more views


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("others", [1, 2, 3])
def test_pairs_equal_the_contrastive_covariance_of_equal_weights(views, others, generator):
    """With several positives, Sigma0 and Sigma1 are the means over them of those of (z, positive)."""
    n, d = 50, 4
    z, *positives = [normal(generator, n, d) + k for k in range(1 + others)]
    got = watched([z, *positives], 13, 14, views=views).compute().pairs
    alpha = torch.full((n, n), 1 / n, dtype=torch.float64)
    pairs = [contrastive_covariance(z, p, alpha, p if views == "two-sided" else None) for p in positives]
    for side in ("data", "augmentation"):
        expected = torch.stack([getattr(pair, side) for pair in pairs]).mean(0)
        scale = float(expected.abs().max())
        torch.testing.assert_close(getattr(got, side), expected, rtol=0, atol=ROUND_OFF * scale)


@pytest.mark.parametrize("v", [3, 4, 6])
def test_lidar_equals_that_of_the_stacked_views(v, generator):
    centres = normal(generator, 70, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    stacked = centres + 0.3 * normal(generator, v, 70, 5)
    report = watched(list(stacked), 20).compute()
    assert report.measures["lidar"] == pytest.approx(float(lidar(stacked)), rel=1e-9)
    assert report.intervals["lidar"] is None


def test_lidar_needs_three_views():
    for others in (0, 1):
        assert watched(gaussian(0, others=others)).compute().measures["lidar"] is None


def test_diagnose_takes_one_positive_several_and_numpys():
    z, one, two = gaussian(4, others=2)
    assert_same(diagnose(z, one), watched([z, one]).compute())
    assert_same(diagnose(z, [one]), watched([z, one]).compute())
    assert_same(diagnose(z, (one, two)), watched([z, one, two]).compute())
    assert_same(diagnose(z.numpy(), one.numpy()), watched([z, one]).compute())
    assert_same(diagnose(z.numpy(), [one.numpy(), two.numpy()]), watched([z, one, two]).compute())


# --- What does not fit


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(torch.zeros(3, 2), torch.zeros(3, 3))], r"shapes \(3, 2\) and \(3, 3\); row i"),
        ([(torch.zeros(3, 2), torch.zeros(4, 2))], r"shapes \(3, 2\) and \(4, 2\); row i"),
        ([(torch.zeros(3),)], r"shape \(3,\); give one row per sample"),
        ([(torch.zeros(3, 0),)], r"shape \(3, 0\); give one row per sample"),
        ([(torch.zeros(2, 3, 4),)], r"shape \(2, 3, 4\); give one row per sample"),
        ([(torch.zeros(3, 2, dtype=torch.complex64),)], "complex; give real ones"),
        ([(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.complex64))], "complex; give real ones"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 3),)], "1 view.s. of dimension 3; earlier ones had 1 of dimension 2"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 2),) * 2], "2 view.s. of dimension 2; earlier ones had 1"),
        ([(torch.zeros(3, 2),) * 3, (torch.zeros(3, 2),) * 2], "2 view.s. of dimension 2; earlier ones had 3"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 2).half(),)], "float16; earlier ones were torch.float32"),
    ],
)
def test_batches_that_do_not_fit_are_refused_and_leave_no_trace(batches, message):
    monitor = Monitor()
    for batch in batches[:-1]:
        monitor.update(*batch)
    before = sum(half.count for half in monitor.halves)
    with pytest.raises(ValueError, match=message) as error:
        monitor.update(*batches[-1])
    assert one_line(error)
    assert (sum(half.count for half in monitor.halves)) == before
    assert (0 if monitor.reservoir.rows is None else len(monitor.reservoir.rows)) == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_counted_and_found(bad):
    z, positive = gaussian(0, n=5000, d=3, others=1)
    z[4500, 1] = z[4900, 0] = bad
    for views in ([z], [z, positive]):
        with pytest.raises(ValueError, match="hold NaN, infinity") as error:
            watched(views).compute()
        assert one_line(error)
    with pytest.raises(ValueError, match=r"the embeddings hold 2 NaN or infinite.* row 4500, column 1") as error:
        diagnose(z, positive)
    assert one_line(error)
    with pytest.raises(ValueError, match=r"embeddings \(view 2\) hold 2 NaN or infinite"):
        diagnose(positive, z)
    with pytest.raises(ValueError, match=r"the inputs \(view 2\) hold 2 NaN"):
        diagnose(positive, positive, inputs=positive, input_positives=z)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_spread(rows):
    z = torch.ones(rows, 3)
    for views in ([z], [z, z]):
        with pytest.raises(ValueError, match=f"spread of {rows} sample.s. is not defined; give at least 2 rows"):
            watched(views).compute()
        with pytest.raises(ValueError, match=f"spread of {rows} sample"):
            diagnose(*views)


def test_what_was_asked_is_checked_in_a_line():
    z, positive = gaussian(0, others=1)
    with pytest.raises(ValueError, match="views are 'both'; choose one of one-sided, two-sided"):
        Monitor(views="both")
    with pytest.raises(ValueError, match="keep at least 2 rows"):
        Monitor(sample=1)
    for arguments, message in (
        ({"loss": "infonce"}, "give the other view of each sample as positives"),
        ({"positives": positive, "loss": "triplet"}, "loss is 'triplet'"),
        ({"positives": positive, "loss": "infonce", "temperature": 0.5}, "temperature"),
        ({"positives": positive, "inputs": z}, "inputs and input_positives go together"),
        ({"positives": positive, "input_positives": z}, "inputs and input_positives go together"),
        ({"inputs": z[:9], "input_positives": z[:9]}, "9 inputs and 60 embeddings"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            diagnose(z, **arguments)
        assert one_line(error)
    huge = (z * 1e19).float()
    with pytest.raises(ValueError, match="overflow; give them in float64"):
        diagnose(huge, huge.flip(0) * 2, loss="infonce")


def test_monitors_of_unlike_things_do_not_merge():
    one, two = gaussian(0, others=1)
    mine = watched([one])
    for other in (
        watched([one, two]),
        watched([one[:, :3]]),
        watched([one.float()]),
        watched([one], views="one-sided"),
        watched([one], fast=True),
    ):
        with pytest.raises(ValueError, match="do not merge"):
            mine.merge(other)
        with pytest.raises(ValueError, match="do not merge"):
            other.merge(mine)
    with pytest.raises(ValueError, match="samples of 9 rows do not merge"):
        mine.merge(watched([one], sample=9))
    assert_same(mine.compute(), watched([one]).compute())


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
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting"), str(data), str(out)]) for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    found = [torch.load(f"{out}{rank}") for rank in range(2)]
    for case, (views, _, sample), (first, rows), (second, other_rows) in zip(range(9), cases, *found, strict=False):
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
    workers = [subprocess.Popen([sys.executable, "-c", UNLIKE, str(rank), *arguments]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    (told, keys), (other_told, other_keys) = (torch.load(f"{arguments[1]}{rank}") for rank in range(2))
    assert told == other_told
    assert told[0] == "process(es) [0] have seen no embeddings; update every monitor before all_reduce"
    assert all(text.startswith("the processes' monitors differ in (dimension, other views,") for text in told[1:])
    assert not set(keys.tolist()) & set(other_keys.tolist())


# --- Order


def test_a_file_sorted_by_class_is_judged_as_a_shuffled_one(generator):
    # Ten classes that differ along directions of their own; strong augmentation along the last eight of 16.
    centres = normal(generator, 10, 16)
    clean = centres.repeat_interleave(400, 0) + 0.3 * normal(generator, 4000, 16)
    shifted = clean + normal(generator, 4000, 16) * torch.tensor([0.1] * 8 + [4.0] * 8, dtype=torch.float64)
    order = torch.randperm(4000, generator=generator)
    rows, others = (clean, clean[order]), (shifted, shifted[order])
    ordered, mixed = (diagnose(*views, views="one-sided") for views in zip(rows, others, strict=True))
    assert ordered.augmentation_share == mixed.augmentation_share == 0.5
    monitor = Monitor(views="one-sided")
    for batch in zip(clean.split(100), shifted.split(100), strict=True):
        monitor.update(*batch)
    assert monitor.compute().augmentation_share == 0.5


# --- The report as data


def test_evidence_examined_again_is_the_same_report():
    from dyncollapse.embeddings import examine

    monitor = watched(gaussian(0, others=1))
    again = examine(dataclasses.replace(monitor.evidence(), space="representation"))
    values = monitor.compute().as_values() | {"space": "representation"}
    values["conventions"] = values["conventions"] | {"augmentation_space": "representation"}
    assert again.as_values() == values
    assert json.loads(json.dumps(values)) == values


def test_progress_counts_rows_to_the_end(monkeypatch):
    monkeypatch.setattr("dyncollapse.monitor.BLOCK_BYTES", 8 * 5 * 7)
    seen = []
    z, positive = gaussian(0, others=1)
    report = diagnose(z, positive, loss="infonce", progress=lambda *what: seen.append(what))
    assert seen[:9] == [("embeddings", min(7 * k, 60), 60) for k in range(1, 10)]
    assert seen[-1] == ("pairs", 60, 60)
    monkeypatch.undo()
    assert_same(report, diagnose(z, positive, loss="infonce"))
