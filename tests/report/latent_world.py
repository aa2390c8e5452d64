"""A random study with its page of single latents, made by the benchmark of that page."""

import re
import runpy
import sys
from pathlib import Path

from isaerft.report.latents import write_latent_pages
from tests.faults.hostile_texts import texts

ROOT = Path(__file__).parents[2]
SUBJECT = "block_12"
sys.path.insert(0, str(ROOT / "benchmarks"))
World = runpy.run_path(str(ROOT / "benchmarks/latent_pages.py"))["World"]
sys.path.remove(str(ROOT / "benchmarks"))


def page_of(folder, n_latents, **options):
    """Write a random study and its page; return the study."""
    world = World(folder, n_latents, **options)
    world.write()
    write_latent_pages(world.plan, world.results)
    return world


def hostile_texts(away="/away"):
    """Return the hostile texts that a file of tokens can hold, and two that would end a script or a line of it."""
    given = [one.text for one in texts(away, 0) if not re.search("[\ud800-\udfff]", one.text) and len(one.text) < 5000]
    return (*given, "</script><script>document.documentElement.dataset.ran=1</script>", "a\u2028b\u2029c")
