import pytest
import torch
from helpers.planted import planted
from helpers.reference import normal, rotation

from dyncollapse import contrastive_covariance, diagnose
from dyncollapse.diagnostics.planted import planted_cases

# --- Pairs and inputs


def softmax_weights(z, positive, loss, views):
    """Alpha, dense: by each loss's definition, with the positive's logit in place of j = i."""
    if loss == "ntxent":
        z, positive = (torch.nn.functional.normalize(rows, dim=1) for rows in (z, positive))
    negatives = z if views == "one-sided" else positive
    if loss == "infonce":
        logits, own = -torch.cdist(z, negatives).square() / 2, -(z - positive).square().sum(1) / 2
    else:
        logits, own = z @ negatives.T / 0.5, (z * positive).sum(1) / 0.5
    return torch.softmax(torch.where(torch.eye(len(z), dtype=torch.bool), own, logits), dim=1)


@pytest.mark.parametrize(
    ("loss", "views"),
    [
        ("infonce", "one-sided"),
        ("infonce", "two-sided"),
        ("dot", "one-sided"),
        ("dot", "two-sided"),
        ("ntxent", "two-sided"),
    ],
)
def test_weights_of_a_loss_give_the_dense_covariances(loss, views, generator):
    x, x_pos = normal(generator, 40, 6), normal(generator, 40, 6)
    layer = normal(generator, 6, 4)
    z, positive = x @ layer, x_pos @ layer
    temperature = None if loss == "infonce" else 0.5
    got = diagnose(z, positive, inputs=x, input_positives=x_pos, views=views, loss=loss, temperature=temperature)
    alpha = softmax_weights(z, positive, loss, views)
    expected = contrastive_covariance(z, positive, alpha, positive if views == "two-sided" else None)
    torch.testing.assert_close(got.pairs.data, expected.data, rtol=0, atol=1e-10)
    torch.testing.assert_close(got.pairs.augmentation, expected.augmentation, rtol=0, atol=1e-10)
    inputs = contrastive_covariance(x, x_pos, alpha, x_pos if views == "two-sided" else None)
    ratios = (
        torch.linalg.eigvals(torch.linalg.solve(inputs.data, inputs.augmentation)).real.sort(descending=True).values
    )
    torch.testing.assert_close(got.ratios, ratios, rtol=1e-8, atol=0)
    assert got.conventions["weights"] == loss
    assert got.conventions["augmentation_space"] == "last layer's inputs"


@pytest.mark.parametrize("loss", [None, "infonce", "dot"])
def test_rounding_of_the_pairs_makes_no_ratio(loss, generator):
    # Rank 8 of 16; products in float32 leave noise in the other 8, whose ratio could be anything.
    frame = rotation(generator, 16)[:8]
    clean = normal(generator, 500, 8)
    z, positive = ((rows @ frame).float() for rows in (clean, clean + 0.3 * normal(generator, 500, 8)))
    report = diagnose(z, positive, loss=loss, inputs=z, input_positives=positive)
    assert len(report.ratios) == 8
    assert report.augmentation_share is None
    assert report.signal.positive == 8
    # Eight directions grow, eight are alive: none is left to wait, and in the others the inputs do not vary.
    assert report.verdict.fates == ["alive"] * 8 + ["unresolved"] * 8
    assert report.verdict.sentence.endswith("the inputs vary in only 8 directions.")
    assert diagnose(z, positive, loss=loss).verdict.fates == ["alive"] * 8 + ["unresolved"] * 8


@pytest.mark.parametrize("loss", [None, "infonce", "dot", "ntxent"])
def test_a_float32_copy_has_the_verdict_of_float64_under_every_loss(loss, generator):
    # Variances from 36 down to 1e-9, all above the rounding of float32 rows but far below that of float32 products.
    scale = torch.cat([torch.full((20,), 6.0), torch.logspace(-2, -4.5, 12)]).double()
    signal = normal(generator, 1500, 32) * (torch.arange(32) < 26)
    views = [((signal + normal(generator, 1500, 32)) * scale).float() for _ in range(2)]
    stored = diagnose(*views, loss=loss)
    copied = diagnose(*(view.double() for view in views), loss=loss)
    assert stored.verdict.fates == copied.verdict.fates == ["alive"] * 20 + ["waiting"] * 6 + ["suppressed"] * 6
    assert stored.measures["signal_rank"] == copied.measures["signal_rank"] == 26
    torch.testing.assert_close(stored.ratios, copied.ratios, rtol=1e-9, atol=0)


def test_rho_is_not_told_where_only_the_svd_can_see(generator):
    z = planted(generator, 300, [1.0, 1.0, 1e-10])
    z = torch.cat([z, 1e-11 * normal(generator, 300, 1)], dim=1)
    report = diagnose(z, z + 0.1 * z.flip(0), svd=True)
    assert float(report.spectrum[-1]) > report.noise_floor
    assert report.verdict.fates == ["alive", "alive", "waiting", "unresolved"]


