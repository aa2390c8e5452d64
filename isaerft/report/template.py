"""The frame of every page: its style, and templates that escape everything not marked safe."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from isaerft.table import CONTROL

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 2rem 4rem; max-width: 110rem; background: #fff; color: #222;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { max-width: 48rem; margin: .4rem 0; } .note { color: #5f5f5f; font-size: .9rem; }
a { color: #005a8f; }
.scroll { overflow-x: auto; border: 1px solid #ddd; }
.tall { max-height: 75vh; overflow: auto; }
.page { max-width: 78rem; margin: 0 auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e8e8e8; }
thead th { position: sticky; top: 0; background: #f2f4f6; white-space: nowrap; border-bottom: 2px solid #c9ced3; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.long { min-width: 18rem; max-width: 34rem; overflow-wrap: anywhere; }
tbody tr:hover td { background: #f7fafc; }
tr.result td { font-weight: 600; background: #eef5fb; } tr.primary td { background: #fff9e3; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid #0072b2; }
th button::after { content: " \\2195"; color: #9aa2a9; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: #222; }
th[aria-sort=descending] button::after { content: " \\2193"; color: #222; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; }
dt { font-weight: 600; } dd { margin: 0; }
details > summary { cursor: pointer; margin: .6rem 0; }
.big { font-size: 1.25rem; line-height: 1.4; max-width: 60rem; margin: .8rem 0; }
ul.cautions { border-left: 4px solid #d55e00; background: #fff6f0; margin: .5rem 0; padding: .6rem 1rem .6rem 2rem; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; display: block; }
ul.next { margin: .4rem 0; padding-left: 1.2rem; }
figcaption { max-width: 52rem; font-size: .9rem; color: #444; margin-top: .3rem; }
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


def page(title: str, body: Markup, *, script: str = "") -> str:
    """Return a whole self-contained page.

    Its content security policy loads nothing from outside and runs no script but `script`, which it names by hash:
    should markup from an explanation ever get through the escaping, the browser still refuses to run it.
    """
    scripts = f"; script-src {policy_hash(script)}" if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'{scripts}"
    )
    safe = {"style": Markup(STYLE), "script": Markup(script)}
    return render(_FRAME, title=title, body=body, policy=policy, **safe) + "\n"
