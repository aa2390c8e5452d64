"""How many operations a second one CPU core achieves in a training step of SmolLM2-135M's shape: `CPU_CORE`.

$ OMP_NUM_THREADS=1 python benchmarks/cpu_rate.py

Weights are random. Counted are 4 operations for each token and weight above the hook, as in isaerft/setup/estimate.py,
and CPU time of this process, which other work on the machine hardly changes.
"""

import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

N_BLOCKS, ROWS, LENGTH, STEPS = 15, 2, 160, 2


def rate(dtype: torch.dtype) -> float:
    """Return the operations a second of one step, forward and backward through the activations."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(dtype).requires_grad_(False)
    tokens = torch.randint(config.vocab_size, (ROWS, LENGTH))
    shift = torch.zeros(config.hidden_size, dtype=dtype, requires_grad=True)
    weights = sum(part.numel() for part in model.parameters() if part.dim() > 1)
    taken = []
    for _ in range(STEPS):
        start = time.process_time()
        hidden = model.get_input_embeddings()(tokens) + shift
        model(inputs_embeds=hidden, labels=tokens).loss.backward()
        taken.append(time.process_time() - start)
    return 4 * ROWS * LENGTH * weights / min(taken)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"{dtype}: {rate(dtype) / 1e9:.0f} GFLOP/s")
