import pytest
import torch
from helpers.readers import refusal

from dyncollapse.diagnostics.readers import described_rows, read_rows

Z = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(17)
BATCHES = [Z[:7].clone(), Z[7:14].clone(), Z[14:].clone()]


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        BATCHES,
        [(z, y) for z, y in zip(BATCHES, Y.split(7), strict=True)],
        [[y, z] for z, y in zip(BATCHES, Y.split(7), strict=True)],
        [{"z": z, "label": y, "name": "x"} for z, y in zip(BATCHES, Y.split(7), strict=True)],
        list(Z.split(7)),  # views of one storage
    ],
)
@pytest.mark.parametrize("key", [None, "*"])
def test_batches_are_joined_in_order(tmp_path, content, key):
    path = saved(tmp_path / "z.pt", content)
    assert described_rows(path, key).shape == (17, 3)
    assert torch.equal(read_rows(path, key), Z)
    assert torch.equal(read_rows(path, "1"), Z[7:14])


@pytest.mark.parametrize("content", [(Z, Y), [Z, Y], {"z": Z, "y": Y}, [Z], [(Z, Y)], [(Z, Y), "note"]])
def test_one_matrix_is_taken(tmp_path, content):
    assert torch.equal(read_rows(saved(tmp_path / "z.pt", content)), Z)


@pytest.mark.parametrize("content", [[Z, -Z], (Z, -Z), [(Z, Y), (-Z, Y)], [Z, -Z, Z]])
def test_arrays_of_one_shape_may_be_views_and_both_ways_out_work(tmp_path, content):
    path = saved(tmp_path / "z.pt", content)
    message = refusal(path)
    assert f"holds {len(content)} arrays of one shape, (17, 3), which may be batches or views; " in message
    assert message.endswith("join batches as FILE:*, or take views as FILE:0 with positives FILE:1")
    assert torch.equal(read_rows(path, "*")[:34], torch.cat([Z, -Z]))
    assert torch.equal(read_rows(path, "1"), -Z)


@pytest.mark.parametrize(
    ("content", "rows"), [([Z[:3], Z[3:10]], "3, 7"), ([Z[:7], Z[7:9], Z[9:16]], "7, 2, 7"), ((Z[:9], Z[9:]), "9, 8")]
)
def test_other_numbers_of_rows_are_joined_on_request_alone(tmp_path, content, rows):
    path = saved(tmp_path / "z.pt", content)
    assert f"arrays of 3 columns with {rows} rows, unlike batches" in refusal(path)
    assert torch.equal(read_rows(path, "*"), torch.cat(list(content)))


@pytest.mark.parametrize("content", [[Z, Z[:5, :2]], [Z, Z[:5].double()], [Z, Y], [Z, {"fc.weight": Z}], []])
def test_what_is_no_list_of_batches_is_not_joined(tmp_path, content):
    message = refusal(saved(tmp_path / "z.pt", content), "*")
    assert "has elements that are no batches: * joins two-dimensional arrays of one width and format" in message


def test_lists_inside_a_dict_are_named(tmp_path):
    message = refusal(saved(tmp_path / "z.pt", {"z": BATCHES, "labels": [Y]}))
    assert "holds lists and no array: z, labels; join batches with torch.cat, and save that" in message


def test_one_stored_batch_that_is_listed_a_thousand_times_asks_for_no_memory(tmp_path):
    large = torch.zeros(1000, 2000)
    path = saved(tmp_path / "z.pt", [large] * 2000 + [large[:1]])
    assert "unpacks to 14.9 GiB from 7.6" in refusal(path)
