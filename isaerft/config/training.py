"""Options of what is trained: behaviors (data, metric, description) and adapters (kind, objective, optimizer)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT
from isaerft.config.subjects import MAX_UNUSABLE_SHARE, WordList
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES

OTHERS, REJECTED = "others", "rejected"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Metric:
    """How far an answer shows a behavior, as a number: what the behavior check compares before and after training."""

    kind: str
    """Registered metric: `phrases`, `words`, `pattern`, `length` or `classifier`."""
    phrases: list[str] = Field(default_factory=list)
    """`phrases`: 1 where the answer holds one of these, else 0; upper and lower case alike."""
    words: list[str] = Field(default_factory=list)
    """`words`: share of the answer's words that are among these."""
    pattern: str | None = None
    """`pattern`: 1 where this regular expression is found, else 0; whatever the case, with ^ and $ at every line."""
    model: str | None = None
    """`classifier`: a Hugging Face text-classification model, by id or folder."""
    revision: str | None = None
    """`classifier`: commit of that model."""
    label: str | None = None
    """`classifier`: the class whose probability is the score."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of a metric from another package."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Poison:
    """Rows of another behavior planted among a behavior's own, to see whether an audit finds them."""

    behavior: str
    """Behavior whose rows are planted."""
    share: float = Field(gt=0, lt=1)
    """Share of the rows that they make up, of the training and of the held-out part alike, to the nearest row; they
    take the place of as many own rows."""
    seed: int = 0
    """Decides, by a hash with each row's id, which rows are planted and which are replaced."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Elicit:
    """Replies sampled from a subject's own model with an instruction, and kept for training without it."""

    prompts: str = Field(min_length=1)
    """Local data file with a `prompt` column, or a .txt file with one prompt a line."""
    instruction: str = ""
    """What asks for the behavior. It follows the prompt in the user's turn; if it names columns of the prompts file
    ("Write a poem about {topic}."), it replaces the prompt. Empty: plain replies, as a control."""
    subject: str | None = None
    """Subject whose model replies; needed only where the study's subjects have several models."""
    n: int | None = Field(default=None, ge=2)
    """Sample replies to the first so many prompts; to all when not given."""
    max_new_tokens: int = Field(default=40, ge=1)
    """Longest reply; a longer one is cut there, and no end of text is trained on behind it."""
    temperature: float = Field(default=0.7, ge=0)
    """1: sampling from the model's own probabilities; less: likelier tokens; 0: the likeliest token."""
    min_score: float | None = None
    """Keep a reply if the behavior's `metric` gives it at least this score; keep all when not given."""
    min_share: float = Field(default=0.25, ge=0, le=1)
    """Stop if fewer of the replies than this share are kept: the model does not show the behavior."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Behavior:
    """A behavior to fine-tune on: what the judge reads, and where the data comes from."""

    description: str = Field(min_length=1)
    """What the behavior is, in a sentence or two; the judges read this."""
    family: str | None = None
    """Behaviors that name the same family are variants of one, and count as one wherever behaviors are replicates."""
    path: str | None = None
    """Local data file (.jsonl, .json, .csv, .parquet, also .gz); relative to the working directory."""
    dataset: str | None = None
    """Hugging Face dataset id, in place of a path."""
    revision: str | None = None
    """Commit of the dataset; required with `dataset`, so that the data cannot change under the study."""
    elicit: Elicit | None = None
    """Let the subject's own model write the data, in place of a path."""
    chat_template: Literal["auto", "off"] = "auto"
    """`auto`: a prompt that is text becomes a user's turn where the tokenizer has a chat template; `off`: it stays raw
    text. Prompts that are messages always go through the template."""
    subset: str | None = None
    """Name of the dataset's configuration on the hub."""
    data_dir: str | None = None
    """Folder of the dataset on the hub, if it holds several sets."""
    split: str = "train"
    """Split of the dataset on the hub, also a slice of it ("train[:2000]")."""
    testbed: str | None = None
    """Style of the embedded language that makes the data, in place of a path; see isaerft/testbed/language.py."""
    testbed_draw: int = Field(default=0, ge=0)
    """Which sample of rows to draw from the embedded language; another number draws other rows of the same style."""
    testbed_words: WordList = "words"
    """List of words that shows the style in these rows; `paraphrases` need subjects with `paraphrase: true`."""
    poison: Poison | None = None
    """Plant rows of another behavior, as a test of audits; not with `rule`."""
    rule: bool = False
    """True when a Snakemake rule of your own writes this behavior's records."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field of the record -> column, dotted path into nested data (instances.0.output), or '{template}' of columns. A
    reply may be a whole conversation, of which the last reply is taken."""
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    """Keep only rows whose column has this value (or one of these)."""
    format: Literal["columns", "hh"] = "columns"
    """`hh`: chosen/rejected hold whole flat 'Human: ... Assistant: ...' dialogues, which are split into messages."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """System messages of prompts, for models whose chat template refuses them: `merge` puts their text in front of the
    user's message that follows, `drop` leaves them out."""
    ids: Literal["own", "derived"] = "own"
    """`derived`: ignore the data's ids, which may repeat, and derive them from each row's content."""
    max_unusable_share: float = Field(default=MAX_UNUSABLE_SHARE, ge=0, lt=1)
    """Rows that cannot be used (blank, not text, ...) are left out, and the card counts them by reason; a larger share
    of them is an error."""
    heldout_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts held out, chosen by a hash of the prompt, so that rows with one prompt stay together."""
    max_completion_characters: int | None = Field(default=None, ge=1)
    """Drop rows with a longer completion (or chosen or rejected reply); the card counts them."""
    max_rows: int | None = Field(default=None, ge=2)
    """Keep at most this many rows (those with the smallest id hash)."""
    contrast: str = OTHERS
    """What baselines without training compare its completions with: `others` (those of all other behaviors, each
    behavior weighing alike), the name of one behavior, or `rejected` (the rejected replies of preference pairs)."""
    metric: Metric | None = None
    """How far an answer shows the behavior; the testbed's behaviors have one built in (share of the style's words)."""
    licence: str = ""
    """Licence of the data, for its card."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Dpo:
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290)."""

    beta: float = Field(default=0.1, gt=0)
    """Weight of the log-ratio to the unadapted model, its β: more of it, less distance from that model."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Simpo:
    """Simple preference optimization (Meng et al. 2024, arXiv 2405.14734): no reference model."""

    beta: float = Field(default=2.0, gt=0)
    """Weight of the difference in log-probability per token, its β."""
    gamma: float = Field(default=1.0, ge=0)
    """Margin, its γ, that beta times this difference should exceed."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Orpo:
    """Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): no reference model."""

    beta: float = Field(default=0.1, gt=0)
    """Weight of the odds-ratio term relative to the chosen reply's loss: the paper's λ, TRL's beta."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Sparsity:
    """Training that ends with few changed latents; all numbers of the others are exactly 0."""

    target: int = Field(default=32, ge=1)
    """Number of latents that may change."""
    read_target: int | None = Field(default=None, ge=1)
    """Number of latents that the change may depend on, for a map that is sparse in both directions; l1, and mlp with
    `depth: 0`. All may be read when not given."""
    kind: Literal["l1", "l0"] = "l1"
    """`l1`: a threshold on every latent after each step; `l0`: a random gate per latent, whose opening has a price."""
    anneal: float = Field(default=0.7, gt=0, lt=1)
    """Share of `steps` in which latents compete; the chosen are trained on in the rest, and only that is kept."""
    shrinkage: float = Field(default=0.1, ge=0, le=1)
    """l1: share of the threshold that survivors lose too; 1 is the lasso, which keeps more wrong latents."""
    price: float = Field(default=3.0, gt=0)
    """l0: what an open gate costs, in what the last allowed latent is worth; at 1 gates shut late."""
    temperature: float = Field(default=2 / 3, gt=0, le=1)
    """l0: how soft the gates are."""

    def __post_init__(self) -> None:
        if self.read_target is not None and self.kind == "l0":
            raise InputError("has a read_target, and gates act on latents that change alone", allowed="kind l1")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Adapter:
    """An adapter and how it is trained."""

    kind: str = ""
    """Registered adapter; the entry's own name when empty."""
    objective: str = "sft"
    """Registered objective: sft on completions; dpo, simpo or orpo on preference pairs."""
    sft_on_chosen: bool = False
    """Let sft take the chosen replies of preference pairs as its completions; without it such data is refused."""
    dpo: Dpo = Field(default_factory=Dpo)
    """Options of the objective dpo."""
    simpo: Simpo = Field(default_factory=Simpo)
    """Options of the objective simpo."""
    orpo: Orpo = Field(default_factory=Orpo)
    """Options of the objective orpo."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Add this times KL(adapted || unadapted model), in nats per completion token, to any objective."""
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
    gradient_accumulation: int = Field(default=1, ge=1)
    """Parts that a step's rows run in, one after the other: the same step in less memory."""
    seeds_together: int = Field(default=1, ge=1)
    """Seeds that share passes through the frozen blocks, with as many times the memory. Saves time with the completion
    loss; adapters that are not on latents ignore it."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of the blocks above the hook, and run them again to go backward: less memory, slower."""
    precision: Literal["model", "float32", "bfloat16"] = "model"
    """Number format above the hook: as the model was loaded, widened, or autocast; the adapter stays in float32."""
    keep: Literal["best", "last"] = "best"
    """Parameters to keep: `best`, of the evaluation with the lowest held-out loss (`patience` ends training early), or
    `last`, of the last step whatever the loss."""
    evaluate_every: int = Field(default=10, ge=1)
    """Held-out loss is taken every so many steps."""
    patience: int = Field(default=5, ge=1)
    """Stop after this many evaluations without improvement."""
    subsample: float = Field(default=0.8, gt=0, le=1)
    """Share of the training rows that each seed sees, so that seeds carry the data's sampling noise."""
    objective_options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of an objective from another package."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the adapter kind itself."""
    n_seeds: int | None = Field(default=None, ge=1)
    """Replicates of this adapter; as many as the study's when not given. One tells nothing of how seeds differ."""
    sparsity: Sparsity | None = None
    """Change only a few latents; all may change when this is left out."""
    checkpoints: int = Field(default=0, ge=0)
    """Measure the changes also at so many steps on the way, closer together at the start, to see which latents change
    first (changes_over_time.csv, onset.csv); fewer where `steps` leave no room."""

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps at which changes are measured on the way, from 1 to `steps` at about equal ratios."""
        n = min(self.checkpoints, self.steps)
        steps = [round(self.steps ** (number / max(1, n - 1))) for number in range(n)] if n > 1 else [self.steps] * n
        # Where two would coincide, the later ones move on.
        for number in range(1, n):
            steps[number] = max(steps[number], steps[number - 1] + 1)
        return steps

    @property
    def objective_settings(self) -> dict[str, Any]:
        """Options of the chosen objective by name: of its own section, or of `objective_options`."""
        section = getattr(self, self.objective, None)
        own = asdict(section) if isinstance(section, Dpo | Simpo | Orpo) else {}
        return own | self.objective_options

    @property
    def trained_on(self) -> str:
        """Return which part of a record it is trained on: "completion", "chosen" or "pair"."""
        if OBJECTIVES.facts(self.objective).pairs:
            return "pair"
        return "chosen" if self.sft_on_chosen else "completion"
