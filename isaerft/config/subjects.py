"""Options of a subject: its model, its SAE, and the corpus on which its latents are measured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT
from isaerft.config.dictionaries import TrainSae
from isaerft.errors import InputError, from_here

MAX_UNUSABLE_SHARE = 0.05
WordList = Literal["words", "paraphrases"]
"""Lists of words that show a style of the embedded language; they share no word."""
FIRST_LIST = 10
"""Words of each list of a style of the embedded language."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Corpus:
    """Text on which the latents' facts are measured: a file, a hub dataset, or sampled from the model itself."""

    path: str | None = None
    """Local data file (.jsonl, .json, .csv, .parquet, also .gz), or .txt with one document a line."""
    dataset: str | None = None
    """Hugging Face dataset id."""
    revision: str | None = None
    """Commit of the dataset."""
    subset: str | None = None
    """Configuration of the dataset."""
    split: str = "train"
    """Split of the dataset."""
    column: str = "text"
    """Column that holds the text, dotted path into nested data (messages.0.content), or '{template}' of columns."""
    max_unusable_share: float = Field(default=MAX_UNUSABLE_SHARE, ge=0, lt=1)
    """Rows whose text is missing or not text are left out, with a warning; a larger share of them is an error."""
    sample: bool = False
    """True: sample the corpus from the model itself."""
    prompts: str | None = None
    """With `sample`: a local file with a `prompt` column, or a .txt file with one prompt a line. Rows are these prompts
    with the model's replies, again and again; without it, the model goes on from BOS."""
    tokens: int = Field(default=200_000, ge=100)
    """Size in tokens."""
    context_size: int = Field(default=128, ge=8)
    """Tokens per sequence."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Testbed:
    """Size and kind of the embedded subject, a world of its own."""

    steps: int = Field(default=700, ge=1)
    """Training steps of the language model."""
    batch_size: int = Field(default=64, ge=1)
    """Dialogues per step."""
    d_model: int = Field(default=96, ge=8)
    """Width of the residual stream."""
    n_layers: int = Field(default=3, ge=2)
    """Transformer blocks."""
    seed: int | None = Field(default=None, ge=0)
    """Start of the world's random streams (model, corpus, SAE, truth); the study's `seed` when not given."""
    paraphrase: bool = False
    """Give each style a second list of words in the corpus; the truth is found on the first alone."""
    deep_supervision: bool = True
    """Train the model also to predict the next word from the hook, through the same unembedding."""
    styles: int = Field(default=8, ge=8, le=24)
    """Styles of answering; studies teach the first eight."""
    topics: int = Field(default=8, ge=8, le=16)
    """Topics of dialogues; behaviors are about the first eight."""
    words_per_style: int = Field(default=10, ge=10, le=20)
    """Words that show a style, of which behaviors use the first ten; the others are its paraphrases."""
    substyles: int = Field(default=0, ge=0, le=8)
    """How many of the first styles have two sub-styles, each with half of the first ten words. A request for such a
    style is, at equal chances, for the style or for one of the two."""
    composition: float = Field(default=0, ge=0, le=1)
    """Share of the requests for a style that are for two at once; the answer mixes the words of both."""
    correlation: float = Field(default=0, ge=0, le=1)
    """Share of the requests for two styles that are for neighbors (the first and second style, the third and fourth,
    and so on); in the others, the second style is any other."""
    zipf_styles: float = Field(default=0, ge=0, le=3)
    """A style is requested in proportion to its place in the list to the power of minus this."""
    zipf_words: float = Field(default=0, ge=0, le=3)
    """A word is used in proportion to its place in its style's list, or in that of plain words, to the power of minus
    this."""
    features: bool = True
    """False: no answer follows a request. Every slot has a word of any style or a plain one, at equal chances, so that
    no state "answer in this style" can exist."""

    def __post_init__(self) -> None:
        if self.paraphrase and self.words_per_style > FIRST_LIST:
            raise InputError(
                f"testbed: paraphrase with {self.words_per_style} words_per_style",
                allowed=f"{FIRST_LIST} words_per_style: further words are the paraphrases",
            )
        if self.correlation and not (self.composition and self.styles % 2 == 0):
            raise InputError(
                f"testbed: correlation with composition {self.composition:g} and {self.styles} styles",
                allowed="a composition above 0 and an even number of styles, which make pairs",
            )
        if not self.features and (self.composition or self.substyles or self.paraphrase):
            raise InputError(
                "testbed: features false with composition, substyles or paraphrase",
                remedy="leave them out: without features, they change no answer",
            )

    @property
    def word_lists(self) -> tuple[WordList, ...]:
        """Lists of words that show a style in the corpus."""
        return ("words", "paraphrases") if self.paraphrase else ("words",)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Gguf:
    """A model in one GGUF file, local or inside an installed package; converted once to a Hugging Face folder."""

    file: str = Field(min_length=1)
    """Path of the file; with `package`, its path inside the package."""
    package: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Import name of the installed package that holds the file; none of its code runs."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file; any other file is refused."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Subject:
    """A model and an SAE at one hook."""

    model: str | None = None
    """Hugging Face id or local folder of the model, in place of `gguf` and `testbed`."""
    gguf: Gguf | None = None
    """GGUF file of the model; its weights become float32."""
    revision: str | None = None
    """Commit of the model on the hub."""
    hook_name: str = ""
    """Where the SAE reads (blocks.20.hook_resid_post, ...hook_mlp_out, ...attn.hook_z, a transcoder ...mlp.hook_in);
    empty: as the SAE says."""
    release: str | None = None
    """SAELens release of a pretrained SAE."""
    sae_id: str | None = None
    """Id of the SAE in its release."""
    sae_path: str | None = None
    """Local folder with an SAE in SAELens' format, in place of release and sae_id."""
    norm_scaling_factor: float | None = Field(default=None, gt=0)
    """Folded into an SAE that says `expected_average_only_in`: sqrt(d_in) over its training activations' mean norm."""
    train_sae: TrainSae | None = None
    """Train the SAE on the corpus, in place of a ready one."""
    testbed: Testbed | None = None
    """Make the embedded subject, with these options."""
    group: str = ""
    """Subjects of one group are replicates, such as worlds that differ in their seed alone; replication.csv averages
    over them, and reliability.csv says how far they differ."""
    corpus: Corpus = Field(default_factory=Corpus)
    """Reference corpus."""
    amplified_rows: int = Field(default=8, ge=0)
    """Beginnings of rows of the corpus on which every latent is amplified, to see which tokens that makes likelier."""
    center_writing_weights: bool = False
    """Center what the SAE reads, as TransformerLens' processed weights do (GPT-2's SAEs want it)."""
    fold_value_biases: bool = False
    """Read the heads without value biases, as in TransformerLens' processed weights (GPT-2's SAEs at attn.hook_z)."""
    prepend_bos: bool = True
    """Begin every text with the BOS token; must be as the SAE was trained."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model."""
    min_variance_explained: float = 0.5
    """The gate stops a subject whose SAE explains less of the variance at its hook."""
    max_loss_increase: float = 0.5
    """The gate stops a subject whose loss grows by more than this share of a unigram model's gap when spliced."""

    @property
    def model_settings(self) -> tuple[object, ...]:
        """What decides a model's replies; equal for SAEs of one model."""
        return self.model, self.gguf, self.testbed, self.revision, self.dtype, self.prepend_bos

    @property
    def model_name(self) -> str:
        """What tables call the model."""
        if self.gguf is not None:
            return "/".join(filter(None, [self.gguf.package, self.gguf.file]))
        return self.model or "testbed"


