"""The gate: check that a model and an SAE belong together, then describe the subject.

An SAE on the wrong model, layer, normalization or BOS convention still encodes and decodes, but all results would be
meaningless. The gate measures the variance explained and the loss with the SAE spliced in, and stops such a subject.

In some models a few tokens beside BOS carry activations a hundred times larger than all others (attention sinks; Sun
et al. 2024, "Massive Activations in Large Language Models", arXiv 2402.17762). They would decide the variance
explained, so it is judged without them, and they are named. Splicing shows whether the model can do without what the
SAE loses there.

For a subject that passes, it writes all that is measured before training: facts about the latents, their neighbors and
contexts, the tokens by which labels are recognized, and the subject's rows of subjects.csv.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from isaerft import config
from isaerft.errors import InputError, shown
from isaerft.io import replacing, write_json, write_parquet
from isaerft.layout import SubjectFolder
from isaerft.provenance import same_model
from isaerft.subjects.contexts import activation_tables, context_table
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.device import in_float64
from isaerft.subjects.dictionary import Dictionary
from isaerft.subjects.facts import latent_facts, measure_firing, nearest_latents
from isaerft.subjects.hooks import BelowState, hidden_above, run_below, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.logits import logit_table
from isaerft.subjects.points import find_hook

N_ROWS = 256
"""Rows of the corpus on which the fit is measured."""
N_ROWS_ALTERNATIVES = 16
OUTLIER_NORM = 10.0
"""A token is an outlier if its activation's norm is above this multiple of the median."""
MAX_OUTLIER_SHARE = 0.02
"""If more than this share of the tokens are as large, none of them is an outlier: they are what the SAE should know."""
MAX_SHOWN_OUTLIERS = 3
_GGUF_ENDING = re.compile(r"([.-](i?q\d\w*|b?f16|f32))?\.gguf$", re.IGNORECASE)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outliers:
    """Tokens whose activation is many times larger than the others'.

    Attributes
    ----------
    share : float
        Share of the tokens.
    norm : float
        Mean norm of their activations, over the median norm of all tokens.
    tokens : tuple of str
        The most frequent of them.
    variance_explained : float
        Of the variance at all other tokens.
    """

    share: float
    norm: float
    tokens: tuple[str, ...]
    variance_explained: float

    def __str__(self) -> str:
        named = ", ".join(map(shown, self.tokens))
        return (
            f"{100 * self.share:.2g} % of its tokens ({named}) have activations {self.norm:.0f} times as large as the"
            f" median; without these its SAE explains {self.variance_explained:.2f}"
        )


@dataclass(frozen=True)
class Fit:
    """How well an SAE fits its model, on tokens of the reference corpus.

    Attributes
    ----------
    variance_explained : float
        1 - squared error / variance of what the dictionary reconstructs, BOS excluded.
    l0 : float
        Mean number of active latents per token.
    loss_base, loss_spliced, loss_unigram : float
        Nats per token: of the model, of the model with the SAE's reconstruction spliced in, and of a unigram model.
    outliers : Outliers or None
        Tokens without which the variance explained is judged.
    """

    variance_explained: float
    l0: float
    loss_base: float
    loss_spliced: float
    loss_unigram: float
    outliers: Outliers | None = None

    @property
    def judged_variance_explained(self) -> float:
        """Variance explained without outliers."""
        return self.variance_explained if self.outliers is None else self.outliers.variance_explained

    @property
    def loss_increase(self) -> float:
        """Loss added by splicing the SAE in, as a share of the gap from the model's loss to the unigram loss."""
        gap = self.loss_unigram - self.loss_base
        return (self.loss_spliced - self.loss_base) / gap if gap > 0 else float("inf")


