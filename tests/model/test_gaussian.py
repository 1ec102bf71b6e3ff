import itertools

import pytest
import torch
from helpers.constants import set_constant
from helpers.reference import VIEWS, covariance, random_covariance, rotation

from dyncollapse import GaussianTask, Pairs, join_streams, stack_pairs
from dyncollapse.model._drawing import Factor

EYE = torch.eye(3, dtype=torch.float64)


def rows(x):
    return {tuple(row.tolist()) for row in x}


def close_to_covariance(sample, expected):
    # An entry of an empirical covariance of n Gaussian samples has variance (C_ii C_jj + C_ij^2) / n, at most
    # 2 max_i C_ii^2 / n: five standard deviations.
    tolerance = 5 * (2 / len(sample)) ** 0.5 * float(expected.diagonal().max())
    torch.testing.assert_close(sample.T @ sample / len(sample), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("ranks", [(4, 4), (2, 4), (4, 1), (2, 3)])
@pytest.mark.seeds(3)
def test_samples_have_the_covariances_of_the_task(ranks, views, generator):
    s, a = (random_covariance(generator, 4, rank) for rank in ranks)
    pairs = GaussianTask(s, a, views).sample(20_000, generator)
    close_to_covariance(pairs.anchor, s if views == "one-sided" else s + a)
    close_to_covariance(pairs.positive, s + a)
    close_to_covariance(pairs.positive - pairs.anchor, a if views == "one-sided" else 2 * a)


@pytest.mark.parametrize(
    ("variances", "placed"),
    [
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.0, 0.0, 1.5, 1.5], True),
        ([1.5, 1.5, 0.0, 0.0], True),
        ([0.0, 1.0, 2.0, 0.0], False),
        ([1.0, 0.0, 1.0, 0.0], False),
        ([0.0, 0.0, 0.0, 0.0], True),
    ],
)
def test_numbers_drawn_with_a_standard_deviation_are_those_of_the_product(variances, placed):
    factor = Factor.of(torch.diag(torch.tensor(variances, dtype=torch.float64)))
    assert (factor.std is not None) is placed
    white = torch.randn(3, 50, factor.matrix.shape[1], generator=torch.Generator().manual_seed(0))
    found = factor.normal((3, 50), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, white.double() @ factor.matrix.T, rtol=2**-22, atol=0)  # rounded to float32
    assert found.shape == (3, 50, 4)


def in_both_precisions(task):
    return (task.to(dtype).sample(20, torch.Generator().manual_seed(1)) for dtype in (torch.float64, torch.float32))


