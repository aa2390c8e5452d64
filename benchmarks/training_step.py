"""Time one training step of each adapter against the frozen blocks alone, and against a dense SAE in the full model.

$ python benchmarks/training_step.py                                    # GPT-2 small's shape, two threads of a CPU
$ python benchmarks/training_step.py --device cuda --shape gemma-2-2b --dtype bfloat16 --threads 8 --rounds 11

Random weights and random codes with exactly 60 active latents a token: a step's time does not depend on the values.
All rows of a table come from one run, the steps in turn and not one after another, so that a busy machine slows them
alike. Prints the tables of docs/speed.md, and with `--write docs/speed.md` puts them there.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dense
import torch
from page import machine, write_block
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedConfig

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch, CachedRows
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import Dictionary
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import HookPoint
from isaerft.training.loop import Optimizer, add_gradients
from isaerft.training.objectives import sft_together
from isaerft.training.row_space import trainable

L0 = 60
ADAPTERS = ("bias", "scale", "affine")
SMALL, LARGE = 16_384, 1_048_576
SEEDS = 8
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """A model's size, where the SAE sits, and the sizes of dictionary to time."""

    config: PreTrainedConfig
    n_below: int
    d_saes: tuple[int, ...]


SHAPES = {
    "gpt2-small": Shape(GPT2Config(), 8, (24_576,)),
    "gemma-2-2b": Shape(Gemma2Config(), 20, (SMALL, 65_536)),
    # For a look at whether all of this runs.
    "tiny": Shape(GPT2Config(n_embd=64, n_layer=3, n_head=2, vocab_size=500), 2, (512,)),
}


def main() -> None:
    """Time the steps and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each kind, after one untimed (default 7)")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step (default 8)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row (default 64)")
    parser.add_argument("--completion", type=int, default=32, help="how many of them the loss falls on (default 32)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page, between their marks")
    options = parser.parse_args()
    if options.rounds < 5 or not 0 < options.completion < options.length:
        parser.error("--rounds is at least 5, and --completion shorter than --length")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device here")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = SHAPES[options.shape]
    dtype = getattr(torch, options.dtype)
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(shape.config, dtype=dtype)
    model.eval().requires_grad_(False)
    parts = [conditions(options)]
    print(parts[0])
    for table in tables(options, shape, model):
        print(f"\n{table}", flush=True)
        parts.append(table)
    if options.write:
        name = "training_step" if options.device == "cpu" else "training_step_gpu"
        write_block(options.write, name, "\n\n".join(parts))


def tables(options: argparse.Namespace, shape: Shape, model: torch.nn.Module) -> Iterator[str]:
    """Time what each table holds, one table after the other."""
    for d_sae in shape.d_saes:
        yield against_dense(options, shape, model, d_sae)
    yield by_seeds(options, shape, model)
    if options.device == "cpu":
        yield by_size(options, shape, model)


def against_dense(options: argparse.Namespace, shape: Shape, model: torch.nn.Module, d_sae: int) -> str:
    """Return the table of the floor, the adapters and the dense stacks at one dictionary size."""
    subject = make_subject(model, shape, d_sae)
    rows = make_rows(options, subject)
    batch = batch_of(rows, subject)
    steps = {"frozen blocks above the hook, nothing else (the floor)": floor_step(subject, batch)}
    with ExitStack() as stack:
        steps |= {f"isaerft, {kind}": adapter_step(subject, rows, kind, stack) for kind in ADAPTERS}
        sae = dense.make_sae(subject.dictionary, model.dtype)
        steps["full model, dense SAE with error term in a forward hook, bias"] = dense.hooked_step(subject, batch, sae)
        if isinstance(shape.config, GPT2Config):
            name = "HookedSAETransformer, dense SAE with error term, bias"
            steps[name] = dense.transformer_lens_step(subject, batch, sae)
        medians = timed(steps, options)
    floor, last = next(iter(medians.values())), list(medians.values())[-1]
    head = f"| step, d_sae {d_sae:,} | median, ms | over the floor | last row over this |\n|---|---:|---:|---:|\n"
    return head + "\n".join(
        f"| {name} | {seconds * 1000:.0f} | {seconds / floor:.2f} | {last / seconds:.1f} |"
        for name, seconds in medians.items()
    )


def by_size(options: argparse.Namespace, shape: Shape, model: torch.nn.Module) -> str:
    """Return the table of step times at a small and a very large dictionary."""
    steps = {}
    with ExitStack() as stack:
        for d_sae in (SMALL, LARGE):
            subject = make_subject(model, shape, d_sae)
            rows = make_rows(options, subject)
            steps |= {(kind, d_sae): adapter_step(subject, rows, kind, stack) for kind in ADAPTERS}
        medians = timed(steps, options)
    rows = [
        f"| {kind} | {medians[kind, SMALL] * 1000:.0f} | {medians[kind, LARGE] * 1000:.0f} |"
        f" {medians[kind, LARGE] / medians[kind, SMALL]:.2f} |"
        for kind in ADAPTERS
    ]
    head = f"| adapter | d_sae {SMALL:,}, ms | d_sae {LARGE:,}, ms | ratio |\n|---|---:|---:|---:|\n"
    return head + "\n".join(rows)


def by_seeds(options: argparse.Namespace, shape: Shape, model: torch.nn.Module) -> str:
    """Return the table of a step of several seeds in one pass (`seeds_together`) against that of one seed."""
    subject = make_subject(model, shape, shape.d_saes[0])
    rows = make_rows(options, subject)
    with ExitStack() as stack:
        steps = {
            (kind, n): adapter_step(subject, rows, kind, stack, n_together=n) for kind in ADAPTERS for n in (1, SEEDS)
        }
        medians = timed(steps, options)
    lines = [
        f"| {kind} | {medians[kind, 1] * 1000:.0f} | {medians[kind, SEEDS] * 1000:.0f} |"
        f" {medians[kind, SEEDS] / medians[kind, 1]:.2f} |"
        for kind in ADAPTERS
    ]
    head = f"| adapter, d_sae {shape.d_saes[0]:,} | 1 seed, ms | {SEEDS} seeds together, ms | ratio |\n"
    return head + "|---|---:|---:|---:|\n" + "\n".join(lines)


def timed(steps: dict, options: argparse.Namespace) -> dict:
    """Return the median seconds of each step; every round takes each once, beginning with another one."""
    names, seconds = list(steps), {name: [] for name in steps}
    for name in names:
        steps[name]()
    for round_ in range(options.rounds):
        begin = round_ % len(names)
        for name in names[begin:] + names[:begin]:
            wait(options.device)
            started = time.perf_counter()
            steps[name]()
            wait(options.device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait(device: str) -> None:
    """Let a GPU finish what it was asked for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def make_subject(model: torch.nn.Module, shape: Shape, d_sae: int) -> LoadedSubject:
    """Put a random decoder beside the model; no encoder, for the cache stands in its place."""
    d_in, device = model.config.hidden_size, model.device
    W_dec = torch.randn(d_sae, d_in, device=device)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    dictionary = Dictionary(
        W_enc=torch.empty(d_in, 0, device=device),
        b_enc=torch.empty(0, device=device),
        W_dec=W_dec,
        b_dec=torch.zeros(d_in, device=device),
        threshold=None,
        gate=None,
        k=None,
        apply_b_dec_to_input=False,
        center=False,
        hook_name=f"blocks.{shape.n_below - 1}.hook_resid_post",
        neuronpedia_id="",
    )
    return LoadedSubject(
        LoadedModel(model, None, False), dictionary, HookPoint(shape.n_below, model.config.num_hidden_layers)
    )