def describe_subject(
    plan: config.Plan, name: str, subject: LoadedSubject, rows: TokenRows, folder: SubjectFolder
) -> None:
    """Check that a subject passes the gate, then write what is known of its latents and, last, its card.

    Raises
    ------
    InputError
        The model and the SAE do not fit together; not asked of a random baseline.
    """
    options = plan.subjects[name]
    fit = measure_fit(subject, rows, plan.study.batch_size)
    # A random baseline may be as bad as it is.
    if name in plan.study.subjects:
        check_gate(name, options, subject, fit, rows)
    if made_for := other_model(options, subject.dictionary.model_name):
        logger.warning(
            "subject %r: its SAE was trained on %s, not on %s; it explains %.2f of the variance here, so it is used,"
            " but what others wrote about its latents is about that model",
            *(name, made_for, options.model_name, fit.variance_explained),
        )
    if other_bos(options, subject.dictionary):
        logger.warning(
            "subject %r: its SAE was trained %s BOS, as its metadata say, and prepend_bos is %s; check which is right",
            *(name, "with" if subject.dictionary.prepend_bos else "without", options.prepend_bos),
        )
    if fit.outliers is not None:
        logger.warning("subject %r: %s", name, fit.outliers)
    firing = measure_firing(subject, rows, plan.study.batch_size)
    near = nearest_latents(subject.dictionary)
    facts = latent_facts(subject, firing, cluster_cosine=plan.study.agreement.cluster_cosine, neighbors=near)
    tables = {
        folder.latents: facts,
        folder.neighbors: near.table(),
        folder.contexts: context_table(subject, rows, firing, options.amplified_rows),
        folder.logits: logit_table(subject, firing, seed=plan.study.seed),
    }
    for path, table in tables.items():
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
    write_parquet(activation_tables(subject, rows, firing), folder.activations)
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
    total = in_float64(torch.zeros(subject.dictionary.d_out, device=subject.model.device))
    counts = torch.zeros(subject.language.n_vocabulary, dtype=torch.float64)
    rows = rows.first(N_ROWS)
    largest = _LargestTokens(int(MAX_OUTLIER_SHARE * int(rows.mask.sum())))
    for tokens, mask in rows.batches(batch_size):
        tokens, mask = tokens.to(subject.model.device), mask.to(subject.model.device)
        below = run_below(subject.model, subject.hook, tokens, mask)
        is_text = subject.language.content_mask(tokens, mask)
        read, kept = below.activation[is_text], below.target[is_text]
        rebuilt = subject.dictionary.reconstruct(read)
        errors = in_float64(kept.float() - rebuilt).square()
        error += float(errors.sum())
        exact = in_float64(kept)
        squares += float(exact.square().sum())
        total += exact.sum(0)
        largest.add(tokens[is_text], exact, errors.sum(1))
        l0 += float(subject.dictionary.encode(read).counts().sum())
        n_tokens += len(kept)
        patched = below.residual.clone()
        patched[is_text] = _spliced(subject, below, is_text, rebuilt).to(patched.dtype)
        predicted = mask[:, 1:].bool()
        base += _loss(subject, below.residual, tokens, mask, predicted)
        spliced += _loss(subject, patched, tokens, mask, predicted)
        n_predicted += int(predicted.sum())
        counts += torch.bincount(tokens[:, 1:][predicted].cpu(), minlength=len(counts))
    shares = counts[counts > 0] / counts.sum()
    unigram = float(-(shares * shares.log()).sum())
    return Fit(
        _explained(error, squares, total, n_tokens),
        l0 / n_tokens,
        base / n_predicted,
        spliced / n_predicted,
        unigram,
        largest.outliers(subject.language, error, squares, total, n_tokens),
    )


