"""`dyncollapse diagnose`, as a user calls it."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.diagnose_command import ALIVE, DIM, as_json, fine
from helpers.programs import refused

from dyncollapse.commands.main import main

MEASURES = [
    "rankme",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_unbiased",
    "stable_rank",
    "alpha_req",
    "signal_rank",
    "lidar",
]
KEYS = {
    "samples",
    "dim",
    "space",
    "conventions",
    "spectrum",
    "noise_floor",
    "collapsed",
    "measures",
    "intervals",
    "augmentation_ratio",
    "augmentation_share",
    "shared_signal",
    "published",
    "remedies",
    "verdict",
    "warnings",
    "notes",
    "config",
}


# ------------------------------------------------------------------------------------------------------ what is printed


def test_report_for_eyes(diagnose):
    shown = fine(diagnose("a.npy")).stdout
    assert shown.startswith("a.npy: 400 samples x 12 dimensions, float32, not normalised, embedding\n")
    for words in ("log10 of covariance eigenvalues", "noise floor", "collapsed below", "4 of 12 dimensions collapsed"):
        assert words in shown
    assert all(f"\n{name} " in shown for name in MEASURES)
    assert "Saved" not in shown


def test_json_has_the_contract_and_is_alone_on_stdout(diagnose):
    result = fine(diagnose("a.npy", "--json"))
    assert len(result.stdout.splitlines()) == 1
    found = as_json(result.stdout)
    assert set(found) == KEYS
    assert (found["samples"], found["dim"], found["space"], found["collapsed"]) == (400, DIM, "embedding", 4)
    assert len(found["spectrum"]) == DIM == len(found["verdict"]["dimensions"])
    assert found["spectrum"] == sorted(found["spectrum"], reverse=True)
    assert list(found["measures"]) == MEASURES
    assert set(found["intervals"]) == {*MEASURES, "collapsed"}
    assert found["augmentation_ratio"] is found["augmentation_share"] is found["measures"]["lidar"] is None
    assert found["shared_signal"] is found["measures"]["signal_rank"] is None
    assert found["measures"]["rankme"] == pytest.approx(ALIVE, rel=0.1)
    config = found["config"]
    assert (config["file"], config["positives"], config["inputs"], config["seed"]) == ("a.npy", [], None, 0)
    assert {"dyncollapse", "torch", "python"} <= set(config["versions"])
    assert "4 of 12 dimensions collapsed" in result.stderr


def test_csv_round_trips(diagnose):
    options = ("a.npy", "--positives", "b.npy")
    result = fine(diagnose(*options, "--csv"))
    found = as_json(fine(diagnose(*options, "--json")).stdout)
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [float(row["eigenvalue"]) for row in rows] == found["spectrum"]
    assert [int(row["dimension"]) for row in rows] == list(range(1, DIM + 1))
    for row, expected in zip(rows, found["verdict"]["dimensions"], strict=True):
        assert row["collapsed"] == str(expected["collapsed"])
        assert (row["mechanism"], row["fate"]) == (expected["mechanism"], expected["fate"])
        assert (float(row["rho"]) if row["rho"] else None) == expected["rho"]
    assert "Collapsed means" in result.stderr


def test_html_is_the_page(diagnose):
    result = fine(diagnose("a.npy", "--html"))
    assert result.stdout.startswith("<!DOCTYPE html>")
    assert result.stdout.endswith("</html>\n")
    assert "4 of 12 dimensions collapsed" in result.stderr


def test_two_formats_at_once_are_refused(diagnose):
    assert "--json and --csv cannot share stdout" in refused(diagnose("a.npy", "--csv", "--json"))


def test_help_names_every_option():
    shown = CliRunner().invoke(main, ["diagnose", "--help"]).output
    for option in ("positives", "inputs", "input-positives", "key", "views", "loss", "temperature", "space", "svd"):
        assert f"--{option} " in shown
    for option in ("fast", "sample", "seed", "out", "json", "csv", "html"):
        assert f"--{option} " in shown


# ------------------------------------------------------------------------------------------------------------- settings


def test_two_views_tell_ratios_and_three_tell_lidar(diagnose):
    two = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--json")).stdout)
    three = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--positives", "c.npy", "--json")).stdout)
    assert len(two["augmentation_ratio"]) == len(three["augmentation_ratio"]) == ALIVE
    assert two["augmentation_share"] is None
    assert two["shared_signal"]["positive"] == two["measures"]["signal_rank"] == ALIVE
    assert (two["shared_signal"]["tested"], two["shared_signal"]["negative"]) == (ALIVE, 0)
    assert two["measures"]["lidar"] is None
    assert 1 < three["measures"]["lidar"] <= ALIVE
    assert three["config"]["positives"] == ["b.npy", "c.npy"]


def test_the_number_of_inputs_alone_tells_what_width_forbids(diagnose):
    found = as_json(fine(diagnose("a.npy", "--input-dim", ALIVE, "--json")).stdout)["verdict"]
    assert (found["mechanism"], found["fates"]) == ("width", ["alive"] * ALIVE + ["structural"] * (DIM - ALIVE))
    assert f"{DIM - ALIVE} for want of width (the last linear layer reads {ALIVE} units)" in found["sentence"]
    assert "--input-dim is 0; it must be between 1 and 1000000 units" in refused(diagnose("a.npy", "--input-dim", 0))


def test_inputs_of_the_last_layer_tell_why(diagnose):
    given = ("--positives", "b.npy", "--inputs", "a-in.npy", "--input-positives", "b-in.npy")
    found = as_json(fine(diagnose("a.npy", *given, "--json")).stdout)
    assert found["verdict"]["mechanism"] in {"strong-augmentation", "implicit-regularization", "both"}
    assert len(found["augmentation_ratio"]) == DIM
    assert found["config"]["inputs"] == "a-in.npy"
    assert "last layer's inputs" in fine(diagnose("a.npy", *given, "--views", "one-sided")).stdout


def test_what_would_show_the_cause_is_named_by_its_options(diagnose):
    np.save("flat.npy", np.load("a.npy").astype(np.float64) * ([1.0] * (DIM - 1) + [0.0]))
    shown = fine(diagnose("flat.npy", "--svd"))
    assert "its inputs in both views (--inputs and --input-positives) can show the cause" in shown.stdout
    values = fine(diagnose("flat.npy", "--svd", "--json"))
    assert "in both views (inputs and input_positives) can" in as_json(values.stdout)["verdict"]["sentence"]


def test_a_measure_that_is_not_defined_is_a_note(diagnose):
    np.save("narrow.npy", np.load("a.npy")[:, :4])
    shown = fine(diagnose("narrow.npy"))
    assert "\nnote: alpha_req is not defined here" in shown.stdout
    assert "warning: alpha_req" not in shown.stdout


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (["--loss", "infonce"], "infonce"),
        (["--loss", "infonce", "--views", "one-sided"], "infonce"),
        (["--loss", "dot"], "dot"),
        (["--loss", "ntxent", "--temperature", "0.2"], "ntxent"),
    ],
)
def test_losses_weigh_negatives(diagnose, options, weights):
    result = fine(diagnose("a.npy", "--positives", "b.npy", *options, "--json"))
    assert as_json(result.stdout)["conventions"]["weights"] == weights
    assert f"softmax of {weights}" in result.stderr


def test_svd_digs_deeper_and_fast_less_deep(diagnose):
    floors = [as_json(fine(diagnose("a.npy", *o, "--json")).stdout)["noise_floor"] for o in (["--svd"], [], ["--fast"])]
    assert floors == sorted(floors)
    assert floors[1] < floors[2] / 10


def test_key_names_the_array(diagnose):
    np.savez("both.npz", first=np.load("a.npy")[:, :5], second=np.load("a.npy"))
    assert as_json(fine(diagnose("both.npz", "--key", "first", "--json")).stdout)["dim"] == 5


@pytest.mark.usefixtures("folder")
def test_one_file_may_hold_both_views(diagnose):
    np.savez("both.npz", z=np.load("a.npy"), z_pos=np.load("b.npy"))
    apart = as_json(fine(diagnose("a.npy", "--positives", "b.npy", "--json")).stdout)
    together = as_json(fine(diagnose("both.npz:z", "--positives", "both.npz:z_pos", "--json")).stdout)
    assert {**apart, "config": 0} == {**together, "config": 0}
    assert "has no array named p" in refused(diagnose("both.npz:p"))


def test_seed_repeats_the_sample(diagnose):
    def interval(seed):
        options = ("--sample", 50, "--seed", seed, "--json")
        return as_json(fine(diagnose("a.npy", *options)).stdout)["intervals"]["rankme"]

    assert interval(1) == interval(1) != interval(2)


@pytest.mark.parametrize("form", ["--json", "--html"])
def test_the_order_of_options_changes_no_byte(diagnose, form):
    options = [("--positives", "b.npy"), ("--loss", "infonce"), ("--seed", 1), (form,)]
    there, back = (
        diagnose("a.npy", *(word for words in order for word in words)) for order in (options, options[::-1])
    )
    assert there.exit_code == 0, there.stderr
    assert back.stdout == there.stdout
