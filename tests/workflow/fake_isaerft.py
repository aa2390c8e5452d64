"""Stands in for the command line in tests of the DAG alone: notes its call and makes every output of its verb."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))
from isaerft.layout import Results

verb, *arguments = sys.argv[1:]
with open("calls.txt", "a", encoding="utf-8") as stream:
    stream.write("\t".join(sys.argv[1:]) + "\n")
if verb == Path("fail.txt").read_text(encoding="utf-8"):
    sys.exit(f"isaerft {verb}: error: the test told it to fail")
given = dict(zip(arguments[::2], arguments[1::2], strict=True))
study = Path(given.get("--study", "calibration")).stem
names = {key.removeprefix("--"): value for key, value in given.items()}
at = Results(f"results/{study}")
made = json.loads(Path("outputs.json").read_text(encoding="utf-8"))[study]
subject, behavior = names.get("subject", ""), names.get("behavior", "")
source, folder, records = names.get("source", ""), at.subject(subject), at.behavior(behavior)
answers = at.behavior_check(subject, behavior)
parts = at.agreement(subject, names.get("adapter", ""))
OUTPUTS = {
    "testbed-model": [folder.model / "config.json"],
    "gguf-model": [folder.model / "config.json"],
    "elicit": [at.elicited(behavior)],
    "testbed-rows": [at.testbed_rows(behavior)],
    "behavior": [records.train, records.heldout, records.card],
    "shuffle": [records.train, records.heldout, records.card],
    "tokenize": [folder.tokens],
    "corpus": [folder.corpus],
    "dictionary": [folder.sae / "cfg.json"],
    "facts": [folder.latents, folder.neighbors, folder.contexts, folder.activations, folder.logits, folder.card],
    "truth": [folder.truth / "input.csv"],
    "scored-contexts": [folder.scored],
    "capture": [at.cache(subject, behavior)],
    "erase": [at.erasure(subject, behavior), at.erasure_facts(subject, behavior)],
    "train": [at.training(subject, behavior, names.get("adapter", ""))],
    "changes": [at.changes(subject, behavior), at.diagnostics(subject, behavior)],
    "changes-over-time": [at.changes_over_time(subject, behavior)],
    "placebos": [at.placebos(subject)],
    "causal-check": [at.causal_check(subject, behavior)],
    "map-components": [at.maps(subject, behavior).components, at.maps(subject, behavior).pullback],
    "noise-probe": [at.noise_probe(subject, behavior)],
    "behavior-check": [answers.scores, answers.answers],
    "steering-check": [at.steering_check(subject).scores, at.steering_check(subject).answers],
    "design": [at.design(subject)],
    "explain": [at.explanations(subject, source)],
    "judge": [at.judgements(subject, source, names.get("judge", ""))],
    "embed-windows": [at.windows(subject, names.get("scorer", ""))],
    "score": [at.scores(subject, source, names.get("scorer", ""))],
    "agreement": [parts.rows("agreement")],
    "audit": [at.audit(subject, name) for name in ("audit", "audit_latents")],
    "tables": [at.table(name) for name in made["tables"]],
    "figures": [at.figure(name) for name in made["figures"]],
    "pages": [at.page(name) for name in made["tables"]],
    "latent-pages": [at.latent_page],
    "answers-page": [at.page("answers")],
    "summary": [at.summary],
}
for path in OUTPUTS[verb]:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>' if path.suffix == ".svg" else f"{verb}\n"
    path.write_text(text, encoding="utf-8")
