// Curves as SVG: drawn of numbers alone, with a text for those who do not see them.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480, HEIGHT = 190, LEFT = 58, RIGHT = 8, TOP = 8, BOTTOM = 24;

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function short(x) {
  if (typeof x !== "number") return x === null || x === undefined ? "-" : String(x);
  if (x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-3)) return x.toExponential(2);
  return String(Number(x.toPrecision(4)));
}

// From the smallest to the largest that is drawn: of losses the highest hundredth is cut off, which is said.
function range(values, cuts) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return null;
  let low = sorted[0], high = sorted[sorted.length - 1];
  const most = sorted[Math.floor(0.98 * (sorted.length - 1))];
  if (cuts && sorted.length > 40 && high - low > 3 * (most - low) && most > low) high = most;
  if (high === low) { const room = Math.abs(low) * 0.05 || 1; low -= room; high += room; }
  return [low, high];
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step * 1e-9 ? 0 : x);
  return found;
}

// lines: [{label, every, values}], one colour each; rule: a step to mark, such as the end of warm-up.
function chart(title, note, lines, rule) {
  const made = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title + " ";
  const small = document.createElement("span");
  small.className = "soft";
  caption.append(small);
  made.append(caption);
  const every = lines.flatMap(line => line.values);
  const losses = /loss|validation/.test(title);
  const span = range(every, losses);
  const bad = every.filter(v => !Number.isFinite(v)).length;
  const notes = [note];
  if (bad) notes.push(bad === every.length ? "no number of it is finite" : "gaps where it is not finite");
  if (!span) { small.textContent = notes.filter(Boolean).join("; "); return made; }
  const end = Math.max(1, ...lines.map(line => (line.values.length - 1) * line.every));
  const [low, high] = span, cut = every.some(v => Number.isFinite(v) && v > high);
  if (cut) notes.push("values above the frame are cut");
  small.textContent = notes.filter(Boolean).join("; ");
  const x = step => LEFT + (WIDTH - LEFT - RIGHT) * step / end;
  const y = v => TOP + (HEIGHT - TOP - BOTTOM) * (high - Math.min(v, high)) / (high - low);
  const last = lines[0].values.filter(Number.isFinite).at(-1);
  const told = `${title}: ${lines.length} line${lines.length > 1 ? "s" : ""} over ${end} steps, from ${short(low)} to ${short(high)}, ` +
    `the first ends at ${short(last)}`;
  const picture = shape("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told});
  for (const v of ticks(low, high, 4)) {
    picture.append(shape("line", {class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v)}));
    picture.append(shape("text", {x: LEFT - 6, y: y(v) + 4, "text-anchor": "end"}, short(v)));
  }
  for (const s of ticks(0, end, 5)) {
    if (Number.isInteger(s)) picture.append(shape("text", {x: x(s), y: HEIGHT - 6, "text-anchor": s > 0.95 * end ? "end" : "middle"}, short(s)));
  }
  if (rule > 0 && rule < end) picture.append(shape("line", {class: "rule", x1: x(rule), x2: x(rule), y1: TOP, y2: HEIGHT - BOTTOM}));
  lines.forEach((line, i) => {
    let d = "", pen = "M";
    line.values.forEach((v, at) => {
      if (!Number.isFinite(v)) { pen = "M"; return; }
      d += `${pen}${x(at * line.every).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = "L";
    });
    picture.append(shape("path", {d, class: `s${(line.colour ?? i) % 8}`, opacity: lines.length > 1 ? 0.8 : 1}));
  });
  made.append(picture);
  return made;
}

// Names of the lines, for pictures of several runs.
function key(labels) {
  const made = document.createElement("div");
  made.className = "key";
  labels.forEach((label, i) => {
    const one = document.createElement("span"), mark = document.createElement("i");
    mark.className = `s${i}`;
    one.append(mark, label);
    made.append(one);
  });
  return made;
}
