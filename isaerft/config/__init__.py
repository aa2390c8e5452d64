"""A study's config: one YAML file, checked as a whole before anything runs.

>>> plan = load_plan("config/testbed.yaml")  # doctest: +SKIP
>>> plan.study.primary.statistic  # doctest: +SKIP
'auroc'
"""

from isaerft.config.agreement import Agreement, Primary
from isaerft.config.calibration import Calibration, load_calibration
from isaerft.config.checks import Audit, BehaviorCheck, CausalCheck, Placebos
from isaerft.config.controls import (
    ASKED_CONTROLS,
    BASELINES,
    BEHAVIOR_TWINS,
    CONTROLS,
    ERASURES,
    FROZEN,
    PERMUTED,
    RANDOM_MODEL,
    RETRAINED,
    TWINS,
    UNTRAINED,
    Twin,
    suffix_of,
)
from isaerft.config.dictionaries import MetaSae, SparsityCost, TrainSae
from isaerft.config.explanations import Design, Judge, Llm, Neuronpedia, Scorer, Source
from isaerft.config.maps import LossCurves, MapComponents
from isaerft.config.noise import NoiseProbe
from isaerft.config.plan import Plan, load_plan, plan_from_dict
from isaerft.config.steering import SteeringCheck
from isaerft.config.study import Study
from isaerft.config.subjects import Corpus, Gguf, Subject, Testbed, differing, settings_of
from isaerft.config.tracking import Tracking
from isaerft.config.training import (
    OTHERS,
    REJECTED,
    Adapter,
    Behavior,
    Dpo,
    Elicit,
    Metric,
    Orpo,
    Poison,
    Simpo,
    Sparsity,
)

__all__ = [
    "ASKED_CONTROLS",
    "BASELINES",
    "BEHAVIOR_TWINS",
    "CONTROLS",
    "ERASURES",
    "FROZEN",
    "OTHERS",
    "PERMUTED",
    "RANDOM_MODEL",
    "REJECTED",
    "RETRAINED",
    "TWINS",
    "UNTRAINED",
    "Adapter",
    "Agreement",
    "Audit",
    "Behavior",
    "BehaviorCheck",
    "Calibration",
    "CausalCheck",
    "Corpus",
    "Design",
    "Dpo",
    "Elicit",
    "Gguf",
    "Judge",
    "Llm",
    "LossCurves",
    "MapComponents",
    "MetaSae",
    "Metric",
    "Neuronpedia",
    "NoiseProbe",
    "Orpo",
    "Placebos",
    "Plan",
    "Poison",
    "Primary",
    "Scorer",
    "Simpo",
    "Source",
    "Sparsity",
    "SparsityCost",
    "SteeringCheck",
    "Study",
    "Subject",
    "Testbed",
    "Tracking",
    "TrainSae",
    "Twin",
    "differing",
    "load_calibration",
    "load_plan",
    "plan_from_dict",
    "settings_of",
    "suffix_of",
]