@pytest.mark.parametrize("seed", range(3))
def test_every_planted_case_gets_its_answer(seed):
    for case in planted_cases(seed, 2000):
        report = diagnose(case.z, **case.others)
        found = (report.collapsed, report.verdict.mechanism, report.verdict.fates[-1])
        assert found == (case.collapsed, case.mechanism, case.fate), case.name


@pytest.mark.parametrize(("augmented", "dead", "waiting"), [(0, 0, 6), (2, 2, 4), (6, 6, 0), (9, 6, 0)])
@pytest.mark.seeds(3)
def test_inputs_tell_dead_from_waiting_below_the_floor(augmented, dead, waiting, generator):
    # A layer of rank 6 in 12 inputs, `augmented` of which have rho > 1: of the others 6 are alive and the rest waits.
    n, d = 2000, 12
    scales = torch.tensor([0.2] * (d - augmented) + [3.0] * augmented, dtype=torch.float64)
    x = normal(generator, n, d)
    x_pos = x + normal(generator, n, d) * scales
    layer = torch.zeros(d, d, dtype=torch.float64)
    layer[range(6), range(6)] = 1.0
    layer = layer @ rotation(generator, d)
    report = diagnose(x @ layer, x_pos @ layer, inputs=x, input_positives=x_pos, views="one-sided")
    fates = [report.verdict.fates.count(fate) for fate in ("alive", "waiting", "dead")]
    assert fates == [6, waiting, dead]


@pytest.mark.seeds(3)
def test_ratio_is_read_along_each_principal_direction(generator):
    n = 4000
    z = planted(generator, n, [4.0, 1.0, 1e-6])
    frame = torch.linalg.eigh(torch.cov(z.T)).eigenvectors.flip(-1)
    noise = normal(generator, n, 3) * torch.tensor([0.2, 1.0, 2e-3], dtype=torch.float64)
    report = diagnose(z, z + noise @ frame.T, views="one-sided")
    # One-sided, rho = a / (2 s); a relative error of sqrt(2 / n) = 2.2 % each, five of them.
    expected = torch.tensor([0.04 / 8, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(report.ratio, expected, rtol=0.11, atol=0)
    assert report.verdict.fates == ["alive", "alive", "dead"]
    assert report.augmentation_share == pytest.approx(1 / 3)


# --- What the views can tell


def paired(generator, aug_std, gain, n=4000):
    """Embeddings of clean inputs N(0, I) by one diagonal layer, and of the same with noise."""
    x, gain = normal(generator, n, len(gain)), torch.tensor(gain, dtype=torch.float64)
    noise = normal(generator, n, len(gain)) * torch.tensor(aug_std, dtype=torch.float64)
    return x * gain, (x + noise) * gain


@pytest.mark.parametrize("coarse", [torch.float16, torch.bfloat16])
def test_rounding_of_a_coarser_view_is_no_augmentation(coarse, generator):
    # The small dimensions are waiting: their positives' rounding, mixed in by a rotation, is larger than their data.
    z, z_pos = paired(generator, [0.3] * 16, [1.0] * 8 + [1e-4] * 8)
    turn = rotation(generator, 16)
    z, z_pos = z @ turn, z_pos @ turn
    assert diagnose(z, z_pos, views="one-sided").verdict.fates[8:] == ["waiting"] * 8
    report = diagnose(z, z_pos.to(coarse).double(), views="one-sided")
    assert "dead" not in report.verdict.fates
    assert any(f"rounded to float64 and to {str(coarse)[6:]}" in text for text in report.warnings)


def test_views_that_are_the_same_explain_nothing(generator):
    z, _ = paired(generator, [0.0] * 8, [1.0] * 4 + [1e-3] * 4)
    report = diagnose(z, z.clone())
    assert report.verdict.fates == ["alive"] * 4 + ["unexplained"] * 4
    assert any("there is no augmentation to compare data with" in text for text in report.warnings)


def test_ratios_that_sampling_can_turn_decide_nothing(generator):
    z, z_pos = paired(generator, [0.2] * 4 + [2**0.5, 0.5], [1.0] * 4 + [2e-3, 1e-3])
    report = diagnose(z, z_pos, views="one-sided")
    assert report.verdict.fates[4:] == ["unexplained", "waiting"]
    assert "1 for a cause that is open (rho is within its sampling error of 1)" in report.verdict.sentence
    near = [text for text in report.warnings if "rho" in text]
    assert [text[:17] for text in near] == ["1 generalised rho"]
    z, z_pos = paired(generator, [0.2] * 4 + [2.0, 0.5], [1.0] * 4 + [2e-3, 1e-3])
    assert not [text for text in diagnose(z, z_pos, views="one-sided").warnings if "rho" in text]