def make_rows(options: argparse.Namespace, subject: LoadedSubject) -> CachedRows:
    """Return rows of one length with random residual stream, and 60 random latents active at every token."""
    model, d_sae = subject.model, subject.dictionary.d_sae
    n = options.rows * options.length
    indices = torch.stack([torch.randperm(d_sae)[:L0] for _ in range(n)]) if d_sae <= SMALL * 4 else None
    if indices is None:
        # Among a million latents a token hardly ever draws one twice, and twice costs the same.
        indices = torch.randint(d_sae, (n, L0))
    position = torch.arange(n) % options.length
    return CachedRows(
        residual=torch.randn(n, model.config.hidden_size).to(model.dtype),
        codes=Codes(indices.flatten(), torch.rand(n * L0), torch.arange(0, n * L0 + 1, L0), d_sae),
        tokens=torch.randint(model.config.vocab_size, (n,)),
        # The last token has nothing to predict, so the completion's first is predicted one before.
        predicts=(position >= options.length - options.completion - 1) & (position < options.length - 1),
        starts=torch.arange(0, n + 1, options.length),
    )


def batch_of(rows: CachedRows, subject: LoadedSubject) -> Batch:
    """Return all rows as one batch where the model is."""
    return rows.batch(torch.arange(len(rows))).to(subject.model.device)


def floor_step(subject: LoadedSubject, batch: Batch) -> Step:
    """Return the forward and backward pass of the blocks above the hook, and nothing else."""
    residual = batch.residual.clone().requires_grad_(True)

    def step() -> None:
        residual.grad = None
        OBJECTIVES["sft"](subject, batch, residual).backward()

    return step


def adapter_step(subject: LoadedSubject, rows: CachedRows, kind: str, stack: ExitStack, *, n_together: int = 1) -> Step:
    """Return a step as `isaerft train` takes it, from the cached rows on; `stack` hands the adapters back."""
    options = config.Adapter(learning_rate=0.01)
    adapters = [make_adapter(kind, subject.dictionary.d_sae, {}).to(subject.model.device) for _ in range(n_together)]
    trained = [stack.enter_context(trainable(adapter, subject, options)) for adapter in adapters]
    optimizers = [Optimizer(module, options) for module, _ in trained]

    def step() -> None:
        for optimizer in optimizers:
            optimizer.clear()
        parts = [[rows.batch(torch.arange(len(rows)))] for _ in trained]
        add_gradients(subject, sft_together, [adapt for _, adapt in trained], parts)
        for optimizer in optimizers:
            optimizer.step()

    return step


def conditions(options: argparse.Namespace) -> str:
    """Return the line that says what was timed where."""
    n, predicted = options.rows * options.length, options.rows * options.completion
    size = f"{n} tokens a step, {predicted} of them in completions, L0 {L0}"
    on = machine(options.device)
    return f"{options.shape}, {options.dtype}, {size}; medians of {options.rounds}; {on}."


if __name__ == "__main__":
    main()
