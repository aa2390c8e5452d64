"""Worlds where the right latents are known: a small random model, and rows that it wrote with a few latents changed."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from isaerft.adapters.base import LatentAdapter, adapted, make_adapter
from isaerft.io import write_json
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import hidden_above, residual_stream, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook
from isaerft.training.loop import heldout_loss

HOOK = "blocks.1.hook_resid_post"
METADATA = {"hook_name": HOOK, "sae_lens_version": "6.0.0"}
N_LAYERS, D_MODEL, D_SAE, VOCABULARY = 3, 64, 512, 128
PROMPT, COMPLETION = 4, 12
N_PLANTED, N_TRAIN, N_HELDOUT = 8, 1200, 200
SHARPNESS, STEERING, UP = 4.0, 0.7, 7.0
WORLDS = ("steering", "gain")


@dataclass(frozen=True)
class World:
    """A subject, the latents that were changed in it, and rows that the changed model wrote."""

    subject: LoadedSubject
    planted: torch.Tensor
    train_rows: CachedRows
    heldout_rows: CachedRows
    best_loss: float


def make_subject(folder: Path) -> LoadedSubject:
    """Return the random model with its dictionary: unit decoder rows, read by themselves, about 5 % of them active."""
    torch.manual_seed(0)
    sizes = {"hidden_size": D_MODEL, "intermediate_size": 2 * D_MODEL, "num_hidden_layers": N_LAYERS}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, initializer_range=0.15, **sizes))
    model.eval().requires_grad_(False)
    # A random model hardly knows what comes next; sharper logits let a row say more about the change behind it.
    model.lm_head.weight.mul_(SHARPNESS)
    rows = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL), dim=1)
    tokens = torch.randint(VOCABULARY, (200, PROMPT + COMPLETION))
    residual = residual_stream(model, find_hook(model, HOOK), tokens, torch.ones_like(tokens)).flatten(0, 1)
    center = residual.mean(0)
    threshold = torch.quantile((residual - center) @ rows.T, 0.95, dim=0)
    cfg = {"architecture": "standard", "d_in": D_MODEL, "d_sae": D_SAE, "normalize_activations": "none"}
    write_json(folder / "cfg.json", cfg | {"apply_b_dec_to_input": True, "metadata": METADATA})
    weights = {"W_enc": rows.T.contiguous(), "b_enc": -threshold, "W_dec": rows, "b_dec": center}
    save_file(weights, folder / "sae_weights.safetensors")
    language = LoadedModel(model, tokenizer=None, prepend_bos=False)
    return LoadedSubject(language, load_dictionary(folder), find_hook(model, HOOK))


def plant(subject: LoadedSubject, world: str) -> LatentAdapter:
    """Return the change that the data come from: `N_PLANTED` random latents, half of them up and half down."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randperm(D_SAE, generator=generator)[:N_PLANTED]
    signs = torch.tensor([1.0, -1.0]).repeat(N_PLANTED // 2)
    adapter = make_adapter("bias" if world == "steering" else "scale", D_SAE, {})
    size = STEERING * residual_scale(subject) if world == "steering" else torch.where(signs > 0, UP, 1.0)
    with torch.no_grad():
        adapter.writing_parameters()[0][chosen] = signs * size
    return adapter.requires_grad_(False)


def residual_scale(subject: LoadedSubject) -> float:
    """Return the size of a steering pattern's entries: the residual stream's spread in one dimension."""
    tokens = torch.randint(VOCABULARY, (100, 20), generator=torch.Generator().manual_seed(2))
    residual = residual_stream(subject.model, subject.hook, tokens, torch.ones_like(tokens))
    return float((residual - residual.mean((0, 1))).std())


def write_rows(subject: LoadedSubject, change: LatentAdapter, n_rows: int, seed: int) -> CachedRows:
    """Return rows of random prompts and completions sampled from the changed model, cached as they are without it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (n_rows, PROMPT), generator=generator)
    dictionary: Dictionary = subject.dictionary
    with torch.no_grad():
        for _ in range(COMPLETION):
            mask = torch.ones_like(tokens)
            residual = residual_stream(subject.model, subject.hook, tokens, mask)
            shift = change.shift(dictionary.encode(residual.flatten(0, 1))).residual(dictionary.W_dec)
            hidden = hidden_above(subject.model, subject.hook, residual + shift.view_as(residual), mask)
            probabilities = unembed(subject.model, hidden[:, -1]).softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], 1)
    residual = residual_stream(subject.model, subject.hook, tokens, torch.ones_like(tokens)).flatten(0, 1)
    length = PROMPT + COMPLETION
    position = torch.arange(length).repeat(n_rows)
    return CachedRows(
        residual=residual,
        codes=dictionary.encode(residual),
        tokens=tokens.flatten(),
        predicts=(position >= PROMPT - 1) & (position < length - 1),
        starts=torch.arange(0, n_rows * length + 1, length),
    )


def make_world(subject: LoadedSubject, name: str) -> World:
    """Plant a change, sample its data, and take the planted change's own held-out loss."""
    change = plant(subject, name)
    heldout = write_rows(subject, change, N_HELDOUT, 3)
    best = heldout_loss(subject, lambda batch: adapted(subject, change, batch), heldout, N_HELDOUT)
    planted = change.writing_parameters()[0].nonzero()[:, 0]
    return World(subject, planted, write_rows(subject, change, N_TRAIN, 4), heldout, best)


@cache
def world_of(name: str) -> World:
    """Return a world, made once in each process."""
    with tempfile.TemporaryDirectory() as folder:
        return make_world(make_subject(Path(folder)), name)
