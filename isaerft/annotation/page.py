"""The page of an annotation sheet: one question at a time, answered by keyboard, kept in the browser, exported as CSV.

The page is one file and loads nothing. Text of the model or of other people is escaped, and a content security policy
lets the browser run the page's own script alone. Answers stay in the browser's local storage until they are exported.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from isaerft.annotation.sheet import EXPLAIN, Evidence, Sheet
from isaerft.report.template import page, render

CHOICES = (
    ("-1", "surely suppressed"),
    ("-0.5", "perhaps suppressed"),
    ("0", "unaffected"),
    ("0.5", "perhaps promoted"),
    ("1", "surely promoted"),
)

_STYLE = """
main { max-width: 66rem; margin: 0 auto; padding-bottom: 18rem; }
main.judge { padding-bottom: 0; }
main.judge article { position: sticky; top: 0; z-index: 1; background: var(--paper); padding-bottom: .3rem; }
main.judge thead th { position: static; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: 1rem 0; }
.bar .count { margin-left: auto; font-variant-numeric: tabular-nums; }
button.go { font: inherit; padding: .25rem .7rem; border: 1px solid var(--faint); border-radius: 4px;
  background: var(--head); color: inherit; cursor: pointer; }
button.go:focus-visible, textarea:focus-visible, tr:focus-within { outline: 2px solid var(--blue); }
kbd { border: 1px solid var(--edge); border-radius: 3px; padding: 0 .3em; font-size: .85em; background: var(--field); }
ol.contexts { list-style: none; margin: .5rem 0; padding: 0; }
ol.contexts li { display: flex; gap: .8rem; border-bottom: 1px solid var(--line); padding: .25rem 0; }
ol.contexts .strength { flex: none; width: 1.5rem; text-align: right; color: var(--soft); }
ol.contexts .text { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { background: var(--mark); color: inherit; padding: .05em .15em; border-radius: 2px; font-weight: 600; }
.token { display: inline-block; border: 1px solid var(--edge); border-radius: 3px; padding: 0 .35em; margin: .1em;
  white-space: pre-wrap; overflow-wrap: anywhere; }
blockquote { margin: .5rem 0; padding: .6rem 1rem; border-left: 4px solid var(--blue); background: var(--result);
  font-size: 1.1rem; overflow-wrap: anywhere; }
form.explain { position: fixed; left: 0; right: 0; bottom: 0; background: var(--paper);
  border-top: 2px solid var(--edge); padding: .8rem 2rem; } form.explain > div { max-width: 66rem; margin: 0 auto; }
textarea { width: 100%; font: inherit; padding: .4rem; }
td.choice, th.choice { text-align: center; width: 4.5rem; }
td.choice label { display: block; padding: .2rem; cursor: pointer; }
#trouble { color: var(--trouble); font-weight: 600; }
"""

_BODY = """
<style>{{ style }}</style>
<main class="{{ sheet.task }}" data-sheet="{{ sheet.id }}" data-task="{{ sheet.task }}">
<h1>{{ "Explain latents" if explains else "Judge explanations" }}</h1>
<p class="note">Study {{ sheet.study }}, subject {{ sheet.subject }}, sheet {{ sheet.id }}, protocol
{{ sheet.protocol }}. Answers stay in this browser until you export them.</p>
<p id="trouble" role="alert" hidden></p>
<details open><summary>What to do</summary>
{% if explains %}
<p>Each context shows, marked, a token on which one latent of a language model fires, with its strength from 1 to 10.
Below are the tokens that the latent promotes. Write one short sentence that says what is common to the contexts, as
specific as they allow; add what it makes the model say where the promoted tokens are clear. If nothing is common, leave
the field blank and mark it.</p>
<p><kbd>Ctrl</kbd>+<kbd>Enter</kbd> next open latent, <kbd>Page Down</kbd> next, <kbd>Page Up</kbd> previous.</p>
{% else %}
<p>The text explains one latent of a language model. Take it as true. Would training the model until it shows a behavior
promote the latent (make it more active, or more influential), suppress it, or leave it unaffected? Judge each behavior
by itself, by what the text says. Most are unaffected, and a text that would fit every behavior speaks for none.
Behaviors left blank count as 0 once the explanation is done.</p>
<p><kbd>1</kbd> to <kbd>5</kbd> choose -1 to 1, <kbd>Backspace</kbd> clears, arrows up and down change the behavior,
<kbd>Enter</kbd> marks the explanation as done and goes on, <kbd>Page Down</kbd> next, <kbd>Page Up</kbd> previous.</p>
{% endif %}
</details>
<div class="bar">
<button class="go" type="button" id="previous">Previous</button>
<button class="go" type="button" id="next">Next</button>
<button class="go" type="button" id="open">Next open</button>
<button class="go" type="button" id="export">Export CSV</button>
<span class="count" id="count" role="status"></span>
</div>
{% for key, one in items %}
<article data-key="{{ key }}" hidden>
{% if explains %}
<h2>Latent {{ key }}</h2>
<ol class="contexts">
{% for context in one.contexts %}<li><span class="strength">{{ context.strength }}</span>
<span class="text" dir="auto">{{ context.before }}<mark>{{ context.token }}</mark>{{ context.after }}</span></li>
{% else %}<li>no contexts</li>
{% endfor %}</ol>
{% for name, tokens in [("Promotes directly", one.promoted), ("Likelier when amplified", one.amplified)] if tokens %}
<p>{{ name }}: {% for token in tokens %}<span class="token" dir="auto">{{ token }}</span> {% endfor %}</p>
{% endfor %}
{% else %}
<h2>Explanation {{ key }}</h2>
<blockquote dir="auto">{{ one }}</blockquote>
{% endif %}
</article>
{% endfor %}
<form class="{{ sheet.task }}" autocomplete="off"><div>
{% if explains %}
<label for="text">Explanation</label>
<textarea id="text" rows="2" maxlength="2000" dir="auto"></textarea>
<label><input type="checkbox" id="done"> Nothing in common: leave this latent unexplained</label>
{% else %}
<table>
<thead><tr><th>Behavior</th>
{% for value, meaning in choices %}<th class="choice" title="{{ meaning }}">{{ value }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, description in sheet.behaviors.items() %}
<tr data-behavior="{{ name }}" tabindex="0"><td><b>{{ name }}</b><br><span dir="auto">{{ description }}</span></td>
{% for value, meaning in choices %}<td class="choice"><label title="{{ meaning }}">
<input type="radio" tabindex="-1" name="{{ name }}" value="{{ value }}"
aria-label="{{ name }}: {{ value }}, {{ meaning }}">
</label></td>
{% endfor %}</tr>
{% endfor %}</tbody></table>
<p><label><input type="checkbox" id="done"> Done: blank behaviors are 0</label></p>
{% endif %}
</div></form>
</main>
"""

_SCRIPT = """
(function () {
  "use strict";
  var main = document.querySelector("main"), sheet = main.dataset.sheet, explains = main.dataset.task === "explain";
  var items = Array.from(document.querySelectorAll("article")), form = document.querySelector("form");
  var rows = Array.from(form.querySelectorAll("tr[data-behavior]"));
  var text = document.getElementById("text"), done = document.getElementById("done");
  var store = "isaerft-sheet-" + sheet, state = { at: 0, answers: {} };
  function trouble(words) {
    var place = document.getElementById("trouble");
    place.textContent = words;
    place.hidden = false;
  }
  try {
    var kept = JSON.parse(localStorage.getItem(store) || "null");
    if (kept && kept.answers) { state = kept; }
  } catch (error) { trouble("This browser keeps no answers: export the CSV before you close the page."); }
  function key(at) { return items[at].dataset.key; }
  function answer(at) { return state.answers[key(at)] || { text: "", done: false, effects: {} }; }
  function finished(at) {
    var one = answer(at);
    return one.done || (explains ? one.text.trim() !== "" :
      rows.every(function (row) { return one.effects[row.dataset.behavior]; }));
  }
  function chosen(row) { return row.querySelector("input:checked"); }
  function keep() {
    try { localStorage.setItem(store, JSON.stringify(state)); }
    catch (error) { trouble("This browser keeps no answers: export the CSV before you close the page."); }
    var n = items.filter(function (_, at) { return finished(at); }).length;
    document.getElementById("count").textContent =
      (state.at + 1) + " of " + items.length + ", " + n + " finished";
  }
  function collect() {
    var effects = {};
    rows.forEach(function (row) {
      if (chosen(row)) { effects[row.dataset.behavior] = chosen(row).value; }
    });
    state.answers[key(state.at)] = { text: text ? text.value : "", done: done.checked, effects: effects };
    keep();
  }
  function show(at) {
    state.at = Math.max(0, Math.min(items.length - 1, at || 0));
    items.forEach(function (item, position) { item.hidden = position !== state.at; });
    var one = answer(state.at);
    done.checked = one.done;
    if (text) { text.value = one.text; text.focus({ preventScroll: true }); }
    rows.forEach(function (row) {
      row.querySelectorAll("input").forEach(function (input) {
        input.checked = input.value === one.effects[row.dataset.behavior];
      });
    });
    if (rows.length) { rows[0].focus({ preventScroll: true }); scrollTo(0, 0); }
    keep();
  }
  function open() {
    for (var step = 1; step <= items.length; step += 1) {
      var at = (state.at + step) % items.length;
      if (!finished(at)) { return show(at); }
    }
    show(state.at);
  }
  function quoted(value) {
    var harmless = /^[=+@\\-\\uff1d\\uff0b\\uff0d\\uff20]/.test(value) && isNaN(value) ? "'" + value : value;
    return '"' + harmless.replace(/"/g, '""') + '"';
  }
  function lines() {
    var found = [explains ? ["sheet", "latent_index", "explanation", "done"] :
      ["sheet", "item", "behavior", "expected", "done"]];
    items.forEach(function (_, at) {
      var one = answer(at), mark = one.done ? "x" : "";
      if (explains) { found.push([sheet, key(at), one.text.replace(/\\s+/g, " ").trim(), mark]); }
      rows.forEach(function (row) {
        var name = row.dataset.behavior;
        found.push([sheet, key(at), name, one.effects[name] || "", mark]);
      });
    });
    return found.map(function (line) { return line.map(quoted).join(","); }).join("\\n") + "\\n";
  }
  form.addEventListener("input", collect);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  document.getElementById("previous").addEventListener("click", function () { show(state.at - 1); });
  document.getElementById("next").addEventListener("click", function () { show(state.at + 1); });
  document.getElementById("open").addEventListener("click", open);
  document.getElementById("export").addEventListener("click", function () {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines()], { type: "text/csv" }));
    link.download = "answers_" + sheet + ".csv";
    link.click();
  });
  document.addEventListener("keydown", function (event) {
    var row = event.target.closest("tr[data-behavior]"), place = rows.indexOf(row);
    var number = "12345".indexOf(event.key), button = event.target.closest("button, summary");
    if (event.key === "PageDown") { show(state.at + 1); }
    else if (event.key === "PageUp") { show(state.at - 1); }
    else if (event.key === "Enter" && explains && (event.ctrlKey || event.metaKey)) { open(); }
    else if (event.key === "Enter" && !explains && !button) { done.checked = true; collect(); open(); }
    else if (row && event.key === "ArrowDown") { rows[Math.min(place + 1, rows.length - 1)].focus(); }
    else if (row && event.key === "ArrowUp") { rows[Math.max(place - 1, 0)].focus(); }
    else if (row && event.key.length === 1 && number >= 0) {
      row.querySelectorAll("input")[number].checked = true;
      collect();
    } else if (row && (event.key === "Backspace" || event.key === "Delete")) {
      if (chosen(row)) { chosen(row).checked = false; }
      collect();
    } else { return; }
    event.preventDefault();
  });
  document.querySelector("details").open = !Object.keys(state.answers).length;
  show(state.at);
}());
"""


def sheet_page(sheet: Sheet, evidence: Sequence[Evidence] = ()) -> str:
    """Return a sheet as a self-contained page, its questions in the sheet's order.

    Parameters
    ----------
    sheet : Sheet
    evidence : sequence of Evidence
        What is known of each of the sheet's latents; none for a sheet that asks for judgements.
    """
    explains = sheet.task == EXPLAIN
    items = list(zip(sheet.latents, evidence, strict=True)) if explains else list(enumerate(sheet.explanations, 1))
    body = render(_BODY, sheet=sheet, explains=explains, items=items, choices=CHOICES, style=Markup(_STYLE))
    return page("Explain latents" if explains else "Judge explanations", body, script=_SCRIPT)
