"""Paths of a study's files below its results folder; no other module knows a path.

The package calls these with names; the Snakefile calls them with wildcards in place of names:

>>> results = Results("results/testbed")
>>> results.changes("testbed", "refusal").as_posix()
'results/testbed/changes/testbed/refusal.parquet'
>>> results.changes("{subject}", "{behavior}").as_posix()
'results/testbed/changes/{subject}/{behavior}.parquet'
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isaerft.io import read_json, read_parquet

if TYPE_CHECKING:
    import pandas as pd

ADAPTER_SEED, CHECKPOINT_STEP = "seed_", "step_"


def checkpoints_of(adapter: Path, seed: int) -> Path:
    """Return the folder of an adapter's checkpoints of one seed: step_1/, step_2/, ... in an adapter's folder."""
    return adapter / "checkpoints" / f"{ADAPTER_SEED}{seed}"


@dataclass(frozen=True)
class SubjectFolder:
    """The folder results/{study}/subjects/{subject}: what is known about a subject before any training.

    Attributes
    ----------
    path : Path
    """

    path: Path

    @property
    def model(self) -> Path:
        """A model that the study makes, a Hugging Face folder: the testbed's, or one converted from GGUF."""
        return self.path / "model"

    @property
    def sae(self) -> Path:
        """The SAE in SAELens' format, its normalization folded in."""
        return self.path / "sae"

    @property
    def corpus(self) -> Path:
        """Token ids of the reference corpus."""
        return self.path / "corpus.safetensors"

    @property
    def tokens(self) -> Path:
        """Numbers of rows and tokens of every behavior's records, as this subject reads them."""
        return self.path / "tokens.json"

    @property
    def latents(self) -> Path:
        """Facts of the latents, one row each."""
        return self.path / "latents.parquet"

    @property
    def contexts(self) -> Path:
        """Top activating tokens in context, and promoted tokens, of each latent."""
        return self.path / "contexts.parquet"

    @property
    def activations(self) -> Path:
        """The top contexts of each latent token by token, with its activation on each."""
        return self.path / "activations.parquet"

    @property
    def neighbors(self) -> Path:
        """The latents nearest to each latent by decoder cosine."""
        return self.path / "neighbors.parquet"

    @property
    def composition(self) -> Path:
        """What each latent is composed of."""
        return self.path / "composition.parquet"

    @property
    def logits(self) -> Path:
        """Tokens that a sample of the latents promotes, to tell whether labels are of these latents."""
        return self.path / "logits.parquet"

    @property
    def scored(self) -> Path:
        """Contexts held out for scoring explanations; no explainer or judge sees them."""
        return self.path / "scored_contexts.parquet"

    @property
    def card(self) -> Path:
        """What the gate measured of model and SAE."""
        return self.path / "subject.json"

    @property
    def truth(self) -> Path:
        """Folder of the true explanations and judgements; the testbed's alone."""
        return self.path / "truth"

    def read_latents(self) -> pd.DataFrame:
        """Read the facts of the subject's latents, one row each."""
        return read_parquet(self.latents, missing=f"{self.latents} does not exist", remedy="run the rule `facts`")

    def read_cards(self) -> list[dict[str, Any]]:
        """Read the subject's rows of subjects.csv: its own, and its random-dictionary twin's."""
        return read_json(self.card)


@dataclass(frozen=True)
class BehaviorFolder:
    """The folder results/{study}/behaviors/{behavior}: records, split into train and held out."""

    path: Path

    @property
    def train(self) -> Path:
        """Training records."""
        return self.path / "train.jsonl"

    @property
    def heldout(self) -> Path:
        """Held-out records."""
        return self.path / "heldout.jsonl"

    @property
    def card(self) -> Path:
        """Rows, source, revision, licence, sha256."""
        return self.path / "card.json"


