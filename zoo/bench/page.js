"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const names = Object.keys(data.entries);
const hue = (name) => Math.round((names.indexOf(name) * 137.5 + 215) % 360);
const arrow = { lower: "\u00a0↓", higher: "\u00a0↑" };

// An element with attributes and children; texts are never parsed.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "path", "circle", "text", "g", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "hue") element.style.setProperty("--hue", value);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== ""));
  return element;
}

// The table -----------------------------------------------------------------------------------------------------------

function zoom(entry) {
  const dialog = document.getElementById("zoom");
  dialog.querySelector("img").src = data.entries[entry].picture;
  dialog.querySelector("img").alt = dialog.querySelector("p").textContent = data.entries[entry].of;
  dialog.showModal();
}

function entryCell(row) {
  const { picture, note, of } = data.entries[row.entry];
  const enlarge = { type: "button", title: "Enlarge the " + of, onclick: () => zoom(row.entry) };
  const image = picture && make("button", enlarge, make("img", { src: picture, alt: of, loading: "lazy" }));
  const weights = row.weights === "ema" ? make("small", {}, "averaged weights (ema)") : "";
  const name = row.entry.split(/(?<=[_-])/).flatMap((part) => [part, make("wbr")]);
  const text = make("span", {}, ...name, note && make("small", {}, note), weights);
  return make("th", { scope: "row" }, make("div", { class: "entry" }, image, text));
}

function valueCell(cell) {
  if (!cell) return make("td");
  return make("td", { class: cell.best ? "best" : null, title: cell.hint }, cell.text,
    cell.deviation && make("small", {}, "± " + cell.deviation));
}

function table(content) {
  const columns = [{ key: "entry", label: "entry", hint: "" }, ...content.columns,
    { key: "seeds", label: "seeds", hint: "finished runs", better: null }];
  const rows = content.rows.map((row) => make("tr", {}, entryCell(row),
    ...content.columns.map((column) => valueCell(row.cells[column.key])), make("td", {}, String(row.seeds))));
  const sortValue = { entry: (row) => row.entry.toLowerCase(), seeds: (row) => row.seeds };
  const body = make("tbody", {}, ...rows);
  const heads = columns.map((column) => {
    const head = make("th", { scope: "col", "aria-sort": "none", title: column.hint });
    head.append(make("button", { type: "button", onclick: () => sort(column, head) },
      column.label + (arrow[column.better] || "")));
    return head;
  });
  function sort(column, head) {
    const first = column.better === "higher" ? "descending" : "ascending"; // the best on top
    const now = head.getAttribute("aria-sort");
    const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const value = sortValue[column.key] || ((row) => row.cells[column.key]?.value ?? null);
    const places = content.rows.map((row, i) => [value(row), i]);
    places.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j; // what is missing stays below
      return (a < b ? -sign : a > b ? sign : 0) || i - j;
    });
    body.append(...places.map(([, i]) => rows[i]));
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
  }
  const given = { lower: "ascending", higher: "descending" }[columns[1].better]; // as the rows come
  if (given) heads[1].setAttribute("aria-sort", given);
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values by entry" },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
  return { element: scroll, rows };
}

// Figures -------------------------------------------------------------------------------------------------------------

const WIDTH = Math.min(620, Math.max(300, window.innerWidth - 60)), HEIGHT = 90 + WIDTH * 0.47;
const LEFT = 58, BOTTOM = 44, TOP = 12, RIGHT = 16;

