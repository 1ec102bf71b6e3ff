import pytest
import torch
from helpers.constants import set_constant
from helpers.monitor import assert_same, gaussian, watched

from dyncollapse import Moments, Monitor, diagnose

# --- What does not fit


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(torch.zeros(3, 2), torch.zeros(3, 3))], r"shapes \(3, 2\) and \(3, 3\); row i"),
        ([(torch.zeros(3, 2), torch.zeros(4, 2))], r"shapes \(3, 2\) and \(4, 2\); row i"),
        ([(torch.zeros(3),)], r"shape \(3,\); give one row per sample"),
        ([(torch.zeros(3, 0),)], r"shape \(3, 0\); give one row per sample"),
        ([(torch.zeros(2, 3, 4),)], r"shape \(2, 3, 4\); give one row per sample"),
        ([(torch.zeros(3, 2, dtype=torch.complex64),)], "complex; give real ones"),
        ([(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.complex64))], "complex; give real ones"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 3),)], "1 view.s. of dimension 3; earlier ones had 1 of dimension 2"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 2),) * 2], "2 view.s. of dimension 2; earlier ones had 1"),
        ([(torch.zeros(3, 2),) * 3, (torch.zeros(3, 2),) * 2], "2 view.s. of dimension 2; earlier ones had 3"),
        ([(torch.zeros(3, 2),), (torch.zeros(3, 2).half(),)], "float16; earlier ones were torch.float32"),
    ],
)
def test_batches_that_do_not_fit_are_refused_and_leave_no_trace(batches, message):
    monitor = Monitor()
    for batch in batches[:-1]:
        monitor.update(*batch)
    before = 0 if monitor.sums is None else monitor.sums.count
    with pytest.raises(ValueError, match=message) as error:
        monitor.update(*batches[-1])
    assert one_line(error)
    assert (0 if monitor.sums is None else monitor.sums.count) == before
    assert (0 if monitor.reservoir.rows is None else len(monitor.reservoir.rows)) == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_counted_and_found(bad):
    z, positive = gaussian(0, n=5000, d=3, others=1)
    z[4500, 1] = z[4900, 0] = bad
    for views, of in (([z], ""), ([z, positive], " of view 1"), ([positive, z], " of view 2")):
        monitor = watched([view[:4000] for view in views])
        with pytest.raises(ValueError, match=rf"^row 500{of} holds NaN or infinity, first in column 1 ") as error:
            monitor.update(*(view[4000:] for view in views))
        assert one_line(error)
        assert monitor.compute().samples == len(monitor.reservoir.rows) == 4000  # nothing of the batch is added
    with pytest.raises(ValueError, match=r"the embeddings hold 2 NaN or infinite.* row 4500, column 1") as error:
        diagnose(z, positive)
    assert one_line(error)
    with pytest.raises(ValueError, match=r"embeddings \(view 2\) hold 2 NaN or infinite"):
        diagnose(positive, z)
    with pytest.raises(ValueError, match=r"the inputs \(view 2\) hold 2 NaN"):
        diagnose(positive, positive, inputs=positive, input_positives=z)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_spread(rows):
    z = torch.ones(rows, 3)
    for views in ([z], [z, z]):
        with pytest.raises(ValueError, match=f"spread of {rows} sample.s. is not defined; give at least 2 rows"):
            watched(views).compute()
        with pytest.raises(ValueError, match=f"spread of {rows} sample"):
            diagnose(*views)


def test_what_was_asked_is_checked_in_a_line():
    z, positive = gaussian(0, others=1)
    with pytest.raises(ValueError, match="views is 'both'; choose one of one-sided, two-sided"):
        Monitor(views="both")
    with pytest.raises(ValueError, match="sample is 1; it must be between 2 and 1e9 rows"):
        Monitor(sample=1)
    for arguments, message in (
        ({"loss": "infonce"}, "give the other view of each sample as positives"),
        ({"positives": positive, "loss": "triplet"}, "loss is 'triplet'"),
        ({"positives": positive, "loss": "infonce", "temperature": 0.5}, "temperature"),
        ({"positives": positive, "inputs": z}, "inputs and input_positives go together"),
        ({"positives": positive, "input_positives": z}, "inputs and input_positives go together"),
        ({"inputs": z[:9], "input_positives": z[:9]}, "9 inputs and 60 embeddings"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            diagnose(z, **arguments)
        assert one_line(error)
    diagnose(z * 1e19, z.flip(0) * 2e19, loss="infonce")  # as large as these may be
    huge = z * 1e150  # products over the temperature overflow
    with pytest.raises(ValueError, match="dot weights of numbers this large overflow; give them in other units"):
        diagnose(huge, huge.flip(0) * 2, loss="dot", temperature=1e-10)


def test_monitors_of_unlike_things_do_not_merge():
    one, two = gaussian(0, others=1)
    mine = watched([one])
    for other in (
        watched([one, two]),
        watched([one[:, :3]]),
        watched([one.float()]),
        watched([one], views="one-sided"),
        watched([one], fast=True),
        watched([one], space="representation"),
    ):
        with pytest.raises(ValueError, match="do not merge"):
            mine.merge(other)
        with pytest.raises(ValueError, match="do not merge"):
            other.merge(mine)
    with pytest.raises(ValueError, match="samples of 9 rows do not merge"):
        mine.merge(watched([one], sample=9))
    assert_same(mine.compute(), watched([one]).compute())


def test_later_blocks_are_looked_at_too(monkeypatch):
    set_constant(monkeypatch, "diagnostics.monitor.BLOCK_BYTES", 8 * 3 * 100)
    z = torch.randn(350, 3, generator=torch.Generator().manual_seed(0))
    z[320, 2] = float("nan")
    monitor = Monitor()
    with pytest.raises(ValueError, match=r"^row 320 holds NaN or infinity, first in column 2"):
        monitor.update(z)
    assert monitor.sums.count == 300


@pytest.mark.parametrize("size", [1e38, 3e38])
def test_numbers_whose_sum_overflows_are_finite(size):
    monitor = Monitor()
    monitor.update(torch.full((200, 3), size) * torch.tensor([[1.0], [0.5]]).repeat(100, 1))
    assert monitor.sums.count == 200


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("views", [1, 2])
def test_differences_that_overflow_are_no_nan(rows, views):
    z = torch.tensor([1e308, -1e308], dtype=torch.float64).repeat(rows // 2)[:, None].expand(-1, 10)
    with pytest.raises(ValueError, match=r"overflow|differ by more than float64 can hold") as error:
        diagnose(z, [-z] * (views - 1))
    assert one_line(error)
    assert "NaN" not in str(error.value)


@pytest.fixture
def group_of_one(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_only_monitors_merge_and_none_that_hold_all_processes():
    one, _ = gaussian(0, others=1)
    mine, joined = watched([one]), watched([one])
    with pytest.raises(ValueError, match="does not merge with int; give a Monitor"):
        mine.merge(3)
    joined.all_reduce()
    with pytest.raises(ValueError, match="holds the rows of all processes; merge monitors before all_reduce"):
        mine.merge(joined)
    total, part = Moments(2), Moments(2)
    part.update(torch.ones(3, 2))
    part.all_reduce()
    total.merge(part)
    with pytest.raises(ValueError, match="all_reduce after a merge of moments of all processes"):
        total.all_reduce()
