// The page of `probgen view`: a table of runs, one run, two side by side. Words of runs are set as text, never as markup.
"use strict";

const SOON = 2000, LATER = 10000;  // milliseconds between two looks: while something runs, and else
const VERDICTS = [["", "any verdict"], ["fail", "fail"], ["warn", "warn"], ["pass", "pass"], ["none", "not judged"]];
const STATES = [["", "any state"], ...["running", "finished", "stopped", "killed", "broken"].map(s => [s, s])];
const TOLD = {
  running: "It goes on now.", finished: "All its steps are done.", stopped: "It was stopped before its end; probgen resume goes on.",
  killed: "Its process ended before its end; probgen resume goes on from the last checkpoint.", broken: "It cannot be read.",
};
const wanted = {text: "", model: "", verdict: "", state: "", sort: "when", down: true};
const picked = new Set();
const main = document.getElementById("main");
let timer = 0, shown = "", turn = 0;

function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside.flat(3).filter(x => x !== null && x !== undefined && x !== ""));
  return made;
}

async function ask(path) {
  const answer = await fetch(path, {headers: {Accept: "application/json"}});
  const told = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.error || answer.statusText), {told: true});
  return told;
}

// ---- words ------------------------------------------------------------------------------------------------------------

function when(seconds) {
  if (!seconds) return "-";
  const ago = Date.now() / 1000 - seconds;
  if (ago < 60) return "just now";
  if (ago < 3600) return `${Math.round(ago / 60)} min ago`;
  if (ago < 86400) return `${Math.round(ago / 3600)} h ago`;
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}

function lasted(seconds) {
  if (typeof seconds !== "number") return "-";
  if (seconds < 120) return `${seconds.toPrecision(3)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function badge(word, title) { return make("span", {class: `badge ${word}`, title}, word === "none" ? "not judged" : word); }
function verdictOf(run) { return run.verdict ? run.verdict.status : "none"; }
function link(run) { return `#/run/${encodeURIComponent(run.id)}`; }
function named(run) { return run.id === "." ? "this run" : run.id; }

function steps(run, bar) {
  const total = run.total && run.state !== "finished" ? ` of ${run.total.toLocaleString("en")}` : "";
  const words = `${run.step.toLocaleString("en")}${total} steps`;
  const share = run.total ? Math.min(100, 100 * run.step / run.total) : 0;
  if (!bar || run.state !== "running") return [words];
  const inner = make("i");
  inner.style.width = `${share}%`;
  return [words, make("div", {class: "progress", "aria-hidden": "true"}, inner)];
}

// ---- the table --------------------------------------------------------------------------------------------------------

const COLUMNS = [
  ["id", "Run", run => run.id], ["model", "Model", run => run.model], ["algorithm", "Algorithm", run => run.algorithm],
  ["state", "State", run => run.state], ["verdict", "Verdict", run => ["fail", "warn", "pass", "none"].indexOf(verdictOf(run))],
  ["seconds", "Steps, time", run => run.seconds || 0], ["when", "Last written", run => run.moved || run.begun || 0],
];

function kept(runs) {
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = runs.filter(run => {
    const text = [run.id, run.model, run.algorithm, run.engine, run.state, run.worst, run.reason].join(" ").toLowerCase();
    return words.every(word => text.includes(word)) && (!wanted.model || run.model === wanted.model) &&
      (!wanted.verdict || verdictOf(run) === wanted.verdict) && (!wanted.state || run.state === wanted.state);
  });
  const by = COLUMNS.find(([word]) => word === wanted.sort)[2], sign = wanted.down ? -1 : 1;
  return found.sort((a, b) => sign * (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0));
}

function choice(name, label, options) {
  const select = make("select", {"data-key": name, onchange: event => { wanted[name] = event.target.value; again(); }},
    options.map(([value, word]) => make("option", {value, selected: wanted[name] === value}, word)));
  return make("label", {}, label, select);
}

function bar(all) {
  const models = [...new Set(all.map(run => run.model).filter(Boolean))].sort();
  const two = [...picked];
  return make("form", {class: "bar", role: "search", onsubmit: event => event.preventDefault()},
    make("label", {class: "wide"}, "Search", make("input", {
      type: "search", value: wanted.text, "data-key": "text", placeholder: "any word of the table",
      oninput: event => { wanted.text = event.target.value; again(); }})),
    choice("model", "Model", [["", "any model"], ...models.map(m => [m, m])]),
    choice("verdict", "Verdict", VERDICTS), choice("state", "State", STATES),
    make("button", {type: "button", disabled: two.length !== 2, "data-key": "compare",
      onclick: () => { location.hash = `#/compare/${two.map(encodeURIComponent).join("/")}`; }},
    two.length === 2 ? "Compare the two" : `Compare two (${two.length} chosen)`));
}

function head() {
  return make("thead", {}, make("tr", {}, COLUMNS.map(([word, title]) => make("th", {
    scope: "col", "aria-sort": wanted.sort === word ? (wanted.down ? "descending" : "ascending") : false},
  make("button", {type: "button", "data-key": `sort ${word}`, onclick: () => {
    wanted.down = wanted.sort === word ? !wanted.down : word === "when" || word === "seconds";
    wanted.sort = word;
    again();
  }}, title, wanted.sort === word ? (wanted.down ? " \u2193" : " \u2191") : ""))), make("th", {scope: "col"}, "Compare")));
}

function row(run) {
  const box = make("input", {type: "checkbox", "data-key": `pick ${run.id}`, "aria-label": `compare ${named(run)}`,
    onchange: event => { event.target.checked ? picked.add(run.id) : picked.delete(run.id); again(); }});
  box.checked = picked.has(run.id);
  box.disabled = run.state === "broken" || (picked.size >= 2 && !box.checked);
  const verdict = run.state === "broken" ? "-" : [badge(verdictOf(run), run.verdict ? run.verdict.headline : "")];
  return make("tr", {},
    make("td", {class: "name"}, make("a", {href: link(run), "data-key": run.id}, named(run))),
    make("td", {}, run.model), make("td", {}, run.algorithm), make("td", {}, badge(run.state, TOLD[run.state])),
    make("td", {class: "worst"}, verdict, make("span", {class: "small"}, run.state === "broken" ? run.reason : run.worst)),
    make("td", {class: "number"}, run.state === "broken" ? "-" : steps(run, true), make("span", {class: "small"}, run.seconds ? lasted(run.seconds) : "")),
    make("td", {class: "number when"}, when(run.moved || run.begun)), make("td", {class: "pick"}, box));
}

function few(names) { return names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", "); }

