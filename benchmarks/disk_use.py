"""How much disk does a finished study take, and per what?

$ python benchmarks/disk_use.py results/smollm2

Caches grow with tokens, adapters and changes with latents; the model is stored once. All sizes are means.
"""

import argparse
from pathlib import Path

from isaerft.io import read_json


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    """Print a row for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results folder of a study, e.g. results/smollm2")
    results = parser.parse_args().results
    rows = []
    for folder in sorted((results / "subjects").iterdir()):
        rows.append((f"{folder.name}: model and SAE", size(folder / "model") + size(folder / "sae")))
        rows.append((f"{folder.name}: contexts and facts of latents", size(folder) - rows[-1][1]))
        tokens = read_json(folder / "tokens.json") if (folder / "tokens.json").is_file() else {}
        n_tokens = sum(split["tokens"] for behavior in tokens.values() for split in behavior.values())
        caches = size(results / "cache" / folder.name)
        if n_tokens:
            rows.append((f"{folder.name}: cache, per token of a behavior ({n_tokens:,} in all)", caches / n_tokens))
    per_kind: dict[str, list[int]] = {}
    for seed in (results / "adapters").rglob("seed_*"):
        per_kind.setdefault(seed.parent.name, []).append(size(seed))
    rows += [
        (f"adapter {name}, per behavior and seed", sum(sizes) / len(sizes)) for name, sizes in sorted(per_kind.items())
    ]
    for part in ("changes", "agreement", "behavior_check", "steering_check", "tables", "pages", "figures"):
        rows.append((part, size(results / part)))
    for name, n_bytes in rows:
        print(f"{n_bytes:>15,.0f}  {name}")


if __name__ == "__main__":
    main()
