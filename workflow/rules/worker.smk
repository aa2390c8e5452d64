# A process that imports everything once and is forked for each job on this machine (isaerft/cli/worker.py says how).
# ISAERFT_WORKER=off runs every job as a process of its own.
import secrets
import subprocess

SOCKET = "ISAERFT_WORKER"
# Importing takes as long as two or three jobs.
WORTH_A_WORKER = 8
# Variables that libraries read when they are imported; Snakemake sets them to the threads of a job.
LIBRARIES = "OMP_NUM GOTO_NUM OPENBLAS_NUM MKL_NUM VECLIB_MAXIMUM NUMEXPR_NUM"
LIMITS = {f"{name}_THREADS": str(study.threads) for name in LIBRARIES.split()}
# Before a verb that sets more threads by itself: the worker serves those with its own variables.
AS_THE_WORKER = " ".join(f"{name}={value}" for name, value in LIMITS.items())


def start_worker():
    """Start the worker if there is enough to do here; jobs that begin before it is ready run without it."""
    few = sum(1 for _ in workflow.dag.needrun_jobs()) < WORTH_A_WORKER
    if few or workflow.non_local_exec or not hasattr(os, "pidfd_open"):
        return
    if SOCKET in os.environ:
        return
    os.environ[SOCKET] = f"isaerft-{secrets.token_hex(16)}"
    log = at.log("worker")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "isaerft.cli.worker"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ | LIMITS,
        )


onstart:
    start_worker()
