"""A package of somebody else's: one part of every kind, each with nothing but its registration."""

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch.nn.functional import logsigmoid

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.baselines import Direction, Steering
from isaerft.judges.base import judgements
from isaerft.registry import (
    ADAPTERS,
    JUDGES,
    MEASURES,
    METRICS,
    OBJECTIVES,
    SCORERS,
    SOURCES,
    STATISTICS,
    StatisticFacts,
)
from isaerft.stats.statistics import LinearScorer, Statistic
from isaerft.training.pairs import need_pairs, row_log_probabilities


@ADAPTERS("their_offset")
class Offset(LatentAdapter):
    """f' = f + b."""

    def __init__(self, d_sae):
        super().__init__(d_sae)
        self.offset = torch.nn.Parameter(torch.zeros(d_sae))

    def forward(self, activations):
        return activations + self.offset

    def latent_parameter(self):
        return self.offset.detach()


@ADAPTERS("their_contrast", made="fitted", contrasted=True)
class Contrast(Steering):
    """The difference of means, fitted against the other behaviors."""

    def direction_of(self, fitting):
        return Direction(fitting.texts.mean(True) - fitting.texts.mean(False))


@OBJECTIVES("their_margin", pairs=True)
def margin(subject, batch, residual, *, scale):
    chosen, rejected = row_log_probabilities(subject, need_pairs(batch, "their_margin"), residual)[0].chunk(2)
    return -logsigmoid(scale * (chosen - rejected)).mean()


@MEASURES("their_size", directed=False)
def size(trained):
    return trained.mean_shift().abs()


def _gap(change, expected, strata):
    """Bind the mean rank of expected latents minus that of the others, as a share of all ranks."""
    labels = np.asarray(expected, bool)
    ranks, n = rankdata(change) / len(change), int(labels.sum())
    return LinearScorer(labels, ranks * (1 / n + 1 / (len(ranks) - n)), 1.0, -ranks.sum() / (len(ranks) - n))


GAP = Statistic(_gap, facts=StatisticFacts(title="Rank gap", chance=0.0, bounds=(-1.0, 1.0)))
STATISTICS("their_gap")(GAP)


@SOURCES("their_source")
def source(source, *, subject_dir, d_sae, latents=None):
    chosen = np.arange(d_sae) if latents is None else np.asarray(latents)
    words = np.where(chosen % 2, "refuses and says sorry", "jokes and is silly")
    return pd.DataFrame({"latent_index": chosen, "explanation": words, "side": "output", "url": ""})


@JUDGES("their_judge")
def judge(explanations, behaviors, judge, *, subject_dir):
    says_sorry = explanations["explanation"].str.contains("sorry").to_numpy()
    effects = np.array([says_sorry if "sorry" in text else ~says_sorry for text in behaviors.values()]).T.astype(float)
    return judgements(explanations, behaviors, effects, expected=effects > 0)


@SCORERS("their_scorer")
def scorer(tasks, scorer):
    return [np.array([float(len(item.focus)) for item in task.items]) for task in tasks]


@METRICS("their_metric")
def metric(options):
    return lambda texts: np.array([text.count("e") / max(1, len(text)) for text in texts])
