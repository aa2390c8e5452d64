"""Writing a benchmark's result, and the machine that it ran on, into a page of the documentation."""

import platform
import re
from pathlib import Path

import pandas as pd


def machine(device: str = "cpu") -> str:
    """Return what the result was measured on: processor, threads, GPU, versions."""
    import torch

    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    threads = f"{torch.get_num_threads()} threads"
    return f"{processor}, {threads}{gpu}; PyTorch {torch.__version__}, Python {platform.python_version()}"


def markdown(frame: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    lines = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def shown(estimate: float, low: float, high: float, digits: int = 2) -> str:
    """Return an estimate with its interval; empty if there is none."""
    if pd.isna(estimate):
        return ""
    interval = "" if pd.isna(low) else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{estimate:.{digits}f}{interval}"


def write_block(page: Path, name: str, text: str) -> None:
    """Replace what is between the marks `<!-- name -->` and `<!-- /name -->` of a page by `text`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    before = page.read_text(encoding="utf-8")
    if len(block.findall(before)) != 1:
        raise SystemExit(f"{page} must have one block from {begin} to {end}")
    page.write_text(block.sub(lambda _: f"{begin}\n{text}\n{end}", before), encoding="utf-8")