function table(told) {
  const runs = kept(told.runs);
  for (const id of picked) if (!told.runs.some(run => run.id === id)) picked.delete(id);
  const count = runs.length === told.runs.length ? `${runs.length} runs` : `${runs.length} of ${told.runs.length} runs`;
  const left = [told.left_out.length ? `Not followed, for they lead out of the folder: ${few(told.left_out)}.` : "",
    told.not_looked.length ? `Not looked into, too deep or too many: ${few(told.not_looked)}. Say a folder nearer to them: probgen view FOLDER` : ""]
    .filter(Boolean).join(" ");
  if (!told.runs.length) {
    return [make("p", {}, "There are no runs in this folder yet. This one makes one, and the page shows it while it goes on:"),
      make("p", {}, make("code", {}, `probgen fit eight_schools --out ${told.folder}/first`)), left && make("p", {class: "soft"}, left)];
  }
  return [bar(told.runs), make("p", {class: "soft", role: "status"}, count), left && make("p", {class: "soft"}, left),
    runs.length ? make("table", {class: "runs"}, head(), make("tbody", {}, runs.map(row))) : make("p", {}, "None of them fits these words.")];
}

// ---- one run ----------------------------------------------------------------------------------------------------------

function findings(verdict) {
  const open = verdict.findings.filter(f => f.status !== "pass"), good = verdict.findings.filter(f => f.status === "pass");
  return [
    open.map(f => make("div", {class: `told ${f.status}`}, make("b", {}, f.status), `${f.check}: ${f.message}`, make("p", {class: "soft"}, `\u2192 ${f.remedy}`))),
    verdict.notes.map(note => make("p", {class: "soft"}, note)),
    good.length ? make("details", {open: !open.length, "data-key": "passed"}, make("summary", {}, `${good.length} checks passed`),
      make("dl", {}, good.map(f => [make("dt", {}, f.check), make("dd", {}, f.message)]))) : "",
  ].flat(2);
}

function judgement(run) {
  if (run.verdict) return [make("p", {}, badge(run.verdict.status), ` ${run.verdict.headline}`), ...findings(run.verdict)];
  const why = run.state === "running" ? "The run goes on: what is judged now is a part of it." : "No verdict is kept of the run as it is now.";
  return [make("div", {class: "told"}, make("b", {}, "Not judged."), `${why} Its report judges it, which may take a minute.`)];
}

