from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from isaerft.config import load_plan
from isaerft.explanations import write_explanations
from isaerft.layout import Results
from tests.annotation.small_study import DEAD, TEXTS, N, config, draw, write_contexts


@pytest.fixture
def study(tmp_path):
    """The small study: its plan, its results, and the options that name it on the command line."""
    path, values = tmp_path / "study.yaml", config()
    path.write_text(yaml.safe_dump(values))
    results = Results(tmp_path / "results")
    for subject in ("toy", "other"):
        folder = results.subject(subject)
        folder.path.mkdir(parents=True)
        facts = pd.DataFrame({"latent_index": np.arange(N), "firing_rate": 0.1})
        facts.loc[DEAD, "firing_rate"] = 0
        facts.to_parquet(folder.latents)
        folder.card.write_text(f'[{{"d_sae": {N}}}]')
        write_contexts(folder.contexts)
    draw(results.design("toy"))
    explained = pd.DataFrame({"latent_index": np.arange(N - 1), "explanation": TEXTS, "side": "both", "url": ""})
    write_explanations(explained, results.explanations("toy", "said"))
    cli = ["--study", str(path), "--subject", "toy", "--results", str(results.root)]
    return SimpleNamespace(plan=load_plan(path), results=results, cli=cli, folder=tmp_path)