def test_both_precisions_see_the_same_samples():
    double, single = in_both_precisions(GaussianTask.block(6, 3))
    assert torch.equal(single.anchor.double(), double.anchor)
    torch.testing.assert_close(single.positive.double(), double.positive, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variances", [[0.0] * 12 + [1.0, 1.0, 1.0, 2.0], [2.0] * 15 + [1.0], [0.5] * 16])
def test_both_precisions_see_the_same_samples_where_variances_are_alike(variances, generator):
    turn = rotation(generator, 16)
    cov = turn * torch.tensor(variances).double() @ turn.T
    double, single = in_both_precisions(GaussianTask((cov + cov.T) / 2, (cov + cov.T) / 4))
    # Entries of a sample are sums of 16 products of numbers up to 4, of a root that is off by a few eps.
    torch.testing.assert_close(single.anchor.double(), double.anchor, rtol=0, atol=1e-5)
    torch.testing.assert_close(single.positive.double(), double.positive, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variance", [1e77, 1e-90])
def test_variances_may_leave_the_range_of_float32(variance, generator):
    cov = variance * torch.eye(3, dtype=torch.float64)
    pairs = GaussianTask(cov, cov).sample(2000, generator)
    close_to_covariance(pairs.anchor, cov)
    close_to_covariance(pairs.positive - pairs.anchor, cov)


def test_directions_without_variance_stay_empty(generator):
    s = random_covariance(generator, 5, 2)
    null = torch.linalg.eigh(s).eigenvectors[:, :3]
    pairs = GaussianTask(s, torch.zeros(5, 5, dtype=torch.float64)).sample(50, generator)
    assert float((pairs.anchor @ null).abs().max()) < 1e-12
    assert float(pairs.anchor.abs().max()) > 0.1
    assert torch.equal(pairs.anchor, pairs.positive)


def test_one_sided_anchors_are_clean(generator):
    task, clean = GaussianTask.block(4, 2, 1.0), torch.randn(6, 4, generator=generator).double()
    pairs = task.augment(clean, generator)
    assert torch.equal(pairs.anchor, clean)
    assert pairs.negatives is pairs.anchor
    assert torch.equal(pairs.positive[:, :2], clean[:, :2])
    assert (pairs.positive[:, 2:] != clean[:, 2:]).all()


def test_two_sided_views_are_both_augmented(generator):
    task, clean = GaussianTask.block(4, 2, 1.0, views="two-sided"), torch.randn(6, 4, generator=generator).double()
    pairs = task.augment(clean, generator)
    assert pairs.negatives is pairs.positive
    for view in (pairs.anchor, pairs.positive):
        assert torch.equal(view[:, :2], clean[:, :2])
        assert (view[:, 2:] != clean[:, 2:]).all()
    assert (pairs.anchor[:, 2:] != pairs.positive[:, 2:]).all()


def test_block_is_the_task_of_figure_3():
    task = GaussianTask.block(5, 2, 1.5, 0.5)
    assert task.dim == 5
    assert torch.equal(task.data_cov, 0.5 * torch.eye(5, dtype=torch.float64))
    assert torch.equal(task.aug_cov.diagonal(), torch.tensor([0, 0, 0, 1.5, 1.5], dtype=torch.float64))
    assert int((task.aug_cov != 0).sum()) == 2


def test_same_seed_same_bits():
    first, again, other = (
        GaussianTask.block(4, 2).sample(5, torch.Generator().manual_seed(seed), (2,)) for seed in (3, 3, 4)
    )
    assert first.anchor.shape == (2, 5, 4)
    assert torch.equal(first.anchor, again.anchor)
    assert torch.equal(first.positive, again.positive)
    assert not torch.equal(first.anchor, other.anchor)
    assert not torch.equal(first.anchor[0], first.anchor[1])


@pytest.mark.parametrize("pool", [None, 10])
@pytest.mark.parametrize("views", VIEWS)
def test_a_restarted_stream_repeats_itself(views, pool, generator):
    stream = GaussianTask.block(3, 1, views=views).stream(4, generator, (2,), pool)
    first, again = (list(itertools.islice(stream, 7)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert a.views == views
        assert a.anchor.shape == (2, 4, 3)
        assert torch.equal(a.anchor, b.anchor)
        assert torch.equal(a.positive, b.positive)
    for earlier, later in itertools.pairwise(first):
        assert not torch.equal(earlier.positive, later.positive)


def test_two_iterations_of_a_stream_do_not_disturb_each_other(generator):
    stream = GaussianTask.block(3, 1).stream(4, generator)
    expected = [batch.anchor for batch in itertools.islice(stream, 3)]
    first, second = iter(stream), iter(stream)
    for anchor in expected:
        assert torch.equal(next(first).anchor, anchor)
        assert torch.equal(next(second).anchor, anchor)


def test_a_stream_goes_on_where_its_generator_stood():
    generator = torch.Generator().manual_seed(0)
    early = next(iter(GaussianTask.block(3, 1).stream(4, generator)))
    torch.randn(1, generator=generator)
    late = next(iter(GaussianTask.block(3, 1).stream(4, generator)))
    assert not torch.equal(early.anchor, late.anchor)


def test_a_pool_is_visited_in_epochs_without_duplicates(generator):
    batches = list(itertools.islice(GaussianTask.block(3, 3).stream(4, generator, pool=13), 9))
    assert all(len(rows(batch.anchor)) == 4 for batch in batches)
    epochs = [rows(torch.cat([batch.anchor for batch in batches[i : i + 3]])) for i in (0, 3, 6)]
    assert [len(epoch) for epoch in epochs] == [12, 12, 12]
    # Each epoch leaves one sample of 13 out, so all of them together are the pool and no more.
    assert len(set.union(*epochs)) <= 13
    assert not torch.equal(batches[0].anchor, batches[3].anchor)


def test_noise_is_fresh_in_every_epoch(generator):
    batches = list(itertools.islice(GaussianTask.block(3, 3).stream(4, generator, pool=4), 2))
    assert rows(batches[0].anchor) == rows(batches[1].anchor)
    shifts = [rows(batch.positive - batch.anchor) for batch in batches]
    assert not shifts[0] & shifts[1]


def test_every_run_has_a_pool_of_its_own(generator):
    batch = next(iter(GaussianTask.block(3, 1).stream(4, generator, (2,), pool=4)))
    assert not rows(batch.anchor[0]) & rows(batch.anchor[1])


def test_fresh_batches_never_repeat_a_sample(generator):
    batches = list(itertools.islice(GaussianTask.block(3, 1).stream(4, generator), 5))
    assert len(rows(torch.cat([batch.anchor for batch in batches]))) == 20


@pytest.mark.parametrize("runs", [(), (2,)])
def test_fresh_batches_do_not_begin_again_with_every_draw(runs, generator, monkeypatch):
    set_constant(monkeypatch, "model._drawing.DRAWN", 2 * 12)  # two batches of 4 in 3 dimensions
    batches = list(itertools.islice(GaussianTask.block(3, 1).stream(4, generator, runs), 7))
    drawn = torch.cat([batch.anchor.flatten(0, -2) for batch in batches])
    assert len(rows(drawn)) == len(drawn)


def test_pools_that_do_not_fit_together_are_refused_before_any_is_drawn(generator):
    with pytest.raises(RuntimeError, match="memory"):  # 128 TB, in streams of a few GB each
        GaussianTask.block(16, 2).stream(16, generator, (10**6,), 10**6)


def test_stacking_adds_a_leading_axis(generator):
    task = GaussianTask.block(3, 1, views="two-sided")
    batches = [task.sample(4, generator, (2,)) for _ in range(3)]
    stacked = stack_pairs(batches)
    assert stacked.anchor.shape == (3, 2, 4, 3)
    assert stacked.views == "two-sided"
    assert torch.equal(stacked.positive[1], batches[1].positive)


def test_precision_changes_on_request(generator):
    task = GaussianTask.block(3, 1, views="two-sided").to(torch.float32)
    pairs = task.sample(4, generator)
    assert (task.views, pairs.views) == ("two-sided", "two-sided")
    assert pairs.anchor.dtype == torch.float32
    assert pairs.to(torch.float64).positive.dtype == torch.float64


def test_a_product_that_is_psd_up_to_round_off_is_accepted(generator):
    root = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    s = root @ root.T
    assert float(torch.linalg.eigvalsh(s)[0]) < 1e-12
    close_to_covariance(GaussianTask(s, s).sample(5_000, generator).anchor, s)


def test_slow_and_fast_empirical_covariance_agree(generator):
    x = GaussianTask.block(3, 1).sample(200, generator).anchor
    torch.testing.assert_close(covariance(x), torch.cov(x.T, correction=0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("data", "aug", "message"),
    [
        (EYE[:2], EYE, r"data covariance has shape \(2, 3\); it must be a square matrix"),
        (EYE, EYE.flatten(), r"aug_cov has shape \(9,\); its axes are \(d, d\)"),
        (EYE, EYE[None], "augmentation covariance has shape .* square"),
        (EYE[:0, :0], EYE, "square"),
        (EYE * float("nan"), EYE, "data covariance holds NaN or infinity"),
        (EYE, EYE / 0, "augmentation covariance holds NaN or infinity"),
        (EYE.roll(1, 0), EYE, r"not symmetric \(largest difference 1\); pass \(C \+ C.T\) / 2"),
        (EYE, EYE - 2 * torch.diag(EYE[0]), "augmentation covariance has the eigenvalue -1; all must be at least 0"),
        (EYE, EYE[:2, :2], r"data covariance is \(3, 3\) of torch.float64 .* augmentation covariance \(2, 2\)"),
        (EYE, EYE.float(), "augmentation covariance .* torch.float32 on cpu; both must have .* one precision"),
        (EYE.half(), EYE.half(), "data covariance has numbers of type torch.float16; give float32 or float64"),
        (EYE, EYE > 0, "aug_cov is bool; taken are float16, .*: convert it"),
    ],
)
def test_what_is_no_covariance_is_refused(data, aug, message):
    with pytest.raises(ValueError, match=message):
        GaussianTask(data, aug)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aug_dim": 4}, "aug_dim is 4 of dim 3"),
        ({"aug_dim": -1}, "aug_dim is -1 of dim 3"),
        ({"aug_strength": -0.1}, "aug_strength is -0.1; it is a variance"),
        ({"aug_strength": float("inf")}, "aug_strength is inf"),
        ({"aug_strength": float("nan")}, "aug_strength is nan"),
        ({"data_var": 0.0}, "data_var is 0.0; it is a variance, finite and above 0"),
        ({"views": "both"}, "views is 'both'; choose one of one-sided, two-sided"),
    ],
)
def test_block_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianTask.block(**{"dim": 3, "aug_dim": 1} | settings)


def test_bad_batches_are_refused(generator):
    task = GaussianTask.block(3, 1)
    with pytest.raises(ValueError, match="batch size is 1; a contrastive batch needs at least 2 pairs"):
        task.stream(1, generator)
    with pytest.raises(ValueError, match="batch size is 8 and the pool holds 7 samples"):
        task.stream(8, generator, pool=7)
    with pytest.raises(ValueError, match=r"anchors have shape \(2, 3\), positives \(4, 3\)"):
        Pairs(torch.zeros(2, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="views is 'three-sided'"):
        Pairs(torch.zeros(2, 3), torch.zeros(2, 3), "three-sided")


def test_joined_streams_draw_what_each_draws_alone():
    tasks = [GaussianTask.block(3, 1, k) for k in (0.5, 2.0)]
    streams = [
        task.stream(4, torch.Generator().manual_seed(seed), (runs,), pool)
        for seed, (task, runs, pool) in enumerate(zip(tasks, (1, 3), (None, 9), strict=True))
    ]
    joined = join_streams(streams)
    for _ in range(2):
        for together, *apart in itertools.islice(zip(joined, *streams, strict=True), 5):
            assert torch.equal(together.anchor, torch.cat([pairs.anchor for pairs in apart]))
            assert torch.equal(together.positive, torch.cat([pairs.positive for pairs in apart]))


@pytest.mark.parametrize(
    "other",
    [
        {"dim": 4},
        {"n": 5},
        {"runs": ()},
        {"runs": (2, 2)},
        {"views": "two-sided"},
        {"dtype": torch.float32},
    ],
)
def test_streams_that_do_not_fit_are_not_joined(other):
    def stream(dim=3, n=4, runs=(2,), views="one-sided", dtype=torch.float64):
        return GaussianTask.block(dim, 1, views=views, dtype=dtype).stream(n, torch.Generator(), runs)

    with pytest.raises(ValueError, match="streams that are joined need runs, and one batch size"):
        join_streams([stream(), stream(**other)])
