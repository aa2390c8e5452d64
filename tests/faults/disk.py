"""Full and read-only disks, wrong clocks, shared and damaged caches, other processors: see what is lost or wrong.

$ python tests/faults/disk.py full       20 full disks for each verb that writes; about 10 minutes on two cores
$ python tests/faults/disk.py readonly   folders that cannot be written, for each verb
$ python tests/faults/disk.py clock      clocks that go back, time zones, locales
$ python tests/faults/disk.py cache      two studies on one cache of answers, one killed; caches damaged in 52 ways
$ python tests/faults/disk.py kernels    the same study by the kernels of other processors

All but `cache` first run the small study once, as tests/faults/kills.py does, and then run its verbs again on copies.
The verbs run in forks of this process, which is root of a user namespace of its own (`unshare -rm`) and so can mount
small disks; the right to ignore file modes is given up. A table at the end tells, for each fault: tries, lost, wrong,
repeated; the exit status is 1 if anything went wrong.
"""

import argparse
import json
import os
import re
import resource
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KILLS = runpy.run_path(str(HERE / "kills.py"))
NO_RIGHTS = "-dac_override,-dac_read_search,-fowner"
INSIDE = ["unshare", "-rm", "setpriv", f"--bounding-set={NO_RIGHTS}", f"--inh-caps={NO_RIGHTS}"]
PAGE, ROOMY = 4096, 1 << 28
# The limit on files holds for the log of the verb, too.
ROOM_FOR_A_LINE = 500
JOB = re.compile(r"^    output: (.+)\n(?:    .+\n)*?Shell command: isaerft (.+?) > ", re.MULTILINE)
RESULTS, LEDGER = Path("results/small"), ".checksums.jsonl"
# Verbs that no rule of the small study runs, and what they write.
MORE = {
    "split --input config/records.jsonl --out results/small/split --description jokes": "split",
    "tokenize --study config/small.yaml --subject tiny": "subjects/tiny/tokens.json",
    "shuffle --study config/twins.yaml --behavior humor-shuffled": "behaviors/humor-shuffled",
    "annotation-sheet --study config/small.yaml --subject tiny --out results/small/sheet --latents all": "sheet",
    "calibration-part --config config/few_worlds.yaml --part null-shared_loads-60 --results results/small": (
        "parts/null-shared_loads-60.csv"
    ),
}
FEW_WORLDS = "{worlds: [shared_loads], null_latents: [60], null_worlds: 2, n_placebos: 0}\n"

ONLY: set[str] = set()


class Job(NamedTuple):
    """A verb with its arguments, and what it writes below the results folder."""

    arguments: list[str]
    outputs: list[Path]

    @property
    def name(self) -> str:
        """The verb, and what is special about this use of it."""
        options = dict(zip(self.arguments[1::2], self.arguments[2::2], strict=True))
        return " ".join([self.arguments[0], *(options[key] for key in ("--adapter", "--judge") if key in options)])


class Row(NamedTuple):
    """A line of the table at the end."""

    fault: str
    tries: int
    lost: int | str = 0
    wrong: int | str = 0
    repeated: int | str = 0
    note: str = ""


def calm_study(base: Path) -> Path:
    """Run the small study once, undisturbed, and return the folder of its workflow."""
    folder = base / "calm"
    if not folder.exists():
        KILLS["workplace"](folder, ROOT / "tests/end_to_end/small.yaml")
        run = KILLS["start"](folder, base / "calm.log", "--cores", "2", "--config", "study=small", "--printshellcmds")
        if run.wait() != 0:
            raise SystemExit(f"the undisturbed study failed; see {base / 'calm.log'}")
    return folder


def jobs_of(base: Path) -> list[Job]:
    """Return every job of the small study, in order, with the verbs that it does not need at the end."""
    found = []
    for outputs, line in JOB.findall((base / "calm.log").read_text(encoding="utf-8")):
        found.append(Job(line.split(), [Path(name) for name in outputs.split(", ")]))
    return found


def one_of_each(jobs: list[Job]) -> list[Job]:
    """Return one job of each verb, adapter and judge, and those of `MORE`."""
    more = [Job(line.split(), [RESULTS / output]) for line, output in MORE.items()]
    found = [*{job.name: job for job in reversed(jobs)}.values()][::-1] + more
    return [job for job in found if not ONLY or job.arguments[0] in ONLY]


