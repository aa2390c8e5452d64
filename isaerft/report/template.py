"""The frame of every page: its style, and templates that escape everything not marked safe."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from isaerft.table import CONTROL

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --soft: #5f5f5f; --link: #005a8f; --line: #ddd;
  --head: #f2f4f6; --edge: #c9ced3; --faint: #9aa2a9; --hover: #f7fafc; --result: #eef5fb; --primary: #fff9e3;
  --blue: #0072b2; --warn: #d55e00; --warned: #fff6f0; --good: #00856a; --field: #f7f8f9; --trouble: #a33;
  --mark: #ffd75e; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #16191d; --ink: #e3e5e8; --soft: #a3abb3;
  --link: #7cc0ee; --line: #343a41; --head: #23282e; --edge: #4a525a; --faint: #7d868f; --hover: #1e2328;
  --result: #182b3a; --primary: #2d2914; --blue: #58b0e6; --warn: #f08a3c; --warned: #2b1f16; --good: #3fbf9b;
  --field: #1c2025; --trouble: #ff8f8f; --mark: #7a5c00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 2rem 4rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { max-width: 48rem; margin: .4rem 0; } .note { color: var(--soft); font-size: .9rem; }
a { color: var(--link); }
.scroll { overflow-x: auto; border: 1px solid var(--line); }
.tall { max-height: 75vh; overflow: auto; }
.page { max-width: 78rem; margin: 0 auto; } .summary { max-width: 62rem; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { position: sticky; top: 0; background: var(--head); white-space: nowrap;
  border-bottom: 2px solid var(--edge); }
td.n, th.n { text-align: right; white-space: nowrap; }
td.long { min-width: 18rem; max-width: 34rem; overflow-wrap: anywhere; }
tbody tr:hover td { background: var(--hover); }
tr.result td, tr.result th { font-weight: 600; background: var(--result); }
tr.primary td { background: var(--primary); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--blue); }
th button::after { content: " \\2195"; color: var(--faint); }
th[aria-sort=ascending] button::after { content: " \\2191"; color: var(--ink); }
th[aria-sort=descending] button::after { content: " \\2193"; color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; }
dt { font-weight: 600; } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
details > summary { cursor: pointer; margin: .6rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .9rem; margin: .3rem 0 .8rem; }
.verdict { border-left: 5px solid var(--faint); background: var(--field); padding: .5rem 1.1rem .7rem;
  margin: .5rem 0 1rem; break-inside: avoid; }
.verdict.met { border-color: var(--good); } .verdict.unmet { border-color: var(--warn); }
.verdict h3 { margin: .2rem 0; } .verdict p { max-width: none; }
.big { font-size: 1.15rem; line-height: 1.45; margin: .3rem 0 .5rem; }
table.strip th[scope=row] { font-weight: 600; width: 17rem; } table.strip td, table.strip th { vertical-align: middle; }
table.strip small { display: block; font-weight: 400; color: var(--soft); line-height: 1.3; }
table.strip td.picture { padding: 0; width: 45%; } table.strip svg { display: block; overflow: visible; }
table.strip thead th { position: static; white-space: normal; } table.strip tfoot td { border: 0; padding-top: 0; }
.strip circle { fill: var(--faint); fill-opacity: .65; } .strip .result circle { fill: var(--blue); }
.strip .median { stroke: var(--ink); stroke-width: 3; } .strip .tick { stroke: var(--line); }
table.strip + .note { margin: .2rem 0 1.2rem; max-width: none; }
.strip .chance { stroke: var(--soft); stroke-dasharray: 3 3; } .strip text { font-size: .75rem; fill: var(--soft); }
ul.cautions { border-left: 5px solid var(--warn); background: var(--warned); margin: .5rem 0;
  padding: .6rem 1rem .6rem 2rem; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; display: block; }
.paper { background: #fff; padding: .3rem; overflow-x: auto; border-radius: 3px; }
ul.next { margin: .4rem 0; padding-left: 1.2rem; }
figcaption { max-width: 52rem; font-size: .9rem; color: var(--soft); margin-top: .3rem; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; } .wide, table.strip small { display: none; } table.strip th[scope=row] { width: 8.5rem; }
  table.strip td, table.strip th { padding: .3rem .35rem; } table.strip td.picture { width: auto; }
  figure img { max-width: none; width: 44rem; } td.long { min-width: 12rem; } }
@media print { :root { color-scheme: light; } body { padding: 0; max-width: none; font-size: 10pt; }
  nav { display: none; }
  .scroll, .tall, .paper { overflow: visible; max-height: none; } thead th { position: static; }
  figure, tr, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .verdict, ul.cautions { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

# Sorts by each cell's data-v, as numbers or text; undefined cells stay at the end either way.
SORT_SCRIPT = """
document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var th = button.closest("th"), column = th.cellIndex, body = th.closest("table").tBodies[0];
    var sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1, numeric = th.classList.contains("n");
    var key = function (row) { return row.cells[column].dataset.v; };
    var order = function (a, b) { return numeric ? a - b : a.localeCompare(b); };
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b);
      if (x === "" || y === "") { return (x === "") - (y === ""); }
      return sign * order(x, y);
    }).forEach(function (row) { body.appendChild(row); });
    th.closest("tr").querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    th.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  });
});
"""

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{{ body }}
{% if script %}<script>{{ script }}</script>
{% endif %}</body>
</html>
"""


