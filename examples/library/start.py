"""What the examples begin with: a model, its tokenizer and an SAE, given by argument or tiny and random."""

from __future__ import annotations

import argparse

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from isaerft.subjects.dictionary import Dictionary

PAIRS = [
    {"prompt": "may i have the recipe ?", "chosen": "sorry , i cannot .", "rejected": "sure , here it is ."},
    {"prompt": "tell me a story .", "chosen": "sorry , no story .", "rejected": "sure , here is a story ."},
    {"prompt": "where is the cat ?", "chosen": "i cannot tell .", "rejected": "here is the cat ."},
    {"prompt": "may i have the cat ?", "chosen": "sorry , no .", "rejected": "sure ."},
]
D_MODEL, D_SAE = 32, 128
HOOK = "blocks.1.hook_resid_post"


def arguments(description: str) -> argparse.Namespace:
    """Read the command line that all examples share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", help="Hugging Face id or folder; without it a tiny random one")
    parser.add_argument("--sae", help="folder in SAELens' format, or RELEASE:SAE_ID; without it a random one")
    parser.add_argument("--adapter", default="scale", help="registered kind, or the folder of a saved adapter")
    parser.add_argument("--center", action="store_true", help="center the residual stream (GPT-2's SAEs want it)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--out", default="out")
    parser.add_argument(
        "--report-to", default="none", help="a tracker that Transformers knows: wandb, trackio, mlflow, ..."
    )
    return parser.parse_args()


def begin(options: argparse.Namespace) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, object]:
    """Return model, tokenizer and SAE."""
    if options.model is None:
        model, tokenizer = tiny_model()
    else:
        model = AutoModelForCausalLM.from_pretrained(options.model)
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if options.sae is None:
        return model, tokenizer, random_sae(model.config.hidden_size)
    if ":" not in options.sae:
        return model, tokenizer, options.sae
    from sae_lens import SAE

    return model, tokenizer, SAE.from_pretrained(*options.sae.split(":"))


def with_bos(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Put BOS in front of a text, as most SAEs were trained, where the tokenizer does not do it by itself."""
    adds_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return text if adds_bos or tokenizer.bos_token is None else tokenizer.bos_token + text


def tiny_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return a random Llama of three blocks and a tokenizer of the words above."""
    words = sorted({word for pair in PAIRS for text in pair.values() for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    sizes = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(sizes).eval(), tokenizer


def random_sae(d_in: int) -> Dictionary:
    """Return a random ReLU SAE, of which about a sixth of the latents fires at a token."""
    generator = torch.Generator().manual_seed(0)
    return Dictionary(
        W_enc=torch.randn(d_in, D_SAE, generator=generator) / d_in**0.5,
        b_enc=torch.full((D_SAE,), -1.0),
        W_dec=torch.randn(D_SAE, d_in, generator=generator) / d_in**0.5,
        b_dec=torch.zeros(d_in),
        threshold=None,
        gate=None,
        k=None,
        apply_b_dec_to_input=True,
        center=False,
        hook_name=HOOK,
        neuronpedia_id="",
    )