// A scale from values to pixels with its ticks: logarithmic if positive values span more than a factor of 20.
function scale(values, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const log = low > 0 && high / low > 20;
  const f = log ? Math.log10 : (v) => v;
  if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
  const margin = (f(high) - f(low)) * 0.05, a = f(low) - margin, b = f(high) + margin;
  const ticks = [];
  if (log) {
    for (let e = Math.floor(a); e <= b; e++) for (const m of b - a > 2.5 ? [1] : [1, 2, 5]) ticks.push(m * 10 ** e);
  } else {
    const rough = (b - a) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    for (let i = Math.ceil(a / step); i * step <= b; i++) ticks.push(i * step);
  }
  const place = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  return { place, log, ticks: ticks.filter((v) => f(v) >= a && f(v) <= b) };
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function frame(xs, ys, xLabel, yLabel) {
  const label = `${yLabel} against ${xLabel}`;
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  if (!xs.length) {
    svg.append(make("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing was measured here"));
    return { svg };
  }
  const x = scale(xs, LEFT, WIDTH - RIGHT), y = scale(ys, HEIGHT - BOTTOM, TOP);
  for (const tick of x.ticks) svg.append(
    make("line", { class: "axis", x1: x.place(tick), x2: x.place(tick), y1: TOP, y2: HEIGHT - BOTTOM }),
    make("text", { x: x.place(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, short.format(tick)));
  for (const tick of y.ticks) svg.append(
    make("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y.place(tick), y2: y.place(tick) }),
    make("text", { x: LEFT - 6, y: y.place(tick) + 4, "text-anchor": "end" }, short.format(tick)));
  svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" },
    xLabel + (x.log ? " (log)" : "")),
  make("text", { transform: `translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" },
    yLabel + (y.log ? " (log)" : "")));
  return { svg, x, y };
}

const titled = (column) => column.label + (arrow[column.better] || "");
const joined = (places) => places.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");

function curves(rows, column, axis) {
  const at = axis === "seconds" ? 0 : 1;
  const lines = rows.flatMap((row) => (row.curves[column.key] || []).map((curve) => (
    { row, curve, points: curve.points.filter((point) => point[at] !== null).map((point) => [point[at], point[2]]) })));
  const all = lines.flatMap((line) => line.points);
  const xLabel = axis === "seconds" ? "seconds of training" : "training images";
  const { svg, x, y } = frame(all.map((p) => p[0]), all.map((p) => p[1]), xLabel, titled(column));
  for (const { row, curve, points } of lines) {
    if (!points.length) continue;
    const places = points.map((p) => [x.place(p[0]), y.place(p[1])]), [cx, cy] = places.at(-1);
    svg.append(make("g", { hue: hue(row.entry), "data-entry": row.entry },
      make("title", {}, `${row.entry}, seed ${curve.seed}`),
      make("path", { class: "curve", d: joined(places) }), make("circle", { class: "dot", r: 3, cx, cy })));
  }
  const guessed = lines.some((line) => !line.curve.clocked);
  const told = guessed ? "Where a run kept no clock along the way, its average rate places the points." : "";
  return [svg, `${column.said} ${told}`];
}

function pareto(rows, column, against) {
  const points = rows.filter((row) => row.cells[column.key]?.value != null && row.cells[against.key]?.value != null)
    .map((row) => ({ row, x: row.cells[against.key].value, y: row.cells[column.key].value }));
  const { svg, x, y } = frame(points.map((p) => p.x), points.map((p) => p.y), titled(against), titled(column));
  const better = (a, b, of, otherwise) => ((of.better || otherwise) === "lower" ? a <= b : a >= b);
  const beats = (p, q) => better(p.x, q.x, against, "lower") && better(p.y, q.y, column)
    && (p.x !== q.x || p.y !== q.y);
  const front = column.better ? points.filter((p) => !points.some((q) => beats(q, p))) : [];
  const places = front.sort((p, q) => p.x - q.x).map((p) => [x.place(p.x), y.place(p.y)]);
  svg.append(make("path", { class: "front", d: joined(places) }));
  const taken = []; // where names stand, so that none covers another
  for (const p of points.sort((p, q) => y.place(p.y) - y.place(q.y))) {
    const cx = x.place(p.x), cy = y.place(p.y), left = cx > WIDTH * 0.7;
    const length = 7 * p.row.entry.length + 12, from = left ? cx - length : cx;
    let at = cy + 4;
    while (taken.some((o) => Math.abs(o.at - at) < 13 && o.from < from + length && from < o.from + o.length)) at += 13;
    taken.push({ at, from, length });
    const said = [column, against].map(({ key, label }) => `${label} ${p.row.cells[key].text}`).join(", ");
    svg.append(make("g", { hue: hue(p.row.entry), "data-entry": p.row.entry },
      make("title", {}, `${p.row.entry}: ${said}`),
      make("circle", { class: "dot", r: front.includes(p) ? 5.5 : 4, cx, cy }),
      make("text", { class: "name", x: cx + (left ? -9 : 9), y: at, "text-anchor": left ? "end" : "start" },
        p.row.entry)));
  }
  return [svg, front.length ? "Dashed: the Pareto front, entries that no other one beats in both." : ""];
}

function choose(label, options, redraw) {
  const select = make("select", { onchange: redraw },
    ...options.map(([value, text]) => make("option", { value }, text)));
  return { select, element: make("label", {}, label + " ", select) };
}

function figures(content, rowElements) {
  const filled = content.columns.filter((column) => content.rows.some((row) => row.cells[column.key]?.value != null));
  const isSpeed = (column) => column.cost || column.key.startsWith("sampling_speed[");
  const values = filled.filter((column) => !isSpeed(column)), costs = filled.filter(isSpeed);
  if (!values.length || !costs.length) return make("div");
  const named = (columns) => columns.map((column) => [column.key, column.label]);
  const value = choose("Value", named(content.series), draw), other = choose("Value", named(values), draw);
  const axis = choose("against", [["seconds", "seconds"], ["images", "images"]], draw);
  const cost = choose("against", named(costs), draw);
  const numbers = (key) => content.rows.map((row) => row.cells[key]?.value).filter((v) => v != null);
  const same = (key) => Math.max(...numbers(key)) < 1.05 * Math.min(...numbers(key));
  cost.select.value = (costs.find((column) => column.key === "training_seconds" && !same(column.key))
    || costs.find((column) => column.key.startsWith("sampling_speed[")) || costs[0]).key;
  const left = make("div"), right = make("div");
  const legend = make("ul", { class: "legend" }, ...content.rows.map((row) => make("li", { hue: hue(row.entry),
    onmouseenter: () => show(row.entry), onmouseleave: () => show(null) }, make("i"), row.entry)));
  const figure = (name, controls, ...parts) => make("div", { class: "figure" },
    make("div", { class: "controls" }, make("h3", {}, name), ...controls), ...parts);
  const box = make("div", { class: "figures" }, figure("Progress", [value.element, axis.element], left, legend),
    figure("Trade-off", [other.element, cost.element], right));
  function show(entry) {
    for (const group of box.querySelectorAll("[data-entry]"))
      group.classList.toggle("faded", entry !== null && group.dataset.entry !== entry);
  }
  function draw() {
    const rows = content.rows.filter((row, i) => !rowElements[i].hidden);
    const find = (select) => content.columns.find((column) => column.key === select.value);
    const series = content.series.find((one) => one.key === value.select.value);
    const [progress, said] = curves(rows, series, axis.select.value);
    const [tradeOff, told] = pareto(rows, find(other.select), find(cost.select));
    left.replaceChildren(progress, make("p", {}, said));
    right.replaceChildren(tradeOff, make("p", {}, told));
    [...legend.children].forEach((item, i) => { item.hidden = rowElements[i].hidden; });
  }
  rowElements.forEach((element, i) => {
    element.addEventListener("mouseenter", () => show(content.rows[i].entry));
    element.addEventListener("mouseleave", () => show(null));
  });
  box.draw = draw;
  draw();
  return box;
}

// The page ------------------------------------------------------------------------------------------------------------

document.querySelector("h1").textContent = data.title;
document.getElementById("lead").append(...data.lead.map((text) => make("p", {}, text)));
document.getElementById("rule").textContent = data.rule;
const sections = data.tables.map((content) => {
  const { element, rows } = table(content), drawn = figures(content, rows);
  const section = make("section", {}, content.title && make("h2", {}, content.title), element,
    make("ul", { class: "protocols" }, ...content.protocols.map((line) => make("li", {}, line))), drawn);
  document.getElementById("tables").append(section);
  return { content, rows, drawn, section };
});
document.getElementById("filter").addEventListener("input", (event) => {
  const word = event.target.value.trim().toLowerCase();
  for (const { content, rows, drawn, section } of sections) {
    content.rows.forEach((row, i) => {
      rows[i].hidden = !`${row.entry} ${data.entries[row.entry].note}`.toLowerCase().includes(word);
    });
    section.hidden = rows.every((row) => row.hidden);
    drawn.draw?.();
  }
});
if (data.unfinished.length) document.getElementById("unfinished").append(make("h3", {}, "Runs that do not count"),
  make("ul", {}, ...data.unfinished.map((line) => make("li", {}, line))));
document.getElementById("origins").append(
  ...data.origins.flatMap(([label, text]) => [make("dt", {}, label), make("dd", {}, text)]));
document.getElementById("zoom").addEventListener("click", (event) => {
  if (event.target.tagName === "DIALOG") event.target.close(); // a click beside the picture
});
