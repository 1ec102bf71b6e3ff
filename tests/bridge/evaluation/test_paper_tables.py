"""Runs as data, the paper's tables beside them, pictures, and the check that makes both."""

import json
import math
from dataclasses import replace

import pytest
from helpers.bridge import small
from helpers.constants import probe_few_strengths, set_constant
from matplotlib.image import imread

from dyncollapse.bridge import (
    check_recipes,
    compare,
    draw_check,
    draw_curves,
    find_runs,
    finish_run,
    read_run,
    run_check,
)
from dyncollapse.bridge.evaluation.check_rows import SWEPT
from dyncollapse.bridge.evaluation.check_runs import is_done
from dyncollapse.bridge.evaluation.orders import Measured, compare_pair
from dyncollapse.bridge.evaluation.paper_rows import ROWS
from dyncollapse.bridge.evaluation.paper_tables import as_markdown, orders_as_markdown, rows_as_markdown, seeds_in_words
from dyncollapse.bridge.recipe import PROJECTORS
from dyncollapse.bridge.training.run_folder import add_probe
from dyncollapse.commands.bridge_table import print_table
from dyncollapse.runtime.files import write_json

FACTS = {"data": "photos", "images": 1000, "representation_dim": 512, "embedding_dim": 128, "steps": 10}