@dataclass(frozen=True)
class AnswersFolder:
    """A folder of answers and their scores: behavior_check/{subject}/{behavior}, or steering_check/{subject}."""

    path: Path

    @property
    def scores(self) -> Path:
        """Scores of the answers, by adapter, or by latent, strength, prompt and behavior."""
        return self.path / "scores.parquet"

    @property
    def answers(self) -> Path:
        """Every prompt with its answers."""
        return self.path / "answers.jsonl"


@dataclass(frozen=True)
class MapsFolder:
    """The folder results/{study}/maps/{subject}/{behavior}: what the learned maps of a behavior read and write."""

    path: Path

    @property
    def components(self) -> Path:
        """The components of every map: adapter, seed, part, component, losses, names and vectors."""
        return self.path / "components.parquet"

    @property
    def pullback(self) -> Path:
        """The latents' changes by the linear pullback beside those of the activations."""
        return self.path / "pullback.parquet"


@dataclass(frozen=True)
class AgreementFolder:
    """The folder results/{study}/agreement/{subject}/{adapter}: rows of four tables, before q-values."""

    path: Path

    def rows(self, table: str) -> Path:
        """Rows of one table."""
        return self.path / f"{table}.parquet"


@dataclass(frozen=True)
class Results:
    """Every path below one results folder.

    Attributes
    ----------
    root : str or Path
        results/{study}, or results/calibration.
    """

    root: str | Path

    def _at(self, *parts: str) -> Path:
        return Path(self.root, *parts)

    def subject(self, subject: str) -> SubjectFolder:
        """Facts of a subject."""
        return SubjectFolder(self._at("subjects", subject))

    def testbed_rows(self, behavior: str) -> Path:
        """Raw rows that the testbed's language gives for a behavior."""
        return self._at("testbed_rows", f"{behavior}.jsonl")

    def elicited(self, behavior: str) -> Path:
        """Every reply that was sampled for an elicited behavior, before any is dropped."""
        return self._at("elicited", f"{behavior}.jsonl")

    def behavior(self, behavior: str) -> BehaviorFolder:
        """Records of a behavior."""
        return BehaviorFolder(self._at("behaviors", behavior))

    def cache(self, subject: str, behavior: str) -> Path:
        """Activations at the hook and sparse codes of a behavior's records."""
        return self._at("cache", subject, f"{behavior}.safetensors")

    def erasure(self, subject: str, twin: str) -> Path:
        """What is erased from the residual stream for each seed of a behavior's twin."""
        return self._at("erasures", subject, f"{twin}.safetensors")

    def erasure_facts(self, subject: str, twin: str) -> Path:
        """How many directions are erased, and how well a behavior is told apart before and after."""
        return self._at("erasures", subject, f"{twin}.json")

    def adapters(self, subject: str, behavior: str) -> Path:
        """Folder of all adapters of a behavior."""
        return self._at("adapters", subject, behavior)

    def adapter(self, subject: str, behavior: str, adapter: str) -> Path:
        """All seeds of one adapter: seed_0/, seed_1/, ... and training.json."""
        return self.adapters(subject, behavior) / adapter

    def training(self, subject: str, behavior: str, adapter: str) -> Path:
        """What training each seed of an adapter came to."""
        return self.adapter(subject, behavior, adapter) / "training.json"

    def changes(self, subject: str, behavior: str) -> Path:
        """Change of each latent: adapter, measure, seed, latent_index, change."""
        return self._at("changes", subject, f"{behavior}.parquet")

    def changes_over_time(self, subject: str, behavior: str) -> Path:
        """Change of each latent at checkpoints: adapter, measure, seed, step, latent_index, change."""
        return self._at("changes_over_time", subject, f"{behavior}.parquet")

    def diagnostics(self, subject: str, behavior: str) -> Path:
        """How much of each model adapter's effect passes through the hook and is explained by the dictionary."""
        return self._at("changes", subject, f"{behavior}.json")

    def placebos(self, subject: str) -> Path:
        """Change of each latent under placebos: placebo, measure, seed, latent_index, change."""
        return self._at("placebos", f"{subject}.parquet")

    def causal_check(self, subject: str, behavior: str) -> Path:
        """Held-out loss without the latents that changed most."""
        return self._at("causal_check", subject, f"{behavior}.parquet")

    def behavior_check(self, subject: str, behavior: str) -> AnswersFolder:
        """Answers before and after training."""
        return AnswersFolder(self._at("behavior_check", subject, behavior))

    def noise_probe(self, subject: str, behavior: str) -> Path:
        """Scores and losses under noise: adapter, seed, place, level, draw, score, loss, metric, n_prompts."""
        return self._at("noise_probe", subject, f"{behavior}.parquet")

    def steering_check(self, subject: str) -> AnswersFolder:
        """Answers while latents are amplified and suppressed."""
        return AnswersFolder(self._at("steering_check", subject))

    def maps(self, subject: str, behavior: str) -> MapsFolder:
        """What the learned maps of a behavior read and write."""
        return MapsFolder(self._at("maps", subject, behavior))

    def loss_curves(self, subject: str, behavior: str) -> Path:
        """Held-out loss of linear maps with few directions: family, k, seed, losses, directions chosen."""
        return self._at("loss_curves", subject, f"{behavior}.parquet")

    def design(self, subject: str) -> Path:
        """The case-control sample of a subject's latents."""
        return self._at("design", f"{subject}.parquet")

    def explanations(self, subject: str, source: str) -> Path:
        """One source's explanations."""
        return self._at("explanations", subject, f"{source}.parquet")

    def judgements(self, subject: str, source: str, judge: str) -> Path:
        """What one judge expects from one source's explanations."""
        return self._at("judgements", subject, source, f"{judge}.parquet")

    def windows(self, subject: str, scorer: str) -> Path:
        """What an embedding scorer makes of the windows in which latents fire or not: text, vector."""
        return self._at("windows", subject, f"{scorer}.parquet")

    def scores(self, subject: str, source: str, scorer: str) -> Path:
        """One scorer's scores of one source's explanations."""
        return self._at("scores", subject, source, f"{scorer}.parquet")

    def agreement(self, subject: str, adapter: str) -> AgreementFolder:
        """Tests and controls of one adapter."""
        return AgreementFolder(self._at("agreement", subject, adapter))

    def audit(self, subject: str, table: str) -> Path:
        """Rows of one table about all audits of a subject."""
        return self._at("audit", subject, f"{table}.parquet")

    def calibration_part(self, part: str) -> Path:
        """One part of the calibration study."""
        return self._at("parts", f"{part}.csv")

    def table(self, name: str) -> Path:
        """A result table."""
        return self._at("tables", f"{name}.csv")

    def figure(self, name: str) -> Path:
        """A figure."""
        return self._at("figures", f"{name}.svg")

    def page(self, name: str) -> Path:
        """A table as a page, or the page of answers."""
        return self._at("pages", f"{name}.html")

    @property
    def latents(self) -> Path:
        """Folder of the page of single latents: index.html and the data that it loads."""
        return self._at("latents")

    @property
    def latent_page(self) -> Path:
        """The page of single latents."""
        return self.latents / "index.html"

    @property
    def summary(self) -> Path:
        """The page to read first."""
        return self._at("summary.html")

    def log(self, rule: str, *names: str) -> Path:
        """Log of a job."""
        return self._at("logs", rule, f"{'.'.join(names)}.log") if names else self._at("logs", f"{rule}.log")

    @property
    def tracking(self) -> Path:
        """Files of experiment trackers; no rule reads or makes them."""
        return self._at("tracking")

    @property
    def benchmarks(self) -> Path:
        """Folder with the time and memory of every job."""
        return self._at("benchmarks")

    def benchmark(self, rule: str, *names: str) -> Path:
        """Time and memory of a job."""
        return (
            self._at("benchmarks", rule, f"{'.'.join(names)}.tsv") if names else self._at("benchmarks", f"{rule}.tsv")
        )
