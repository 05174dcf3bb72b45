// Every text of a page against its background, as WCAG 2.2 has it: what falls short is written into the page that runs this.
"use strict";

function luminance(c) {
  return [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
}

function parsed(text) {
  const found = text.match(/rgba?\(([^)]+)\)/);
  if (!found) return null;
  const v = found[1].split(/[ ,/]+/).map(Number);
  return [v[0], v[1], v[2], v[3] === undefined ? 1 : v[3]];
}

function over(a, b) { return [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1]); }

function ground(element, view) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    const c = parsed(view.getComputedStyle(e).backgroundColor);
    if (c && c[3] > 0) layers.push(c);
    if (c && c[3] >= 1) break;
  }
  return layers.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]);
}

async function look(path, scheme) {
  const frame = document.createElement("iframe");
  frame.style.width = "1200px";
  document.body.append(frame);
  frame.src = path;
  await new Promise(loaded => { frame.onload = loaded; });
  const view = frame.contentWindow, page = frame.contentDocument, still = page.createElement("style");
  still.textContent = "* { transition: none !important; animation: none !important; }";
  page.head.append(still);
  page.body.setAttribute("data-md-color-scheme", scheme);
  await new Promise(done => setTimeout(done, 200));
  const short = {}, texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (texts.nextNode()) {
    const words = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement, style = view.getComputedStyle(element);
    if (!words || !element.getClientRects().length || style.visibility === "hidden" || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const colour = parsed(style.color), below = ground(element, view);
    for (let e = element; e && colour; e = e.parentElement) colour[3] *= view.getComputedStyle(e).opacity;
    if (!colour || colour[3] === 0) continue;
    const [dark, light] = [luminance(over(colour, below)), luminance(below)].sort((a, b) => a - b), ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (style.fontWeight >= 700 && size >= 18.66);
    count += 1;
    if (ratio < (large ? 3 : 4.5) - 0.005) short[`${element.tagName}.${element.className} ${ratio.toFixed(2)} ${words.slice(0, 30)}`] = 1;
  }
  frame.remove();
  return {path, scheme, count, short: Object.keys(short)};
}

(async () => {
  const found = [];
  for (const path of PAGES) for (const scheme of ["default", "slate"]) found.push(await look(path, scheme));
  document.getElementById("found").textContent = JSON.stringify(found);
})();
