import tarfile
import time
from dataclasses import replace

import pytest
import torch
from helpers.constants import set_constant
from helpers.real_scale import site

from dyncollapse.bridge.evaluation.check_rows import table_recipes
from dyncollapse.bridge.real_scale import cifar
from dyncollapse.bridge.real_scale.scale import FULL
from dyncollapse.bridge.training.loop import LossDiverged


def test_rows_that_fail_are_told_and_fail_their_part(tmp_path, archive, monkeypatch):
    finish, heads = cifar.finish_run, ("linear", "none", "mlp")
    errors = {
        "linear": LossDiverged("the loss is nan at step 1"),
        "none": torch.OutOfMemoryError("out of memory\nat length"),
    }

    def some(recipe, *rest):
        if recipe.head in errors:
            raise errors[recipe.head]
        finish(recipe, *rest)

    monkeypatch.setattr(cifar, "finish_run", some)
    set_constant(monkeypatch, "bridge.real_scale.cifar.ORDER", heads)
    monkeypatch.setattr(cifar, "table_recipes", lambda common: table_recipes(common, heads))
    found = cifar.measure(site(tmp_path, cifar=archive))
    assert found.failed
    assert found.values["failed"] == {
        "linear": "the loss is nan at step 1",
        "none": "OutOfMemoryError: out of memory",
    }
    assert all("in some" in found.values["tracebacks"][head] for head in errors)
    assert [row["row"] for row in found.values["rows"]] == ["nonlinear, 2 layers"]


def test_rows_for_which_no_time_is_left_are_named(tmp_path, archive, monkeypatch):
    set_constant(monkeypatch, "bridge.real_scale.cifar.ROOM", 1e9)  # as if the first had taken an age
    found = cifar.measure(site(tmp_path, cifar=archive))
    assert len(found.values["rows"]) == 1
    assert len(found.skipped) == 8
    told = found.skipped[0]
    assert told == "no time for the row linear; give more --minutes"
    assert cifar.measure(site(tmp_path)).skipped == ["CIFAR-10 was not given (--cifar PATH): no rows of Tables 1 and 2"]


def test_epochs_are_as_many_as_there_is_time_for(tmp_path):
    full = replace(site(tmp_path), scale=FULL, until=time.time() + 900 + cifar.AFTER)
    # 100 s a row, 12 of them besides its steps, not a second too long.
    assert cifar.epochs_that_fit(full, 9, 8.0) == 11 - 1
    assert cifar.epochs_that_fit(full, 9, 1e6) == 1


def test_archives_are_unpacked_and_others_refused(tmp_path, archive):
    assert sorted(path.name for path in cifar.unpacked(archive, tmp_path / "here").iterdir()) == ["test", "train"]
    with tarfile.open(tmp_path / "deep.tar", "w") as packed:
        packed.add(archive.parent / "train", "cifar/train")
    assert cifar.unpacked(tmp_path / "deep.tar", tmp_path / "there").name == "cifar"
    assert cifar.unpacked(archive.parent, tmp_path / "no") == archive.parent
    (tmp_path / "odd").write_text("odd")
    with pytest.raises(ValueError, match="is no folder, nor a tar archive that can be unpacked"):
        cifar.unpacked(tmp_path / "odd", tmp_path / "odd-folder")
