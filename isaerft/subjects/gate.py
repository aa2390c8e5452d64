"""The gate: check that a model and an SAE belong together, then describe the subject.

An SAE on the wrong model, layer, normalization or BOS convention still encodes and decodes, but all results would be
meaningless. The gate measures the variance explained and the loss with the SAE spliced in, and stops such a subject.
For a subject that passes, it writes all that is measured before training: facts about the latents, their contexts, and
the subject's rows of subjects.csv.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

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
"""Rows of the corpus on which the fit is measured."""
N_ROWS_ALTERNATIVES = 16
# TransformerLens' names, which SAELens uses, that are not the last part of the hub's.
HUB_NAMES = {"gpt2-small": "gpt2"}
_GGUF_ENDING = re.compile(r"([.-](i?q\d\w*|b?f16|f32))?\.gguf$")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """How well an SAE fits its model, on tokens of the reference corpus.

    Attributes
    ----------
    variance_explained : float
        1 - squared error / variance of the hook's activation, BOS excluded.
    l0 : float
        Mean number of active latents per token.
    loss_base, loss_spliced, loss_unigram : float
        Nats per token: of the model, of the model with the SAE's reconstruction spliced in, and of a unigram model.
    """

    variance_explained: float
    l0: float
    loss_base: float
    loss_spliced: float
    loss_unigram: float

    @property
    def loss_increase(self) -> float:
        """Loss added by splicing the SAE in, as a share of the gap from the model's loss to the unigram loss."""
        gap = self.loss_unigram - self.loss_base
        return (self.loss_spliced - self.loss_base) / gap if gap > 0 else float("inf")


def describe_subject(
    plan: config.Plan, name: str, subject: LoadedSubject, rows: TokenRows, folder: SubjectFolder
) -> None:
    """Check that a subject passes the gate, then write its latents, contexts and, last, its card.

    Raises
    ------
    InputError
        The model and the SAE do not fit together.
    """
    options = plan.study.subjects[name]
    fit = measure_fit(subject, rows, plan.study.batch_size)
    check_gate(name, options, subject, fit, rows)
    if made_for := other_model(options, subject.dictionary.model_name):
        logger.warning(
            "subject %r: its SAE was trained on %s, not on %s; it explains %.2f of the variance here, so it is used,"
            " but what others wrote about its latents is about that model",
            *(name, made_for, options.model_name, fit.variance_explained),
        )
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


def measure_fit(subject: LoadedSubject, rows: TokenRows, batch_size: int) -> Fit:
    """Measure how well the SAE fits the model on the first rows of the corpus."""
    error = squares = l0 = base = spliced = 0.0
    n_tokens = n_predicted = 0
    total = torch.zeros(subject.dictionary.d_in, dtype=torch.float64, device=subject.model.device)
    counts = torch.zeros(subject.language.n_vocabulary, dtype=torch.float64)
    for tokens, mask in rows.first(N_ROWS).batches(batch_size):
        tokens, mask = tokens.to(subject.model.device), mask.to(subject.model.device)
        below = run_below(subject.model, subject.hook, tokens, mask)
        is_text = subject.language.content_mask(tokens, mask)
        kept = below.activation[is_text]
        rebuilt = subject.dictionary.reconstruct(kept)
        error += float((kept.float() - rebuilt).double().square().sum())
        squares += float(kept.double().square().sum())
        total += kept.double().sum(0)
        l0 += float(subject.dictionary.encode(kept).counts().sum())
        n_tokens += len(kept)
        patched = below.residual.clone()
        # Keep what the SAE does not read: zero where it reads the residual stream itself.
        rest = below.residual[is_text].float() - kept.float()
        patched[is_text] = (rebuilt + rest).to(patched.dtype)
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
    """Stop a subject whose model and SAE do not fit, and report the fit under other settings.

    Raises
    ------
    InputError
        The variance explained is too low, or the loss added by splicing the SAE in is too high, for the config.
    """
    if fit.variance_explained >= options.min_variance_explained and fit.loss_increase <= options.max_loss_increase:
        return
    made_for = other_model(options, subject.dictionary.model_name)
    origin = f"choose an SAE of {options.model_name}: this one's metadata name {made_for}; " if made_for else ""
    tried = ", ".join(f"{setting}: {value:.2f}" for setting, value in _alternatives(subject, rows).items())
    raise InputError(
        f"subject {name!r}: its SAE explains {fit.variance_explained:.2f} of the variance at its hook, and"
        f" splicing it in costs {fit.loss_increase:.2f} of the gap to a unigram model",
        allowed=f"at least {options.min_variance_explained:g}, and at most {options.max_loss_increase:g}",
        remedy=(
            f"{origin}variance explained under other settings: {tried}; also check prepend_bos (now"
            f" {options.prepend_bos}), the model's revision, and that the SAE was trained on this model"
        ),
    )


def other_model(options: config.Subject, trained_on: str) -> str | None:
    """Return the model that an SAE's metadata name if it is not the subject's; None if it is, or cannot be told.

    Only the last parts of the names are compared. An SAE that the study trains is the subject's own.
    """
    if not trained_on or options.testbed is not None or options.train_sae is not None:
        return None
    theirs, ours = (PurePosixPath(text.lower()).name for text in (trained_on, options.model_name))
    return None if _GGUF_ENDING.sub("", ours) == HUB_NAMES.get(theirs, theirs) else trained_on


def _alternatives(subject: LoadedSubject, rows: TokenRows) -> dict[str, float]:
    """Return the variance explained with the other centering and at the neighboring blocks."""
    hook, dictionary = subject.hook, subject.dictionary
    others = {
        f"center_writing_weights {not dictionary.center}": replace(
            subject, dictionary=replace(dictionary, center=not dictionary.center)
        )
    }
    for step, setting in ((-1, "one block earlier"), (1, "one block later")):
        other = replace(hook, n_below=hook.n_below + step)
        # Only the residual stream between blocks also exists below the first block.
        lowest = -1 if hook.reads == "residual" and not hook.inside else 0
        if lowest <= other.block < hook.n_blocks:
            others[setting] = replace(subject, hook=other)
    few = rows.first(N_ROWS_ALTERNATIVES)
    return {
        setting: measure_fit(other, few, N_ROWS_ALTERNATIVES).variance_explained for setting, other in others.items()
    }


def _loss(
    subject: LoadedSubject, residual: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, predicted: torch.Tensor
) -> float:
    """Return the summed loss over the predicted tokens, in nats."""
    with torch.no_grad():
        hidden = hidden_above(subject.model, subject.hook, residual, mask)
        logits = unembed(subject.model, hidden[:, :-1][predicted]).float()
        return float(cross_entropy(logits, tokens[:, 1:][predicted], reduction="sum"))


def _card(
    plan: config.Plan, name: str, options: config.Subject, subject: LoadedSubject, facts: pd.DataFrame, fit: Fit
) -> dict[str, object]:
    """Return a subject's row of subjects.csv."""
    limits = plan.study.agreement
    return {
        "subject": name,
        "model": options.model_name,
        "release": options.release,
        "sae_id": options.sae_id,
        "sae_model": None if options.release is options.sae_path is None else subject.dictionary.model_name or None,
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
