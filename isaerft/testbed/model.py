"""The testbed's language model, a small Llama trained on the dialogues, and its reference corpus."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from isaerft import config
from isaerft.io import replacing
from isaerft.progress import Progress
from isaerft.subjects.corpus import TokenRows, texts_to_rows
from isaerft.subjects.load import LoadedModel
from isaerft.testbed.dialogues import sample_dialogues
from isaerft.testbed.language import BOS, EOS, PAD, UNK, Language, language_of

logger = logging.getLogger(__name__)
PEAK_LEARNING_RATE = 4e-3
# Strong on purpose. With the usual 0.01, the eight styles end up in about three directions (a binary code), and no
# latent represents a single style; this decay spreads them over seven.
WEIGHT_DECAY = 0.5
IGNORED = -100
SHORTEST_DIALOGUE = 10


def train_model(options: config.Testbed, seed: int, folder: str | Path) -> float:
    """Train the language model and save it with its tokenizer to a Hugging Face folder, atomically.

    Returns
    -------
    float
        Mean training loss over the last tenth of the steps, in nats per token.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    language = language_of(options)
    tokenizer = make_tokenizer(language)
    model = LlamaForCausalLM(_architecture(options, tokenizer)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=options.steps, pct_start=0.1
    )
    losses = []
    for _ in Progress(range(options.steps), desc="language model", unit="step"):
        tokens, labels = _batch(tokenizer, rng, language, options.batch_size)
        loss = _loss(model, tokens, labels, deep=options.deep_supervision)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    with replacing(folder) as temporary:
        model.eval().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    final = float(np.mean(losses[-max(1, len(losses) // 10) :]))
    logger.info("language model: %d parameters, loss %.3f nats per token", model.num_parameters(), final)
    return final


def hook_name(options: config.Testbed) -> str:
    """Return the hook of the testbed's SAE: the output of the last block but one."""
    return f"blocks.{_supervised_block(options.n_layers)}.hook_resid_post"


def corpus_rows(model: LoadedModel, language: Language, *, n_tokens: int, context_size: int, seed: int) -> TokenRows:
    """Return the reference corpus: dialogues, one per row, until there are `n_tokens` tokens."""
    dialogues = sample_dialogues(np.random.default_rng([seed, 1]), n_tokens // SHORTEST_DIALOGUE + 1, language)
    texts = (f"{item.prompt} {item.completion} {EOS}" for item in dialogues)
    return texts_to_rows(texts, model, n_tokens=n_tokens, context_size=context_size)


def make_tokenizer(language: Language) -> PreTrainedTokenizerFast:
    """Return the language's tokenizer: one token per word, with BOS in front as in Llama."""
    words = {word: index for index, word in enumerate(language.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, words[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK, model_max_length=256
    )


def _supervised_block(n_layers: int) -> int:
    return n_layers - 2


def _loss(model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor, *, deep: bool) -> torch.Tensor:
    """Return the loss of the output; if `deep`, plus the loss at the hook, through the same unembedding.

    The latter is deep supervision (Lee et al. 2015, "Deeply-Supervised Nets"). Without it, a model this small looks up
    the requested style mostly in its last block. With it, what a latent at the hook writes can be read from the
    unembedding, and a logit lens finds the latents of a style without any training.
    """
    output = model(input_ids=tokens, labels=labels, use_cache=False, output_hidden_states=deep)
    if not deep:
        return output.loss
    middle = output.hidden_states[_supervised_block(model.config.num_hidden_layers) + 1]
    logits = model.lm_head(model.model.norm(middle))
    return output.loss + model.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])


def _architecture(options: config.Testbed, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        hidden_size=options.d_model,
        intermediate_size=3 * options.d_model,
        num_hidden_layers=options.n_layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )


def _batch(
    tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator, language: Language, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels of `n` dialogues, both (n, length) int64; the labels ignore padding."""
    dialogues = sample_dialogues(rng, n, language)
    # One token per word, so looking words up is the tokenizer's work at a fraction of its time.
    rows = [torch.tensor(tokenizer.convert_tokens_to_ids([BOS, *item.words, EOS])) for item in dialogues]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(tokenizer.pad_token_id))
    return tokens, torch.where(tokens == tokenizer.pad_token_id, IGNORED, tokens)
