"""A worker process that is killed is told from everything else that goes wrong while images are read."""

import itertools
import multiprocessing
import os
import signal
import sys

import pytest
import torch
from helpers.bridge import write_images

from dyncollapse.bridge.data.batches import LostWorker, batches_in_order, lost_workers
from dyncollapse.bridge.data.image_sets import FolderImages
from dyncollapse.bridge.data.images import open_data


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes see this process's images where they are forked")
def test_a_killed_worker_is_one_line_of_its_own_type(tmp_path, monkeypatch):
    monkeypatch.setattr(FolderImages, "read", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    images = open_data(str(write_images(tmp_path / "set", 2))).train
    with pytest.raises(LostWorker, match=r"^DataLoader worker \(pid.*$"), lost_workers():
        list(batches_in_order(images, (None,), 8, batch_size=2, device=torch.device("cpu"), workers=1, seed=0))


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes see this process's images where they are forked")
def test_a_worker_that_does_not_end_is_not_waited_for(tmp_path, monkeypatch):
    images, read, here = open_data(str(write_images(tmp_path / "set", 8))).train, FolderImages.read, os.getpid()
    read_in_worker = itertools.count()

    def stuck(self, index):
        while os.getpid() != here and next(read_in_worker) > 1:
            signal.pause()  # a file system that hangs
        return read(self, index)

    monkeypatch.setattr(FolderImages, "read", stuck)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # for which it waits twice
    batches = batches_in_order(images, (None,), 8, batch_size=2, device=torch.device("cpu"), workers=1, seed=0)
    next(batches)
    before = set(multiprocessing.active_children())
    assert before
    batches.close()
    assert not before & set(multiprocessing.active_children())


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), torch.OutOfMemoryError("memory"), ValueError("no")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as raised, lost_workers():
        raise error
    assert raised.value is error