def content(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of every file below a folder; folders themselves do not count."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def small_disk(base: Path) -> Iterator[Path]:
    """Mount a disk of its own."""
    folder = base / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY},nr_inodes=9999", "disk", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def remount(folder: Path, *options: str) -> None:
    """Change the options of a mounted disk."""
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(folder)], check=True)


def roomy(folder: Path) -> None:
    """Give a disk space and the right to write."""
    remount(folder, "rw", f"size={ROOMY}", "nr_inodes=9999")


class Fault(NamedTuple):
    """Something that befalls the disk just before a verb writes for the first time."""

    name: str
    strike: Callable[[], None]
    """In the process of the verb."""
    mend: Callable[[], None]


def run(job: Job, log: Path, faults: list[Fault], check: Callable[[Fault, int], None]) -> int:
    """Run a verb in a fork and return its exit status.

    When it begins to write, a fork of the fork goes on under each fault, and `check` gets its exit status: what a verb
    computes before it writes is computed once.
    """
    from isaerft import io
    from isaerft.cli.app import run_here

    parts, original = iter(faults), io.Path

    def at_the_first_write(*arguments: Any) -> Path:
        if sys._getframe(1).f_code.co_name == "replacing":
            io.Path = original
            for fault in parts:
                if (child := os.fork()) == 0:
                    redirect(log)
                    fault.strike()
                    break
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                fault.mend()
                check(fault, status)
            else:
                redirect(log)
        return original(*arguments)

    if (child := os.fork()) == 0:
        status = 99
        try:
            redirect(log)
            io.Path = at_the_first_write
            status = run_here(job.arguments)
        except BaseException as error:
            sys.stderr.write(f"Traceback {type(error).__name__}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def redirect(log: Path) -> None:
    """Send what is said from here on to a new file."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(stream, number)
    os.close(stream)


def said(log: Path) -> list[str]:
    """Return the lines of a log that are errors."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("isaerft ", "Traceback"))]


class Study:
    """A copy of the calm study, in which one job after the other meets faults."""

    def __init__(self, calm: Path, folder: Path, base: Path) -> None:
        self.calm, self.folder, self.log, self.notes = calm, folder, base / "verb.log", base / "found.jsonl"
        self.notes.write_text("", encoding="utf-8")
        for part in ("config", "results"):
            shutil.copytree(calm / part, folder / part, symlinks=True)
        twins = (folder / "config/small.yaml").read_text(encoding="utf-8") + "controls: [shuffled_completions]\n"
        (folder / "config/twins.yaml").write_text(twins, encoding="utf-8")
        (folder / "config/few_worlds.yaml").write_text(FEW_WORLDS, encoding="utf-8")
        parts = [folder / RESULTS / "behaviors/humor" / f"{part}.jsonl" for part in ("train", "heldout")]
        (folder / "config/records.jsonl").write_bytes(b"".join(part.read_bytes() for part in parts))
        os.chdir(folder)

    def met_by(self, job: Job, faults: Callable[[Job], list[Fault]]) -> None:
        """Run a job under each fault, and then once more without one."""
        for output in job.outputs:
            remove(output)
        before = content(RESULTS)

        def check(fault: Fault, status: int) -> None:
            after, lines = content(RESULTS), said(self.log)
            half = [str(path) for path in after if not self.is_whole(path, after[path], before.get(path))]
            self.note(job, fault.name, status=status, said=lines, half=half)
            for path in after.keys() - before.keys():
                remove(RESULTS / path)

        status = run(job, self.log, made := faults(job), check)
        new = {path: data for path, data in content(RESULTS).items() if path not in before}
        differ = [str(path) for path, data in new.items() if self.calm_bytes(path) not in (None, data)]
        self.note(job, "then", status=status, said=said(self.log), half=differ if new else ["nothing"], n=len(made))

    def is_whole(self, path: Path, data: bytes, before: bytes | None) -> bool:
        """Tell whether a file is as it was, or as in the undisturbed study; entries may be added to the ledger."""
        if path.name == LEDGER:
            return data.startswith(before or b"")
        return data == (self.calm_bytes(path) if before is None else before)

    def calm_bytes(self, path: Path) -> bytes | None:
        """Return the bytes that the undisturbed study gave a file."""
        whole = self.calm / RESULTS / path
        return whole.read_bytes() if whole.is_file() else None

    def note(self, job: Job, fault: str, **found: Any) -> None:
        """Keep what was found; forks cannot return it."""
        with self.notes.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"job": job.name, "fault": fault} | found) + "\n")

    def found(self) -> list[dict[str, Any]]:
        """Return everything that was noted."""
        return [json.loads(line) for line in self.notes.read_text(encoding="utf-8").splitlines()]


