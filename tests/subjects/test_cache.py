import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from isaerft.errors import InputError
from isaerft.subjects.cache import TensorWriter, map_tensors, read_cache, write_cache
from isaerft.subjects.capture import capture, capture_batches

MEMORY = """
import sys
import torch
from isaerft.subjects.cache import CachedRows, read_cache, write_cache
from isaerft.subjects.codes import Codes

torch.set_num_threads(1)
D_IN, N_ROWS, LENGTH, L0, PARTS = 1000, 5, 100, 20, 150


def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def parts():
    for _ in range(PARTS):
        seen.append(anonymous())
        n = N_ROWS * LENGTH
        codes = Codes(torch.zeros(n * L0, dtype=torch.int64), torch.ones(n * L0), torch.arange(0, n * L0 + 1, L0), 5)
        tokens = torch.zeros(n, dtype=torch.int64)
        starts = torch.arange(0, n + 1, LENGTH)
        predicts = torch.arange(n) % LENGTH < LENGTH - 1
        yield CachedRows(torch.randn(n, D_IN), codes, tokens, predicts, starts)


before, seen = anonymous(), []
write_cache({"train": parts()}, sys.argv[1])
rows = read_cache(sys.argv[1], "train")
for batch in rows.batches(7):
    seen.append(anonymous())
print(max(seen) - before, rows.residual.nbytes / 2**20)
"""
DTYPES = [torch.int64, torch.int32, torch.float32, torch.bfloat16, torch.float16, torch.bool]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path):
    """286 MiB of residual stream are written and read by a process that never holds a quarter of that."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "cache")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, on_disk = map(float, done.stdout.split())
    assert on_disk > 280
    assert grown < on_disk / 4


def test_a_cache_written_in_parts_has_the_bytes_of_one_written_at_once(subject, records, tmp_path):
    for name, one, other in (("a", capture_batches, capture), ("b", capture, capture_batches)):
        splits = {"train": one(subject, records, 32, 5), "heldout": other(subject, records[:3], 32, 5)}
        write_cache(splits, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_batch_of_a_mapped_cache_is_that_of_the_rows_in_memory(subject, records, tmp_path):
    made = capture(subject, records, 32, 5)
    write_cache({"train": made}, tmp_path / "cache")
    read = read_cache(tmp_path / "cache", "train")
    assert read.codes.indices.dtype == torch.int32
    order = torch.tensor([9, 2, 2, 15, 0])
    one, other = made.batch(order), read.batch(order)
    for name in ("residual", "mask", "predicts", "labels"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name in ("indices", "values", "starts"):
        mine, theirs = getattr(one.codes, name), getattr(other.codes, name)
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def test_a_split_that_the_cache_does_not_have_is_refused_and_those_it_has_are_named(cached, tmp_path):
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    with pytest.raises(InputError, match=r"'trian'.*train"):
        read_cache(tmp_path / "cache", "trian")


def tensor_of(dtype, n, width):
    values = torch.arange(n * max(width, 1)) % 7
    return (values if width == 0 else values.view(n, width)).to(dtype)


def write_tensors(folder, parts_of, metadata=None):
    writer = TensorWriter(folder / "parts")
    for name, parts in parts_of.items():
        for part in parts:
            writer.append(name, part)
    writer.join(folder / "file", metadata or {})
    assert not list((folder / "parts").iterdir())
    return folder / "file"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.integers(0, 3), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_what_was_appended_is_what_safetensors_and_the_map_read(tmp_path_factory, kinds):
    parts_of = {f"t{i}": [tensor_of(dtype, n, width) for n in sizes] for i, (dtype, width, sizes) in enumerate(kinds)}
    path = write_tensors(tmp_path_factory.mktemp("mapped"), parts_of, {"d_sae": "9"})
    mapped, metadata = map_tensors(path)
    assert metadata == {"d_sae": "9"}
    for name, expected in {name: torch.cat(parts) for name, parts in parts_of.items()}.items():
        for read in (load_file(path)[name], mapped[name]):
            assert read.dtype == expected.dtype
            assert torch.equal(read, expected)


def test_the_file_has_the_bytes_that_safetensors_writes(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([True]), "c": torch.arange(3), "d": torch.ones(2)}
    path = write_tensors(tmp_path, {name: [value] for name, value in tensors.items()}, {"k": "v"})
    save_file(tensors, tmp_path / "theirs", metadata={"k": "v"})
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_rows_of_another_width_or_dtype_are_refused(tmp_path):
    writer = TensorWriter(tmp_path / "parts")
    writer.append("a", torch.zeros(2, 3))
    for other in (torch.zeros(2, 4), torch.zeros(2, 3).double()):
        with pytest.raises(ValueError, match="tensor 'a' has rows of"):
            writer.append("a", other)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_is_cut_short_is_an_input_error(tmp_path, kept):
    path = write_tensors(tmp_path, {"a": [torch.zeros(100)]}, {"d_sae": "9"})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        map_tensors(path)
