"""The gate: do this model and this SAE belong together?

An SAE on the wrong model, layer, normalisation or BOS convention still encodes and decodes, and everything after it
would be nonsense. The gate measures variance explained and the loss with the SAE spliced in, and stops such a subject.

Everything that is measured of a subject before any training: facts, contexts, and the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from isaerft import config
from isaerft.errors import InputError
from isaerft.io import replacing, write_json
from isaerft.layout import SubjectFolder
from isaerft.subjects.contexts import context_table
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import latent_facts, measure_firing
from isaerft.subjects.hooks import hidden_above, run_below, unembed
from isaerft.subjects.load import LoadedSubject

N_ROWS = 256


@dataclass(frozen=True)
class Fit:
    """How well an SAE fits its model, on tokens of the reference corpus.

    Attributes
    ----------
    variance_explained : float
        1 - squared error / variance of the hook's activation, BOS left out.
    l0 : float
        Mean number of active latents per token.
    loss_base, loss_spliced, loss_unigram : float
        Nats per token: of the model, of the model running on the SAE's reconstruction, of token frequencies alone.
    """

    variance_explained: float
    l0: float
    loss_base: float
    loss_spliced: float
    loss_unigram: float

    @property
    def loss_increase(self) -> float:
        """Share of the way from the model's loss to the unigram loss that splicing the SAE in costs."""
        gap = self.loss_unigram - self.loss_base
        return (self.loss_spliced - self.loss_base) / gap if gap > 0 else float("inf")


def measure_fit(subject: LoadedSubject, rows: TokenRows, batch_size: int) -> Fit:
    """Measure how well the SAE fits the model on the first rows of the corpus."""
    n_bos = len(subject.language.bos)
    error = squares = l0 = base = spliced = 0.0
    n_tokens = n_predicted = 0
    total = torch.zeros(subject.dictionary.d_in, dtype=torch.float64, device=subject.model.device)
    counts = torch.zeros(subject.model.config.get_text_config().vocab_size, dtype=torch.float64)
    for tokens, mask in rows.first(N_ROWS).batches(batch_size):
        tokens, mask = tokens.to(subject.model.device), mask.to(subject.model.device)
        below = run_below(subject.model, subject.hook, tokens, mask)
        wanted = mask.bool().clone()
        wanted[:, :n_bos] = False
        kept = below.activation[wanted]
        rebuilt = subject.dictionary.reconstruct(kept)
        error += float((kept.float() - rebuilt).double().square().sum())
        squares += float(kept.double().square().sum())
        total += kept.double().sum(0)
        l0 += float(subject.dictionary.encode(kept).counts().sum())
        n_tokens += len(kept)
        patched = below.residual.clone()
        # What the hook does not see stays: nothing at all where the SAE reads the residual stream itself.
        beside = below.residual[wanted].float() - kept.float()
        patched[wanted] = (rebuilt + beside).to(patched.dtype)
        predicted = mask[:, 1:].bool()
        base += _loss(subject, below.residual, tokens, mask, predicted)
        spliced += _loss(subject, patched, tokens, mask, predicted)
        n_predicted += int(predicted.sum())
        counts += torch.bincount(tokens[:, 1:][predicted].cpu(), minlength=len(counts))
    shares = counts[counts > 0] / counts.sum()
    unigram = float(-(shares * shares.log()).sum())
    variance = squares - float(total.square().sum()) / n_tokens
    return Fit(1 - error / variance, l0 / n_tokens, base / n_predicted, spliced / n_predicted, unigram)


