# A process that imports everything once and runs the jobs of this machine (isaerft/cli/worker.py says how).
# ISAERFT_WORKER=off runs every job as a process of its own.
import secrets
import subprocess
from contextlib import nullcontext
from itertools import takewhile

SOCKET = "ISAERFT_WORKER"
# Importing takes as long as two or three jobs.
WORTH_A_WORKER = 8
# Jobs, and in how many seconds.
SNAKEMAKES_LIMIT = (100, 1)
# Variables that libraries read when they are imported; Snakemake sets them to the threads of a job.
LIBRARIES = "OMP_NUM GOTO_NUM OPENBLAS_NUM MKL_NUM VECLIB_MAXIMUM NUMEXPR_NUM"
LIMITS = {f"{name}_THREADS": str(study.threads) for name in LIBRARIES.split()}


def lift_job_limit():
    """Start jobs of this machine without Snakemake's own limit per second; one from command line or profile stays.

    To keep its own, Snakemake looks at the jobs that could start once more a second after every look, and each job that
    ends begins a series of such looks. In a long study that takes a fifth of a core.
    """
    scheduler = getattr(workflow, "scheduler", None)
    limit = getattr(scheduler, "job_rate_limiter", None)
    if (
        limit
        and not workflow.non_local_exec
        and (limit.max_jobs, limit.timespan) == SNAKEMAKES_LIMIT
    ):
        scheduler.job_rate_limiter = None


def start_worker():
    """Start the worker; jobs that begin before it is ready run without it."""
    if workflow.non_local_exec or SOCKET in os.environ or not hasattr(os, "pidfd_open"):
        return
    os.environ[SOCKET] = f"isaerft-{secrets.token_hex(16)}"
    log = at.log("worker")
    log.parent.mkdir(parents=True, exist_ok=True)
    # Nodes of a cluster share the folder of logs: what workers there say goes into the log of the job.
    with open(log, "wb") if workflow.is_main_process else nullcontext() as stream:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "isaerft.cli.worker"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ | LIMITS,
        )


def n_sent():
    """Return how many jobs were sent to this node of a cluster together, to be run here."""
    # A process that names an executor passes them on, as that of SLURM does to another in a step of the job.
    if "--target-jobs" not in sys.argv or "--executor" in sys.argv:
        return 0
    rest = sys.argv[sys.argv.index("--target-jobs") + 1 :]
    return len(list(takewhile(lambda text: not text.startswith("--"), rest)))


if n_sent() >= WORTH_A_WORKER:
    # Snakemake runs no `onstart` here.
    start_worker()


onstart:
    lift_job_limit()
    if sum(1 for _ in workflow.dag.needrun_jobs()) >= WORTH_A_WORKER:
        start_worker()