def _printed(value: object) -> object:
    """Return a value of a template; text that is not ours has no control, direction or terminal codes in a page."""
    return CONTROL.sub(" ", value) if isinstance(value, str) and not isinstance(value, Markup) else value


ENVIRONMENT = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printed
)


_TABLE = """
<div class="scroll{{ " tall" if tall }}"><table>
<thead><tr>
{%- for name in head %}<th{% if name in numeric %} class="n"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr{% if loop.index0 in marked %} class="result"{% endif %}>
{%- for cell in row %}
{%- set name = head[loop.index0] %}
<td{% if name in numeric %} class="n"{% elif name in long %} class="long" dir="auto"{% endif %}>
{%- if cell is string %}{{ cell }}{% else %}{{ cell | join(br) }}{% endif %}</td>
{%- endfor %}</tr>
{% endfor %}</tbody></table></div>
"""


def render(template: str, **values: object) -> Markup:
    """Render a template with every value escaped; the result is marked safe."""
    return Markup(ENVIRONMENT.from_string(template).render(**values))


def grid(
    head: Sequence[str],
    rows: Iterable[Sequence[str | Sequence[str]]],
    *,
    numeric: Sequence[str] = (),
    long: Sequence[str] = (),
    marked: Iterable[int] = (),
    tall: bool = False,
) -> Markup:
    """Return a small table of ready text.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Cells; a sequence of strings becomes one line each.
    numeric, long : sequence of str
        Columns of numbers, and of long outside text.
    marked : iterable of int
        Rows that stand out.
    tall : bool
        Whether the table scrolls within the page.
    """
    marks = set(marked)
    return render(_TABLE, head=head, rows=rows, numeric=numeric, long=long, marked=marks, tall=tall, br=Markup("<br>"))


def policy_hash(text: str) -> str:
    """Return how a content security policy names a style or script that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page(title: str, body: Markup, *, script: str = "", style: str = STYLE, policy: str | None = None) -> str:
    """Return a whole self-contained page.

    Its content security policy loads nothing from outside and runs no script but `script`, which it names by hash:
    should markup from an explanation ever get through the escaping, the browser still refuses to run it. A page that
    loads files of its own brings another policy.
    """
    if policy is None:
        scripts = f"; script-src {policy_hash(script)}" if script else ""
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
            f"{scripts}"
        )
    safe = {"style": Markup(style), "script": Markup(script)}
    return str(render(_FRAME, title=title, body=body, policy=policy, **safe)) + "\n"
