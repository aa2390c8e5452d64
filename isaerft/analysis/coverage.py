"""The rows of coverage.csv: of the latents that a source was asked for, how many it explains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.inputs import sources_of
from isaerft.explanations import latents_to_explain, read_explanations, sample_path
from isaerft.layout import SubjectFolder


def coverage_table(plan: config.Plan, results: str | Path) -> pd.DataFrame:
    """Return one row for each subject and source that speaks of it."""
    results, rows = Path(results), []
    for subject in plan.study.subjects:
        facts = SubjectFolder(results / "subjects" / subject).read_latents()
        for source in sources_of(plan, subject):
            sample = sample_path(plan, results, subject, source)
            asked = latents_to_explain(facts, plan.study.agreement.min_firing_rate, sample)
            found = read_explanations(results / "explanations" / subject / f"{source}.parquet")
            explained = int(np.isin(asked, found["latent_index"]).sum())
            failed = int(found.attrs["counts"].get("failed", 0))
            rows.append(
                {
                    "subject": subject,
                    "source": source,
                    "design": plan.design_of(source),
                    "n_asked": len(asked),
                    "n_explained": explained,
                    "n_unlabelled": len(asked) - explained - failed,
                    "n_failed": failed,
                    "coverage": explained / len(asked) if len(asked) else np.nan,
                }
            )
    return pd.DataFrame(rows)