function buttons(run) {
  if (run.state === "broken" || !run.step) return "";
  const word = run.report === "making" ? "Its report is being made" : run.report ? "Its report waits" : "Open its report";
  return make("p", {}, make("a", {class: "button", href: `/report?id=${encodeURIComponent(run.id)}`, target: "_blank", rel: "noopener", "data-key": "report"}, word));
}

function facts(run) {
  const seed = run.seed === null ? "-" : String(run.seed);
  const rows = [["model", run.model], ["algorithm", run.algorithm], ["engine", [run.engine, run.precision].filter(Boolean).join(", ")],
    ["seed", seed], ["steps", run.step ? steps(run)[0] : ""], ["time", lasted(run.seconds)], ["begun", when(run.begun)],
    ["last written", when(run.moved)], ["program", run.where], ["directory", run.path]];
  return make("dl", {}, rows.filter(([, v]) => v && v !== "-").map(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]).flat());
}

function settings(run) {
  const rows = Object.entries(run.settings || {}).map(([k, v]) => [make("dt", {}, k), make("dd", {}, JSON.stringify(v))]);
  const versions = Object.entries(run.versions || {}).map(([k, v]) => `${k} ${v}`).join(", ");
  return make("details", {"data-key": "settings"}, make("summary", {}, "Settings and versions"), make("dl", {}, rows.flat()), make("p", {class: "soft"}, versions));
}

const NAMES = {lp: "log density", loss: "loss", validation: "validation loss"};

function first(name) { return name in NAMES || name.startsWith("z["); }

function curves(run) {
  const most = run.series.filter(s => first(s.name)), more = run.series.filter(s => !first(s.name));
  if (!run.series.length) return [];
  const chains = run.series[0].values.length;
  const told = chains > 1 ? `${chains} chains, a line each${run.num_warmup ? "; the dashed line ends warm-up" : ""}. z are the first unknowns, on the real line.` : "";
  return [make("h2", {}, "Curves"), told && make("p", {class: "soft"}, told), charts(run, most),
    more.length ? make("details", {"data-key": "more", open: !most.length}, make("summary", {}, `${more.length} more`), charts(run, more)) : ""];
}

function charts(run, series) {
  return make("div", {class: "charts"}, series.map(s => {
    const note = [s.name.startsWith("z[") ? "unconstrained" : "",
      s.every > 1 ? (s.averaged ? `means of ${s.every} steps` : `one of ${s.every} steps`) : ""].filter(Boolean).join("; ");
    return chart(NAMES[s.name] || s.name, note, s.values.map(values => ({every: s.every, values})), run.num_warmup);
  }));
}

function headOf(run) {
  const told = [TOLD[run.state], run.reason].filter(Boolean).join(" ");
  const diverged = run.divergences ? make("div", {class: "told warn"}, `${run.divergences.toLocaleString("en")} transitions after warm-up diverged.`) : "";
  return [make("div", {class: "title"}, make("h2", {}, named(run)), badge(run.state), run.state === "broken" ? "" : badge(verdictOf(run))),
    make("div", {class: `told ${run.state}`, role: run.state === "broken" ? "alert" : "status"}, told), diverged];
}

function page(run) {
  document.title = `${named(run)} - probgen`;
  const back = make("p", {}, make("a", {href: "#/", "data-key": "back"}, "\u2190 all runs"));
  if (run.state === "broken") return [back, headOf(run), facts(run), settings(run)].flat();
  return [back, headOf(run), make("h2", {}, "Verdict"), judgement(run), buttons(run), curves(run),
    make("h2", {}, "What was run"), facts(run), settings(run)].flat();
}

// ---- two runs ---------------------------------------------------------------------------------------------------------

function beside(a, b) {
  const name = run => make("a", {href: link(run), "data-key": `to ${run.id}`}, named(run));
  const of = run => ({model: run.model, algorithm: run.algorithm, engine: run.engine, precision: run.precision, seed: run.seed, state: run.state,
    verdict: verdictOf(run), steps: run.step, seconds: run.seconds, ...run.settings});
  const left = of(a), right = of(b), word = v => v === undefined ? "-" : typeof v === "number" ? short(v) : typeof v === "string" ? v : JSON.stringify(v);
  const rows = [...new Set([...Object.keys(left), ...Object.keys(right)])].map(k => {
    const differs = JSON.stringify(left[k]) !== JSON.stringify(right[k]);
    return [differs, make("tr", {class: differs ? "differs" : false}, make("th", {scope: "row"}, k), make("td", {}, word(left[k])), make("td", {}, word(right[k])))];
  });
  const table = chosen => make("table", {class: "two"}, make("thead", {}, make("tr", {}, make("td"), make("th", {scope: "col"}, name(a)),
    make("th", {scope: "col"}, name(b)))), make("tbody", {}, chosen.map(x => x[1])));
  const other = rows.filter(x => x[0]), same = rows.filter(x => !x[0]);
  return [table(other), make("details", {"data-key": "same"}, make("summary", {}, `${same.length} settings are the same`), table(same))];
}

