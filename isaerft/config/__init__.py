"""A study's config: one YAML file, checked as a whole before anything runs.

>>> study = load_study("config/testbed.yaml")  # doctest: +SKIP
>>> study.primary.statistic  # doctest: +SKIP
'auroc'
"""

from isaerft.config.load import json_schema, load_study, study_from_dict
from isaerft.config.options import (
    CONTROLS,
    OTHERS,
    PAIRED,
    PERMUTED,
    REJECTED,
    Adapter,
    Agreement,
    Behavior,
    BehaviorCheck,
    CausalCheck,
    Corpus,
    Design,
    Dpo,
    Judge,
    Llm,
    Neuronpedia,
    Orpo,
    Primary,
    Score,
    Simpo,
    Source,
    Sparsity,
    Study,
    Subject,
    Testbed,
    TrainSae,
)

__all__ = [
    "CONTROLS",
    "OTHERS",
    "PAIRED",
    "PERMUTED",
    "REJECTED",
    "Adapter",
    "Agreement",
    "Behavior",
    "BehaviorCheck",
    "CausalCheck",
    "Corpus",
    "Design",
    "Dpo",
    "Judge",
    "Llm",
    "Neuronpedia",
    "Orpo",
    "Primary",
    "Score",
    "Simpo",
    "Source",
    "Sparsity",
    "Study",
    "Subject",
    "Testbed",
    "TrainSae",
    "json_schema",
    "load_study",
    "study_from_dict",
]
