"""Kill a study again and again, and see what is lost.

$ python tests/faults/kills.py --kills 50                             the small study, about 15 minutes on two cores
$ python tests/faults/kills.py --config config/testbed.yaml --kills 50 --undisturbed results/testbed

The study runs once undisturbed, unless the results of such a run are given. Then, in another folder, the whole process
group gets SIGKILL at random moments, and the study is resumed until it ends. A moment is some seconds after a random
number of further jobs has finished, so that kills spread over the whole study and a long job can end between two of
them. Told at the end: tables that differ from the undisturbed run's, jobs that ran again although they had finished,
and locks that were left without a word of how to clear them.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]
PARTS = ("workflow", "profiles", "environment.yml", "data", "config")
BLOCK = re.compile(r"^(?:local)?rule (\w+):\n((?:    .+\n)*)", re.MULTILINE)
TOTAL = re.compile(r"^total +(\d+)$", re.MULTILINE)
# How long after a job has ended a kill may come.
MOST_SECONDS = 12.0
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.MULTILINE)


def workplace(folder: Path, config: Path) -> Path:
    """Make a copy of the workflow in which a study can run."""
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    (folder / "isaerft").symlink_to(ROOT / "isaerft")
    if not (folder / "config" / config.name).exists():
        shutil.copy(config, folder / "config")
    return folder


def start(folder: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start Snakemake in a process group of its own, its output added to `log`."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "snakemake", *options]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )


def jobs(text: str) -> tuple[set[str], set[str]]:
    """Return the jobs that a run of Snakemake started and those that it finished, named by rule and outputs."""
    names = {}
    for rule, body in BLOCK.findall(text):
        found = dict(line.strip().split(": ", 1) for line in body.splitlines() if ": " in line)
        names[found.get("jobid", "")] = f"{rule} {found.get('output', '')}"
    return set(names.values()), {names[number] for number in FINISHED.findall(text) if number in names}


def kill_at_random(process: subprocess.Popen[bytes], log: Path, random: Random, n_left: int) -> int | None:
    """Kill a run's process group at a random moment and return None, or its exit status if it ends before."""
    share, seconds = random.random(), random.uniform(0, MOST_SECONDS)
    asked = None
    while process.poll() is None:
        text = log.read_text(encoding="utf-8", errors="replace")
        total = TOTAL.search(text)
        if total and asked is None:
            # On average the jobs that are left are dealt out over the kills that are left.
            asked = int(2 * share * int(total[1]) / (n_left + 1))
        if asked is not None and len(FINISHED.findall(text)) >= asked:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
        time.sleep(0.2)
    return process.returncode


def tables(results: Path) -> dict[str, bytes]:
    """Return the bytes of every result table; none is an error, for it would agree with none."""
    found = {path.name: path.read_bytes() for path in sorted((results / "tables").glob("*.csv"))}
    if not found:
        raise SystemExit(f"no tables in {results}")
    return found


def main() -> None:
    """Run the study with and without kills, and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "tests/end_to_end/small.yaml", help="the study's file")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--cores", default="2")
    parser.add_argument("--undisturbed", type=Path, help="results of an undisturbed run; default: run it first")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; default: a temporary one")
    options = parser.parse_args()
    study, random = options.config.stem, Random(options.seed)
    base = options.keep or Path(tempfile.mkdtemp(prefix="kills-"))
    base.mkdir(exist_ok=True)
    run = ("--cores", options.cores, "--rerun-incomplete", "--config", f"study={study}")

    calm = options.undisturbed
    if calm is None:
        folder = workplace(base / "calm", options.config)
        calm = folder / "results" / study
        if start(folder, base / "calm.log", *run).wait() != 0:
            raise SystemExit(f"the undisturbed study failed; see {base / 'calm.log'}")

    harsh = workplace(base / "harsh", options.config)
    finished: set[str] = set()
    repeated: list[str] = []
    kills = mute = 0
    while True:
        log = base / f"harsh-{kills:03d}.log"
        process = start(harsh, log, *run)
        code = process.wait() if kills == options.kills else kill_at_random(process, log, random, options.kills - kills)
        text = log.read_text(encoding="utf-8", errors="replace")
        began_now, finished_now = jobs(text)
        repeated += sorted(began_now & finished)
        finished |= finished_now
        if code is None:
            kills += 1
            print(f"kill {kills}: {len(finished)} jobs finished so far", flush=True)
            told = base / "locked.log"
            told.unlink(missing_ok=True)
            locks = harsh / ".snakemake" / "locks"
            if any(locks.glob("*")):
                start(harsh, told, *run).wait()
                mute += "--unlock" not in told.read_text(encoding="utf-8")
                start(harsh, base / "unlock.log", "--unlock", *run).wait()
        elif code:
            raise SystemExit(f"a resumed study failed; see {log}")
        else:
            break

    expected, found = tables(calm), tables(harsh / "results" / study)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"{study}: {kills} kills; {len(expected)} tables, of which differ: {wrong or 'none'}")
    print(f"finished jobs that ran again: {repeated or 'none'}; locks without a word of --unlock: {mute}")
    if not options.keep:
        shutil.rmtree(base)
    sys.exit(bool(wrong or repeated or mute))


if __name__ == "__main__":
    main()