function common(a, b) {
  const names = a.series.map(s => s.name).filter(n => b.series.some(s => s.name === n) && (!n.startsWith("z[") || a.model === b.model));
  if (!names.length) return [];
  const mean = s => s.values[0].map((_, i) => s.values.reduce((sum, row) => sum + (row[i] ?? NaN), 0) / s.values.length);
  const many = [a, b].some(run => run.series.some(s => s.values.length > 1));
  const draw = chosen => make("div", {class: "charts"}, chosen.map(n => {
    const two = [a, b].map(run => run.series.find(s => s.name === n));
    return chart(NAMES[n] || n, many ? "means over chains" : "", two.map((s, i) => ({every: s.every, values: mean(s), colour: i})), 0);
  }));
  const more = names.filter(n => !first(n));
  return [make("h2", {}, "Curves"), key([named(a), named(b)]), draw(names.filter(first)),
    more.length ? make("details", {"data-key": "more"}, make("summary", {}, `${more.length} more`), draw(more)) : ""];
}

function compared(a, b) {
  document.title = `${named(a)} beside ${named(b)} - probgen`;
  const half = run => make("section", {}, make("h3", {}, named(run)), judgement(run), buttons(run));
  return [make("p", {}, make("a", {href: "#/", "data-key": "back"}, "\u2190 all runs")), make("h2", {}, "Two runs side by side"), ...beside(a, b), ...common(a, b),
    make("h2", {}, "Verdicts"), make("div", {class: "pair"}, half(a), half(b)),
    make("p", {class: "soft"}, "Agreement of their draws, ESS a second and cost: ", make("code", {}, `probgen compare ${a.path} ${b.path}`))];
}

// ---- what is shown ----------------------------------------------------------------------------------------------------

let last = null;  // the list as it was told, so that filters answer at once
function again() { put(table(last)); }

// Put anew, with the focus, the cursor and what was unfolded where they were.
function put(parts) {
  const active = document.activeElement, focus = active && active.dataset ? active.dataset.key : "", at = focus === "text" ? active.selectionStart : 0;
  const open = new Map([...main.querySelectorAll("details[data-key]")].map(d => [d.dataset.key, d.open]));
  main.replaceChildren(...parts.flat(3).filter(Boolean));
  for (const d of main.querySelectorAll("details[data-key]")) if (open.has(d.dataset.key)) d.open = open.get(d.dataset.key);
  const now = focus && [...main.querySelectorAll("[data-key]")].find(e => e.dataset.key === focus);
  if (now) { now.focus({preventScroll: true}); if (focus === "text") now.setSelectionRange(at, at); }
}

async function look(moved) {
  clearTimeout(timer);
  const [word, ...ids] = location.hash.replace(/^#\/?/, "").split("/"), kind = ids.length === {run: 1, compare: 2}[word] ? word : "";
  const mine = ++turn;
  let busy = false;
  try {
    const told = kind ? await Promise.all(ids.map(id => ask(`/api/run?id=${id}`))) : await ask("/api/runs");
    if (mine !== turn) return;
    busy = kind ? told.some(run => run.state === "running" || run.report) : told.runs.some(run => run.state === "running");
    const text = location.hash + JSON.stringify(told);
    if (text !== shown) {
      shown = text;
      if (!kind) { last = told; document.title = "Runs - probgen"; document.getElementById("folder").textContent = told.folder; }
      put(kind === "compare" ? compared(...told) : kind ? page(told[0]) : table(told));
    }
    document.getElementById("alive").textContent = busy ? "live" : "";
  } catch (error) {
    if (mine !== turn) return;
    shown = "";
    if (error.told) put([make("p", {}, make("a", {href: "#/"}, "\u2190 all runs")), make("p", {role: "alert"}, error.message)]);
    else document.getElementById("alive").textContent = "probgen view does not answer: was it ended?";
  }
  if (moved) { main.focus({preventScroll: true}); scrollTo(0, 0); }
  timer = setTimeout(look, busy ? SOON : LATER);
}

document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => look(true));
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : look());
look();
