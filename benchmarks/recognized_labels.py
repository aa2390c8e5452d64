"""Are labels recognized by what their latents do? Labels of SmolLM2's SAEs, right and planted wrong, against block_15.

    python benchmarks/recognized_labels.py --write      # 5 minutes of one core; needs requirements-model.lock

`--write` puts the table into docs/explanations.md.

A page of labels is imitated as dashboards make it: ten tokens of largest logit, in bfloat16, with or without the final
normalization's gain, and five tokens on which the latent fires most on other text than ours.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from page import machine, markdown, write_block

from isaerft import config
from isaerft.explanations.provenance import Shown, compare_tokens
from isaerft.io import write_json
from isaerft.layout import SubjectFolder
from isaerft.subjects.contexts import context_table
from isaerft.subjects.corpus import TokenRows, make_corpus
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.facts import measure_firing
from isaerft.subjects.gguf import convert
from isaerft.subjects.hooks import find_hook, token_directions
from isaerft.subjects.load import LoadedSubject, load_model
from isaerft.subjects.logits import logit_table

OTHERS = {"the same SAE": "block_15", "another seed": "block_15_seed_1", "another layer": "block_20"}
N_PROMOTED, N_FIRES_ON, N_ROWS, BATCH = 10, 5, 60, 12


def part(rows: TokenRows, start: int) -> TokenRows:
    """Return `N_ROWS` rows of a corpus."""
    return TokenRows(rows.tokens[start : start + N_ROWS], rows.mask[start : start + N_ROWS])


def fires(subject: LoadedSubject, rows: TokenRows) -> dict[int, tuple[str, ...]]:
    """Return the tokens on which each latent that fires does so most."""
    contexts = context_table(subject, rows, measure_firing(subject, rows, BATCH))
    contexts = contexts[(contexts["side"] == "input") & (contexts["rank"] < N_FIRES_ON)]
    return contexts.groupby("latent_index")["token"].agg(tuple).to_dict()


def page_of_labels(subject: LoadedSubject, fires_on: dict[int, tuple[str, ...]], *, folded: bool) -> dict[int, Shown]:
    """Return what a dashboard lists of every latent that fires."""
    model, names = subject.model, subject.language.tokenizer.convert_ids_to_tokens
    n = subject.language.n_vocabulary
    read = model.get_output_embeddings().weight.float()
    if folded:
        read = token_directions(model, torch.arange(n), torch.eye(1, n, dtype=torch.long)[0])
    written = subject.dictionary.W_dec.bfloat16()
    shown = {}
    read = read.bfloat16()
    for latent, tokens in fires_on.items():
        top = (written[latent] @ read.T).topk(N_PROMOTED).indices.tolist()
        shown[latent] = Shown(latent, tuple(names(top)), tokens)
    return shown


def row(name: str, folded: bool, shown: dict[int, Shown], shift: dict[int, int], folder: Path) -> dict[str, str]:
    """Return how many latents are recognized when the labels of latent `shift[i]` are taken for those of i."""
    listed = [shown[other]._replace(latent=latent) for latent, other in shift.items() if other in shown]
    promoted, fires = compare_tokens(listed, folder)
    return {
        "labels of": name,
        "logits": "folded" if folded else "plain",
        "recognized": f"{promoted.n_recognized} of {promoted.n_items}",
        "verdict": promoted.verdict,
        "recognized by where they fire": f"{fires.n_recognized} of {fires.n_items}",
        "p, exchanged": f"{fires.p_exchange:.4f}",
    }


def main() -> None:
    """Print the table."""
    plan = config.load_plan("config/smollm2.yaml")
    options = replace(plan.study.subjects["smollm2"], dtype="float32")
    with TemporaryDirectory() as temporary:
        folder = SubjectFolder(Path(temporary))
        convert(options.gguf, folder.model)
        language = load_model(options, folder, "cpu")
        corpus = make_corpus(options.corpus, language, plan.study.seed)
        ours, theirs = part(corpus, 0), part(corpus, N_ROWS)
        subjects = {}
        for name, at in OTHERS.items():
            dictionary = load_dictionary(f"data/smollm2/{at}")
            subjects[name] = LoadedSubject(language, dictionary, find_hook(language.model, dictionary.hook_name))
        own = subjects["the same SAE"]
        firing = measure_firing(own, ours, BATCH)
        logit_table(own, firing, seed=0).to_parquet(folder.logits)
        context_table(own, ours, firing).to_parquet(folder.contexts)
        write_json(folder.card, [])
        n = own.dictionary.d_sae
        # More than are compared, since some do not fire in the other text.
        sample = list(dict.fromkeys(pd.read_parquet(folder.logits)["latent_index"].tolist()))
        same = {latent: latent for latent in sample}
        shifts = {
            "index + 1": {latent: (latent + 1) % n for latent in sample},
            "index - 1": {latent: (latent - 1) % n for latent in sample},
            "index + 1 from the middle on": {latent: latent + (latent >= n // 2) for latent in sample},
        }
        rows = []
        for name, subject in subjects.items():
            fires_on = fires(subject, theirs)
            for folded in (False, True):
                shown = page_of_labels(subject, fires_on, folded=folded)
                planted = {name: same} | (shifts if subject is own else {})
                rows += [row(kind, folded, shown, shift, folder.path) for kind, shift in planted.items()]
    text = f"{machine()}\n\n{markdown(pd.DataFrame(rows))}"
    print(text)
    if sys.argv[1:] == ["--write"]:
        write_block(Path("docs/explanations.md"), "recognized", text)


if __name__ == "__main__":
    main()