def settings_of(subject: Subject) -> dict[str, Any]:
    """Return every option by its dotted name (train_sae.seed), without the group; an option not given is None."""

    def flat(options: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in options.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return {name: value for name, value in flat(asdict(subject), "") if name != "group"}


def differing(subjects: Sequence[Subject]) -> list[str]:
    """Return the dotted names of the options in which subjects differ; of a part that one of them lacks, the part's."""
    settings = [settings_of(subject) for subject in subjects]
    names = dict.fromkeys(name for one in settings for name in one)
    differ = [name for name in names if any(one.get(name) != settings[0].get(name) for one in settings)]
    lacking = {name for one in settings for name in names if "." not in name and name in one and one[name] is None}
    return list(dict.fromkeys(head if (head := name.partition(".")[0]) in lacking else name for name in differ))


def check_subject(name: str, subject: Subject) -> None:
    """Raise `InputError` unless a subject has one model and one SAE, and the options needed to load them."""
    if sum(origin is not None for origin in (subject.model, subject.gguf, subject.testbed)) != 1:
        raise InputError(f"subject {name!r}", allowed="exactly one of model, gguf, testbed")
    if subject.testbed is not None:
        return
    if subject.gguf is not None and subject.revision is not None:
        raise InputError(f"subject {name!r}: a GGUF file has no revision", remedy="give its `sha256` under gguf")
    if subject.gguf is not None and subject.gguf.package is None and not os.path.isfile(subject.gguf.file):
        raise InputError(
            f"subject {name!r}: file {subject.gguf.file!r} does not exist",
            remedy=f"check gguf.file{from_here(subject.gguf.file)}",
        )
    saes = [subject.release is not None, subject.sae_path is not None, subject.train_sae is not None]
    if sum(saes) != 1:
        raise InputError(
            f"subject {name!r} names {sum(saes)} SAEs", allowed="exactly one of release, sae_path, train_sae"
        )
    if (subject.release is None) != (subject.sae_id is None):
        raise InputError(f"subject {name!r}: release and sae_id belong together", remedy="give both")
    if subject.train_sae is not None and not subject.hook_name:
        raise InputError(
            f"subject {name!r}: train_sae without hook_name", remedy="say where, e.g. blocks.2.hook_resid_post"
        )
    corpus = subject.corpus
    if sum([corpus.path is not None, corpus.dataset is not None, corpus.sample]) != 1:
        raise InputError(f"subject {name!r}: its corpus", allowed="exactly one of path, dataset, sample: true")
    if corpus.prompts is not None and not corpus.sample:
        raise InputError(f"subject {name!r}: corpus.prompts without sampling", remedy="add `sample: true`")
    for path, what in [
        (corpus.path, "corpus.path"),
        (corpus.prompts, "corpus.prompts"),
        (subject.sae_path, "sae_path"),
    ]:
        if path is not None and not os.path.exists(path):
            raise InputError(
                f"subject {name!r}: {what} {path!r} does not exist", remedy=f"check the path{from_here(path)}"
            )
