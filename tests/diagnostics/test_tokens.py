import numpy as np
import pytest
import torch

from dyncollapse import SettingError, diagnose, diagnose_tokens, effective_rank, rankme
from dyncollapse.diagnostics import tokens as module

G = torch.Generator().manual_seed(0)
IMAGES = torch.randn(120, 1, 6, generator=G, dtype=torch.float64)
PLACES = torch.randn(120, 9, 6, generator=G, dtype=torch.float64)
# Two dimensions vary across images alone, two within images alone.
Z = IMAGES * torch.tensor([1.0, 1, 1, 1, 0, 0]) + PLACES * torch.tensor([0.0, 0, 1, 1, 1, 1])


def test_a_collapse_within_images_is_hidden_by_their_differences():
    assert [diagnose_tokens(Z, way).collapsed for way in ("per-image", "all", "across-images")] == [2, 0, 0]


def test_all_tokens_and_means_are_the_reports_of_those_rows():
    for way, rows in (("all", Z.reshape(-1, 6)), ("across-images", Z.mean(1))):
        found, expected = diagnose_tokens(Z, way).as_values(), diagnose(rows).as_values()
        assert found["conventions"].pop("tokens").startswith(f"{way}: ")
        assert np.allclose(found.pop("spectrum"), expected.pop("spectrum"), rtol=1e-12)
        assert found["verdict"] == expected["verdict"]


def test_measures_within_images_are_means_over_images():
    report = diagnose_tokens(Z, "per-image")
    ranks = []
    for image in Z:
        centred = image - image.mean(0)
        ranks.append(float(effective_rank(torch.linalg.eigvalsh(centred.T @ centred / 9).flip(0).clamp_min(0))))
    assert report.measures["effective_rank"] == pytest.approx(np.mean(ranks), rel=1e-12)
    assert report.measures["rankme"] == pytest.approx(np.mean([float(rankme(image)) for image in Z]), rel=1e-6)
    low, high = report.intervals["effective_rank"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(ranks, ddof=1) / 120**0.5, rel=1e-12)
    centred = (Z - Z.mean(1, keepdim=True)).reshape(-1, 6)
    assert np.allclose(report.spectrum, diagnose(centred).spectrum, rtol=1e-10, atol=1e-14)
    assert (
        report.notes[-1]
        == "not computed within single images: participation_ratio_unbiased, alpha_req, signal_rank, lidar"
    )


def test_more_dimensions_than_tokens_use_the_smaller_product():
    wide = torch.randn(20, 4, 30, generator=G)
    assert diagnose_tokens(wide, "per-image").measures["effective_rank"] < 3 + 1e-9


def test_positives_are_the_same_places_of_other_views():
    other = Z + 0.1 * torch.randn(Z.shape, generator=G, dtype=torch.float64)
    found = diagnose_tokens(Z, "all", other)
    expected = diagnose(Z.reshape(-1, 6), other.reshape(-1, 6))
    assert found.verdict == expected.verdict
    assert diagnose_tokens(Z, "per-image", other).ratios is not None
    with pytest.raises(ValueError, match="give the same images"):
        diagnose_tokens(Z, "all", other[:5])


def test_images_of_equal_tokens_have_no_rank():
    z = Z.clone()
    z[:60] = z[:60, :1]
    measures = diagnose_tokens(z, "per-image").measures
    assert measures["effective_rank"] == pytest.approx(diagnose_tokens(Z[60:], "per-image").measures["effective_rank"])


def test_blocks_and_progress(monkeypatch):
    seen = []
    whole = diagnose_tokens(Z, "per-image").as_values()
    from helpers.constants import set_constant

    set_constant(monkeypatch, "diagnostics.tokens.BLOCK_BYTES", 8 * 9 * 6 * 50)
    found = diagnose_tokens(Z, "per-image", progress=lambda *step: seen.append(step)).as_values()
    assert seen == [("embeddings", 50, 120), ("embeddings", 100, 120), ("embeddings", 120, 120)]
    assert np.allclose(found["spectrum"], whole["spectrum"], rtol=1e-12)
    assert torch.equal(module.token_means(Z), Z.mean(1))


@pytest.mark.parametrize(
    ("z", "way", "options", "error", "words"),
    [
        (Z, "each", {}, SettingError, "tokens is 'each'; choose per-image, all or across-images"),
        (Z[0], "all", {}, ValueError, r"tokens have shape \(9, 6\); give \(images, tokens, dimensions\)"),
        (Z[:, :0], "all", {}, ValueError, "give"),
        (Z[:, :1], "per-image", {}, ValueError, "one token per image does not vary"),
        (Z, "per-image", {"svd": True}, SettingError, "takes neither svd nor loss"),
        (Z, "per-image", {"loss": "dot"}, SettingError, "takes neither svd nor loss"),
        (Z, "per-image", {"compare": True}, SettingError, "nor compare"),
    ],
)
def test_what_is_refused(z, way, options, error, words):
    with pytest.raises(error, match=words):
        diagnose_tokens(z, way, **options)