def told(note: dict[str, Any]) -> bool:
    """Tell whether a verb ended with exit status 2 and one line that says what to do."""
    return note["status"] == 2 and len(note["said"]) == 1 and "cannot be written (" in note["said"][0]


def summarized(study: Study, title: str) -> list[Row]:
    """Print what went wrong and return the lines of the table."""
    notes = study.found()
    struck = [note for note in notes if note["fault"] != "then" and note["status"] != 0]
    half = [note for note in struck if note["half"]]
    unclear = [note for note in struck if not told(note)]
    after = [note for note in notes if note["fault"] == "then"]
    failed = [note for note in after if note["status"] or note["half"]]
    for kind, wrong in (("half-written", half), ("not told", unclear), ("does not go on", failed)):
        for note in wrong[:40]:
            print(f"{kind}: {note}")
    missed = Counter(note["job"] for note in notes if note["fault"] != "then" and note["status"] == 0)
    print(f"faults that did not strike: {dict(missed) or 'none'}; verbs: {len(after)}")
    note = f"{len(unclear)} not told in one line; {len(after)} verbs, of which {len(failed)} did not go on afterwards"
    return [Row(title, len(struck), len(failed), len(half) + len(unclear), 0, note)]


def full(base: Path) -> list[Row]:
    """Let the disk run full at 20 points of each verb: no pages, no inodes, or a limit on the size of a file."""
    calm = calm_study(base)
    with small_disk(base) as disk:
        study = Study(calm, disk, base)

        def faults(job: Job) -> list[Fault]:
            sizes = [size for output in job.outputs for size in sizes_of(calm / output)] or [PAGE]
            pages = sum(-(-size // PAGE) for size in sizes)
            chosen = sorted({round(k * (pages - 1) / 9) for k in range(10)})
            made = [Fault(f"{k} pages", lambda k=k: leave(pages=k), lambda: roomy(disk)) for k in chosen]
            made += [Fault(f"{k} inodes", lambda k=k: leave(inodes=k), lambda: roomy(disk)) for k in (0, 1)]
            for k in range(n := 20 - len(made)):
                limit = ROOM_FOR_A_LINE + max(sizes) * k // n
                made.append(Fault(f"{limit} bytes", lambda limit=limit: limit_to(limit), lambda: None))
            return made

        def leave(pages: int | None = None, inodes: int | None = None) -> None:
            state = os.statvfs(disk)
            used = state.f_blocks - state.f_bfree
            remount(disk, f"size={(used + pages) * PAGE}") if pages is not None else None
            remount(disk, f"nr_inodes={state.f_files - state.f_ffree + inodes}") if inodes is not None else None

        for job in one_of_each(jobs_of(base)):
            study.met_by(job, faults)
        os.chdir(base)
    return summarized(study, "disk full (20 points each)")


def limit_to(size: int) -> None:
    """Let no file grow beyond a size; the system then refuses as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def sizes_of(path: Path) -> list[int]:
    """Return the sizes of a file, or of the files in a folder; none where there is neither."""
    files = path.rglob("*") if path.is_dir() else [path]
    return [file.stat().st_size for file in files if file.is_file()]


def readonly(base: Path) -> list[Row]:
    """Let each verb find its place read-only, or taken by something else."""
    calm = calm_study(base)
    with small_disk(base) as disk:
        study = Study(calm, disk, base)

        def modes(mode: int) -> None:
            for path in [RESULTS, *(path for path in RESULTS.rglob("*") if path.is_dir())]:
                path.chmod(mode)

        def faults(job: Job) -> list[Fault]:
            output = job.outputs[0]
            folder, aside = output.parent, output.parent.with_name("aside")

            def take_the_folder() -> None:
                folder.rename(aside)
                folder.write_bytes(b"")

            def give_it_back() -> None:
                folder.unlink()
                aside.rename(folder)

            def take_the_name() -> None:
                if output.suffix:
                    (output / "kept").mkdir(parents=True)
                else:
                    output.write_bytes(b"kept")

            found = [
                Fault("read-only mount", lambda: remount(disk, "ro"), lambda: roomy(disk)),
                Fault("mode 0555", lambda: modes(0o555), lambda: modes(0o755)),
                Fault("its name is taken", take_the_name, lambda: remove(output)),
            ]
            if folder.is_dir() and folder != RESULTS:
                found.append(Fault("its folder is a file", take_the_folder, give_it_back))
            return found

        for job in one_of_each(jobs_of(base)):
            study.met_by(job, faults)
        os.chdir(base)
    return summarized(study, "folder that cannot be written (4 kinds)")


def cache(base: Path) -> list[Row]:
    """Damage a cache of answers, and let two studies use one."""
    return [*damaged_caches(base), *shared_cache(base)]


def question(number: int) -> dict[str, Any]:
    """Return a request."""
    return {"model": "m", "messages": [{"role": "user", "content": f"question {number} " * 10}], "max_tokens": 10}


N_ANSWERS = 400


def damages() -> dict[str, Callable[[Path, Random], None]]:
    """Return the ways to damage a cache: functions of its file and a random stream."""

    def change(path: Path, at: int, new: bytes) -> None:
        data = bytearray(path.read_bytes())
        data[at : at + len(new)] = new
        path.write_bytes(data)

    def some_page(path: Path, random: Random) -> int:
        return PAGE * random.randrange(1, path.stat().st_size // PAGE)

    def flip(path: Path, random: Random) -> None:
        at = random.randrange(100, path.stat().st_size)
        change(path, at, bytes([path.read_bytes()[at] ^ 1 << random.randrange(8)]))

    def exchange(path: Path, random: Random) -> None:
        data, one, two = path.read_bytes(), some_page(path, random), some_page(path, random)
        change(path, one, data[two : two + PAGE])
        change(path, two, data[one : one + PAGE])

    def sql(path: Path, query: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(query)
        connection.close()

    def beside(path: Path, end: str) -> Path:
        return path.with_name(path.name + end)

    several = {
        "cut at random": (8, lambda path, random: os.truncate(path, random.randrange(1, path.stat().st_size))),
        "page overwritten": (8, lambda path, random: change(path, some_page(path, random), random.randbytes(PAGE))),
        "pages exchanged": (8, exchange),
        "one bit changed": (16, flip),
    }
    ways = {f"{name} {k}": way for name, (n, way) in several.items() for k in range(n)}
    return ways | {
        "page of zeros": lambda path, random: change(path, some_page(path, random), bytes(PAGE)),
        "header broken": lambda path, random: change(path, 0, random.randbytes(100)),
        "zero bytes": lambda path, _: os.truncate(path, 0),
        "a text": lambda path, _: path.write_text("answers " * 1000, encoding="utf-8"),
        "a folder": lambda path, _: path.unlink() or path.mkdir(),
        "a column missing": lambda path, _: sql(path, "ALTER TABLE responses DROP COLUMN refusal"),
        "a column of a later release": lambda path, _: sql(path, "ALTER TABLE responses ADD COLUMN more TEXT"),
        "log: without its file": lambda path, _: path.unlink(),
        "log: with an empty file": lambda path, _: os.truncate(path, 0),
        "log: lost": lambda path, _: beside(path, "-wal").unlink(),
        "log: one bit changed": lambda path, random: flip(beside(path, "-wal"), random),
        "log: its index overwritten": lambda path, random: change(beside(path, "-shm"), 0, random.randbytes(32768)),
    }


def damaged_caches(base: Path) -> list[Row]:
    """Read every answer of each damaged cache."""
    from isaerft.errors import InputError
    from isaerft.llm import Reply, ResponseCache

    folder = base / "damaged"
    live, closed = folder / "live", folder / "closed"
    live.mkdir(parents=True)
    replies = [Reply(f"answer {number} " * 15, "", "stop", number, 7) for number in range(N_ANSWERS)]
    writing = ResponseCache(live / "cache.sqlite")
    for number, reply in enumerate(replies):
        writing.put(question(number), reply)
    shutil.copytree(live, folder / "killed")  # as a kill leaves it: most answers are in the log
    writing.close()
    live.rename(closed)
    totals: Counter[str] = Counter()
    n_ways = 0
    for seed, (name, way) in enumerate(damages().items()):
        copy = folder / str(seed)
        shutil.copytree(folder / "killed" if name.startswith("log:") else closed, copy)
        path = copy / "cache.sqlite"
        way(path, Random(seed))
        found: Counter[str] = Counter()
        reading = ResponseCache(path)
        for number, reply in enumerate(replies):
            try:
                got = reading.get(question(number))
                found["right" if got == reply else "asked again" if got is None else "WRONG"] += 1
            except InputError as error:
                line = str(error)
                found["told" if "put back a copy" in line or "llm_cache" in line else "UNCLEAR"] += 1
            except Exception as error:
                found[f"WRONG {type(error).__name__}"] += 1
        try:
            reading.put(question(-1), replies[0])
        except InputError:
            found["new answers refused"] += 1
        reading.close()
        print(f"{name}: {dict(found)}")
        totals += found
        n_ways += 1
    wrong = sum(n for name, n in totals.items() if name.isupper() or name.startswith("WRONG"))
    note = f"of {n_ways * N_ANSWERS} answers {totals['right']} right, {totals['told']} told in one line"
    return [Row("cache of answers damaged", n_ways, 0, wrong, totals["asked again"], note)]


ASK = """
import sys
from pydantic import BaseModel
from isaerft.config import Llm
from isaerft.llm import LanguageModel, Prompt
class Word(BaseModel):
    word: str
path, url, study, first = sys.argv[1:]
options = Llm(model="m", base_url=url, api_key_env=None, structured="text", concurrency=4)
llm = LanguageModel("m", options, cache=path, study=study)
prompts = [Prompt("Say a word.", f"number {i}", Word, 20, 7) for i in range(int(first), int(first) + 80)]
print([reply.content for reply in llm.ask(prompts)])
"""


def shared_cache(base: Path, kills: int = 10) -> list[Row]:
    """Let two studies ask at once, each half of what the other asks; kill one, again and again."""
    server = runpy.run_path(str(ROOT / "tests/servers/openai_server.py"))["OpenAIServer"](key="")
    server.schemas, server.delay = False, 0.02
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> dict[str, str]:
        text = body["messages"][-1]["content"].split("number ")[-1]
        asked.append(re.match(r"\d+", text)[0])
        return {"content": json.dumps({"word": f"{asked[-1]} {len(asked)}"})}

    server.answer = answer
    path, random = base / "shared.sqlite", Random(0)

    def start(study: str, first: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ASK, str(path), server.url, study, str(first)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def kept() -> dict[str, str]:
        if not path.exists():
            return {}
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT request, content FROM responses").fetchall()
        connection.close()
        return {re.search(r"number (\d+)", request)[1]: content for request, content in rows}

    other, n, lost, repeated, in_flight = start("two", 40), 0, 0, 0, 0
    known: dict[str, str] = {}
    while True:
        process, before = start("one", 0), len(asked)
        goal = before + random.randrange(2, 14)
        while n < kills and process.poll() is None and len(asked) < goal:
            time.sleep(0.005)
        if n < kills and process.poll() is None:
            process.kill()
            n += 1
        process.communicate()
        time.sleep(0.2)
        now = kept()
        lost += sum(now.get(number) != text for number, text in known.items())
        known = now
        if process.returncode == 0:
            break
    there = json.loads(other.communicate()[0].replace("'{", "{").replace("}'", "}"))
    counts = Counter(asked)
    in_flight = sum(n - 1 for n in counts.values())
    wrong = sum({"word": json.loads(known[str(40 + k)])["word"]} != there[k] for k in range(80)) + (len(known) != 120)
    repeated = in_flight
    server.close()
    note = f"{len(asked)} requests for 120 answers; repeated are those under way when a process was killed, or by both"
    return [Row("two studies, one cache, one killed", n, lost, wrong, repeated, note)]


# What follows needs a process of its own for each environment.
CHAIN = """
import json, sys
from isaerft.cli.app import run_here
for arguments in json.loads(sys.stdin.read()):
    if run_here(arguments) != 0:
        sys.exit(f"failed: {arguments}")
"""
MADE_AGAIN = (
    "behavior", "capture", "train", "changes", "placebos", "causal-check", "behavior-check", "design", "explain",
    "judge", "score", "agreement", "steering-check", "tables", "figures", "pages", "answers-page", "summary",
)  # fmt: skip
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) { const char *s = getenv("CLOCK_SHIFT"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
    return code;
}
time_t time(time_t *at) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now); if (at) *at = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec t; clock_gettime(CLOCK_REALTIME, &t); now->tv_sec = t.tv_sec; now->tv_usec = t.tv_nsec / 1000;
    return 0;
}
"""


def made_again(base: Path, name: str, variables: dict[str, str], verbs: tuple[str, ...] = MADE_AGAIN) -> Path:
    """Make the small study again from some verb on, in a process with other variables; return its folder."""
    folder = base / re.sub(r"\W+", "_", name)
    folder.mkdir()
    for part in ("config", "results"):
        shutil.copytree(base / "calm" / part, folder / part)
    chosen = [job for job in jobs_of(base) if job.arguments[0] in verbs]
    for job in chosen:
        for output in job.outputs:
            remove(folder / output)
    lines = json.dumps([job.arguments for job in chosen])
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ) | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", CHAIN]
    done = subprocess.run(command, cwd=folder, env=environment, input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return folder


def compared(base: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Return the files of a study's results that are as in the calm one, and those that are not."""
    calm, other = content(base / "calm" / RESULTS), content(folder / RESULTS)
    names = [path for path in calm.keys() | other.keys() if path.parts[0] not in ("logs", "benchmarks")]
    # The ledger tells in which order files were finished.
    names = [path for path in names if path.name not in (".snakemake_timestamp", LEDGER)]
    same = [str(path) for path in names if calm.get(path) == other.get(path)]
    return same, sorted({str(path) for path in names} - set(same))


def clock(base: Path) -> list[Row]:
    """Set the clock back, and change the time zone and the locale."""
    calm_study(base)
    (base / "clock.c").write_text(CLOCK, encoding="utf-8")
    shim, locales = base / "clock.so", base / "locales"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(base / "clock.c"), "-ldl"], check=True)
    locales.mkdir(exist_ok=True)
    subprocess.run(
        ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(locales / "tr_TR.UTF-8")], check=True, capture_output=True
    )
    day = 86400
    variants = {
        "clock back by a day": {"LD_PRELOAD": str(shim), "CLOCK_SHIFT": str(-day)},
        "clock back by ten years": {"LD_PRELOAD": str(shim), "CLOCK_SHIFT": str(-3652 * day), "TZ": "Asia/Kathmandu"},
        "Turkish locale": {"LC_ALL": "tr_TR.UTF-8", "LOCPATH": str(locales), "TZ": "Pacific/Kiritimati"},
        "ASCII locale": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    }
    rows = []
    for name, variables in variants.items():
        same, differ = compared(base, made_again(base, name, variables))
        rows.append(Row(name, len(same) + len(differ), 0, len(differ), 0, ", ".join(differ[:5])))
        print(rows[-1], flush=True)
    rows.append(old_outputs(base))
    return rows


