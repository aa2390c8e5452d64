"""The options of a study: every default and every help text stands here and nowhere else."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_strict = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
PERMUTED = "-permuted"
CONTROLS = ("shuffled_explanations", "mismatched_behavior", "firing_rate_only", "random_dictionary")


@dataclass(frozen=True, config=_strict, kw_only=True)
class Behavior:
    """A behavior to fine-tune on: what the judge reads, and where the data comes from."""

    description: str = Field(min_length=1)
    """What the behavior is, in a sentence or two; the judges read this."""
    path: str | None = None
    """Local data file (.jsonl, .json, .csv, .parquet, also .gz); relative to the working directory."""
    dataset: str | None = None
    """Hugging Face dataset id, in place of a path."""
    revision: str | None = None
    """Commit of the dataset; required with `dataset`, so that the data cannot change under the study."""
    subset: str | None = None
    """Name of the dataset's configuration on the hub."""
    data_dir: str | None = None
    """Folder of the dataset on the hub, where it keeps several sets side by side."""
    split: str = "train"
    """Split of the dataset on the hub, also a slice of it ("train[:2000]")."""
    testbed: str | None = None
    """Style of the embedded language that makes the data, in place of a path; see isaerft/testbed/language.py."""
    rule: bool = False
    """True when a Snakemake rule of your own writes this behavior's records."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field of the record -> column, dotted path into nested data (instances.0.output), or '{template}' of columns."""
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    """Keep only rows whose column has this value (or one of these)."""
    format: Literal["columns", "hh"] = "columns"
    """`hh`: chosen/rejected hold whole flat 'Human: ... Assistant: ...' dialogues, which are split into messages."""
    heldout_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts held out, chosen by a hash of the prompt, so that rows with one prompt stay together."""
    max_completion_characters: int | None = Field(default=None, ge=1)
    """Drop rows with a longer completion (or chosen or rejected reply); the card counts them."""
    max_rows: int | None = Field(default=None, ge=2)
    """Keep at most this many rows (those with the smallest id hash)."""
    licence: str = ""
    """Licence of the data, for its card."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class TrainSae:
    """Options of an SAE that the study trains itself, with SAELens."""

    d_sae: int = Field(default=512, ge=2)
    """Number of latents."""
    l0_coefficient: float = Field(default=1.0, gt=0)
    """Weight of the sparsity loss (JumpReLU): more of it, fewer active latents per token."""
    tokens: int = Field(default=1_500_000, ge=1000)
    """Training tokens."""
    batch_size: int = Field(default=1024, ge=1)
    """Tokens per step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Corpus:
    """Text on which the latents' facts are measured: a file, a hub dataset, or sampled from the model itself."""

    path: str | None = None
    """Local .jsonl with a `text` field, or .txt with one document a line."""
    dataset: str | None = None
    """Hugging Face dataset id."""
    revision: str | None = None
    """Commit of the dataset."""
    subset: str | None = None
    """Configuration of the dataset."""
    split: str = "train"
    """Split of the dataset."""
    column: str = "text"
    """Column that holds the text."""
    sample: bool = False
    """True: sample the corpus from the model itself."""
    tokens: int = Field(default=200_000, ge=100)
    """Size in tokens."""
    context_size: int = Field(default=128, ge=8)
    """Tokens per sequence."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Testbed:
    """Size of the embedded subject."""

    steps: int = Field(default=700, ge=1)
    """Training steps of the language model."""
    batch_size: int = Field(default=64, ge=1)
    """Dialogues per step."""
    d_model: int = Field(default=96, ge=8)
    """Width of the residual stream."""
    n_layers: int = Field(default=3, ge=2)
    """Transformer blocks."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Subject:
    """A model and an SAE at one hook."""

    model: str | None = None
    """Hugging Face id or local folder of the model; not given for the testbed."""
    revision: str | None = None
    """Commit of the model on the hub."""
    hook_name: str = ""
    """Where the SAE sits, in SAELens' words (blocks.20.hook_resid_post); taken from the SAE when empty."""
    release: str | None = None
    """SAELens release of a pretrained SAE."""
    sae_id: str | None = None
    """Id of the SAE in its release."""
    sae_path: str | None = None
    """Local folder with an SAE in SAELens' format, in place of release and sae_id."""
    train_sae: TrainSae | None = None
    """Train the SAE on the corpus, in place of a ready one."""
    testbed: Testbed | None = None
    """Make the embedded subject with these sizes."""
    corpus: Corpus = Field(default_factory=Corpus)
    """Reference corpus."""
    center_writing_weights: bool = False
    """Centre the residual stream before the SAE, as TransformerLens' processed weights do (GPT-2's SAEs want it)."""
    prepend_bos: bool = True
    """Begin every text with the BOS token; must be as the SAE was trained."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model."""
    min_variance_explained: float = 0.5
    """The gate stops a subject whose SAE explains less of the residual stream's variance."""
    max_loss_increase: float = 0.5
    """The gate stops a subject whose loss grows by more than this share of a unigram model's gap when spliced."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Adapter:
    """An adapter and how it is trained."""

    kind: str = ""
    """Registered adapter; the entry's own name when empty."""
    objective: str = "sft"
    """Registered objective."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD keeps the gradient's magnitudes, Adam flattens them."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Step size; for sgd it multiplies a gradient scaled to unit norm at the first step, so it is a length."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    steps: int = Field(default=100, ge=1)
    """At most this many steps; early stopping may end before."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per step."""
    evaluate_every: int = Field(default=10, ge=1)
    """Held-out loss is taken every so many steps."""
    patience: int = Field(default=5, ge=1)
    """Stop after this many evaluations without improvement."""
    subsample: float = Field(default=0.8, gt=0, le=1)
    """Share of the training rows that each seed sees, so that seeds carry the data's sampling noise."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the adapter kind itself."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Source:
    """Where explanations come from."""

    kind: str = ""
    """Registered source; the entry's own name when empty."""
    path: str | None = None
    """File of a `file` source; {subject_dir} stands for the folder of the subject's own files."""
    side: Literal["input", "output", "both"] = "input"
    """What the explanations speak of: what a latent fires on, what it promotes, or both."""
    subjects: list[str] = Field(default_factory=list)
    """Subjects it speaks of; all when empty."""
    judges: list[str] = Field(default_factory=list)
    """Judges that read it; all when empty."""
    wrong_share: float | None = Field(default=None, ge=0, le=1)
    """Known share of wrong explanations: the dose of the dose-response figure."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the source kind itself."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Judge:
    """What turns an explanation and a behavior's description into an expected effect."""

    kind: str = ""
    """Registered judge; the entry's own name when empty."""
    path: str | None = None
    """File of a `table` judge; {subject_dir} as for sources."""
    expected_share: float = Field(default=0.05, gt=0, lt=1)
    """Similarity judges call this share of the latents, those most alike, expected for each behavior."""
    model: str | None = None
    """Embedding judge: a sentence-transformers model in place of the packaged all-MiniLM-L6-v2."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the judge kind itself."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Primary:
    """The one result that the study is about, fixed before the run."""

    adapter: str
    """Adapter of the primary result."""
    measure: str
    """Measure of change."""
    source: str
    """Source of explanations."""
    judge: str
    """Judge of what the explanations lead one to expect."""
    statistic: Literal["auroc", "spearman"] = "auroc"
    """Statistic of agreement."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Agreement:
    """How agreement is tested."""

    n_resamples: int = Field(default=9999, ge=99)
    """Exchanges of the explanations."""
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    statistics: list[str] = Field(default_factory=lambda: ["auroc", "spearman"])
    """Registered statistics."""
    n_bins: int = Field(default=4, ge=1)
    """Quantile bins per confound (firing rate, decoder norm, density of neighbours) that make the strata."""
    cluster_cosine: float = Field(default=0.9, gt=0, le=1)
    """Latents whose decoder rows are at least this alike are exchanged together."""
    min_firing_rate: float = Field(default=1e-4, ge=0)
    """A latent that fires less often on the reference corpus is not in the universe."""
    dense_firing_rate: float = Field(default=0.5, gt=0, le=1)
    """A latent that fires more often is counted as dense."""
    top_k: int = Field(default=25, ge=1)
    """Rows per group in most_changed_latents.csv."""


