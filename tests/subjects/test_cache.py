import subprocess
import sys
from pathlib import Path

import pytest
import torch

from isaerft.errors import InputError
from isaerft.subjects.cache import read_cache, write_cache
from isaerft.subjects.capture import capture, capture_batches

MEMORY = """
import sys
import torch
from isaerft.subjects.cache import CachedRows, read_cache, write_cache
from isaerft.subjects.dictionary import Codes

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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path):
    """286 MiB of residual stream are written and read by a process that never holds a quarter of that."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "cache")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, on_disk = map(float, done.stdout.split())
    assert on_disk > 280
    assert grown < on_disk / 4


def test_a_cache_written_in_parts_has_the_bytes_of_one_written_at_once(subject, records, tmp_path):
    for name, one, other in (("a", capture_batches, capture), ("b", capture, captured)):
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
