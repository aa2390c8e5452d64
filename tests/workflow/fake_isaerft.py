"""Stands in for the command line in tests of the DAG alone: notes its call and makes every output of its verb."""

import sys
from pathlib import Path

TABLES = (
    "subjects",
    "training",
    "diagnostics",
    "most_changed_latents",
    "agreement",
    "specificity",
    "overall",
    "coverage",
    "seeds",
)
TABLES += (
    "causal_check",
    "behavior_check",
    "judge_quality",
    "corrected_agreement",
    "explanation_verdicts",
    "calibration",
    "source_comparison",
)
TABLES += ("audit", "audit_latents")
TABLES += ("explanation_scores", "explanation_quality", "agreement_by_quality")
IN_FOLDER = {
    "corpus": ["corpus.safetensors"],
    "dictionary": ["sae/cfg.json"],
    "facts": ["latents.parquet", "contexts.parquet", "subject.json"],
    "truth": ["truth/input.csv"],
}
IN_OUT = {
    "testbed-model": ["config.json"],
    "behavior": ["train.jsonl", "heldout.jsonl", "card.json"],
    "split": ["train.jsonl", "heldout.jsonl", "card.json"],
    "shuffle": ["train.jsonl", "heldout.jsonl", "card.json"],
    "behavior-check": ["scores.parquet", "answers.jsonl"],
    "train": ["seed0/adapter_config.json"],
    "agreement": ["agreement.csv", "specificity.csv"],
    "audit": ["audit.parquet", "audit_latents.parquet"],
    "tables": [f"{name}.csv" for name in TABLES],
    "pages": [f"{name}.html" for name in TABLES],
}

verb, *arguments = sys.argv[1:]
with open("calls.txt", "a", encoding="utf-8") as stream:
    stream.write("\t".join(sys.argv[1:]) + "\n")
if verb == Path("fail.txt").read_text(encoding="utf-8"):
    sys.exit(f"isaerft {verb}: error: the test told it to fail")
named = arguments[1:] if verb == "figure" else arguments
options = dict(zip(named[::2], named[1::2], strict=True))
if verb in IN_FOLDER:
    outputs = [Path(options["--dir"], name) for name in IN_FOLDER[verb]]
else:
    outputs = [Path(options["--out"], name) for name in IN_OUT[verb]] if verb in IN_OUT else [Path(options["--out"])]
outputs += [Path(options["--diagnostics"])] if "--diagnostics" in options else []
for path in outputs:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>' if path.suffix == ".svg" else f"{verb}\n"
    path.write_text(text, encoding="utf-8")
