"""Files that change while they are mapped."""

import os
import sys

import numpy as np
import pytest
from helpers import forks

from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.formats.mapped import unchanged


def test_a_file_that_is_left_alone_is_fine(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(8.0).reshape(4, 2))
    with unchanged([tmp_path / "x.npy", tmp_path / "missing"]):
        rows = read_rows(tmp_path / "x.npy")
        assert rows.sum(0).tolist() == [12, 16]
    assert rows.sum(0).tolist() == [12, 16]


@pytest.mark.parametrize("change", [lambda p: p.write_text("22"), lambda p: p.unlink(), lambda p: os.utime(p, (1, 1))])
def test_a_file_that_is_changed_is_named(tmp_path, change):
    (tmp_path / "x\n").write_text("1")
    with (
        pytest.raises(ValueError, match=r"x\\n was changed while it was read; give a copy"),
        unchanged([tmp_path / "x\n"]),
    ):
        change(tmp_path / "x\n")


CUT = """
import os, sys
import torch
torch.set_num_threads(int(sys.argv[2]))
from dyncollapse.formats.mapped import unchanged
from dyncollapse.diagnostics.readers import read_rows
from pathlib import Path
path = Path(sys.argv[1])
with unchanged([path]):
    rows = read_rows(path)
    os.truncate(path, 200)
    print(float(rows.double().sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="not every system signals a read beyond a mapped file")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_file_that_is_cut_ends_the_process_in_one_line(tmp_path, threads):
    np.save(tmp_path / "z.npy", np.ones((200_000, 8), "f4"))
    done = forks.run(["-c", CUT, tmp_path / "z.npy", threads])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dyncollapse: a file was cut while it was read; give a copy that nothing writes to\n"
