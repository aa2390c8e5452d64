# What language models will cost, told before anything runs, in a dry run, too.
import subprocess

if study.llms and workflow.is_main_process:
    done = subprocess.run(
        ["isaerft", "cost", "--study", STUDY],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout or done.stderr, end="", file=sys.stderr)