@dataclass(frozen=True, config=_strict, kw_only=True)
class Study:
    """A whole study."""

    study: str
    """Name; the study writes only under results/{study}/."""
    subjects: dict[str, Subject] = Field(min_length=1)
    behaviors: dict[str, Behavior] = Field(min_length=1)
    adapters: dict[str, Adapter] = Field(min_length=1)
    sources: dict[str, Source] = Field(min_length=1)
    judges: dict[str, Judge] = Field(min_length=1)
    primary: Primary
    measures: list[str] = Field(default_factory=lambda: ["parameter", "contribution", "attribution"], min_length=1)
    """Registered measures of change."""
    reference: str | None = None
    """Name of the adapter that `loss_recovered` is measured against."""
    controls: list[str] = Field(default_factory=lambda: list(CONTROLS))
    """Controls that stand beside every result."""
    agreement: Agreement = Field(default_factory=Agreement)
    n_seeds: int = Field(default=3, ge=1)
    """Replicates of each training; also the number of random dictionaries drawn."""
    seed: int = 0
    """Start of every random stream."""
    max_length: int = Field(default=256, ge=4)
    """Longest prompt + completion in tokens; a longer prompt loses its beginning, a longer completion is refused."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per forward pass when activations are captured and scored."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one job."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, ..."""
    record_seconds: bool = False
    """Fill `seconds` in training.csv; off by default so that two runs give the same bytes."""
    rules: list[str] = Field(default_factory=list)
    """Snakemake files of your own to include (rules that make a behavior's records, say)."""

    @property
    def results(self) -> str:
        """Folder of the study's results."""
        return f"results/{self.study}"

    def replicate_seed(self, seed: int) -> int:
        """Return where replicate `seed` starts its random streams (row order, LoRA's start, random dictionary)."""
        return 1000 * (self.seed + 1) + seed

    @property
    def permuted_subjects(self) -> dict[str, str]:
        """Random-dictionary twin of each subject -> the subject, where that control is asked for."""
        return {name + PERMUTED: name for name in self.subjects} if "random_dictionary" in self.controls else {}
