"""A SLURM of one node in a folder, for tests: its own munge, controller and node daemon, ports, logs and commands.

    python tests/cluster/slurm.py start /tmp/slurm --cpus 4 --memory 16000
    PATH=/tmp/slurm/bin:$PATH snakemake --workflow-profile profiles/slurm ...
    python tests/cluster/slurm.py stop /tmp/slurm

It needs Debian's packages slurm-wlm and munge, and neither systemd nor cgroups. Nothing outside the folder is written.
"""

import argparse
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sacct", "sacctmgr", "scontrol", "sinfo")
NODE = "node1"
SECONDS = 30
CONFIG = """\
ClusterName=isaerft
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished.txt
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
KillWait=5
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs of SLURM and munge that are not installed."""
    return [name for name in (*DAEMONS, *COMMANDS) if _found(name) is None]


def start(folder: Path, cpus: int, memory: int) -> None:
    """Write the configuration into a new folder, start the daemons, and wait until the node takes jobs."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    _write_config(folder, cpus, memory)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
    files["seed-file"] = "munge.seed"
    # Its folder may lie below /tmp, which others can write: --force makes that a warning.
    _run(folder, "munged", "--force", *(f"--{option}={folder / name}" for option, name in files.items()))
    _run(folder, "slurmctld", "-f", str(folder / "slurm.conf"))
    _run(folder, "slurmd", "-f", str(folder / "slurm.conf"), "-N", NODE)
    end = time.monotonic() + SECONDS
    while _states(folder) != {"idle"}:
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
            stop(folder)
            raise RuntimeError(f"the node takes no jobs after {SECONDS} s\n{logs}")
        time.sleep(0.2)


def stop(folder: Path) -> None:
    """Cancel what runs and end the daemons by the process numbers that they wrote; do nothing where none are."""
    if _states(folder):
        subprocess.run([folder / "bin/scancel", "--user", _user(), "--state", "PENDING"], check=False)
        subprocess.run([folder / "bin/scancel", "--user", _user()], check=False)
        end = time.monotonic() + SECONDS
        while _states(folder) - {"idle"} and time.monotonic() < end:
            time.sleep(0.2)
    for name in reversed(DAEMONS):
        path = folder / f"{name}.pid"
        if not path.is_file():
            continue
        number = int(path.read_text())
        if Path(f"/proc/{number}/comm").is_file() and Path(f"/proc/{number}/comm").read_text().startswith(name):
            os.kill(number, signal.SIGTERM)
            while Path(f"/proc/{number}").exists():
                time.sleep(0.1)
        path.unlink(missing_ok=True)


def _write_config(folder: Path, cpus: int, memory: int) -> None:
    ports = []
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    text = CONFIG.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        user=_user(),
        controller_port=ports[0],
        node_port=ports[1],
        node=NODE,
        cpus=cpus,
        memory=memory,
    )
    (folder / "slurm.conf").write_text(text)
    # A device that is always there: what asks for a GPU is scheduled, and finds none.
    (folder / "gres.conf").write_text(f"NodeName={NODE} Name=gpu Count=1 File=/dev/null\n")
    for name in COMMANDS:
        # A variable would do, but the executor of job steps takes all of SLURM's out of the environment.
        wrapper = folder / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec "{_found(name)}" "$@"\n')
        wrapper.chmod(0o755)


def _states(folder: Path) -> set[str]:
    command = [folder / "bin/sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def _run(folder: Path, name: str, *options: str) -> None:
    # Daemons that outlive this process must not hold its output open.
    with open(folder / f"{name}.out", "wb") as stream:
        done = subprocess.run([str(_found(name)), *options], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    if done.returncode:
        raise RuntimeError(f"{name} does not start: {(folder / f'{name}.out').read_text()[-2000:]}")


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def main() -> int:
    """Start or stop, from the command line."""
    parser = argparse.ArgumentParser(description="A SLURM of one node, for tests.")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=lambda text: Path(text).absolute())
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="CPUs that it lends (default: those here)")
    parser.add_argument("--memory", type=int, default=16_000, help="MB that it lends (default: %(default)s)")
    given = parser.parse_args()
    if missing():
        print(f"not installed: {', '.join(missing())}; install slurm-wlm and munge", file=sys.stderr)
        return 1
    if given.action == "stop":
        stop(given.folder)
    else:
        start(given.folder, given.cpus, given.memory)
        print(f"PATH={given.folder}/bin:$PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