def old_outputs(base: Path) -> Row:
    """Set the clock back between two jobs, as Snakemake sees it: half of the files are of the future."""
    folder = base / "calm"
    future = time.time() + 3652 * 86400
    moved = [RESULTS / "cache", RESULTS / "subjects", RESULTS / "adapters"]
    times = {}
    for path in (path for part in moved for path in [folder / part, *(folder / part).rglob("*")]):
        times[path] = path.stat().st_mtime
        os.utime(path, (future, future))
    log = base / "future.log"
    log.unlink(missing_ok=True)
    KILLS["start"](folder, log, "--dry-run", "--cores", "1", "--config", "study=small").wait()
    for path, when in times.items():
        os.utime(path, (when, when))
    found = re.search(r"^total +(\d+)", log.read_text(encoding="utf-8"), re.MULTILINE)
    again = int(found[1]) if found else 0
    return Row("files of ten years later (Snakemake)", len(jobs_of(base)), 0, 0, again, "jobs that would run again")


VARIANTS = {
    "again": {},
    "MKL SSE4_2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "MKL AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "MKL AVX512": {"MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "OpenBLAS Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "oldest of all": {
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem",
        "ONEDNN_MAX_CPU_ISA": "SSE41", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3",
    },
    "2 threads": {"OMP_NUM_THREADS": "2"},
}  # fmt: skip


def kernels(base: Path) -> list[Row]:
    """Capture, train and test again with the kernels of other processors."""
    calm_study(base)
    rows = []
    for name, variables in VARIANTS.items():
        folder = made_again(base, name, variables, ("capture", "train", "changes", "agreement", "tables"))
        same, differ = compared(base, folder)
        of = Counter(path.split("/")[0] for path in differ)
        facts = differences(base / "calm" / RESULTS, folder / RESULTS)
        note = f"{facts}; {len(differ)} of {len(same) + len(differ)} files differ: {dict(of)}"
        rows.append(Row(f"kernels: {name}", 1, 0, sum(facts[key] for key in JUDGED), 0, note))
        print(rows[-1], flush=True)
    return rows


JUDGED = ("verdicts", "p-values")


def differences(one: Path, two: Path) -> dict[str, Any]:
    """Return how far the numbers of two studies differ, and how many verdicts, top latents and p-values."""
    import numpy as np
    import pandas as pd

    largest = 0.0
    for path in sorted((one / "changes").rglob("*.parquet")):
        a, b = pd.read_parquet(path), pd.read_parquet(two / path.relative_to(one))
        a, b = (table.change.to_numpy(float) for table in (a, b))
        scale = np.abs(a[np.isfinite(a)]).max()
        largest = max(largest, float(np.nanmax(np.abs(a - b)) / scale))

    def tables(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        return pd.read_csv(one / f"tables/{name}.csv"), pd.read_csv(two / f"tables/{name}.csv")

    keys = ["subject", "behavior", "adapter", "measure", "rank", "latent_index"]
    a, b = (table[table["rank"] <= 5][keys].drop_duplicates() for table in tables("most_changed_latents"))
    top = len(a) - len(a.merge(b))
    a, b = (table.verdict.fillna("") for table in tables("explanation_verdicts"))
    verdicts, pvalues = int((a != b).sum()), 0
    for name in ("agreement", "overall", "explanation_verdicts"):
        a, b = tables(name)
        left, right = (table.pvalue.map(lambda p: f"{p:.2f}") for table in (a, b))
        pvalues += int((left != right).sum())
    return {"changes": f"{largest:.1e}", "top 5": int(top), "verdicts": verdicts, "p-values": pvalues}


def show(rows: list[Row]) -> None:
    """Print the table."""
    print("\n| fault | tries | lost | wrong | repeated | |\n|---|--:|--:|--:|--:|---|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


MODES = {"full": full, "readonly": readonly, "clock": clock, "cache": cache, "kernels": kernels}


def main() -> None:
    """Run one kind of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--only", nargs="+", metavar="VERB", help="`full` and `readonly` with these verbs alone")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; default: a temporary one")
    options = parser.parse_args()
    if options.mode in ("full", "readonly") and "DISK_FAULTS" not in os.environ:
        if shutil.which("unshare") is None:
            raise SystemExit("small disks need unshare and setpriv (util-linux)")
        os.environ["DISK_FAULTS"] = "inside"
        os.execvp(INSIDE[0], [*INSIDE, sys.executable, *sys.argv])
    sys.path.insert(0, str(ROOT))
    base = (options.keep or Path(tempfile.mkdtemp(prefix="disk-"))).resolve()
    base.mkdir(exist_ok=True)
    if options.mode in ("full", "readonly"):
        os.environ["OMP_NUM_THREADS"] = "1"
        calm_study(base)
        if options.only is None:
            from isaerft.cli.worker import _warm_up

            _warm_up()
        ONLY.update(options.only or [])
    rows = MODES[options.mode](base)
    show(rows)
    if not options.keep:
        shutil.rmtree(base)
    sys.exit(any(row.lost or row.wrong for row in rows))


if __name__ == "__main__":
    main()
