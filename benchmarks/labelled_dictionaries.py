"""How many of SAELens' dictionaries with explanations at Neuronpedia can be a subject, and why the others cannot.

    python benchmarks/labelled_dictionaries.py

Nothing is downloaded. SAELens' directory says which dictionaries there are, `isaerft.directory` which of them have a
source at Neuronpedia, and each release's loader in SAELens where they read and write. The package's own checks then
judge them, on models of the real classes without weights. What only the weights or a file on the hub can tell is not
seen here: a normalization that an SAE in SAELens' own format leaves unfolded, or a poor fit, which the gate measures.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import torch
import transformers
from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup, get_pretrained_saes_directory

from isaerft.directory import saes_directory
from isaerft.errors import InputError
from isaerft.subjects.dictionary import check_linear
from isaerft.subjects.points import find_hook
from isaerft.subjects.sae import check_loader

CLASSES = {
    "gemma-2-": "Gemma2",
    "gemma-2b": "Gemma",
    "gemma-3-": "Gemma3Text",
    "gpt2": "GPT2",
    "gpt-oss": "GptOss",
    "pythia": "GPTNeoX",
    "llama": "Llama",
    "qwen2.5": "Qwen2",
    "qwen3": "Qwen3",
}
N_BLOCKS = 128
# Loaders of SAEs that expect activations of one average norm; the directory must say which.
AVERAGE_NORM = ("llama_scope", "llama_scope_r1_distill")
LLAMA_SCOPE = {"r": "hook_resid_post", "a": "hook_attn_out", "m": "hook_mlp_out"}
GEMMA_SCOPE = {"-res": "hook_resid_post", "-att": "attn.hook_z", "-mlp": "hook_mlp_out"}
MLP_OUT = "hook_mlp_out"


class Kind(NamedTuple):
    """What a dictionary is: its architecture in SAELens, where it reads, and where a transcoder writes."""

    architecture: str
    reads: str
    writes: str = ""


class Judged(NamedTuple):
    """A labelled dictionary, and why it cannot be a subject; empty if it can."""

    release: str
    sae_id: str
    kind: Kind
    reason: str


def kind_of(entry: PretrainedSAELookup, sae_id: str) -> Kind:
    """Return what SAELens' loader makes of a dictionary, by the rules in its source."""
    path = entry.saes_map[sae_id]
    match entry.conversion_func:
        case "gemma_2":
            return Kind("jumprelu", next(hook for part, hook in GEMMA_SCOPE.items() if part in entry.repo_id))
        case "gemma_2_transcoder":
            return Kind("jumprelu_transcoder", "ln2.hook_normalized", MLP_OUT)
        case "gemma_3" if "transcoder" in path:
            skip = "skip_" if "affine" in path else ""
            return Kind(f"jumprelu_{skip}transcoder", "mlp.hook_in", MLP_OUT)
        case "gemma_3":
            parts = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": MLP_OUT}
            return Kind("jumprelu", next(hook for part, hook in parts.items() if part in path))
        case "mwhanna_transcoder":
            return Kind("transcoder", "mlp.hook_in", MLP_OUT)
        case "mntss_clt_layer_transcoder":
            return Kind("transcoder", "cross-layer", MLP_OUT)
        case "temporal":
            return Kind("temporal", "hook_resid_post")
        case "connor_rob_hook_z":
            return Kind("standard", "attn.hook_z")
        case "llama_scope":
            return Kind("jumprelu", LLAMA_SCOPE[re.fullmatch(r"l\d+([ram])_\d+x", sae_id)[1]])
        case None:
            return Kind("standard", re.match(r"blocks\.\d+\.(hook_[a-z]+_[a-z]+)", sae_id)[1])
        case _:  # the other loaders' SAEs all sit on the residual stream
            return Kind("standard", "hook_resid_post")


@cache
def model_of(family: str) -> transformers.PreTrainedModel:
    """Return a small model of a family's class, without weights."""
    name = CLASSES[family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=N_BLOCKS, num_attention_heads=2
    )
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def reason_against(release: str, entry: PretrainedSAELookup, sae_id: str, kind: Kind) -> str:
    """Return why the package refuses a dictionary; empty if it does not."""
    family = next(part for part in CLASSES if part in entry.model.lower())
    scaled = entry.conversion_func in AVERAGE_NORM and sae_id not in entry.norm_scaling_factor
    try:
        check_loader(release, sae_id)
        check_linear("it", kind.architecture, "expected_average_only_in" if scaled else "none")
        find_hook(model_of(family), f"blocks.0.{kind.reads}", kind.writes and f"blocks.0.{kind.writes}")
    except InputError as error:
        return error.problem.replace(f"({release}, {sae_id}) ", "").replace(f" ({release}, {sae_id})", "")
    return ""


def judge_all() -> list[Judged]:
    """Return every dictionary of SAELens' directory that has a source at Neuronpedia."""
    directory = get_pretrained_saes_directory()
    judged = []
    for release, entry in directory.items():
        for sae_id in entry.saes_map:
            if saes_directory().source_of(release, sae_id):
                kind = kind_of(entry, sae_id)
                judged.append(Judged(release, sae_id, kind, reason_against(release, entry, sae_id, kind)))
    return judged


def main() -> None:
    """Print the share, what the usable ones read and write, and the reasons against the others."""
    judged = judge_all()
    usable = [one for one in judged if not one.reason]
    print(
        f"{len(judged)} labelled dictionaries; {len(usable)} can be a subject ({100 * len(usable) / len(judged):.1f} %)"
    )
    places = Counter((one.kind.reads, one.kind.writes or "the same") for one in usable)
    for (reads, writes), count in places.most_common():
        print(f"{count:6}  read {reads}, write {writes}")
    print(f"{len(judged) - len(usable)} cannot:")
    for reason, count in Counter(one.reason for one in judged if one.reason).most_common():
        print(f"{count:6}  {reason}")


if __name__ == "__main__":
    main()
