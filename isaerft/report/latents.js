(function () {
  "use strict";
  const PAGE = 200;
  const DASH = "\u2014";
  const MEANINGS = {
    supported: "its latent changed as it predicts",
    contradicted: "its latent did not change as it predicts",
    absorbed: "another latent changed in its place",
    inconclusive: "neither clearly right nor clearly wrong",
    untestable: "it predicts nothing that this study can test",
    none: "no verdict",
  };
  const FACTS = [
    ["fires on", "share of the reference corpus's tokens"],
    ["largest activation", "on the reference corpus"],
    ["mean activation", "where it fires"],
    ["decoder norm", "length of what it writes"],
    ["encoder and decoder", "cosine of what it reads with what it writes"],
  ];
  const main = document.getElementById("main");
  const waiting = new Map();
  const loaded = new Map();
  let study = null;
  const state = {
    subject: 0, reading: 0, query: "", verdicts: new Set(), behavior: -1, sort: "score", sign: -1, shown: PAGE,
    scale: "rank",
  };

  // Data files call this; nothing else does.
  window.latents = function (name, value) {
    loaded.set(name, value);
  };

  function load(name) {
    if (loaded.has(name)) { return Promise.resolve(loaded.get(name)); }
    if (!waiting.has(name)) {
      waiting.set(name, new Promise(function (resolve, reject) {
        const script = document.createElement("script");
        const end = function () {
          script.remove();
          waiting.delete(name);
          if (loaded.has(name)) { resolve(loaded.get(name)); } else { reject(new Error(name)); }
        };
        script.onload = end;
        script.onerror = end;
        script.src = name + ".js";
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  // Elements. Text reaches the page as text alone.
  function make(tag, options, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "on") {
        for (const [event, listener] of Object.entries(value)) { element.addEventListener(event, listener); }
      } else if (value !== null && value !== undefined && value !== false) {
        element.setAttribute(name, value === true ? "" : value);
      }
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  function outside(address, text) {
    if (!/^https?:\/\//.test(address)) { return null; }
    return make("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, text);
  }

  function place(element, start, end) {
    element.style.left = 100 * start + "%";
    if (end !== undefined) { element.style.width = 100 * (end - start) + "%"; }
    return element;
  }

  function signed(text) { return text.replace("-", "\u2212"); }

  function number(value, digits) {
    if (value === null || value === undefined) { return DASH; }
    const short = Number(value.toPrecision(digits || 3));
    const small = short !== 0 && Math.abs(short) < 1e-4;
    return signed(small ? short.toExponential() : String(short));
  }

  function fixed(value, places) {
    return value === null || value === undefined ? DASH : signed(value.toFixed(places));
  }

  function whole(value) { return value.toLocaleString("en-US"); }

  function words(name) { return name.replaceAll("_", " "); }

  function shortly(text, width) {
    const letters = Array.from(text);
    return letters.length > width ? letters.slice(0, width - 1).join("") + "\u2026" : text;
  }

  // What is asked for: #subject/latent, or #subject, or nothing.
  function asked() {
    const parts = location.hash.slice(1).split("/").map(function (part) {
      try { return decodeURIComponent(part); } catch (error) { return part; }
    });
    const subject = study.subjects.findIndex((one) => one.subject === parts[0]);
    const latent = /^\d{1,15}$/.test(parts[1] || "") ? Number(parts[1]) : null;
    return { subject: Math.max(0, subject), latent: latent };
  }

  function address(latent) {
    return "#" + encodeURIComponent(about().subject) + (latent === undefined ? "" : "/" + latent);
  }

  function about() { return study.subjects[state.subject]; }

  function list() { return loaded.get(String(state.subject)); }

  function sourceOf(reading) { return about().readings[reading][0]; }

  function named(reading) {
    const [source, judge] = about().readings[reading];
    return words(about().sources[source].name) + ", read by " + words(judge);
  }

  function verdictAt(reading, position) {
    const found = list().readings[reading];
    return (found && study.verdicts[found.verdicts[position]]) || "none";
  }

  function textAt(source, position) { return list().texts[source][position]; }

  function badge(verdict) {
    const text = verdict === "none" ? "no verdict" : verdict;
    return make("span", { class: "badge " + verdict, title: MEANINGS[verdict] }, text);
  }

  // The list: which latents, in which order.
  const KEYS = {
    latent: (n) => list().latents[n],
    verdict: (n) => verdictAt(state.reading, n),
    explanation: (n) => textAt(sourceOf(state.reading), n) || null,
    score: (n) => value("score", n),
    q: (n) => value("q", n),
    rank: (n) => list().rank[n],
    rate: (n) => list().rate[n],
  };

  function value(name, position) {
    const found = list().readings[state.reading];
    return found ? found[name][position] : null;
  }

  const searched = new Map();

  // What the list shows of each latent: its index, the explanation and the tokens.
  function searchable() {
    const source = sourceOf(state.reading), key = state.subject + "-" + source, own = list();
    if (!searched.has(key)) {
      searched.set(key, own.latents.map((latent, n) =>
        [latent, textAt(source, n), own.fires[n], own.promotes[n]].join("\n").toLowerCase()));
    }
    return searched.get(key);
  }

  function matching(ignoreVerdicts) {
    const wanted = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = searchable();
    const found = [];
    for (let n = 0; n < texts.length; n += 1) {
      if (!wanted.every((word) => texts[n].includes(word))) { continue; }
      if (state.behavior >= 0 && list().behavior[n] !== state.behavior) { continue; }
      if (!ignoreVerdicts && state.verdicts.size && !state.verdicts.has(verdictAt(state.reading, n))) { continue; }
      found.push(n);
    }
    return found;
  }

  function ordered() {
    const key = KEYS[state.sort];
    const keyed = matching(false).map((n) => [key(n), n]);
    keyed.sort(function ([a, i], [b, j]) {
      // What is undefined comes last, whichever way.
      if (a === null || b === null) { return (a === null) - (b === null) || i - j; }
      const order = typeof a === "string" ? (a < b ? -1 : a > b ? 1 : 0) : a - b;
      return state.sign * order || i - j;
    });
    return keyed.map((pair) => pair[1]);
  }

  function counts() {
    const found = {};
    for (const n of matching(true)) {
      const verdict = verdictAt(state.reading, n);
      found[verdict] = (found[verdict] || 0) + 1;
    }
    return found;
  }

  // Parts of both views.
  function choice(id, label, options, chosen, change) {
    const select = make("select", { id: id, on: { change: (event) => change(Number(event.target.value)) } },
      options.map(([at, text]) => make("option", { value: at, selected: at === chosen }, text)));
    return make("label", { class: "field", for: id }, make("span", {}, label), select);
  }

  function readingChoice(redraw) {
    const options = about().readings.map((_, n) => [n, named(n)]);
    return choice("reading", "Explanations of", options, state.reading, function (n) {
      state.reading = n;
      redraw();
    });
  }

  function chips(texts, kind) {
    return make("span", { class: "tokens " + kind }, texts.map((text) => make("bdi", { class: "token" }, text)));
  }

  function split(text) { return text === "" ? [] : text.split("\n"); }

  function showList() {
    document.title = study.study + ": latents";
    const results = make("div", { id: "results" });
    const subjects = study.subjects.map((one, n) => [n, one.subject]);
    const behaviors = [[-1, "any behavior"], ...study.behaviors.map(([name], n) => [n, words(name)])];
    const search = make("input", {
      id: "search", type: "search", value: state.query, placeholder: "words, tokens or an index", autocomplete: "off",
      on: { input: function (event) { state.query = event.target.value; again(); } },
    });
    const again = function () {
      state.shown = PAGE;
      results.replaceChildren(...resultParts(again));
    };
    const form = make("form", { class: "controls", role: "search", on: { submit: (event) => event.preventDefault() } },
      subjects.length > 1 ? choice("subject", "Subject", subjects, state.subject, function (n) {
        location.hash = encodeURIComponent(study.subjects[n].subject);
      }) : null,
      readingChoice(again),
      make("label", { class: "field grow", for: "search" }, make("span", {}, "Search"), search),
      choice("behavior", "Raised most by", behaviors, state.behavior, function (n) { state.behavior = n; again(); }));
    main.replaceChildren(make("header", {},
      make("h1", {}, "Are the explanations true? ", make("span", { class: "quiet" }, study.study)),
      make("p", { class: "note" },
        "One row for each of " + whole(about().nListed) + " latents that fire or are explained, of " +
        whole(about().n) + ". A verdict compares what an explanation predicts over " + study.behaviors.length +
        " behaviors with what training changed. ", links())),
    form, results);
    again();
    window.scrollTo(0, state.scroll || 0);
  }

  function links() {
    return make("span", { class: "links" }, study.links.map(([title, to]) => make("a", { href: to }, title)));
  }

  function resultParts(again) {
    const found = ordered(), count = counts();
    const boxes = [...Object.values(study.verdicts), "none"].filter((name) => count[name]).map(function (name) {
      const box = make("input", {
        type: "checkbox", checked: state.verdicts.has(name), "data-verdict": name,
        on: { change: function () {
          if (!state.verdicts.delete(name)) { state.verdicts.add(name); }
          again();
          const same = main.querySelector('input[data-verdict="' + name + '"]');
          if (same) { same.focus(); }
        } },
      });
      return make("label", { class: "pick" }, box, badge(name), make("span", { class: "count" }, whole(count[name])));
    });
    const sortable = function (key, title, css, first) {
      const here = state.sort === key;
      const way = state.sign === 1 ? "ascending" : "descending";
      return make("th", { scope: "col", class: css, "aria-sort": here ? way : false },
        make("button", { type: "button", "data-sort": key, on: { click: function () {
          state.sign = here ? -state.sign : first;
          state.sort = key;
          again();
          main.querySelector('button[data-sort="' + key + '"]').focus();
        } } }, title));
    };
    const body = make("tbody", {}, found.slice(0, state.shown).map(row));
    const more = found.length > state.shown ? make("button", {
      type: "button", class: "more",
      on: { click: function (event) {
        const from = state.shown;
        state.shown += PAGE;
        body.append(...found.slice(from, state.shown).map(row));
        const next = body.rows[from];
        if (next) { next.querySelector("a").focus(); }
        if (state.shown >= found.length) { event.target.remove(); }
      } },
    }, "Show " + PAGE + " more") : null;
    return [
      make("fieldset", { class: "verdicts" }, make("legend", { class: "hidden" }, "Verdicts"), boxes),
      make("p", { class: "note", role: "status" },
        found.length === 0 ? "No latent is like that." : whole(found.length) +
        (found.length === 1 ? " latent" : " latents")),
      make("table", { class: "list" },
        make("thead", {}, make("tr", {},
          sortable("latent", "latent", "n", 1), sortable("verdict", "verdict", "", 1),
          sortable("explanation", "explanation", "", 1), sortable("score", "score", "n", -1),
          sortable("q", "q", "n", 1), sortable("rank", "raised most by", "", -1),
          sortable("rate", "tokens", "n", -1))),
        body),
      more,
    ];
  }

  function row(n) {
    const own = list(), behavior = own.behavior[n], latent = own.latents[n];
    const text = textAt(sourceOf(state.reading), n);
    return make("tr", {},
      make("td", { class: "n" }, make("a", { href: address(latent) }, String(latent))),
      make("td", { class: "v" }, badge(verdictAt(state.reading, n))),
      make("td", { class: "x" },
        make("a", { href: address(latent), class: "text", tabindex: "-1" },
          make("bdi", {}, text || "no explanation by this source")),
        make("div", { class: "note" },
          own.fires[n] ? ["fires on ", chips(split(own.fires[n]), "")] : "never fires on the corpus",
          own.promotes[n] ? [" promotes ", chips(split(own.promotes[n]), "")] : null)),
      make("td", { class: "n s", "data-name": "score" }, fixed(value("score", n), 2)),
      make("td", { class: "n s", "data-name": "q" }, number(value("q", n), 2)),
      make("td", { class: "b", "data-name": "raised most by" },
        behavior < 0 ? DASH : words(study.behaviors[behavior][0]),
        behavior < 0 ? null : make("span", { class: "note" }, " " + fixed(own.rank[n], 2))),
      make("td", { class: "n s", "data-name": "tokens" }, share(own.rate[n])));
  }

  function share(rate) { return rate === null ? DASH : number(100 * rate, 2) + " %"; }

  // One latent.
  function showLatent(latent) {
    const position = list().latents.indexOf(latent);
    if (position < 0) {
      main.replaceChildren(bar(null), make("h1", { tabindex: "-1" }, "Latent " + latent),
        make("p", {}, latent < about().n ? "It never fires on the reference corpus, and no source explains it."
          : "The dictionary has no such latent: it has " + whole(about().n) + "."));
      return focusHeading();
    }
    const part = Math.floor(position / study.perFile);
    return load(state.subject + "-" + part).then(function (chunk) {
      const now = asked();
      if (now.subject === state.subject && now.latent === latent) {
        drawLatent(new View(chunk, position, position % study.perFile));
        focusHeading();
      }
    });
  }

  function focusHeading() {
    document.title = main.querySelector("h1").textContent + ", " + study.study;
    window.scrollTo(0, 0);
    main.querySelector("h1").focus({ preventScroll: true });
  }

  // What is known of one latent: `position` in the list, `at` in its file.
  function View(chunk, position, at) {
    this.chunk = chunk;
    this.position = position;
    this.latent = chunk.latents[at];
    this.of = (name) => chunk[name] && chunk[name][at];
    this.read = (name, n) => chunk[name][n] && chunk[name][n][at];
    this.string = (n) => chunk.strings[n];
    this.steering = chunk.steering[this.latent];
  }

  function drawLatent(view) {
    const redraw = () => drawLatent(view);
    main.replaceChildren(
      bar(view.position),
      make("h1", { tabindex: "-1" }, "Latent " + view.latent,
        study.subjects.length > 1 ? make("span", { class: "quiet" }, " of " + about().subject) : null),
      verdictPart(view),
      make("div", { class: "columns" },
        make("div", {}, comparison(view, redraw), explanations(view, redraw), steering(view)),
        make("div", {}, contexts(view), promoted(view), neighbors(view), facts(view))));
  }

  function bar(position) {
    const order = ordered(), at = order.indexOf(position);
    const step = function (title, key, n) {
      const to = at < 0 ? undefined : order[n];
      const options = { class: "button", "data-key": key };
      return to === undefined ? make("span", { class: "button off" }, title)
        : make("a", { ...options, href: address(list().latents[to]) }, title);
    };
    return make("nav", { class: "bar", "aria-label": "Latents" },
      make("a", { class: "button", href: address(), "data-key": "Escape" }, "All latents"),
      step("\u2190 Previous", "ArrowLeft", at - 1), step("Next \u2192", "ArrowRight", at + 1),
      at < 0 ? null : make("span", { class: "note" }, whole(at + 1) + " of " + whole(order.length) + " in the list"));
  }

  function verdictPart(view) {
    const reading = state.reading, verdict = verdictAt(reading, view.position);
    const text = textAt(sourceOf(reading), view.position);
    const reasons = view.chunk.reasons[reading], reason = reasons.length ? view.string(view.read("reasons", reading)) : "";
    return make("section", { class: "verdict " + verdict, "aria-label": "Verdict" },
      make("p", { class: "says" }, text ? make("q", {}, make("bdi", {}, text)) : "No explanation by this source."),
      make("p", {}, badge(verdict), " ", make("b", {}, MEANINGS[verdict]), reason ? ": " + reason + "." : "."),
      make("p", { class: "note" }, named(reading), value("score", view.position) === null ? "."
        : ". The score says how well the latent's changes over behaviors follow the prediction; by chance it is 0."));
  }

  function heading(title, ...notes) {
    return [make("h2", {}, title), notes.length ? make("p", { class: "note" }, ...notes) : null];
  }

  // What the explanation predicts for each behavior, beside what training did.
  function comparison(view, redraw) {
    const reading = state.reading, effects = parted(view.read("effects", reading), 100);
    const expected = new Set(view.read("expected", reading) || []);
    const ranks = parted(view.of("rank"), 1000), changes = view.of("change"), byRank = state.scale === "rank";
    const placebo = view.of("placebo"), alive = ranks.every((rank) => rank !== null);
    const band = placebo && (byRank ? placebo.slice(2) : placebo.slice(0, 2));
    const seeds = byRank ? view.of("seedRanks").map((own) => parted(own, 100))
      : view.of("seeds").map((own) => parted(own, 1000 / view.of("largest")));
    const widest = Math.max(1e-12, ...seeds.flat().map(Math.abs), ...(band || []).map(Math.abs));
    const scale = (x) => byRank ? Math.min(1, Math.max(0, x)) : 0.5 + 0.48 * x / widest;
    const order = study.behaviors.map((_, n) => n).sort((a, b) =>
      (effects[b] || 0) - (effects[a] || 0) || (ranks[b] || 0) - (ranks[a] || 0));
    const rows = order.map(function (n) {
      const [name] = study.behaviors[n];
      const why = (view.read("why", reading) || []).filter(([at]) => at === n).map(([, text]) => text);
      const line = make("tr", { class: expected.has(n) ? "expected" : "" },
        make("th", { scope: "row" }, words(name)),
        make("td", { class: "p" }, prediction(effects[n], expected.has(n)),
          why.length ? make("details", { class: "why" }, make("summary", {}, "why"), make("bdi", {}, why[0])) : null),
        make("td", { class: "strip" }, alive || !byRank ? strip(seeds[n], byRank ? ranks[n] : changes[n], band, scale)
          : DASH),
        make("td", { class: "n" }, fixed(ranks[n], 2)),
        make("td", { class: "n c" }, number(changes[n], 3)));
      line.style.setProperty("--weight", Math.abs(effects[n] || 0).toFixed(2));
      return line;
    });
    const switches = ["rank", "change"].map((name) => make("label", { class: "pick" },
      make("input", { type: "radio", name: "scale", value: name, checked: state.scale === name, on: {
        change: function () {
          state.scale = name;
          redraw();
          main.querySelector('input[value="' + name + '"]').focus();
        },
      } }), name));
    return make("section", { id: "comparison" },
      heading("Predicted, and measured",
        "If the explanation is true, the latent's rank grows with what is predicted: the stronger a row is marked, the" +
        " farther to the right its dots" +
        (effects.some((effect) => effect < 0) ? " (for a predicted fall, to the left)." : ".") +
        " In bold: behaviors for which the judge counts on a change."),
      make("fieldset", { class: "scale" }, make("legend", {}, "Plotted: "), switches),
      make("table", { class: "behaviors" },
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "training on"),
          make("th", { scope: "col" }, "predicts"),
          make("th", { scope: "col" }, byRank ? "measured: lowest to highest rank" : "measured: falls or rises"),
          make("th", { scope: "col", class: "n" }, "rank"), make("th", { scope: "col", class: "n c" }, "change"))),
        make("tbody", {}, rows)),
      make("p", { class: "note" },
        "A dot is one of " + about().seeds + " seeds, the line their mean. Rank is that of the change among the " +
        whole(about().nAlive) + " latents that fire often enough; 1 rose most. Change is by adapter " + study.adapter +
        " and measure " + study.measure + ". ",
        placebo ? "Grey: the middle 90 % of " + about().placebos + " trainings that teach no behavior." : ""),
      make("details", {}, make("summary", {}, "What the behaviors are"),
        make("dl", {}, study.behaviors.map(([name, description]) => [
          make("dt", {}, words(name)), make("dd", {}, make("bdi", {}, description))]))));
  }

  function parted(values, of) { return (values || []).map((value) => value === null ? null : value / of); }

  function prediction(effect, isExpected) {
    if (effect === null || effect === undefined) { return make("span", { class: "note" }, "not judged"); }
    const sign = effect > 0 ? "\u25b2" : effect < 0 ? "\u25bc" : "";
    const css = effect > 0 ? "rise" : effect < 0 ? "fall" : "no";
    return make("span", { class: "prediction " + css + (isExpected ? " marked" : "") },
      effect === 0 ? "nothing" : sign + " " + fixed(effect, 2));
  }

  function strip(seeds, mean, band, scale) {
    const dots = seeds.map((x) => place(make("i", { class: "dot" }), scale(x)));
    return make("span", { class: "plot", role: "img", "aria-label": "seeds " + seeds.map((x) => number(x, 3)).join(", ") },
      band && band[0] !== null ? place(make("i", { class: "band" }), scale(band[0]), scale(band[1])) : null,
      place(make("i", { class: "middle" }), 0.5), dots,
      mean === null ? null : place(make("i", { class: "mean" }), scale(mean)));
  }

  function explanations(view, redraw) {
    const sources = about().sources;
    const part = function (source) {
      const said = view.read("said", source);
      if (!said) { return null; }
      const [side, maker, start] = said.slice(0, 3).map(view.string);
      const web = said.length === 3 ? start + "/" + view.latent : start;
      const readings = about().readings.map((pair, n) => [pair, n]).filter(([pair]) => pair[0] === source);
      const scores = (view.of("scores") || []).filter((score) => score[0] === source);
      return make("li", { class: source === sourceOf(state.reading) ? "chosen" : "" },
        make("p", { class: "said" }, make("bdi", {}, textAt(source, view.position))),
        make("p", { class: "note" }, words(sources[source].name),
          maker ? [", made by ", make("bdi", {}, maker)] : null, ", about ",
          { input: "what it fires on", output: "what it promotes", both: "both sides" }[side] || side,
          sources[source].wrong ? ", " + Math.round(100 * sources[source].wrong) + " % of this source wrong on purpose" : null,
          web ? [". ", outside(web, "Page at its source")] : null),
        make("p", { class: "judges" }, readings.map(([[, judge], n]) => make("button", {
          type: "button", "aria-pressed": String(n === state.reading), "data-reading": n,
          on: { click: function () {
            state.reading = n;
            redraw();
            main.querySelector('button[data-reading="' + n + '"]').focus();
          } },
        }, words(judge), " ", badge(verdictAt(n, view.position))))),
        scores.length ? make("p", { class: "note" }, "Scores: ", scores.map(([, scorer, name, found, floor]) =>
          words(name) + " " + fixed(found, 2) + (floor === null ? "" : " (another latent's explanation " +
          fixed(floor, 2) + ")") + " by " + words(scorer)).join("; ")) : null);
    };
    const first = about().readings.map((pair) => pair[0]).filter((n, at, all) => all.indexOf(n) === at);
    const honest = first.filter((n) => !sources[n].wrong).map(part).filter(Boolean);
    const wrong = first.filter((n) => sources[n].wrong).map(part).filter(Boolean);
    return make("section", { id: "explanations" },
      heading("What explanations say", "Choose a judge to see what it expects and what came of it."),
      honest.length ? make("ul", { class: "explanations" }, honest) : make("p", {}, "None."),
      wrong.length ? make("details", { open: sources[sourceOf(state.reading)].wrong > 0 },
        make("summary", {}, "From sources that are wrong on purpose (" + wrong.length + ")"),
        make("ul", { class: "explanations" }, wrong)) : null);
  }

  function steering(view) {
    const found = view.steering;
    if (!found) { return null; }
    const claims = { "1": "raises it", "-1": "lowers it", "0": "nothing" };
    const effects = found.effects.map(([name, claim, plain, up, down, effect, low, high]) => make("tr", {
      class: claim ? "expected" : "",
    }, make("th", { scope: "row" }, words(name)), make("td", {}, claims[String(claim)]),
      make("td", { class: "n" }, number(down)), make("td", { class: "n" }, number(plain)),
      make("td", { class: "n" }, number(up)),
      make("td", { class: "n" }, number(effect), low === null ? null
        : make("span", { class: "note" }, " " + number(low, 2) + " to " + number(high, 2)))));
    return make("section", { id: "steering" },
      heading("Steered",
        "Answers while the latent is suppressed or amplified by " + number(found.strength) +
        " times its largest activation."),
      found.claims.map(([group, claim, effect, low, high, confirmed]) => make("p", {},
        claim ? "The explanation claims that amplifying it " + claim + ": " : "The explanation claims nothing here: ",
        make("b", {}, confirmed ? "steering does so" : "steering does not clearly do so"),
        " (" + fixed(effect, 2) + " standard deviations" +
        (low === null ? "" : ", " + fixed(low, 2) + " to " + fixed(high, 2)) + "; group " + group + ").")),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {},
        ["score of", "claim", "suppressed", "plain", "amplified", "effect"].map((name, n) =>
          make("th", { scope: "col", class: n > 1 ? "n" : "" }, name)))), make("tbody", {}, effects))),
      found.answers.map(([prompt, down, plain, up]) => make("details", { class: "answers" },
        make("summary", {}, make("bdi", {}, shortly(prompt, 80))),
        make("dl", {}, [["prompt", prompt], ["suppressed", down], ["plain", plain], ["amplified", up]].map(
          ([name, text]) => [make("dt", {}, name), make("dd", {}, make("bdi", {}, text || DASH))])))));
  }

  function contexts(view) {
    const found = view.of("contexts");
    const largest = Math.abs(view.of("facts")[1]) || 1;
    const parts = found.map(function (context) {
      const strongest = context.filter(Array.isArray).reduce((a, b) => Math.abs(b[1]) > Math.abs(a[1]) ? b : a, ["", 0]);
      const tokens = context.map(function (token) {
        if (!Array.isArray(token)) { return token; }
        const mark = make("mark", { class: token === strongest ? "strongest" : "", title: number(token[1]) }, token[0]);
        mark.style.setProperty("--heat", Math.min(1, Math.abs(token[1]) / largest).toFixed(3));
        return mark;
      });
      return make("li", {}, make("span", { class: "value" }, signed(strongest[1].toPrecision(3))),
        make("bdi", { class: "context" }, tokens));
    });
    return make("section", { id: "contexts" },
      heading("Where it fires most",
        "Its activation on each token, the strongest at the left; one context for each text of the corpus. ",
        make("span", { class: "legend", "aria-hidden": "true" }, "0 ", make("i", {}), " " + number(largest))),
      parts.length ? make("ol", { class: "contexts" }, parts) : make("p", {}, "It never fires on the reference corpus."));
  }

  function promoted(view) {
    const group = function (name, title, note) {
      const found = view.of(name);
      if (!found) { return null; }
      const tokens = split(found[0]), largest = Math.max(1e-12, ...found[1].map(Math.abs));
      return make("div", {}, make("h3", {}, title), make("p", { class: "note" }, note),
        make("p", { class: "tokens" }, tokens.map(function (token, n) {
          const chip = make("bdi", { class: "token weighed", title: number(found[1][n]) }, token);
          chip.style.setProperty("--heat", (Math.max(0, found[1][n]) / largest).toFixed(3));
          return [chip, " "];
        })));
    };
    const parts = [
      group("promoted", "Directly", "more than other latents do, by its decoder and the unembedding"),
      group("amplified", "When it is amplified", "by what then becomes likelier, later blocks included"),
    ].filter(Boolean);
    return parts.length ? make("section", { id: "promoted" }, heading("Tokens that it promotes"),
      make("div", { class: "pair" }, parts)) : null;
  }

  function neighbors(view) {
    const found = view.of("neighbors"), items = [];
    for (let n = 0; n < found.length; n += 2) {
      const position = list().latents.indexOf(found[n]);
      const text = position < 0 ? "" : textAt(sourceOf(state.reading), position);
      items.push(make("tr", {},
        make("td", { class: "n" }, fixed(found[n + 1], 2)),
        make("td", { class: "n" }, make("a", { href: address(found[n]) }, String(found[n]))),
        make("td", {}, position < 0 ? make("span", { class: "note" }, "never fires") : [
          badge(verdictAt(state.reading, position)), " ", make("bdi", {}, text || "no explanation")])));
    }
    return items.length ? make("section", { id: "neighbors" },
      heading("Nearest latents", "By the cosine of what they write. A near-duplicate can have changed in its place."),
      make("table", {}, make("tbody", {}, items))) : null;
  }

  function facts(view) {
    return make("section", { id: "facts" }, heading("Facts"),
      make("dl", { class: "facts" }, FACTS.map(([name, meaning], n) => [
        make("dt", { title: meaning }, name),
        make("dd", {}, n === 0 ? share(view.of("facts")[0]) : number(view.of("facts")[n], 4),
          make("span", { class: "note" }, " " + meaning))])));
  }

  // Which view is shown.
  function route() {
    const { subject, latent } = asked();
    if (subject !== state.subject) {
      Object.assign(state, { subject: subject, reading: 0, shown: PAGE, scroll: 0 });
      state.verdicts.clear();
    }
    return load(String(subject)).then(() => latent === null ? showList() : showLatent(latent)).catch(failed);
  }

  function failed(error) {
    if (!/^(study|\d+(-\d+)?)$/.test(error.message)) { throw error; }
    main.replaceChildren(make("p", { role: "alert" }, "The file " + error.message + ".js beside this page is missing or" +
      " broken. Make the page again with `isaerft latent-pages`."));
  }

  window.addEventListener("hashchange", route);
  window.addEventListener("scroll", function () {
    if (main.querySelector("#results")) { state.scroll = window.scrollY; }
  }, { passive: true });
  document.addEventListener("keydown", function (event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && document.getElementById("search")) {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (!typing) {
      const link = main.querySelector('nav a[data-key="' + CSS.escape(event.key) + '"]');
      if (link) { link.click(); }
    }
  });
  window.addEventListener("beforeprint", function () {
    main.querySelectorAll("details").forEach((part) => { part.open = true; });
  });
  load("study").then(function (found) {
    study = found;
    return route();
  }).catch(failed);
})();
