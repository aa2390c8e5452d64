"""A study whose subjects have nine latents with contexts, a case-control sample, and explanations, made by hand."""

import numpy as np
import pandas as pd

from isaerft.explanations import write_sample

N = 10
DEAD = 9
SAMPLE = (1, 2, 4, 5, 7, 8)
CASES = (2, 7)
BEHAVIORS = {"refusal": "Refuses, says =sorry().", "humor": "Makes </script> jokes."}
HOSTILE = "<script>alert(1)</script>"
TEXTS = [HOSTILE, '=HYPERLINK("http://x.invalid")', "@cmd", "-1+1", 'a "quoted", text', "dogs", "dogs", "cats", "cats"]


def write_contexts(path, mark=""):
    rows = []
    for latent in range(N - 1):
        for rank in range(3):
            rows.append(
                (latent, "input", rank, f" tok{latent}", f"a{mark} before{rank}", f"ly after{rank}", 3.0 - rank)
            )
        rows.append((latent, "input", 3, f" tok{latent}", f"a{mark} before0", "ly after0", 0.5))
        rows += [(latent, side, 0, token, "", "", 1.0) for side, token in [("output", " out"), ("amplified", "ampl")]]
    rows[0] = (0, "input", 0, HOSTILE, "=cmd|' /C calc'!A0", "</article><img src=x onerror=alert(1)>", 3.0)
    rows += [(latent, "heldout", 0, " secret", "held", "out", 1.0) for latent in range(N)]
    columns = ["latent_index", "side", "rank", "token", "before", "after", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(path)


def draw(path, cases=CASES, stratum=0):
    role = np.where(np.isin(SAMPLE, cases), "case", "control")
    sample = pd.DataFrame({"latent_index": SAMPLE, "role": role, "stratum": stratum})
    write_sample(sample.assign(matched_to=cases[0], drawn_for="refusal/bias"), path)


def config(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}, "other": {"testbed": {}}},
        "behaviors": {name: {"description": text, "rule": True} for name, text in BEHAVIORS.items()},
        "adapters": {"bias": {}},
        "sources": {"said": {"kind": "local", "side": "both"}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
    }
    return values | changes
