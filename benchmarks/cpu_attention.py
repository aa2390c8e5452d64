"""How long attention takes on a CPU by dtype and kernel: forward and backward, in milliseconds.

The shape is that of a training step of the flagship study: 8 rows, 9 heads of 64 dimensions.

$ python benchmarks/cpu_attention.py
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

N_RUNS = 9


def seconds(dtype: torch.dtype, kernel: SDPBackend, n_tokens: int) -> tuple[float, float]:
    """Return the median time of a forward and of a backward pass."""
    query, key, value = (torch.randn(8, 9, n_tokens, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril().expand(8, 1, -1, -1)
    forward, backward = [], []
    with sdpa_kernel(kernel):
        for _ in range(N_RUNS):
            start = time.perf_counter()
            output = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            middle = time.perf_counter()
            torch.autograd.grad(output.float().square().sum(), (query, key, value))
            forward.append(middle - start)
            backward.append(time.perf_counter() - middle)
    return statistics.median(forward), statistics.median(backward)


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print("| tokens | dtype | kernel | forward, ms | backward, ms |\n|---|---|---|---|---|")
    for n_tokens in (80, 160):
        for dtype in (torch.bfloat16, torch.float32):
            for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
                forward, backward = seconds(dtype, kernel, n_tokens)
                name = str(dtype).removeprefix("torch.")
                print(f"| {n_tokens} | {name} | {kernel.name} | {1e3 * forward:.1f} | {1e3 * backward:.1f} |")


if __name__ == "__main__":
    main()
