"""Verbs for planning a study; no rule of the workflow calls them."""

from __future__ import annotations

from typing import Annotated

import typer

from isaerft.cli.options import ResultsFolder, StudyFile, open_study, tell

app = typer.Typer()


@app.command("power")
def power(
    auroc: Annotated[float | None, typer.Option(help="Target AUROC without seed noise (or give --odds-ratio).")] = None,
    odds_ratio: Annotated[
        float | None, typer.Option(help="The same as odds of a larger change, expected over other latents.")
    ] = None,
    expected_share: Annotated[float, typer.Option(help="Share of the latents that a behavior should change.")] = 0.1,
    reliability: Annotated[float, typer.Option(help="Reliability of one seed's ranking of the latents.")] = 0.5,
    design_effect: Annotated[
        float, typer.Option(help="Factor by which latents that move together raise the variance.")
    ] = 1.0,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
) -> None:
    """Tell how many labeled latents, seeds and behaviors a study needs to find specificity at a given agreement.

    Give --auroc or --odds-ratio. docs/statistics.md states the assumptions, and where a study's own tables hold the
    reliability and the design effect.
    """
    from isaerft.planning import power_lines

    lines = power_lines(
        auroc=auroc,
        odds_ratio=odds_ratio,
        expected_share=expected_share,
        reliability=reliability,
        design_effect=design_effect,
        alpha=alpha,
    )
    tell("\n".join(lines))


@app.command("cost")
def cost(study: StudyFile, results: ResultsFolder = None) -> None:
    """Tell how many requests and tokens the study's language models will take, and how many answers are cached.

    Nothing is sent, and no key is needed. Tokens are estimated at 4 characters each; answers by the mean of the cached
    ones, or by the longest allowed.
    """
    plan, layout = open_study(study, results)
    from isaerft.planning import cost_lines

    tell("\n".join(cost_lines(plan, layout)))
