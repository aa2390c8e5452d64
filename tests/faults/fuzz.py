"""Damage every outside file in every way, and see what its reader does.

$ python tests/faults/fuzz.py                                  every reader, 100,000 inputs each: hours
$ python tests/faults/fuzz.py --readers config explanations --inputs 5000 --keep found
$ python tests/faults/fuzz.py --list                           the readers, and what each of them reads

An input is a valid file (`tests/faults/readers.py`) with up to three faults: in its bytes (flipped, cut, repeated,
spliced, NUL, other encodings, huge numbers, deep nesting, keys given twice) or in its values (a leaf replaced by
another type, a key dropped, added or renamed). A reader may accept it or refuse it with a user's error of one line.
Anything else is a finding: another exception, more than 10 s or 2 GiB, a file written, a program run, or a connection.
Each reader runs in a process of its own, so one that is killed is a finding, too. The smallest input that the
simplest reduction leaves is printed.
"""

import argparse
import contextlib
import copy
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from isaerft import registry  # noqa: E402
from tests.faults.readers import READERS, Valid  # noqa: E402

SECONDS, MEMORY = 10, 2 << 30
# Of the processor's time, and of the clock's, for a reader that waits.
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 10 * SECONDS))
MAX_FAULTS, REDUCTIONS, SHOWN = 3, 200, 160
DEEP = 3000
TOKENS = [
    b"\0", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xe2\x80\xae", b"\x1b[31m",
    b"\xf0\x9f\x98\x80",
    b"1e400", b"-1e400", b"NaN", b"Infinity", b"-0", b"9" * 20, b"9" * 5000, b"0x10", b"1_0", b"nan",
    b".inf", b"1e-400",
    b"[" * DEEP, b"{" * DEEP, b'{"a":' * DEEP, b"- " * DEEP, b"[" * 100 + b"]" * 100, b"[" * DEEP + b"]" * DEEP,
    b'"', b"'", b",", b"\n", b"\t", b":", b": ", b"{", b"}", b"[", b"]", b"\\", b"\\ud800", b"\\u0000",
    b"null", b"true", b"~",
    b"&a ", b"*a", b"<<: ", b"? ", b"!!python/object:os.system ", b"!!timestamp ", b"!!int ", b"!!binary ",
    b"2024-99-99", b"%",
    b"{{", b"}}", b"{%", b"{x}", b"<a>", b"<!", b"&lt;", b"Human:", b"</think>",
    b"version https://git-lfs.github.com/spec/",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\x0c", b"=1+1", b"\xd9\xa1", b"\xc2\xb2", b"1:30:00", b"0o7", b"+1", b"../",
]  # fmt: skip
LEAVES: list[Any] = [
    None, "", [], {}, True, False, 0, 1, -1, 2, 0.5, -0.0, 2**31, 2**63 - 1, 2**63, -(2**70), 10**400,
    1e308, 1e-320, float("nan"), float("inf"), float("-inf"),
    " ", "\0", "\ud800", "\u202e", "NaN", "1e400", "inf", "true", "1", "-1", "b'abc'", "=1+1", "{", "{x}",
    "{0}", "..", "/", "*",
    "x" * 5000, "\u00b2", "\u0661", "9" * 5000, "a\nb\r\nc\u2028d", "user", "assistant", "\\", "(", "[^", "a/b", ".",
    [None], [[]], [{}], {"": None}, ["x"], [1, "x"], {"role": "assistant", "content": None}, {"x": {"y": [0]}},
    [[[[[[[[]]]]]]]], ["x"] * 300, {"role": ["user"], "content": "x"}, [{"role": "user", "content": [{"text": 1}]}],
]  # fmt: skip


class TooSlow(BaseException):
    """An input took too long."""


@dataclass
class Finding:
    """A kind of misbehavior: where it comes from, how often it came, and the smallest input found for it."""

    kind: str
    file: str
    data: bytes
    count: int = 1


@dataclass
class Outcome:
    """What came of a reader's inputs."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)


def damaged(data: bytes, other: bytes, random: Random) -> bytes:
    """Return the bytes of a file with one fault."""
    at = random.randrange(len(data) + 1)
    # Short ranges are likelier: they leave most of the file as it was.
    end = min(len(data), at + int(2 ** random.uniform(0, 12)))
    token = random.choice(TOKENS)
    fault = random.randrange(12)
    if fault == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
    if fault == 1:
        return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at + 1 :]
    if fault == 2:
        return data[:at]
    if fault == 3:
        return data[:at] + data[end:]
    if fault == 4:
        return data[:end] + data[at:]
    if fault == 5:
        start = random.randrange(len(other) + 1)
        return data[:at] + other[start : start + int(2 ** random.uniform(0, 12))] + data[end:]
    if fault == 6:
        return data[:at] + token + data[at:]
    if fault == 7:
        return data[:at] + token + data[end:]
    if fault == 8:  # in place of a word or a number, where readers convert
        words = [n for n in range(len(data)) if data[n : n + 1].isalnum() and not data[n - 1 : n].isalnum()] or [0]
        start = random.choice(words)
        stop = next((n for n in range(start, len(data)) if not data[n : n + 1].isalnum()), len(data))
        return data[:start] + token + data[stop:]
    if fault == 9:  # lines, or fields of one line, given twice
        separator = random.choice([b"\n", b","])
        parts = data.split(separator)
        chosen = random.randrange(len(parts))
        return separator.join([*parts[:chosen], parts[chosen], *parts[chosen:]])
    if fault == 10:
        text = data.decode("utf-8", "replace")
        encoded = [text.encode("utf-16"), text.encode("latin-1", "replace"), b"\xef\xbb\xbf" + data]
        return random.choice([*encoded, data.replace(b"\n", b"\r\n"), data.upper()])
    return random.choice([b"", b"\n", b" ", token, token * 2, b"null", b"[]", b"{}", b"0", b'"x"'])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of every part of a value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def altered(value: Any, random: Random) -> Any:
    """Return a value with one fault; the value itself is changed."""
    parts = list(places(value))
    if not parts or random.random() < 0.005:
        return copy.deepcopy(random.choice(LEAVES))
    container, key = random.choice(parts)
    leaf = copy.deepcopy(random.choice(LEAVES))
    fault = random.randrange(8)
    if fault < 4:
        container[key] = leaf
    elif fault == 4:
        del container[key]
    elif fault == 5:
        other, place = random.choice(parts)
        container[key] = copy.deepcopy(other[place])
    elif isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]) if fault == 6 else leaf)
    elif fault == 6:
        container[random.choice(["", "x", "\ud800", key + "s" if isinstance(key, str) else "x", "id", "messages"])] = (
            leaf
        )
    else:
        name = random.choice([leaf if isinstance(leaf, str | int | float | bool | None) else "x", "x" * 300])
        container[name] = container.pop(key)
    return value


def inputs_of(valid: Valid, others: list[Valid], random: Random) -> bytes:
    """Return the bytes of a valid file with some faults."""
    data = valid.data
    n_faults = random.randint(1, MAX_FAULTS)
    if valid.value is not None and random.random() < 0.6:
        value = copy.deepcopy(valid.value)
        for _ in range(n_faults):
            value = altered(value, random)
        with contextlib.suppress(Exception):  # not every value can be written in every format
            return valid.dump(value)
    for _ in range(n_faults):
        data = damaged(data, random.choice(others).data, random)
    return data


class Watch:
    """Notes what a reader does besides reading: files written, programs, connections. There is one per process."""

    def __init__(self) -> None:
        self.on, self.deeds = False, set[str]()
        self.free: tuple[str, ...] = ()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not self._is_free(path):
                self.deeds.add(f"writes {path}")
        elif event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            pass  # rmtree inside a folder that it has opened: a temporary one's end
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink") and not self._is_free(
            arguments[0]
        ):
            self.deeds.add(f"{event} {arguments[0]}")
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "os.fork"):
            self.deeds.add(event)

    def _is_free(self, path: object) -> bool:
        # A number is a descriptor, whose file was seen when it was opened, or a socket of another test's server. Python
        # keeps what it has compiled.
        return (
            isinstance(path, int)
            or "__pycache__" in str(path)
            or str(path).startswith(self.free)
            or str(path) == os.devnull
        )


_WATCH: list[Watch] = []


def tried(valid: Valid, data: bytes, path: Path) -> str:
    """Let a reader read an input; return "accepted", "refused", or what is wrong, with the place in our code."""
    watch = _WATCH[0] if _WATCH else None
    if watch is None:
        _WATCH.append(watch := Watch())
    path.write_bytes(data)
    before = sorted(os.listdir(path.parent))
    slow: list[str] = []

    def stop(*_: object) -> None:
        slow.append(_place(sys._getframe(1)))
        raise TooSlow

    watch.free, watch.deeds = (*valid.writes, tempfile.gettempdir() + "/isaerft-reading"), set()
    peak, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "accepted"
    for number, timer, seconds in TIMERS:
        signal.signal(number, stop)
        signal.setitimer(timer, seconds)
    watch.on = True
    try:
        valid.read(path)
    except valid.errors as error:
        said = "refused"
        text = str(error)
        if not text.isprintable() or len(text) > 20_000:
            said = f"an error that is not one short line {_of(error)}"
    except TooSlow:
        pass
    except BaseException as error:
        said = f"{type(error).__name__} {_of(error)}"
    finally:
        watch.on = False
        for number, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
            signal.signal(number, signal.SIG_DFL)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    if slow:
        return f"takes too long at {slow[0]}"
    if grown > 1 << 20:  # KiB
        return f"takes {grown >> 10} MiB"
    if watch.deeds:
        return min(watch.deeds)
    if not valid.writes and sorted(os.listdir(path.parent)) != before:
        return "changes the folder"
    return said


def _of(error: BaseException) -> str:
    return f"at {_place(error.__traceback__)}"


def _place(where: Any) -> str:
    """Return the last function of ours in a traceback, or that called a frame."""
    frames = traceback.extract_stack(where) if hasattr(where, "f_code") else traceback.extract_tb(where)
    ours = [frame for frame in frames if f"{os.sep}isaerft{os.sep}" in frame.filename]
    last = ours[-1] if ours else frames[-1]
    return f"{Path(last.filename).name}:{last.name}"


def reduced(data: bytes, is_same: Callable[[bytes], bool]) -> bytes:
    """Return a smaller input with the same outcome: pieces are left out, large ones first."""
    left, size = REDUCTIONS, max(1, len(data) // 2)
    while left and size:
        at = 0
        while at < len(data) and left:
            shorter = data[:at] + data[at + size :]
            left -= 1
            if is_same(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def fuzz(
    name: str, inputs: int, seed: int, folder: Path, *, limit: float = inf, tell: Callable[[], object] = lambda: None
) -> Outcome:
    """Run a reader on damaged inputs in this process; a valid file that it refuses is an error of the fuzzer."""
    # A config is checked against the registries, which look through all installed packages each time.
    with mock.patch("isaerft.registry.entry_points", cache(registry.entry_points)):
        return _fuzzed(name, inputs, seed, folder, limit, tell)


def _fuzzed(name: str, inputs: int, seed: int, folder: Path, limit: float, tell: Callable[[], object]) -> Outcome:
    random, outcome = Random(f"{name} {seed}"), Outcome()
    valid = list(READERS[name](folder))
    for one in valid:
        if (said := tried(one, one.data, folder / one.file)) != "accepted":
            raise SystemExit(f"{name}: {one.file} should be accepted, but: {said}")
    for _ in range(inputs):
        one = random.choice(valid)
        data, path = inputs_of(one, valid, random), folder / one.file
        began = time.process_time()
        said = tried(one, data, path)
        outcome.seconds += time.process_time() - began
        outcome.inputs += 1
        outcome.accepted += said == "accepted"
        if said in outcome.findings:
            outcome.findings[said].count += 1
        elif said not in ("accepted", "refused"):
            slow = said.startswith("takes")
            small = data if slow else reduced(data, lambda part: tried(one, part, path) == said)  # noqa: B023
            outcome.findings[said] = Finding(said, one.file, small)
        path.write_bytes(one.data)
        tell()
        if outcome.seconds > limit:
            break
    return outcome


def _child(name: str, options: argparse.Namespace, folder: Path, sender: Any) -> None:
    """Run one reader with bounded memory, and send what came of it."""
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    logging.disable()
    sys.dont_write_bytecode = True
    list(READERS[name](folder))  # imports what the reader needs, before memory is bounded
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shutil.rmtree(folder)
    folder.mkdir()
    with tqdm(total=options.inputs, desc=name, unit="input", disable=None, leave=False) as bar:
        sender.send(fuzz(name, options.inputs, options.seed, folder, limit=options.seconds, tell=bar.update))


def in_child(name: str, options: argparse.Namespace, base: Path) -> Outcome:
    """Run one reader in a process of its own; if that is killed, the input that it was reading is the finding."""
    folder = base / name
    folder.mkdir()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(name, options, folder, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == 1:  # an error of the fuzzer itself, which is told already
            raise SystemExit(1) from None
        last = max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_mtime)
        said = f"the process ended with {process.exitcode}"
        return Outcome(findings={said: Finding(said, last.name, last.read_bytes())})
    finally:
        process.join()


def main() -> None:
    """Run the readers and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs for each reader")
    parser.add_argument(
        "--seconds", type=float, default=inf, help="end each reader after so much of the processor's time"
    )
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=READERS, metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    parser.add_argument("--keep", type=Path, help="folder for the inputs behind the findings")
    parser.add_argument("--list", action="store_true", help="list the readers")
    options = parser.parse_args()
    if options.list:
        for name, make in READERS.items():
            print(f"{name:15} {(make.__doc__ or '').splitlines()[0]}")
        return
    memory = Path("/dev/shm")
    lines, found = [], 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as base:
        for name in options.readers:
            outcome = in_child(name, options, Path(base))
            total = Counter({said: one.count for said, one in outcome.findings.items()})
            for number, (said, count) in enumerate(total.most_common()):
                one = outcome.findings[said]
                print(
                    f"{name}: {said}, {count} inputs; {one.file}, {len(one.data)} bytes: {one.data[:SHOWN]!r}",
                    flush=True,
                )
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    kept = options.keep / f"{name}-{number}-{Path(one.file).name}"
                    kept.write_bytes(one.data)
                    kept.with_name(f"{kept.name}.txt").write_text(said + "\n", encoding="utf-8")
            found += len(total)
            rate = outcome.inputs / outcome.seconds if outcome.seconds else 0
            lines.append(
                f"{name:15} {outcome.inputs:7} inputs, {outcome.accepted:6} accepted, {total.total():6} misbehave in"
                f" {len(total)} ways; {rate:7.0f} a second of the processor"
            )
            print(lines[-1], flush=True)
    if len(lines) > 1:
        print("", *lines, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
