"""The attacks of an outside review on an earlier version's statistics, and how the present ones stand up to them.

An outside review simulated latents, trainings and explanations in which nothing is to be found, or whose truth is
known, and counted how often the statistics of that time were wrong. Each attack is a world of our own here
(`attack_worlds.py`), of the kind that the review describes, and meets the functions that report today's numbers.
"before" is the review's figure; "now" is measured, with its standard error.

$ python benchmarks/review_attacks.py --worlds 300 --jobs 2 --write docs/calibration.md   # about 10 minutes of CPU time
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import attack_worlds as worlds
import numpy as np
import pandas as pd
from attack_worlds import Found
from page import markdown, write_block

from isaerft.calibration.results import stream
from isaerft.calibration.worlds import WORLDS, World

BLOCK = "attacks"


@dataclass(frozen=True)
class Line:
    """A line of the table: a number that an attack is about.

    Attributes
    ----------
    shown : str
        Name of the number in what the attack's worlds show; empty for one that is not reported any more.
    says : str
        What is counted.
    wanted, before : str
        What it should be, and the figure of the review.
    condition : str
        What is left open.
    empty : str
        Why a study leaves the number empty, where it does.
    """

    shown: str
    says: str
    wanted: str
    before: str = "–"
    condition: str = ""
    empty: str = "undefined"


@dataclass(frozen=True)
class Attack:
    """A kind of world, and what is counted in it."""

    name: str
    world: Callable[[np.random.Generator], Found]
    lines: tuple[Line, ...]
    is_median: bool = False


def one_behavior(before: str, *, placebos: str = "", texts: str = "") -> tuple[Line, ...]:
    """Return the lines of the p-values of one behavior."""
    return (
        Line("p trainings", "`pvalue` ≤ 0.05", "0.05", before),
        Line("p texts", "`pvalue_texts` ≤ 0.05", "0.05", before, texts),
        Line("p placebos", "`pvalue_placebo` ≤ 0.05", "0.05", before, placebos),
    )


def specificity(before: str = "–", condition: str = "") -> Line:
    """Return the line of the primary test."""
    return Line("p specificity", "specificity, p ≤ 0.05", "0.05", before, condition)


NO_LONGER = "not reported any more"
# Loads of either sign, of standard deviation 0.6, as the review's.
EITHER_SIGN = World(0, clustered=0.3, confounding=0.01, confounding_spread=104, is_shared=True)
TOGETHER = World(0, expected_share=0.05, concept_size=10, alike=0.2, confounding=0.5, is_measured=False)

ATTACKS = [
    Attack(
        "latents of one explanation move together (correlation 0.2)",
        partial(worlds.null_world, WORLDS["co_moving"]),
        (
            *one_behavior("0.18"),
            Line("interval trainings", "interval of one behavior holds chance", "0.95", "0.76"),
            Line("", "mean agreement over behaviors, p ≤ 0.05", "0.05", "0.17", NO_LONGER),
            specificity("0.05"),
        ),
    ),
    Attack(
        "changes are directions; decoder rows of a concept are alike (cosine 0.2)",
        partial(worlds.null_world, WORLDS["geometry"]),
        (
            *one_behavior("0.14"),
            Line("interval trainings", "interval of one behavior holds chance", "0.95", "0.78"),
            specificity("0.06"),
        ),
    ),
    Attack(
        "a measured confound, its load differs by behavior and is shared with explanations",
        partial(worlds.null_world, EITHER_SIGN),
        (
            *one_behavior("–"),
            specificity("0.96"),
            Line("interval specificity", "interval of specificity holds 0", "0.95", "0.36"),
        ),
    ),
    Attack(
        "a confound that nobody measured",
        partial(worlds.null_world, WORLDS["unmeasured"]),
        (*one_behavior("0.28", placebos="only if it acts on placebo trainings, too"), specificity("0.05")),
    ),
    Attack(
        "the same, without effect on placebo trainings",
        partial(worlds.null_world, WORLDS["unlike_placebos"]),
        (*one_behavior("–", placebos="breaks here: placebos do not know it"), specificity()),
    ),
    Attack(
        "latents move together, and a strong confound is unmeasured",
        partial(worlds.null_world, TOGETHER),
        (*one_behavior("0.42", texts="other trainings know it only roughly"), specificity()),
    ),
    Attack(
        "an unmeasured confound, its load differs by behavior and is shared with explanations",
        partial(worlds.null_world, replace(EITHER_SIGN, is_measured=False)),
        (
            *one_behavior("–", placebos="breaks here", texts="breaks here"),
            specificity(condition="breaks here: nothing tells such a confound from agreement"),
        ),
    ),
    Attack(
        "a confound that jumps",
        partial(worlds.null_world, WORLDS["jump_confounded"]),
        (*one_behavior("0.10"), specificity()),
    ),
    Attack(
        "a confound that folds",
        partial(worlds.null_world, WORLDS["folded_confounded"]),
        (*one_behavior("0.06"), specificity()),
    ),
    Attack(
        "explanations exist where salience and topic meet",
        worlds.chosen_explanations,
        (*one_behavior("0.96"), specificity()),
    ),
    Attack(
        "eight behaviors are four pairs",
        partial(worlds.null_world, World(0, n_families=4)),
        (specificity("0.09"), Line("interval specificity", "interval of specificity holds 0", "0.95", "0.88")),
    ),
    Attack(
        "eight behaviors are three families",
        partial(worlds.null_world, World(0, n_families=3)),
        (
            specificity("0.11", "cannot be below 1/6 with three families"),
            Line("interval specificity", "interval of specificity holds 0", "0.95", "0.86"),
        ),
    ),
    *(
        Attack(
            f"all explanations wrong; latents that they name vary {times} times as much",
            partial(worlds.verdicts, f"null_noisier_{times}"),
            (Line("supported_fdr", "false discoveries among supported", "≤ 0.05", before),),
        )
        for times, before in (("1.5", "0.58"), ("2", "0.94"))
    ),
    *(
        Attack(
            f"all explanations right; effects log-normal (sd {spread})",
            partial(worlds.verdicts, f"right_spread_{spread}"),
            (Line("contradicted_fdr", "false discoveries among contradicted", "≤ 0.05", before),),
        )
        for spread, before in (("0.8", "0.17"), ("1.1", "0.28"))
    ),
    Attack(
        "a fifth wrong; named latents vary twice as much",
        partial(worlds.verdicts, "wrong_0.2_noisier_2"),
        (
            Line("supported_fdr", "false discoveries among supported", "≤ 0.05", "0.03"),
            Line("contradicted_fdr", "false discoveries among contradicted", "≤ 0.05", "0.31"),
        ),
    ),
    Attack(
        "perfect agreement, few of 1,000 latents expected",
        worlds.few_expected,
        (
            Line("texts 1", "median `pvalue_texts`, 1 expected", "small", "0.18"),
            Line("texts 2", "median `pvalue_texts`, 2 expected", "small", "0.045"),
            Line("texts 4", "median `pvalue_texts`, 4 expected", "small", "0.004"),
            Line("trainings 2", "median `pvalue`, 2 expected", "small"),
        ),
        is_median=True,
    ),
    *(
        Attack(
            f"minimum detectable effect, {n_expected} of 800 latents expected",
            partial(worlds.detectable, n_expected),
            (Line("power", "power there", "0.80", before, empty="above 1: nothing can be found"),),
        )
        for n_expected, before in ((2, "0.32"), (5, "0.55"), (10, "0.71"))
    ),
    *(
        Attack(
            f"noise ceiling of Spearman's correlation, yes or no for {share:.1%}",
            partial(worlds.ceilings, share),
            (Line("ceiling", "ceiling", reached, "0.97"), Line("reached", "a perfect expectation reaches", reached)),
        )
        for share, reached in ((0.05, "0.37"), (0.015, "0.21"))
    ),
    *(
        Attack(
            says,
            partial(worlds.over_latents, name),
            (
                Line(
                    "covered",
                    "interval over latents holds the AUROC",
                    "0.95",
                    before,
                    empty="too few expected latents changed",
                ),
            ),
        )
        for name, says, before in (
            ("sparse", "10 expected latents, 5 % of the changes are not 0", "0.86"),
            ("dominated", "one cluster has a tenth of the latents", "0.91"),
        )
    ),
    *(
        Attack(
            f"a judge's error rates from {n} explanations",
            partial(worlds.corrected, n),
            (
                Line(
                    "covered",
                    "interval of the corrected AUROC holds it",
                    "0.95",
                    before,
                    empty="the rates are too uncertain",
                ),
            ),
        )
        for n, before in ((60, "0.89"), (140, "0.92"))
    ),
    *(
        Attack(
            f"16 true nulls beside 4,384 tests, {share:.0%} of which find something",
            partial(worlds.families, share),
            (Line("any", "a null has q < 0.05", "≤ 0.05", before),),
        )
        for share, before in ((0.3, "0.20"), (0.6, "0.35"), (0.8, "0.44"))
    ),
    Attack(
        "audits of two sets of one origin, 4 seeds on 80 % of the rows",
        partial(worlds.audit, "co_moving"),
        (
            Line("candidate 0.05", "`pvalue` ≤ 0.05", "0.05", "0.09"),
            Line("any found", "any candidate has q < 0.05", "≤ 0.05", "0.03"),
            Line("covered", "interval holds chance", "0.95", "0.89"),
            Line("", "exchange of explanations, any q < 0.05", "0.05", "0.96", NO_LONGER),
            Line("", "`pvalue` with 2 seeds ≤ 0.05", "0.05", "0.09", "refused: 4 seeds are needed"),
        ),
    ),
]


def run(place: int, draws: range, seed: int) -> list[Found]:
    """Return what these worlds of an attack show."""
    attack = ATTACKS[place]
    return [attack.world(stream(seed, f"attack {attack.name}", index)) for index in draws]


def lines_of(attack: Attack, drawn: list[Found]) -> list[dict[str, str]]:
    """Return the lines of an attack in the table."""
    values: dict[str, list[float]] = defaultdict(list)
    for found in drawn:
        for name, value in found.items():
            values[name].append(value)
    return [
        {
            "attack": attack.name if line is attack.lines[0] else "",
            "counted": line.says,
            "wanted": line.wanted,
            "before": line.before,
        }
        | _now(attack, line, np.array(values[line.shown]))
        for line in attack.lines
    ]


def _now(attack: Attack, line: Line, values: np.ndarray) -> dict[str, str]:
    """Return what is measured today, (n_worlds,), and under which condition."""
    known = values[~np.isnan(values)]
    empty = f"empty in {1 - len(known) / len(values):.0%}: {line.empty}" if len(known) < len(values) else ""
    conditions = "; ".join(filter(None, (line.condition, empty)))
    if not len(known):
        return {"now": "–", "condition": conditions}
    if attack.is_median:
        return {"now": f"{np.median(known):.3f}", "condition": conditions}
    return {"now": f"{known.mean():.3f} ± {known.std() / math.sqrt(len(known)):.3f}", "condition": conditions}


def main() -> None:
    """Run every attack and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, help="worlds of each attack (default: 300)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page with a block for the table")
    options = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        parts = [range(start, options.worlds, options.jobs) for start in range(options.jobs)]
        started = [[pool.submit(run, place, part, options.seed) for part in parts] for place in range(len(ATTACKS))]
        for attack, futures in zip(ATTACKS, started, strict=True):
            rows += lines_of(attack, [found for future in futures for found in future.result()])
            print(markdown(pd.DataFrame(rows[-len(attack.lines) :])).split("\n", 2)[2], flush=True)
    if options.write:
        write_block(options.write, BLOCK, markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
