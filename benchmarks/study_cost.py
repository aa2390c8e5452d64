"""The predictions of docs/scale.md and docs/real_models.md, by the cost model of `isaerft.setup.estimate`.

$ python benchmarks/study_cost.py --write

Nothing is measured and nothing downloaded: the shapes of hub models are those of their published configs.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from page import markdown, write_block

from isaerft.config import load_plan
from isaerft.config.training import Adapter
from isaerft.setup.estimate import GPU_FAST, GPU_SLOW, Estimate, Rows, Shape, estimate, size, training_flop
from isaerft.setup.facts import sae_facts
from isaerft.setup.measured import rows_of

D_SAE = 16_384
# Weights of a block: attention (queries, keys, values, output) and the three matrices of the MLP.
SIZES = {
    "google/gemma-3-270m-it": (18, 640, 262_144, 640 * (2 * 4 + 2) * 256 + 3 * 640 * 2048),
    "google/gemma-3-1b-it": (26, 1152, 262_144, 1152 * (2 * 4 + 2) * 256 + 3 * 1152 * 6912),
    "google/gemma-2-2b-it": (26, 2304, 256_000, 2304 * (2 * 8 + 2 * 4) * 256 + 3 * 2304 * 9216),
    "google/gemma-2-2b": (26, 2304, 256_000, 2304 * (2 * 8 + 2 * 4) * 256 + 3 * 2304 * 9216),
    "openai-community/gpt2": (12, 768, 50_257, 12 * 768**2),
}
STUDIES = ("gemma3_270m_it", "gemma3_1b_it", "gemma2_2b_it", "gpt2", "gemma")
# A study that only exists on paper: 100 behaviors, 4 seeds of a bias, hook after block 13 of 26.
BEHAVIORS, SEEDS, PAPER_ROWS = 100, 4, Rows(300, 30, 80, 80)
RATES = (3e12, 54e12, 200e12)


def shape_of(model: str, n_below: int) -> Shape:
    """Return the shape of a model with an SAE of the usual size above so many blocks."""
    n_blocks, d_model, vocabulary, block = SIZES[model]
    return Shape(n_blocks, n_below, d_model, vocabulary, block, 24_576 if "gpt2" in model else D_SAE)


def of_study(name: str) -> Estimate:
    """Return the cost of a study of config/."""
    plan = load_plan(f"config/{name}.yaml")
    shapes = {name: shape_of(part.model, sae_facts(part).n_below) for name, part in plan.study.subjects.items()}
    rows = {behavior: rows_of(plan, behavior, part, 4.0) for behavior, part in plan.study.behaviors.items()}
    return estimate(plan, shapes, rows)


def studies_table() -> pd.DataFrame:
    """Return what each study with a GPU costs."""
    rows = []
    for name in STUDIES:
        found = of_study(name)
        hours = [found.gpu_minutes(rate) / 60 for rate in (GPU_FAST, GPU_SLOW)]
        rows.append(
            {
                "config": f"`{name}`",
                "jobs": f"{found.jobs.total():,}",
                "hours on one GPU": f"{hours[0]:.1f} to {hours[1]:.1f}",
                "PFLOP": f"{sum(found.flop.values()) / 1e15:,.0f}",
                "of it training and placebos": f"{(found.flop['training'] + found.flop['placebos']) / 1e15:,.0f}",
                "requests": f"{sum(found.requests.values()):,}",
                "models and SAEs": size(found.disk["models and SAEs"]),
                "results": size(found.total_disk - found.disk["models and SAEs"]),
            }
        )
    return pd.DataFrame(rows)


def paper_text() -> str:
    """Return what 400 trainings of a bias on gemma-3-1b cost."""
    shape = shape_of("google/gemma-3-1b-it", 14)
    adapter = replace(Adapter(), steps=160, batch_size=8, evaluate_every=20)
    one = training_flop(adapter, shape, PAPER_ROWS)
    total = one * BEHAVIORS * SEEDS
    hours = pd.DataFrame({"achieved TFLOP/s": [f"{rate / 1e12:g}" for rate in RATES]})
    hours["hours"] = [f"{total / rate / 3600:.1f}" for rate in RATES]
    said = f"One training is {one / 1e15:.2f} PFLOP, {BEHAVIORS * SEEDS} are {total / 1e15:,.0f} PFLOP."
    return f"{said}\n\n{markdown(hours)}"


def main() -> None:
    """Print both predictions, or put them between their marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/scale.md and docs/real_models.md")
    blocks = {
        (Path("docs/scale.md"), "paper_study"): paper_text(),
        (Path("docs/real_models.md"), "study_cost"): markdown(studies_table()),
    }
    write = parser.parse_args().write
    for (page, name), text in blocks.items():
        if write:
            write_block(page, name, text)
        else:
            print(f"{page}, {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
