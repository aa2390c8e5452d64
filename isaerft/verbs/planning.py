"""Verbs that help to plan a study; no rule of the workflow calls them."""

from __future__ import annotations

import argparse
import sys

from isaerft.verbs.base import plan_of, verb


@verb("power", "auroc", "odds-ratio", "expected-share", "reliability", "design-effect", "alpha")
def power(options: argparse.Namespace) -> None:
    """Say how many labelled latents, seeds and behaviors a study needs to see an agreement of a given size.

    Give --auroc or --odds-ratio. docs/statistics.md says what is assumed, and where a study's own tables hold the
    reliability and the design effect.
    """
    from isaerft.planning import power_lines

    names = ("auroc", "odds_ratio", "expected_share", "reliability", "design_effect", "alpha")
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    sys.stdout.writelines(f"{line}\n" for line in power_lines(**values))


@verb("cost", "study")
def cost(options: argparse.Namespace) -> None:
    """Say how many requests and tokens the study's language models will take, and how many answers are cached.

    Nothing is sent, and no key is needed. Tokens are estimated at 4 characters each; answers by the mean of the cached
    ones, or by the longest allowed.
    """
    plan = plan_of(options)
    from isaerft.planning import cost_lines

    sys.stdout.writelines(f"{line}\n" for line in cost_lines(plan, plan.results))
