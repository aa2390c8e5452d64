"""Training from the cache against the same training of the full model through a dense SAE in a forward hook."""

from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.subjects.cache import read_cache
from isaerft.subjects.capture import capture_behavior, tokenize
from isaerft.subjects.hooks import decoder_blocks, find_hook
from isaerft.subjects.load import LoadedSubject
from isaerft.training.loop import train
from isaerft.training.row_space import trainable

STEPS, BATCH, RATE, MOMENTUM = 5, 4, 0.3, 0.9


def full_model_steps(subject, records, order, kind):
    """Return what the adapter adds to the residual stream of a step's tokens, for every step of plain SGD."""
    dictionary, seen, scale = subject.dictionary, [], None
    adapter = make_adapter(kind, dictionary.d_sae, {})
    optimizer = torch.optim.SGD(adapter.parameters(), lr=RATE, momentum=MOMENTUM)
    for rows in order:
        pairs = [tokenize(records[row], subject.language, 32) for row in rows]
        length = max(len(tokens) for tokens, _ in pairs)
        ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in pairs])
        mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in pairs])
        labels = torch.where(mask.bool(), ids, -100)
        for row, (_, n_before) in enumerate(pairs):
            labels[row, :n_before] = -100

        def splice(module, arguments, output, mask=mask):
            residual = output[0] if isinstance(output, tuple) else output
            activations = dictionary.encode_dense(residual)
            # No latent counts as active at BOS.
            activations = activations * (torch.arange(residual.shape[1]) > 0)[:, None]
            added = (adapter(activations) - activations) @ dictionary.W_dec
            seen.append(added.detach()[mask.bool()])
            return (residual + added, *output[1:]) if isinstance(output, tuple) else residual + added

        handle = decoder_blocks(subject.model)[1].register_forward_hook(splice)
        try:
            optimizer.zero_grad()
            subject.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        finally:
            handle.remove()
        gradients = [parameter.grad for parameter in adapter.parameters()]
        scale = scale or 1 / float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        for gradient in gradients:
            gradient.mul_(scale)
        optimizer.step()
    return seen


@pytest.mark.parametrize("kind", ["bias", "scale", "affine"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "run", [{}, {"gradient_accumulation": 2, "gradient_checkpointing": True}], ids=["plain", "parts"]
)
def test_training_from_the_cache_takes_the_steps_of_the_full_model(
    subject, model_of, records, tmp_path, kind, architecture, run
):
    model = model_of(architecture)
    site = find_hook(model, "blocks.1.hook_resid_post")
    subject = LoadedSubject(replace(subject.language, model=model), subject.dictionary, site)
    splits = {"train": records[:12], "heldout": records[12:]}
    capture_behavior(subject, splits, tmp_path / "cache", max_length=32, batch_size=5)
    rows = read_cache(tmp_path / "cache", "train")
    order, seen = [], []

    class Noted:
        """The rows, keeping a note of which were asked for."""

        def __len__(self):
            return len(rows)

        def batch(self, chosen):
            order.append(chosen.tolist())
            return rows.batch(chosen)

    options = config.Adapter(
        learning_rate=RATE, momentum=MOMENTUM, steps=STEPS, batch_size=BATCH, evaluate_every=99, **run
    )
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    with trainable(adapter, subject.dictionary, options) as (module, adapt):

        def noting(batch):
            residual = adapt(batch)
            if torch.is_grad_enabled():
                seen.append((residual - batch.residual).detach())
            return residual

        train(
            subject, module, noting, Noted(), read_cache(tmp_path / "cache", "heldout"), options, seed=3, batch_size=4
        )

    n_parts = options.gradient_accumulation
    assert len(seen) == len(order) == n_parts * STEPS
    found = [torch.cat(seen[i : i + n_parts]) for i in range(0, len(seen), n_parts)]
    whole = [[row for part in order[i : i + n_parts] for row in part] for i in range(0, len(order), n_parts)]
    for step, expected in enumerate(full_model_steps(subject, records[:12], whole, kind)):
        torch.testing.assert_close(
            found[step], expected, atol=1e-5, rtol=1e-4, msg=lambda text, s=step: f"step {s}: {text}"
        )
    assert found[-1].abs().max() > 1e-2
