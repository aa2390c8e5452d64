"""Measure the memory that writing and reading a behavior's cache takes, for few and for many tokens.

$ python benchmarks/cache_memory.py

GPT-2 small's residual stream (d_in 768) with 60 of 24,576 latents active at a token, random. Each size runs in a fresh
process: the cache is written part after part, as `isaerft capture` does, then all its rows are read twice in random
order, as training does. Counted is memory of the process's own (RssAnon, Linux); pages of the mapped file belong to the
system's file cache, which gives them up when memory is short. Prints the table of docs/speed.md, and with
`--write docs/speed.md` puts it there.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from page import write_block

from isaerft.subjects.cache import CachedRows, read_cache, write_cache
from isaerft.subjects.codes import Codes

D_IN, D_SAE, L0, LENGTH, ROWS = 768, 24_576, 60, 64, 32
SIZES = (32_768, 262_144)


def main() -> None:
    """Measure every size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page, between its marks")
    parser.add_argument("--tokens", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tokens:
        print(*measured(options.tokens))
        return
    text = "| tokens | cache on disk, MB | peak memory beyond the start, MB |\n|---:|---:|---:|"
    for n_tokens in SIZES:
        command = [sys.executable, __file__, "--tokens", str(n_tokens)]
        on_disk, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        text += f"\n| {n_tokens:,} | {int(on_disk) / 1e6:.0f} | {int(peak) / 1e6:.0f} |"
    print(text)
    if options.write:
        write_block(options.write, "cache_memory", text)


def measured(n_tokens: int) -> tuple[int, int]:
    """Return the size of a cache of so many tokens, and the peak of memory while it is written and read, in bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    one_part()  # what the first use of PyTorch takes is no part of the cache
    with tempfile.TemporaryDirectory() as folder, Peak() as peak:
        path = Path(folder) / "cache.safetensors"
        write_cache({"train": (one_part() for _ in range(n_tokens // (ROWS * LENGTH)))}, path)
        rows = read_cache(path, "train")
        for _ in range(2):
            for chosen in torch.randperm(len(rows)).split(ROWS):
                rows.batch(chosen)
        return path.stat().st_size, peak.stop()


def one_part() -> CachedRows:
    """Return the rows of one forward pass."""
    n = ROWS * LENGTH
    position = torch.arange(n) % LENGTH
    return CachedRows(
        residual=torch.randn(n, D_IN),
        codes=Codes(torch.randint(D_SAE, (n * L0,)), torch.rand(n * L0), torch.arange(0, n * L0 + 1, L0), D_SAE),
        tokens=torch.randint(50_257, (n,)),
        predicts=(position >= LENGTH // 2) & (position < LENGTH - 1),
        starts=torch.arange(0, n + 1, LENGTH),
    )


class Peak:
    """The most memory of its own that the process has, beyond what it had at the start; looked at every millisecond."""

    def __enter__(self) -> "Peak":
        self._start = self._highest = own_memory()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self._highest = max(self._highest, own_memory())

    def stop(self) -> int:
        """Stop looking and return the peak in bytes."""
        self._done.set()
        self._watcher.join()
        return self._highest - self._start

    def __exit__(self, *_: object) -> None:
        self._done.set()


def own_memory() -> int:
    """Return the process's anonymous resident memory in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
