"""The same training step as people take it today: the full model, and an SAE that encodes and decodes every latent."""

from collections.abc import Callable

import torch
from sae_lens import HookedSAETransformer, JumpReLUSAE, JumpReLUSAEConfig
from torch.nn.functional import cross_entropy
from transformer_lens import HookedTransformerConfig

from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import Batch
from isaerft.subjects.dictionary import Dictionary
from isaerft.subjects.load import LoadedSubject


def make_sae(dictionary: Dictionary, dtype: torch.dtype) -> JumpReLUSAE:
    """Return a JumpReLU SAE of the dictionary's size with random weights, whose error reaches the model."""
    device = str(dictionary.W_dec.device)
    options = JumpReLUSAEConfig(
        dictionary.d_in, dictionary.d_sae, device=device, dtype=str(dtype).removeprefix("torch.")
    )
    sae = JumpReLUSAE(options, use_error_term=True)
    sae.cfg.metadata.hook_name = dictionary.hook_name
    with torch.no_grad():
        sae.W_dec.copy_(dictionary.W_dec)
        sae.W_enc.copy_(dictionary.W_dec.T)
        sae.threshold.fill_(1)
    return sae.requires_grad_(False)


def transformer_lens_step(subject: LoadedSubject, batch: Batch, sae: JumpReLUSAE) -> Callable[[], None]:
    """Return a step of a bias on the latents of a HookedSAETransformer of GPT-2's shape."""
    shape = subject.model.config
    model = HookedSAETransformer(
        HookedTransformerConfig(
            n_layers=shape.n_layer,
            d_model=shape.n_embd,
            n_ctx=shape.n_positions,
            d_head=shape.n_embd // shape.n_head,
            n_heads=shape.n_head,
            d_mlp=4 * shape.n_embd,
            act_fn="gelu_new",
            d_vocab=shape.vocab_size,
            normalization_type="LNPre",
            device=str(subject.model.device),
            dtype=subject.model.dtype,
        )
    )
    model.eval().requires_grad_(False)
    tokens = torch.zeros_like(batch.mask, dtype=torch.int64)
    tokens[batch.mask] = batch.tokens
    bias, optimizer = _bias(sae)
    where = f"{subject.dictionary.hook_name}.hook_sae_acts_post"

    def step() -> None:
        optimizer.zero_grad()
        with (
            model.saes(saes=[sae], use_error_term=True),
            model.hooks(fwd_hooks=[(where, lambda acts, hook: acts + bias)]),
        ):
            logits = model(tokens)
        cross_entropy(logits[batch.mask][batch.predicts].float(), batch.labels).backward()
        optimizer.step()

    return step


def hooked_step(subject: LoadedSubject, batch: Batch, sae: JumpReLUSAE) -> Callable[[], None]:
    """Return a step of a bias on the latents of the same SAE, in a forward hook of the Hugging Face model."""
    model = subject.model
    tokens = torch.zeros_like(batch.mask, dtype=torch.int64)
    tokens[batch.mask] = batch.tokens
    bias, optimizer = _bias(sae)

    def splice(module: torch.nn.Module, arguments: tuple, output: object) -> object:
        residual = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            activations = sae.encode(residual)
            error = residual - sae.decode(activations)
        changed = sae.decode(activations + bias) + error
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def step() -> None:
        optimizer.zero_grad()
        handle = decoder_blocks(model)[subject.hook.n_below - 1].register_forward_hook(splice)
        try:
            logits = model(input_ids=tokens, attention_mask=batch.mask.long(), use_cache=False).logits
        finally:
            handle.remove()
        cross_entropy(logits[batch.mask][batch.predicts].float(), batch.labels).backward()
        optimizer.step()

    return step


def _bias(sae: JumpReLUSAE) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    bias = torch.nn.Parameter(torch.zeros(sae.cfg.d_sae, device=sae.W_dec.device, dtype=sae.W_dec.dtype))
    return bias, torch.optim.SGD([bias], lr=0.01, momentum=0.9)