def check_gate(name: str, options: config.Subject, subject: LoadedSubject, fit: Fit, rows: TokenRows) -> None:
    """Stop a subject whose model and SAE do not fit, and say which other setting fits better.

    Raises
    ------
    InputError
        Variance explained is below, or the cost of splicing above, what the config allows.
    """
    if fit.variance_explained >= options.min_variance_explained and fit.loss_increase <= options.max_loss_increase:
        return
    tried = ", ".join(f"{what}: {value:.2f}" for what, value in _alternatives(subject, rows).items())
    raise InputError(
        f"subject {name!r}: its SAE explains {fit.variance_explained:.2f} of the variance at its hook and"
        f" splicing it in costs {fit.loss_increase:.2f} of the gap to a unigram model",
        allowed=f"at least {options.min_variance_explained:g} and at most {options.max_loss_increase:g}",
        remedy=(
            f"variance explained under other settings: {tried}; also check prepend_bos (now {options.prepend_bos}), the"
            " model's revision, and that the SAE was trained on this model"
        ),
    )


def _alternatives(subject: LoadedSubject, rows: TokenRows) -> dict[str, float]:
    """Variance explained with the other centring and at the neighbouring layers."""
    site, dictionary = subject.hook, subject.dictionary
    others = {
        f"center_writing_weights {not dictionary.center}": replace(
            subject, dictionary=replace(dictionary, center=not dictionary.center)
        )
    }
    for step, what in ((-1, "one block earlier"), (1, "one block later")):
        other = replace(site, n_below=site.n_below + step)
        # Only the residual stream between blocks has a place below the first block.
        lowest = -1 if site.reads == "residual" and not site.inside else 0
        if lowest <= other.block < site.n_blocks:
            others[what] = replace(subject, hook=other)
    few = rows.first(16)
    return {what: measure_fit(other, few, 16).variance_explained for what, other in others.items()}


def _loss(
    subject: LoadedSubject, residual: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, predicted: torch.Tensor
) -> float:
    """Return the summed loss over the predicted tokens, in nats."""
    with torch.no_grad():
        hidden = hidden_above(subject.model, subject.hook, residual, mask)
        logits = unembed(subject.model, hidden[:, :-1][predicted]).float()
        return float(cross_entropy(logits, tokens[:, 1:][predicted], reduction="sum"))


def describe_subject(
    plan: config.Plan, name: str, subject: LoadedSubject, rows: TokenRows, folder: SubjectFolder
) -> None:
    """Pass the gate, then write latents.parquet, contexts.parquet and subject.json (last) into the subject's folder.

    Raises
    ------
    InputError
        Model and SAE do not fit.
    """
    options = plan.study.subjects[name]
    fit = measure_fit(subject, rows, plan.study.batch_size)
    check_gate(name, options, subject, fit, rows)
    firing = measure_firing(subject, rows, plan.study.batch_size)
    facts = latent_facts(subject, firing, cluster_cosine=plan.study.agreement.cluster_cosine)
    with replacing(folder.latents) as temporary:
        facts.to_parquet(temporary, index=False)
    with replacing(folder.contexts) as temporary:
        context_table(subject, rows, firing, options.amplified_rows).to_parquet(temporary, index=False)
    cards = [_card(plan, name, options, subject, facts, fit)]
    for twin, base in plan.permuted_subjects.items():
        if base == name:
            random = subject.with_random_dictionary(plan.replicate_seed(0))
            cards.append(_card(plan, twin, options, random, facts, measure_fit(random, rows, plan.study.batch_size)))
    write_json(folder.card, cards)


def _card(
    plan: config.Plan, name: str, options: config.Subject, subject: LoadedSubject, facts: pd.DataFrame, fit: Fit
) -> dict[str, Any]:
    limits = plan.study.agreement
    return {
        "subject": name,
        "model": options.model or "testbed",
        "release": options.release,
        "sae_id": options.sae_id,
        "hook_name": subject.dictionary.hook_name,
        "d_in": subject.dictionary.d_in,
        "d_sae": subject.dictionary.d_sae,
        "variance_explained": fit.variance_explained,
        "l0": fit.l0,
        "n_alive": int((facts.firing_rate >= limits.min_firing_rate).sum()),
        "n_dense": int((facts.firing_rate > limits.dense_firing_rate).sum()),
        "loss_base": fit.loss_base,
        "loss_spliced": fit.loss_spliced,
    }
