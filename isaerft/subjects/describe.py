"""Everything that is measured of a subject before any training: facts, contexts, and the gate."""

from __future__ import annotations

from typing import Any

import pandas as pd

from isaerft import config
from isaerft.files import replacing, write_json
from isaerft.subjects.contexts import context_table
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import latent_facts, measure_firing
from isaerft.subjects.gate import Fit, check_gate, measure_fit
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.paths import SubjectFolder


def describe_subject(
    study: config.Study, name: str, subject: LoadedSubject, rows: TokenRows, folder: SubjectFolder
) -> None:
    """Pass the gate, then write latents.parquet, contexts.parquet and subject.json (last) into the subject's folder.

    Raises
    ------
    InputError
        Model and SAE do not fit.
    """
    options = study.subjects[name]
    fit = measure_fit(subject, rows, study.batch_size)
    check_gate(name, options, subject, fit, rows)
    firing = measure_firing(subject, rows, study.batch_size)
    facts = latent_facts(subject, firing, cluster_cosine=study.agreement.cluster_cosine)
    with replacing(folder.latents) as temporary:
        facts.to_parquet(temporary, index=False)
    with replacing(folder.contexts) as temporary:
        context_table(subject, rows, firing, options.amplified_rows).to_parquet(temporary, index=False)
    cards = [_card(study, name, options, subject, facts, fit)]
    for twin, base in study.permuted_subjects.items():
        if base == name:
            random = subject.with_random_dictionary(study.replicate_seed(0))
            cards.append(_card(study, twin, options, random, facts, measure_fit(random, rows, study.batch_size)))
    write_json(folder.card, cards)


def _card(
    study: config.Study, name: str, options: config.Subject, subject: LoadedSubject, facts: pd.DataFrame, fit: Fit
) -> dict[str, Any]:
    limits = study.agreement
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
