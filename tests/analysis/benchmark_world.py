"""Benchmarks for tests: one of made-up scores, and a study of two worlds as the rules would write it."""

import numpy as np
import pandas as pd

from isaerft.analysis.benchmarked import Benchmark
from isaerft.explanations import write_explanations
from isaerft.judges import write_judgements
from isaerft.scorers import write_scores
from tests.analysis.small_study import BEHAVIORS, EXPECTED, UNEXPLAINED, N, Parts, make_study

KINDS = ("another", "too_broad", "half_true")
WORLDS = tuple(f"world_{i}" for i in range(6))
NAMES = ["subject", "side", "share", "latent_index"]


def made(seed=0, n=120, worlds=WORLDS, quality=None):
    """Return a benchmark whose scores find wrong ones as well as `quality` says, in standard deviations."""
    quality = {("training", "truth"): 2.0, ("lexical", "detection"): 1.0, ("lexical", "output"): 0.0} | (quality or {})
    rng = np.random.default_rng(seed)
    parts, scores = [], []
    for world in worlds:
        for side in ("input", "output"):
            kind = np.array(["right"] * n, object)
            kind[rng.permutation(n)[: n // 4]] = rng.choice(KINDS, n // 4)
            part = pd.DataFrame({"latent_index": range(n)}).assign(
                subject=world, source=f"bench_{side}", side=side, share=0.25, explanation="text", kind=kind
            )
            parts.append(part.assign(said="a", true="a", testable=rng.random(n) < 0.8))
            for (scorer, score), size in quality.items():
                values = rng.normal(size=n) + size * (kind == "right")
                scores.append(part[NAMES].assign(scorer=scorer, score=score, value=values))
    return Benchmark(pd.concat(parts, ignore_index=True), pd.concat(scores, ignore_index=True), "truth", pd.DataFrame())


SOURCES = {
    "said": {"kind": "local"},
    "bench": {"kind": "file", "path": "{subject_dir}/bench.csv", "wrong_share": 0.25, "key": "{subject_dir}/key.csv"},
}
LATENTS = [latent for latent in range(N) if latent not in UNEXPLAINED]


def study_of(**changes):
    own = {"subjects": {name: {"testbed": {}} for name in ("toy", "other")}, "sources": SOURCES}
    own |= {"scorers": {"lexical": {"sources": ["bench"]}}, "controls": [], "placebos": {"n": 0}}
    return make_study(**own | changes)


def two_worlds(folder):
    """Two worlds in which a quarter of the explanations names another behavior than the one that changes the latent."""
    parts = Parts(folder)
    rng = np.random.default_rng(5)
    for subject in ("toy", "other"):
        if subject == "other":
            parts.subject(subject)
            for behavior in BEHAVIORS:
                parts.changes(subject, behavior)
                frame = pd.read_parquet(parts.folder / "changes/other" / f"{behavior}.parquet")
                raised = frame["latent_index"].isin(EXPECTED[behavior])
                frame.assign(change=frame["change"] + 3 * raised).to_parquet(
                    parts.path("changes", subject, f"{behavior}.parquet")
                )
            parts.explanations(subject, "said")
            parts.judgements(subject, "said")
        about = {latent: name for name, own in EXPECTED.items() for latent in own}
        wrong = {latent for latent in about if rng.random() < 0.25} | {10, 20}
        said = {latent: BEHAVIORS[(BEHAVIORS.index(name) + (latent in wrong)) % 5] for latent, name in about.items()}
        key = pd.DataFrame({"latent_index": LATENTS, "side": "input", "share": 0.25}).assign(
            kind=["another" if latent in wrong else "right" for latent in LATENTS], said="s", true="t"
        )
        key.to_csv(parts.path("subjects", subject, "key.csv"), index=False)
        texts = [f"latent {latent}" for latent in LATENTS]
        frame = pd.DataFrame({"latent_index": LATENTS, "explanation": texts, "side": "input", "url": ""})
        write_explanations(frame, parts.path("explanations", subject, "bench.parquet"))
        rows = pd.DataFrame([(i, name) for i in LATENTS for name in BEHAVIORS], columns=["latent_index", "behavior"])
        expected = [said.get(i) == name for i, name in rows.itertuples(index=False)]
        rows = rows.assign(
            expected_effect=np.array(expected, float), expected=expected, confidence=np.nan, rationale=""
        )
        write_judgements(rows, parts.path("judgements", subject, "bench", "lexical.parquet"))
        scored = pd.DataFrame({"score": "detection", "latent_index": LATENTS, "n_items": 4, "floor": 0.5})
        write_scores(
            scored.assign(value=rng.random(len(scored))), parts.path("scores", subject, "bench", "lexical.parquet")
        )
    return parts
