"""The options of a study: every default and every help text stands here and nowhere else."""

from isaerft.config.options.adapters import Adapter, Dpo, Orpo, Simpo, Sparsity
from isaerft.config.options.audits import Audit, Poison
from isaerft.config.options.base import ASKED_CONTROLS, CONTROLS, OTHERS, PERMUTED, REJECTED, SHUFFLED
from isaerft.config.options.behaviors import Behavior, Metric
from isaerft.config.options.calibration import Calibration
from isaerft.config.options.checks import BehaviorCheck, CausalCheck
from isaerft.config.options.design import Design
from isaerft.config.options.explanations import Judge, Source
from isaerft.config.options.llms import Llm
from isaerft.config.options.neuronpedia import Neuronpedia
from isaerft.config.options.scores import Scorer
from isaerft.config.options.study import Agreement, Primary, Study
from isaerft.config.options.subjects import Corpus, Subject, Testbed, TrainSae

__all__ = [
    "ASKED_CONTROLS",
    "CONTROLS",
    "OTHERS",
    "PERMUTED",
    "REJECTED",
    "SHUFFLED",
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
    "Judge",
    "Llm",
    "Metric",
    "Neuronpedia",
    "Orpo",
    "Poison",
    "Primary",
    "Scorer",
    "Simpo",
    "Source",
    "Sparsity",
    "Study",
    "Subject",
    "Testbed",
    "TrainSae",
]
