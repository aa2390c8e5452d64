"""The ledger of finished files: whatever changes behind its back is found, and nothing else."""

import errno
import fcntl
import json
import resource
import signal
import threading

import pytest

from isaerft import ledger
from isaerft.errors import InputError
from isaerft.io import replacing, write_json, write_text


@pytest.fixture
def root(tmp_path):
    """A results folder whose files are noted: a table, and a folder with two files."""
    ledger.keep(tmp_path / "results/small")
    write_text(tmp_path / "results/small/tables/a.csv", "x\n1\n2\n")
    with replacing(tmp_path / "results/small/adapters/bias") as folder:
        (folder / "seed_0").mkdir(parents=True)
        write_text(folder / "seed_0/weights", "0123456789")
        write_json(folder / "training.json", {"steps": 3})
    yield tmp_path / "results/small"
    ledger.keep(None)


def found(root, **options):
    return {path.relative_to(root).as_posix(): why for path, why in ledger.damaged(root, **options)}


def test_what_nobody_touched_is_whole(root):
    assert ledger.n_noted(root) == 3
    assert found(root) == {}


def test_a_cut_file_is_found_by_its_size_and_the_folder_that_was_written_as_a_whole_is_named(root):
    (root / "tables/a.csv").write_text("x\n1\n")
    (root / "adapters/bias/seed_0/weights").write_text("")
    assert found(root, contents=False) == {
        "tables/a.csv": f"{root}/tables/a.csv has 4 bytes; 6 were written",
        "adapters/bias": f"{root}/adapters/bias/seed_0/weights has 0 bytes; 10 were written",
    }


def test_other_contents_of_the_same_size_are_found_by_the_checksum_alone(root):
    (root / "tables/a.csv").write_bytes(b"\0" * 6)
    assert found(root, contents=False) == {}
    assert found(root) == {"tables/a.csv": f"{root}/tables/a.csv has other contents than were written"}


def test_a_missing_part_of_a_folder_is_found_and_a_missing_output_is_snakemakes_affair(root):
    (root / "tables/a.csv").unlink()
    (root / "adapters/bias/training.json").unlink()
    assert found(root) == {"adapters/bias": f"{root}/adapters/bias/training.json is missing"}


def test_what_is_written_anew_counts_as_a_whole_or_inside_a_folder(root):
    write_text(root / "tables/a.csv", "x\n")
    write_text(root / "adapters/bias/seed_0/weights", "new")
    assert found(root) == {}
    (root / "adapters/bias/seed_0/weights").write_text("cut")
    assert set(found(root)) == {"adapters/bias", "adapters/bias/seed_0/weights"}
    with replacing(root / "adapters/bias") as folder:
        folder.mkdir()
        write_text(folder / "other", "")
    assert found(root) == {}


def test_files_elsewhere_and_without_a_study_are_not_noted(root, tmp_path):
    write_text(tmp_path / "sheet.html", "")
    ledger.keep(None)
    write_text(root / "tables/b.csv", "")
    assert ledger.n_noted(root) == 3
    assert not (tmp_path / ledger.NAME).exists()


def test_a_file_is_noted_before_it_gets_its_name_so_that_a_kill_leaves_none_that_differs(root, monkeypatch):
    (root / "tables/a.csv").unlink()  # as Snakemake does before the job that makes it anew

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(root / "tables/a.csv", "x\n")
    monkeypatch.undo()
    (root / "tables/a.csv").write_text("x\n")  # what the name would have been given
    assert found(root) == {}


@pytest.mark.parametrize("name", ["../outside", "", "/etc", "tables/../../outside"])
def test_a_strangers_ledger_names_no_file_outside_the_results(root, name):
    (root.parent / "outside").write_text("mine")
    with (root / ledger.NAME).open("a") as stream:
        stream.write(json.dumps({"path": name, "files": {"": [1, "x"], "hosts": [1, "x"]}}) + "\n")
    assert found(root) == {}


def test_a_ledger_that_was_cut_or_holds_other_things_says_nothing_of_what_it_lost(root):
    with (root / ledger.NAME).open("ab") as stream:
        stream.write(b'{"path": "tables/a.csv", "files": {"": [1, "a')
    (root / ledger.NAME).open("ab").write(b'\n[1]\n{"path": "x"}\n\xff\n')
    assert found(root) == {}
    assert ledger.n_noted(root) == 3


def test_an_entry_behind_one_that_was_cut_is_read(root):
    with (root / ledger.NAME).open("ab") as stream:
        stream.write(b'{"path": "tables/b.csv", "fi')
    write_text(root / "tables/c.csv", "x")
    (root / "tables/c.csv").write_text("xy")
    assert [*found(root)] == ["tables/c.csv"]


def test_a_disk_that_takes_half_an_entry_is_full(root):
    size = (root / ledger.NAME).stat().st_size
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    try:
        with pytest.raises(InputError, match=r"b\.csv cannot be written \(No space left on device\)"):
            write_text(root / "tables/b.csv", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (root / "tables/b.csv").exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert ledger.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "big").write_bytes(bytes(3 << 20) + b"x")
    before = ledger.sha256(tmp_path / "big")
    (tmp_path / "big").write_bytes(bytes(3 << 20) + b"y")
    assert ledger.sha256(tmp_path / "big") != before


def test_jobs_of_several_nodes_take_turns_to_note_what_they_wrote(root):
    with open(root / ledger.NAME, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        job = threading.Thread(target=write_text, args=(root / "tables/b.csv", "y\n"))
        job.start()
        job.join(0.3)
        assert job.is_alive()
        assert ledger.n_noted(root) == 3
    job.join(30)
    assert ledger.n_noted(root) == 4


def test_a_file_system_without_locks_keeps_a_ledger_all_the_same(root, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_text(root / "tables/b.csv", "y\n")
    assert ledger.n_noted(root) == 4
    assert found(root) == {}
