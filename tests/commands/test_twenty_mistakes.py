"""The most likely mistakes of users: each is refused in one line that says what to do next."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.programs import refused
from PIL import Image

from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.training.run_folder import CONFIG, find_runs
from dyncollapse.commands.main import main

SETTINGS = [
    ("python", "deterministic = True"),
    ("none", "seed = 1\nd0 = None"),
    ("text", 'd0 = "8"'),
    ("out", 'out = "runs/a"'),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, a few embeddings and what is easily taken for embeddings, settings, images or encoders."""
    folder = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 8))
    broken = z.copy()
    broken[3, 2] = np.nan
    arrays = {
        "z": z,
        "wide": np.hstack([z, z]),
        "other": z[:150],
        "flat": z[:, 0],
        "columns": z.T,
        "nan": broken,
        "labels": np.arange(200) % 10,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "several.npz", train=z, test=z)
    (folder / "z.xlsx").write_text("1,2\n3,4\n")
    torch.save({"layer.0.q": torch.ones(8, 3, 4, 4)}, folder / "unknown.pth")
    for name, text in (("key", "epoch = 5"), ("table", "[run]\nepochs = 5"), ("syntax", "data = digits"), *SETTINGS):
        (folder / f"{name}.toml").write_text(text)
    (folder / "single" / "class").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "single" / "class" / "one.png")
    for name in ("used", "texts"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").touch()
    recipe = resolve({"data": "digits", "epochs": 1})
    facts = {"data": "digits", "images": 1297, "representation_dim": 128, "embedding_dim": 64, "steps": 5}
    (folder / "run").mkdir()
    (folder / "run" / CONFIG).write_text(json.dumps({"recipe": recipe.as_dict(), "facts": facts}))
    return folder


MISTAKES = {
    "a wrong path": ("diagnose nowhere.npy", "give a file, .npy, .npz, .pt, .pth, .safetensors, .csv, "),
    "a directory instead of a file": ("diagnose used", "holds no file of embeddings; give a folder of shards, as .npy"),
    "another format": ("diagnose z.xlsx", "ends in .xlsx; give a file, .npy, .npz"),
    "one number per sample": ("diagnose flat.npy", "give one row per sample, (samples, dimensions)"),
    "labels instead of embeddings": ("diagnose labels.npy", "as labels have; give one row per sample"),
    "several arrays": ("diagnose several.npz", "choose one with --key NAME"),
    "NaN": ("diagnose nan.npy", "the first in row 3, column 2 (counted from 0); leave such rows out, or"),
    "positives of other samples": (
        "diagnose z.npy --positives other.npy",
        "(150, 8), and z.npy (200, 8); give the same samples",
    ),
    "transposed positives": (
        "diagnose z.npy --positives columns.npy",
        "(8, 200), and z.npy (200, 8); transpose it",
    ),
    "views without positives": ("diagnose z.npy --views one-sided", "give --positives, or leave it out"),
    "no file": ("diagnose", "Missing argument 'FILE'; dyncollapse diagnose --help shows what it takes"),
    "a slip in a command": ("simulat", "did you mean dyncollapse simulate?"),
    "a slip in an option": ("simulate --aug-stregth 2", "did you mean --aug-strength?"),
    "a slip in a value": ("simulate --views both", "--views is 'both'; choose one of one-sided, two-sided"),
    "an unknown preset": ("simulate --preset papr", "--preset is 'papr'; choose one of paper, authors-code"),
    "a preset contradicted": ("simulate --preset paper --loss dot", "not dot; drop --preset or --loss"),
    "a negative variance": ("simulate --aug-strength -1", "it must be between 0 and 1e15"),
    "a word for a number": ("simulate --lr fast", "--lr is 'fast'; it takes a number; dyncollapse simulate --help"),
    "a grid in simulate": ("simulate --lr 0.1,0.2", "it takes a number; dyncollapse sweep with --out takes several"),
    "more than fits into memory": ("simulate --dim 10000 --runs 9999", "lower --dim, --depth, --batch-size"),
    "a grid that is too big": ("sweep --lr 1:2:999 --seed 1:999:999 --out g", "give fewer values"),
    "a range without a count": ("sweep --lr 0.1:0.2 --out g", "write first:last:count or first:last:count:log"),
    "a word in a grid": ("sweep --lr 0.1,x --out g", "write numbers, 1,2,3 or first:last:count"),
    "no folder for a sweep": (
        "sweep --lr 0.1,0.2",
        "--out is not given; it names this: Folder of the sweep: a new one",
    ),
    "a folder already used": ("simulate --out used", "already holds files; name a new folder or remove it"),
    "a folder of another kind": ("collect run", "run holds no sweep.json; name the folder of a sweep"),
    "an unknown claim": ("verify --claim lemma1", "did you mean lemma-1"),
    "an unknown topic": ("help colapse", "did you mean collapse"),
    "no images": ("bridge pretrain --data texts --device cpu", "name another folder"),
    "no data": ("bridge pretrain", "name a folder of images, cifar10, or digits"),
    "a folder with a run": ("bridge pretrain --data digits --out run", "add --resume, or name a new folder"),
    "resume with other settings": (
        "bridge pretrain --resume --out run --lr 0.5",
        "--lr is 0.5, but this run began with 0.3; drop it, or begin another run",
    ),
    "resume of what is no run": (
        "bridge pretrain --resume --out used",
        "give folders that bridge pretrain",
    ),
    "an unknown key": ("bridge pretrain --data digits --config key.toml", "has 'epoch'; did you mean epochs?"),
    "a table in settings": ("bridge pretrain --data digits --config table.toml", "at the top level, without [run]"),
    "text without quotes": (
        "bridge pretrain --data digits --config syntax.toml",
        "write lines as epochs = 5 and",
    ),
    "a checkpoint of unknown layout": (
        "bridge embed --checkpoint unknown.pth --data digits",
        "give --arch, or --prefix-map OLD=NEW",
    ),
    "embeddings for a checkpoint": (
        "bridge embed --checkpoint z.npy --data digits",
        "give a file of torch.save or .safetensors",
    ),
    "options of another check": ("bridge check --tiny --seeds 2", "drop it, or --full and --tiny"),
    "positives of another layer": (
        "diagnose z.npy --positives wide.npy",
        "(200, 8); both must come from the same layer",
    ),
    "a device that nobody chose": ("bridge pretrain --data nowhere", "--data nowhere is no folder; give"),
    "a width without a layer": ("simulate --hidden-dim 8", "give --depth 2 or more, or drop --hidden-dim"),
    "an option of pretrain": ("simulate --resume", "to continue, repeat the same command with its --out"),
    "an option unlike any other": ("simulate --resonance", "--resonance'; dyncollapse simulate --help shows"),
    "a command of the bridge": ("pretrain --data digits", "did you mean dyncollapse bridge pretrain?"),
    "a command outside the bridge": ("bridge simulate", "did you mean dyncollapse simulate?"),
    "help of a slip in a command of the bridge": ("help pretrian", "did you mean bridge pretrain?"),
    "help of a command of the bridge": ("help embed", "did you mean bridge embed?"),
    "other views as arguments": ("diagnose z.npy z.npy", "'z.npy' is no argument of dyncollapse diagnose; other views"),
    "a list with spaces": ("sweep --lr 0.1, 0.2", "'0.2' is no argument of dyncollapse sweep; write lists without"),
    "a claim as an argument": ("verify lemma-1", "give a claim as --claim NAME"),
    "a claim without hyphens": ("verify --claim theorem2", "did you mean theorem-2-"),
    "claims in one": ("verify --claim lemma-2,theorem-1", "give one claim per --claim, which is repeatable"),
    "an option without its value": ("simulate --lr", "--lr has no value; it takes a number"),
    "an option in place of a value": ("sweep --lr --out g", "--lr has no value; it takes FLOAT,.."),
    "a path that is left out": ("bridge check --out", "--out has no value; it takes a path"),
    "a value for a switch": ("simulate --json=1", "--json takes no value; write it alone"),
    "no seeds": ("bridge check --seeds 0", "--seeds is 0; it must be between 1 and 100"),
    "a word for a count": ("bridge check --epochs abc", "--epochs is 'abc'; it takes a whole number"),
    "no time": ("bridge check --full --minutes 0", "--minutes is 0; it must be above 0 and at most 10000"),
    "time that is no number": ("bridge check --full --minutes nan", "--minutes is nan; it must be above 0"),
    "resume of a run elsewhere": (
        "bridge pretrain --resume --out nowhere",
        "nowhere does not exist; check --out, or leave out --resume to begin a new run there",
    ),
    "Python in settings": ("bridge pretrain --data digits --config python.toml", "write true for True; TOML has it in"),
    "None in settings": ("bridge pretrain --data digits --config none.toml", "leave out a setting that shall have"),
    "text for a number in settings": (
        "bridge pretrain --data digits --config text.toml",
        "d0 is '8'; it takes whole numbers",
    ),
    "an option as a key": ("bridge pretrain --data digits --config out.toml", "give --out on the command line"),
    "an array for settings": ("bridge pretrain --data digits --config z.npy", "name a TOML file of settings"),
    "a folder for settings": ("bridge pretrain --data digits --config used", "name a TOML file of settings"),
    "a table in a new folder": (
        "collect used --out new/x/t.csv",
        "--out new/x/t.csv: there is no folder new/x; create",
    ),
    "a temperature without a softmax": (
        "simulate --temperature 0.5",
        "--temperature is 0.5, but the infonce loss has none; drop it, or give --loss dot or ntxent",
    ),
    "a loss without pairs": (
        "diagnose z.npy --loss ntxent",
        "--loss ntxent weights pairs; give the other view of each sample as --positives",
    ),
    "a word among numbers": ("sweep --dim 8,abc --out g", "--dim is 'abc', which is not a number; write numbers"),
    "a single image": (
        "bridge pretrain --data single --preset cifar10 --batch-size 2 --device cpu",
        "--data has 1 image to train on; training needs at least 2, and as many as --batch-size",
    ),
    "a setting of the full check": ("bridge check --device cpu", "--device: only with --full or --tiny; add one"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(place, monkeypatch, name):
    monkeypatch.chdir(place)
    before = sorted(os.listdir(place))
    command, words = MISTAKES[name]
    line = refused(CliRunner().invoke(main, command.split(), prog_name="dyncollapse"))
    assert words in line
    assert len(line) <= 250
    assert sorted(os.listdir(place)) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["simulate --device cuda", "bridge pretrain --data digits --device cuda"])
def test_a_gpu_that_is_absent(place, monkeypatch, command):
    monkeypatch.chdir(place)
    line = refused(CliRunner().invoke(main, command.split()))
    assert "--device is 'cuda'; this machine offers cpu; give --device cpu" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["bridge pretrain --data single", "bridge check --full"])
def test_a_gpu_that_is_absent_and_was_not_asked_for(place, monkeypatch, command):
    monkeypatch.chdir(place)
    line = refused(CliRunner().invoke(main, command.split()))
    assert "--device is 'cuda' (the default); this machine offers cpu; give --device cpu" in line


def test_a_run_that_is_named_twice_counts_once(place, tmp_path):
    (tmp_path / "link").symlink_to(place / "run")
    ways = [place / "run", place, place / "used" / ".." / "run", tmp_path / "link"]
    assert len(find_runs(ways)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
@pytest.mark.parametrize("command", ["simulate --dim 4 --steps 1", "diagnose z.npy"])
def test_a_folder_that_may_not_be_written(place, monkeypatch, command):
    monkeypatch.chdir(place)
    line = refused(CliRunner().invoke(main, [*command.split(), "--out", "/proc/results"]))
    assert "--out /proc/results cannot be written" in line
    assert "name a folder you may write to" in line


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("pyarrow", "collect nowhere --out table.parquet", "tables"),
        ("distributed", "sweep --executor dask --out g", "cluster"),
        ("submitit", "sweep --executor slurm --out g", "cluster"),
    ],
)
def test_an_extra_that_is_missing(place, monkeypatch, module, command, extra):
    monkeypatch.chdir(place)
    monkeypatch.setattr("dyncollapse.runtime.extras.find_spec", lambda name: None if name == module else 1)
    line = refused(CliRunner().invoke(main, command.split()))
    assert f"pip install 'dyncollapse[{extra}]'" in line


def test_transposed_embeddings_are_few_samples_and_the_report_says_so(place, monkeypatch):
    monkeypatch.chdir(place)
    result = CliRunner().invoke(main, ["diagnose", "columns.npy"])
    assert result.exit_code == 0
    assert "warning: 8 samples of 200 dimensions show at most 7;" in result.stdout
    assert "or transpose the array if its columns are the samples" in result.stdout


def test_there_are_more_than_twenty():
    assert len(MISTAKES) > 20
    assert not Path("run").exists()
