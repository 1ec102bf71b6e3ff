"""Rank measures in the conventions of other libraries equal what these libraries compute."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dyncollapse import diagnose
from dyncollapse.commands.main import main
from dyncollapse.diagnostics.conventions import compare_conventions
from dyncollapse.diagnostics.lidar import lidar_from_covariances

CLOSE = {"rel": 1e-6}


def views(n=150, d=24, rank=24, v=3, scale=1.0, seed=0):
    """Views of samples of some rank, with a mean, in float64."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank, d, generator=g, dtype=torch.float64) / rank**0.5
    samples = torch.randn(n, rank, generator=g, dtype=torch.float64) @ mixing + 0.3
    return scale * (samples + 0.2 * torch.randn(v, n, d, generator=g, dtype=torch.float64))


CASES = {
    "wide": {"n": 40, "d": 130, "v": 5},
    "tall": {},
    "low rank": {"rank": 5},
    "many": {"n": 300, "d": 128, "v": 2},
    "small scale": {"scale": 1e-2},
}


def by_name(found):
    return {(one.measure, one.source): one.value for one in found}


@pytest.mark.parametrize("case", CASES)
def test_reptrix_gives_the_same(case):
    reptrix = pytest.importorskip("reptrix")
    from reptrix import alpha, lidar, rankme

    assert reptrix is not None
    z = views(**CASES[case])
    here = by_name(compare_conventions(z[0], list(z[1:])))
    assert here["rankme", "reptrix"] == pytest.approx(rankme.get_rankme(z[0]), **CLOSE)
    if min(z.shape[1:]) >= 100:
        # With fewer samples than dimensions the last eigenvalue is round-off, on which no fit agrees.
        assert here["alpha_req", "reptrix"] == pytest.approx(alpha.get_alpha(z[0])[0], **CLOSE)
    else:
        assert here["alpha_req", "reptrix"] is None
    v, n, _ = z.shape
    theirs = lidar.get_lidar(z.transpose(0, 1), n, v)
    assert here["lidar", "reptrix"] == pytest.approx(theirs, **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_stable_pretraining_gives_the_same(case):
    callbacks = pytest.importorskip("stable_pretraining.callbacks", exc_type=ImportError)
    z = views(**CASES[case])
    v, n, d = z.shape
    here = by_name(compare_conventions(z[0], list(z[1:])))
    logged = {}
    rank = callbacks.RankMe("rankme", "z", n, d)
    rank._target_queue = SimpleNamespace(data=z[0])
    module = SimpleNamespace(log=lambda name, value, **_: logged.setdefault(name, value))
    rank.on_validation_batch_end(SimpleNamespace(global_rank=0), module, {}, {}, 0)
    assert here["rankme", "stable-pretraining"] == pytest.approx(logged["rankme"], **CLOSE)
    theirs = callbacks.LiDAR("lidar", "z", n * v, d, n_classes=n, samples_per_class=v)
    rows = z.transpose(0, 1).reshape(n * v, d)
    assert here["lidar", "stable-pretraining"] == pytest.approx(theirs._compute_lidar(rows)["lidar"], **CLOSE)


def test_the_paper_adds_its_epsilon_to_every_share():
    z = views()[0]
    sigma = np.linalg.svd(z.numpy(), compute_uv=False)
    shares = sigma / sigma.sum() + 1e-7
    expected = math.exp(-np.sum(shares * np.log(shares)))
    assert by_name(compare_conventions(z))["rankme", "Garrido et al. 2023"] == pytest.approx(expected, rel=1e-12)


def test_denominators_of_lidar_matter_only_where_delta_does():
    z = views(v=4) * torch.logspace(-1, 1, 24, dtype=torch.float64)
    v, n, _ = z.shape
    centres = z.mean(0)
    means, rest = centres - centres.mean(0), (z - centres).flatten(0, 1)
    between, within = means.T @ means, rest.T @ rest
    ratios = []
    for delta in (0.0, 1.0):
        ours = lidar_from_covariances(between / n, within / (n * v), delta)
        others = lidar_from_covariances(between / (n - 1), within / (n * (v - 1)), delta)
        ratios.append(float(others / ours))
    assert ratios[0] == pytest.approx(1.0, abs=1e-12)
    assert abs(ratios[1] - 1) > 1e-3


def test_measures_without_a_value_are_none_and_other_views_are_checked():
    found = compare_conventions(views(d=8)[0])
    assert {one.measure for one in found} == {"rankme", "alpha_req"}
    assert by_name(found)["alpha_req", "reptrix"] is None
    assert "it needs 100 eigenvalues, and there are 8" in found[-1].convention
    same = views(v=1)[0]
    assert by_name(compare_conventions(same, same))["lidar", "dyncollapse"] is not None  # within is 0: delta alone
    with pytest.raises(ValueError, match=r"`?positives`? has shape \(9, 24\), and the embeddings \(10, 24\)"):
        compare_conventions(same[:10], [same[:9]])


def test_a_report_has_them_where_they_were_asked_for():
    z = views()
    report = diagnose(z[0], list(z[1:]), compare=True)
    assert list(report.published) == compare_conventions(z[0], list(z[1:]))
    by = by_name(report.published)
    assert by["rankme", "dyncollapse"] == pytest.approx(report.measures["rankme"])
    assert by["lidar", "dyncollapse"] == pytest.approx(report.measures["lidar"])
    assert by["alpha_req", "dyncollapse"] == pytest.approx(report.measures["alpha_req"])
    assert "stable-pretraining" in report.to_html()
    assert diagnose(z[0]).to_dict()["published"] == []


def test_the_command_prints_and_saves_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", views()[0].numpy())
    result = CliRunner().invoke(main, ["diagnose", "z.npy", "--compare", "--out", "report"])
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "report" / "diagnosis.json").read_text())
    assert [one["source"] for one in saved["published"][:2]] == ["dyncollapse", "Garrido et al. 2023"]
    assert saved["config"]["compare"] is True
    (line,) = [line for line in result.stdout.splitlines() if "1e-05 added to every share" in line]
    assert line.split()[:2] == ["rankme", "stable-pretraining"]
    assert float(line.split()[2]) == pytest.approx(saved["published"][2]["value"], rel=1e-5)
