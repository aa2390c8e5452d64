# A process that imports everything once and is forked for each job on this machine (isaerft/cli/worker.py says how).
# ISAERFT_WORKER=off runs every job as a process of its own.
import secrets
import subprocess

SOCKET = "ISAERFT_WORKER"
# Importing takes as long as two or three jobs.
WORTH_A_WORKER = 8


def start_worker():
    """Start the worker; jobs that begin before it is ready run without it."""
    if workflow.non_local_exec or SOCKET in os.environ or not hasattr(os, "pidfd_open"):
        return
    os.environ[SOCKET] = f"isaerft-{secrets.token_hex(16)}"
    log = at.log("worker")
    log.parent.mkdir(parents=True, exist_ok=True)
    # Jobs' variables that libraries read when they are imported; Snakemake sets the same.
    limits = "OMP_NUM GOTO_NUM OPENBLAS_NUM MKL_NUM VECLIB_MAXIMUM NUMEXPR_NUM"
    with open(log, "wb") as stream:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "isaerft.cli.worker"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ
            | {f"{name}_THREADS": str(study.threads) for name in limits.split()},
        )


if SMALL and workflow.remote_exec:
    # Jobs that were sent to this node of a cluster together. Snakemake runs no `onstart` for them.
    start_worker()


onstart:
    if sum(1 for _ in workflow.dag.needrun_jobs()) >= WORTH_A_WORKER:
        start_worker()