def _spliced(subject: LoadedSubject, below: BelowState, tokens: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """Return the residual stream (n, d_model) with what the dictionary makes of its activation in place of the target.

    Parameters
    ----------
    tokens : (n_rows, length) bool
    rebuilt : (n, d_out) float32
        At these tokens.
    """
    residual, target = below.residual[tokens].float(), below.target[tokens].float()
    if subject.hook.reads == "heads":
        change = subject.dictionary.through_projection(rebuilt - target)
        return residual + subject.reaching(below.written[tokens], change).float()
    # Keep what the SAE does not read: zero where it reads the residual stream itself.
    return rebuilt + (residual - target)


def _explained(error: float, squares: float, total: torch.Tensor, n_tokens: int) -> float:
    """Return the variance explained, from sums over tokens: of squared errors, squares, and activations (d_in,)."""
    return 1 - error / (squares - float(total.square().sum()) / n_tokens)


class _LargestTokens:
    """The tokens of largest activation among those seen, and the norms of all.

    Parameters
    ----------
    n : int
        How many are kept.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.norms: list[torch.Tensor] = []
        self.kept: tuple[torch.Tensor, ...] = ()

    def add(self, tokens: torch.Tensor, activations: torch.Tensor, errors: torch.Tensor) -> None:
        """See more tokens: their ids (n,), activations (n, d_in) float64 and squared errors (n,) float64."""
        norms = activations.norm(dim=1)
        self.norms.append(norms.cpu())
        new = (norms, tokens.to(norms.device), activations, errors)
        joined = tuple(map(torch.cat, zip(self.kept, new, strict=True))) if self.kept else new
        order = joined[0].topk(min(self.n, len(joined[0]))).indices
        self.kept = tuple(part[order] for part in joined)

    def outliers(
        self, language: LoadedModel, error: float, squares: float, total: torch.Tensor, n_tokens: int
    ) -> Outliers | None:
        """Return the outliers among all tokens, whose sums are as for `_explained`; None if there are none."""
        norms, tokens, activations, errors = self.kept
        seen = torch.cat(self.norms)
        median = float(seen.median())
        n_out = int((seen > OUTLIER_NORM * median).sum())
        if not 0 < n_out <= self.n or not median:
            return None
        out = norms > OUTLIER_NORM * median
        others = _explained(
            error - float(errors[out].sum()),
            squares - float(activations[out].square().sum()),
            total - activations[out].sum(0),
            n_tokens - n_out,
        )
        common = Counter(tokens[out].tolist()).most_common(MAX_SHOWN_OUTLIERS)
        named = tuple(language.decode([token]) for token, _ in common)
        return Outliers(n_out / n_tokens, float(norms[out].mean()) / median, named, others)


def check_gate(name: str, options: config.Subject, subject: LoadedSubject, fit: Fit, rows: TokenRows) -> None:
    """Stop a subject whose model and SAE do not fit, and report the fit under other settings.

    Raises
    ------
    InputError
        The variance explained is too low, or the loss added by splicing the SAE in is too high, for the config.
    """
    explained = fit.judged_variance_explained
    if explained >= options.min_variance_explained and fit.loss_increase <= options.max_loss_increase:
        return
    made_for = other_model(options, subject.dictionary.model_name)
    origin = f"choose an SAE of {options.model_name}: this one's metadata name {made_for}; " if made_for else ""
    if other_bos(options, subject.dictionary):
        origin += f"set prepend_bos: {str(not options.prepend_bos).lower()}, as this SAE's metadata say; "
    tried = ", ".join(f"{setting}: {value:.2f}" for setting, value in _alternatives(subject, rows).items())
    raise InputError(
        f"subject {name!r}: its SAE explains {fit.variance_explained:.2f} of the variance at its hook, and"
        f" splicing it in costs {fit.loss_increase:.2f} of the gap to a unigram model"
        + (f"; {fit.outliers}" if fit.outliers else ""),
        allowed=f"at least {options.min_variance_explained:g}, and at most {options.max_loss_increase:g}",
        remedy=(
            f"{origin}variance explained under other settings: {tried}; also check prepend_bos (now"
            f" {options.prepend_bos}), the model's revision, and that the SAE was trained on this model"
        ),
    )


def other_model(options: config.Subject, trained_on: str) -> str | None:
    """Return the model that an SAE's metadata name if it is not the subject's; None if it is, or cannot be told.

    An SAE that the study trains is the subject's own.
    """
    if not trained_on or options.testbed is not None or options.train_sae is not None:
        return None
    return None if same_model(_GGUF_ENDING.sub("", options.model_name), trained_on) else trained_on


def other_bos(options: config.Subject, dictionary: Dictionary) -> bool:
    """Tell whether an SAE's metadata contradict the subject's `prepend_bos`."""
    return dictionary.prepend_bos is not None and dictionary.prepend_bos != options.prepend_bos


def _alternatives(subject: LoadedSubject, rows: TokenRows) -> dict[str, float]:
    """Return the variance explained under the other reading that the hook has, and at the neighboring blocks."""
    hook, dictionary = subject.hook, subject.dictionary
    others = {}
    if hook.reads == "heads":
        folded = replace(hook, folds_value_biases=not hook.folds_value_biases)
        others[f"fold_value_biases {folded.folds_value_biases}"] = replace(subject, hook=folded)
    elif hook.is_transcoder:
        at = "mlp.hook_in" if hook.reads == "normalized" else "ln2.hook_normalized"
        with suppress(InputError):  # not every MLP has a normalization of its own
            name = f"blocks.{hook.block}.{at}"
            other = find_hook(subject.model, name, dictionary.hook_name_out)
            others[f"hook_name {name}"] = replace(subject, hook=other)
    else:
        centered = replace(dictionary, center=not dictionary.center)
        others[f"center_writing_weights {centered.center}"] = replace(subject, dictionary=centered)
    for step, setting in ((-1, "one block earlier"), (1, "one block later")):
        other = replace(hook, n_below=hook.n_below + step)
        # Only the residual stream between blocks also exists below the first block.
        lowest = -1 if hook.reads == "residual" and not hook.inside else 0
        if lowest <= other.block < hook.n_blocks:
            others[setting] = replace(subject, hook=other)
    few = rows.first(N_ROWS_ALTERNATIVES)
    return {
        setting: measure_fit(other, few, N_ROWS_ALTERNATIVES).judged_variance_explained
        for setting, other in others.items()
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
