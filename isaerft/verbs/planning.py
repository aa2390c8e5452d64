"""Verbs that help to plan a study; no rule of the workflow calls them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from isaerft.errors import InputError
from isaerft.verbs.base import plan_of, verb

SEEDS, BEHAVIORS, POWERS = (1, 3, 5, 10), (1, 4, 8, 16), (0.8, 0.9)
DEFAULTS = {"expected_share": 0.1, "reliability": 0.5, "design_effect": 1.0, "alpha": 0.05}


@verb("power", "auroc", "odds-ratio", "expected-share", "reliability", "design-effect", "alpha")
def power(options: argparse.Namespace) -> None:
    """Say how many labelled latents, seeds and behaviors a study needs to see an agreement of a given size.

    Give --auroc or --odds-ratio. docs/statistics.md says what is assumed, and where a study's own tables hold the
    reliability and the design effect.
    """
    from isaerft.stats.power import Design, auroc_of_odds_ratio, latents_needed, observed_auroc, odds_ratio_of_auroc

    if (options.auroc is None) == (options.odds_ratio is None):
        raise InputError("give one effect", allowed="--auroc or --odds-ratio")
    auroc = auroc_of_odds_ratio(options.odds_ratio) if options.auroc is None else options.auroc
    odds_ratio = odds_ratio_of_auroc(auroc)
    given = {
        name: default if getattr(options, name) is None else getattr(options, name)
        for name, default in DEFAULTS.items()
    }
    design = Design(
        n_latents=1,
        expected_share=given["expected_share"],
        seed_reliability=given["reliability"],
        design_effect=given["design_effect"],
    )
    lines = [
        f"AUROC {auroc:.3f} (odds ratio {odds_ratio:.2f}), {design.expected_share:g} of the latents expected, one"
        f" seed's reliability {design.seed_reliability:g}, one-sided level {given['alpha']:g}",
        "labelled latents needed per behavior:",
        f"{'seeds':>6} {'behaviors':>10} {'AUROC seen':>11}" + "".join(f" {f'{p:.0%} power':>11}" for p in POWERS),
    ]
    for n_seeds in SEEDS:
        for n_behaviors in BEHAVIORS:
            sized = replace(design, n_seeds=n_seeds, n_behaviors=n_behaviors)
            needed = [latents_needed(auroc, sized, power=level, alpha=given["alpha"]) for level in POWERS]
            seen = observed_auroc(auroc, sized.reliability)
            lines.append(
                f"{n_seeds:>6} {n_behaviors:>10} {seen:>11.3f}" + "".join(f" {n or 'none':>11}" for n in needed)
            )
    sys.stdout.write("\n".join(lines) + "\n")


@verb("cost", "study")
def cost(options: argparse.Namespace) -> None:
    """Say how many requests and tokens the study's language models will take, and how many answers are cached.

    Nothing is sent, and no key is needed. Tokens are estimated at 4 characters each; answers by the mean of the cached
    ones, or by the longest allowed.
    """
    plan = plan_of(options)
    from isaerft.report.cost import cost_lines

    sys.stdout.writelines(f"{line}\n" for line in cost_lines(plan, plan.study.results))