def made_up(folder, head, seed, top1, outputs=None, **settings):
    """A run's folder as pretrain, probe and diagnose leave it."""
    recipe = replace(small(projector=head, seed=seed, **settings), data="photos", arch="resnet18")
    folder.mkdir(parents=True)
    outputs = outputs or {"mlp": 128, "linear": 128, "none": 512, "diagonal": 512, "orthogonal": 512}.get(head, 90)
    facts = FACTS | {"embedding_dim": outputs}
    write_json(folder / "config.json", {"recipe": recipe.as_dict(), "facts": facts})
    (folder / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
    probe = {"method": "sgd", "dimensions": 512, "top1": top1, "error": 1.0, "step": 10}
    add_probe(folder, probe)
    measures = {"rankme": 10.0 + seed, "effective_rank": 5.0, "participation_ratio": 3.0}
    verdict = {"collapsed": 3, "mechanism": "strong-augmentation" if seed else "none"}
    space = {"measures": measures, "verdict": verdict}
    write_json(
        folder / "diagnosis.json",
        {"spaces": {"representation": space, "embedding": space}, "config": {"split": "test", "views": "one-sided"}},
    )
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed, (mlp, none) in enumerate([(60.0, 50.0), (62.0, 51.0), (64.0, 52.0)]):
        made_up(tmp_path / f"mlp-{seed}", "mlp", seed, mlp)
        made_up(tmp_path / f"none-{seed}", "none", seed, none)
        folder = made_up(tmp_path / f"direct-{seed}", "low-rank-diagonal", seed, 70.0 + seed)
        add_probe(folder, {"method": "sgd", "dimensions": 90, "top1": 40.0 + seed, "error": 1.0, "step": 10})
    made_up(tmp_path / "linear", "linear", 0, 58.0)
    made_up(tmp_path / "matched", "linear", 0, 59.0, outputs=90, out_dim=90)
    return tmp_path


def test_rows_are_means_and_deviations_over_seeds_in_the_papers_order(runs):
    rows = {row["row"]: row for row in compare(find_runs([runs]))["rows"]}
    assert list(rows) == [
        "nonlinear, 2 layers",
        "linear, 1 layer",
        "linear, 1 layer, matched",
        "none",
        "DirectCLR (low-rank diagonal)",
    ]
    mlp, direct, matched = (
        rows["nonlinear, 2 layers"],
        rows["DirectCLR (low-rank diagonal)"],
        rows["linear, 1 layer, matched"],
    )
    assert (mlp["top1"], mlp["top1_spread"], mlp["seeds"], mlp["paper_top1"]) == (62.0, 2.0, [0, 1, 2], 66.5)
    assert mlp["representation_rankme"] == 11.0
    assert (direct["subvector_top1"], direct["subvector_spread"], direct["paper_subvector_top1"]) == (41.0, 1.0, 47.9)
    assert (matched["paper_top1"], matched["embedding_dim"], matched["top1_spread"]) == (None, 90, None)
    assert rows["none"]["mechanism"] == "none/strong-augmentation"
    assert mlp["subvector_top1"] is None


def test_runs_that_differ_in_more_than_the_seed_are_rows_of_their_own(runs):
    made_up(runs / "longer", "mlp", 7, 65.0, epochs=3)
    rows = compare(find_runs([runs]))["rows"]
    both = {row["row"]: row["seeds"] for row in rows if row["projector"] == "mlp"}
    assert both == {"nonlinear, 2 layers": [0, 1, 2], "nonlinear, 2 layers, epochs 3": [7]}


def test_a_row_begins_with_the_settings_that_most_runs_have(runs):
    for seed in range(4):
        made_up(runs / f"orthogonal-longer-{seed}", "orthogonal", seed, 55.0, epochs=3)
    made_up(runs / "orthogonal", "orthogonal", 0, 51.0)
    rows = {row["row"]: row for row in compare(find_runs([runs]))["rows"] if row["projector"] == "orthogonal"}
    assert {name: row["paper_top1"] for name, row in rows.items()} == {"orthogonal": 52.2, "orthogonal, epochs 3": None}
    assert rows["orthogonal"]["seeds"] == [0]


def test_what_differs_and_what_contradicts_is_said(runs):
    compared = compare(find_runs([runs]))
    told = " | ".join(compared["differences"])
    for words in (
        "data: photos (1000 images) here, ImageNet (1281167 images) in the paper",
        "backbone: resnet18 here, resnet50",
        "epochs: 1 here, 100 in the paper",
        "seeds: 3 here",
    ):
        assert words in told
    assert "probe:" not in told
    # DirectCLR beats the nonlinear projector by 10, 9 and 8 with the three seeds.
    assert compared["contradictions"] == [
        "DirectCLR (low-rank diagonal) beats nonlinear, 2 layers by 9.0 here; in the paper it loses by 3.8"
    ]


def test_one_seed_decides_no_order(tmp_path):
    for head, top1 in (("mlp", 60.0), ("none", 62.0), ("linear", 70.0)):
        made_up(tmp_path / head, head, 0, top1)
    compared = compare(find_runs([tmp_path]))
    assert compared["contradictions"] == []
    assert {order["verdict"] for order in compared["orders"]} == {"undecided"}
    assert compared["differences"][-1].startswith("seeds: 1 here, so that no spread over seeds is known")
    assert "spectra: of the test images, one-sided views here" in " | ".join(compared["differences"])


def test_probes_of_earlier_steps_are_no_result(runs):
    add_probe(runs / "linear", {"method": "sgd", "dimensions": 512, "top1": 1.0, "error": 1.0, "step": 4})
    assert read_run(runs / "linear").top1() == 58.0
    (runs / "linear" / "probes.json").write_text("[")
    with pytest.raises(ValueError, match=r"probes\.json cannot be read"):
        add_probe(runs / "linear", {})


def test_unfinished_runs_are_named(runs):
    (runs / "mlp-0" / "log.jsonl").write_text('{"step": 4, "loss": 1.0}\n')
    (runs / "none-0" / "probes.json").unlink()
    compared = compare(find_runs([runs]))
    told = compared["unfinished"]
    assert len(told) == 2
    assert "mlp-0 is at step 4 of 10, without a checkpoint" in told[0]
    assert "none-0 has no probe yet: dyncollapse bridge probe --checkpoint" in told[1]
    none = next(row for row in compared["rows"] if row["projector"] == "none")
    assert (none["top1"], none["top1_spread"]) == (51.5, pytest.approx(math.sqrt(0.5)))


def test_every_projector_has_a_row_and_the_papers_numbers_are_those_of_the_paper():
    assert {row.head for row in ROWS} == set(PROJECTORS)
    papers = {row.head: row.paper for row in ROWS}
    assert papers == {
        "mlp": 66.5,
        "linear": 61.1,
        "none": 51.5,
        "low-rank-diagonal": 62.7,
        "orthogonal": 52.2,
        "diagonal": 60.2,
        "low-rank": 62.3,
        "random-subvector": 43.0,
    }


def test_table_prints_and_reads_as_markdown(runs, capsys):
    compared = compare(find_runs([runs]))
    print_table(compared, to_stderr=False)
    printed = capsys.readouterr().out
    assert "62.0 ± 2.0" in printed
    assert "nonlinear > DirectCLR    +3.8   -9.0 ± 2.5      3" in printed
    assert "…" not in printed
    assert "Against the paper: DirectCLR" in printed
    lines = rows_as_markdown(compared["rows"]).splitlines()
    assert {line.count("|") for line in lines} == {9}
    assert any("| 62.0 ± 2.0 | 3 | 128 |" in line for line in lines)
    lines = orders_as_markdown(compared["orders"]).splitlines()
    assert {line.count("|") for line in lines} == {11}
    assert any("| +3.8 | -9.0 | -11.5 to -6.5 | 3 |" in line for line in lines)


def test_rows_that_the_paper_lacks_have_a_dash_for_the_sub_vector_too(runs):
    made_up(runs / "longer", "low-rank-diagonal", 7, 65.0, epochs=3)
    add_probe(runs / "longer", {"method": "sgd", "dimensions": 90, "top1": 40.0, "error": 1.0, "step": 10})
    compared = compare(find_runs([runs]))
    (line,) = [line for line in as_markdown(compared).splitlines() if "| 40.0 |" in line]
    assert line.startswith("| probed on the sub-vector only | - | 40.0 |")


def test_seeds_of_both_rows_are_counted_unless_they_are_the_same():
    top1 = {seed: 50.0 + seed**2 for seed in range(6)}
    first, same, other, one = (
        Measured("row", 60.0, {seed: top1[seed] for seed in seeds}) for seeds in ((0, 1, 2), (0, 1, 2), (3, 4, 5), (0,))
    )
    pairs = ((first, same), (first, other), (first, one), (one, one))
    assert [seeds_in_words(compare_pair(*pair)) for pair in pairs] == ["3", "3, 3", "3, 1", "1"]


@pytest.mark.parametrize("width", [80, 109, 110, 140])
def test_no_number_of_the_table_is_lost_on_a_narrow_screen(width, runs, capsys, monkeypatch):
    made_up(runs / "longer", "low-rank-diagonal", 7, 65.0, epochs=3)
    compared = compare(find_runs([runs]))
    set_constant(monkeypatch, "commands.console.WIDTH_OF_FILES", width)
    print_table(compared, to_stderr=False)
    printed = capsys.readouterr().out
    assert "…" not in printed
    for column in ("paper", "top-1 here", "seeds", "outputs", "RankMe r", "erank r", "erank z", "collapsed r", "by"):
        assert column in printed
    assert printed.count("3 of 512") == len(compared["rows"])
    tables = [line for line in printed.splitlines() if not line.startswith(("Unlike", "Against", "Undecided"))]
    assert max(map(len, tables)) <= width


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json"):
        find_runs([tmp_path])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a run"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"colour": 1}, "facts": {}}))
    with pytest.raises(ValueError, match="cannot be read as a run"):
        read_run(tmp_path)


# --- The check


def test_check_has_every_projector_by_seed_a_matched_one_and_other_sub_vectors():
    recipes = check_recipes(2)
    heads = [recipe.head for name, recipe in recipes.items() if not name.startswith(SWEPT)]
    assert {head: heads.count(head) for head in heads} == {head: 4 if head == "linear" else 2 for head in PROJECTORS}
    assert recipes["linear-matched-seed1"].out_dim == 22
    assert [recipe.d0 for name, recipe in recipes.items() if name.startswith(SWEPT)] == [4, 8, 64]
    short = check_recipes(1, short=True)
    assert len(short) == 6
    assert {recipe.epochs for recipe in short.values()} == {15}


def test_check_finishes_what_is_left_and_reports_what_fails(tmp_path, monkeypatch):
    probe_few_strengths(monkeypatch)
    recipes = {
        name: replace(recipe, images=320, batch_size=32)
        for name, recipe in check_recipes(1, short=True, epochs=1).items()
        if "d0-4" in name or "none" in name
    }
    made = tmp_path / "other"
    write_json(made_up(made / "a", "mlp", 0, 60.0) / "config.json", {"recipe": small().as_dict(), "facts": FACTS})
    with pytest.raises(ValueError, match="epochs is 2, but this run began with 1"):
        run_check(made, {"a": small(epochs=2)}, 1)
    broken = replace(recipes["none-seed0"], images=None, batch_size=5000)
    seen = []
    # One run at a time is done here, also by a program that processes could not import.
    monkeypatch.setattr("dyncollapse.bridge.evaluation.check_runs.local_workers", None)
    failures = run_check(tmp_path, {**recipes, "broken": broken}, 1, lambda *part: seen.append(part))
    assert list(failures) == ["broken"]
    assert "batch_size is 5000, but there are 1297 images" in failures["broken"]
    assert seen[0] == ("steps", 0, 20)
    assert ("steps", 20, 20) in seen
    assert seen[-1] == ("probes", 2, 3)  # the broken run has none
    assert len({(name, done) for name, done, _ in seen if name == "steps"}) == sum(name == "steps" for name, *_ in seen)
    assert all(is_done(tmp_path / name) for name in recipes)
    run = read_run(tmp_path / "sweep-d0-4")
    assert run.top1() is not None
    assert run.top1(4) is not None
    assert run.diagnosis["spaces"]["embedding"]["dim"] == 4
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run_check(tmp_path, recipes, 1) == {}
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    # What is missing is made again, and only that.
    (tmp_path / "none-seed0" / "probes.json").unlink()
    assert not is_done(tmp_path / "none-seed0")
    finish_run(recipes["none-seed0"], tmp_path / "none-seed0")
    assert len(read_run(tmp_path / "none-seed0").probes) == 1

    figure = draw_check(find_runs([tmp_path / name for name in recipes]))
    axes = figure.axes
    assert len(axes) == 6
    assert [len(line.get_xdata()) for line in axes[2].get_lines()] == [128, 128]
    figure.savefig(tmp_path / "figures.png")
    assert imread(tmp_path / "figures.png").std() > 0.05


def test_curves_are_drawn_with_and_without_a_monitor(tmp_path):
    log = [{"step": k, "loss": 5.0 - k} for k in range(3)]
    monitor = [
        {
            "step": k,
            "representation_effective_rank": 3.0,
            "representation_spectrum": [1.0, 0.1, 0.0],
            "embedding_error": "NaN",
        }
        for k in range(2)
    ]
    assert len(draw_curves(log, []).axes) == 1
    figure = draw_curves(log, monitor)
    assert len(figure.axes) == 3
    figure.savefig(tmp_path / "curves.png")
