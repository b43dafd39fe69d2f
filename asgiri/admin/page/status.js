"use strict";
// All that comes from the service goes to the page as text: textContent, and attributes that are made here.

const SECONDS = 300; // of history that are shown
const EVERY = 1000; // milliseconds from an answer to the next question
const PATIENCE = 5000; // milliseconds that an answer may take
const HEIGHT = 100; // of a chart, in its own units

const by = (id) => document.getElementById(id);
const points = new Map(); // by second
let latest = 0; // the second of the last answer
let heard = null; // when it came
let hovered = null; // the second that the pointer is at

// Words and numbers

function short(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)}M`;
  if (number >= 1e4) return `${(number / 1e3).toPrecision(3)}k`;
  if (number >= 100 || Number.isInteger(number)) return String(Math.round(number));
  return number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

const whole = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");

function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${trim(seconds * 1e3)} ms`;
  return `${trim(seconds)} s`;
}

const trim = (number) => (number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3))));

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at++; }
  return `${at === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

function age(seconds) {
  const [s, m, h, d] = [1, 60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (d) return `${d}d ${h % 24}h`;
  if (h) return `${h}h ${m % 60}m`;
  if (m) return `${m}m ${s % 60}s`;
  return `${s}s`;
}

// The page

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function drawn(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// A list of terms: what is there stays, so that nothing jumps and a selection holds.
function terms(list, entries) {
  entries.forEach(([term, text, more], index) => {
    let row = list.children[index];
    if (!row) {
      row = make("div", {}, make("dt"), make("dd", {}, "", make("small")));
      list.append(row);
    }
    const [dt, dd] = row.children;
    put(dt, term);
    if (dd.firstChild.nodeType !== Node.TEXT_NODE) dd.prepend("");
    if (dd.firstChild.data !== text) dd.firstChild.data = text;
    put(dd.lastChild, more ? more.unit || "" : "");
    if (more && more.tone) dd.dataset.tone = more.tone; else delete dd.dataset.tone;
    if (more && more.note !== undefined) {
      if (row.children.length < 3) row.append(make("dd", { class: "note" }));
      put(row.children[2], more.note);
    }
  });
  while (list.children.length > entries.length) list.lastChild.remove();
}

const stateOf = (word) =>
  make("span", { class: "state", "data-state": word }, make("span", { class: "dot", "aria-hidden": "true" }), make("span", {}, word));

function rows(body, entries, cells) {
  entries.forEach((entry, index) => {
    let row = body.rows[index];
    const made = cells(entry);
    if (!row) {
      row = body.insertRow();
      made.forEach(([, kind], at) => row.append(make(at ? "td" : "th", { ...(at ? {} : { scope: "row" }), class: kind })));
    }
    made.forEach(([content], at) => {
      const cell = row.cells[at];
      if (typeof content === "string") put(cell, content);
      else if (cell.textContent !== content.textContent || !cell.firstChild) cell.replaceChildren(content);
    });
  });
  while (body.rows.length > entries.length) body.lastElementChild.remove();
}

const LEVELS = { bad: "Wrong", warning: "Look", note: "Note" };

function showTroubles(troubles) {
  const list = by("troubles");
  const key = JSON.stringify(troubles.map((one) => one.level + one.text.replace(/[\d.]+/g, "#")));
  if (list.dataset.key === key) { // the same with other numbers: not to be read out again
    troubles.forEach((one, at) => put(list.children[at].lastChild, one.text));
    return;
  }
  list.dataset.key = key;
  list.replaceChildren(...troubles.map((one) =>
    make("p", { class: "trouble", "data-level": one.level }, make("b", {}, LEVELS[one.level] || ""), make("span", {}, one.text))));
}

// Charts

class Chart {
  // series: [{name, label, of(point)}], the lowest first where they are stacked.
  constructor(id, { title, series, stacked, format, least }) {
    Object.assign(this, { title, series, stacked, format, least });
    const root = by(id);
    this.values = series.map((one) => make("b", {}, "–"));
    const legend = make("ul", { class: "legend" });
    [...series.keys()].reverse().forEach((at) => legend.append(
      make("li", {}, make("i", { "data-series": series[at].name, "aria-hidden": "true" }), `${series[at].label} `, this.values[at])));
    this.svg = drawn("svg", { viewBox: `0 0 ${SECONDS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, 0.5, 1]) {
      this.svg.append(drawn("line", { class: y === 1 ? "gridline baseline" : "gridline", x1: 0, x2: SECONDS, y1: y * HEIGHT, y2: y * HEIGHT }));
    }
    this.paths = series.map((one) => {
      const path = drawn("path", { class: stacked ? "area" : "curve", "data-series": one.name });
      this.svg.append(path);
      return path;
    });
    this.cursor = drawn("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg.append(this.cursor);
    this.marks = ["", "", ""].map(() => make("span"));
    this.times = ["5 min ago", "4", "3", "2", "1", "now"].map((text) => make("span", {}, text));
    root.append(
      make("figcaption", {}, make("h2", {}, title), legend),
      make("div", { class: "plot" }, make("div", { class: "axis", "aria-hidden": "true" }, ...this.marks), this.svg,
        make("div", { class: "times", "aria-hidden": "true" }, ...this.times)));
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      hovered = latest - SECONDS + Math.round((event.clientX - box.left) / box.width * SECONDS);
      draw();
    });
    this.svg.addEventListener("pointerleave", () => { hovered = null; draw(); });
  }

  draw(shown) {
    const table = shown.map((point) => this.series.map((one) => one.of(point)));
    const tops = table.map((row) => (this.stacked ? row.reduce((sum, value) => sum + (value || 0), 0) : Math.max(0, ...row.map((value) => value || 0))));
    const most = nice(Math.max(this.least, ...tops));
    const x = (point) => SECONDS - (latest - point.second);
    const y = (value) => HEIGHT - (value / most) * HEIGHT;
    this.paths.forEach((path, at) => path.setAttribute("d", this.stacked ? area(shown, table, at, x, y) : curve(shown, table, at, x, y)));
    [most, most / 2, 0].forEach((value, at) => put(this.marks[at], this.format(value)));
    const picked = hovered === null ? shown[shown.length - 1] : points.get(hovered);
    this.series.forEach((one, at) => put(this.values[at], picked ? this.format(one.of(picked)) : "–"));
    this.cursor.setAttribute("visibility", hovered === null ? "hidden" : "visible");
    if (hovered !== null) {
      this.cursor.setAttribute("x1", SECONDS - (latest - hovered));
      this.cursor.setAttribute("x2", SECONDS - (latest - hovered));
    }
    put(this.times[5], hovered === null ? "now" : `at ${age(Math.max(0, latest - hovered))} ago`);
    const peak = tops.length ? this.format(Math.max(...tops)) : "–";
    this.svg.setAttribute("aria-label", `${this.title}, the last five minutes: at most ${peak}`);
  }
}

// The next number that is easy to halve.
function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= most * 0.999999);
}

// Runs of points that follow each other: between others there is a gap, for nobody looked.
function* runs(shown, has) {
  let run = [];
  for (const [index, point] of shown.entries()) {
    const broken = run.length && point.second - shown[index - 1].second > 2;
    if (broken || !has(index)) {
      if (run.length) yield run;
      run = [];
    }
    if (has(index)) run.push(index);
  }
  if (run.length) yield run;
}

function curve(shown, table, at, x, y) {
  let path = "";
  for (const run of runs(shown, (index) => table[index][at] !== null)) {
    path += run.map((index, first) => `${first ? "L" : "M"}${x(shown[index])} ${y(table[index][at]).toFixed(2)}`).join("");
    if (run.length === 1) path += "h0.01";
  }
  return path;
}

function area(shown, table, at, x, y) {
  const below = (index) => table[index].slice(0, at).reduce((sum, value) => sum + (value || 0), 0);
  let path = "";
  for (const run of runs(shown, () => true)) {
    const upper = run.map((index) => `${x(shown[index])} ${y(below(index) + (table[index][at] || 0)).toFixed(2)}`);
    const lower = run.map((index) => `${x(shown[index])} ${y(below(index)).toFixed(2)}`).reverse();
    path += `M${[...upper, ...lower].join("L")}Z`;
  }
  return path;
}

const quantiles = (what) => ["p50", "p90", "p99"].map((name) => ({ name, label: name, of: (point) => point[`${what}_${name}`] }));
const classes = ["2xx", "3xx", "4xx", "5xx"].map((name) => ({ name, label: name, of: (point) => point[`requests_${name}`] }));
const other = { name: "other", label: "other", of: (point) => (point.requests_1xx || 0) + (point.requests_left || 0) };

const charts = [
  new Chart("rate", { title: "Requests a second", series: [...classes, other], stacked: true, format: short, least: 1 }),
  new Chart("latency", { title: "Request duration", series: quantiles("duration"), stacked: false, format: time, least: 0.001 }),
  new Chart("lag", { title: "Event loop lag", series: quantiles("loop_lag"), stacked: false, format: time, least: 0.001 }),
];

function draw() {
  const shown = [...points.values()].filter((point) => point.second > latest - SECONDS).sort((one, two) => one.second - two.second);
  for (const chart of charts) chart.draw(shown);
}

// What the service says

function show(status) {
  const { service, rates, latency, open, totals } = status;
  const word = !service.live ? "master silent" : service.state === "serving" && !service.ready ? "not ready" : service.state;
  const tone = word === service.state ? word : "bad";
  put(by("app"), service.app);
  by("state").dataset.state = tone;
  put(by("word"), word);
  document.title = `${word} – ${service.app}`;
  icon(tone === "serving" && status.troubles.every((one) => one.level === "note") ? "good" : tone === "bad" ? "bad" : "warn");
  terms(by("facts"), [
    ["up", age(service.uptime)],
    ["generation", String(service.generation)],
    ["on", service.listeners.map((one) => (one.tls ? `${one.bind} (TLS)` : one.bind)).join(", ")],
  ]);
  const troubles = service.metrics ? status.troubles
    : [...status.troubles, { level: "note", text: "Requests are neither counted nor timed here: metrics.enabled is off." }];
  showTroubles(troubles);
  terms(by("tiles"), [
    ["Requests a second", short(rates.requests), { note: `${whole(totals.requests)} in all` }],
    ["Errors a second", short(rates.errors), { tone: rates.errors > 0 ? "bad" : "", note: `${whole(totals.by_status["5xx"])} in all (5xx)` }],
    ["Median duration", time(latency.duration.p50), { note: `p90 ${time(latency.duration.p90)}` }],
    ["p99 duration", time(latency.duration.p99), { note: `first byte ${time(latency.first_byte.p99)}` }],
    ["In flight", short(open.requests), { note: `${short(open.connections)} connections` }],
    ["Memory", size(open.memory), { note: `${status.workers.length} worker${status.workers.length === 1 ? "" : "s"}` }],
  ]);
  put(by("serving"), `${service.serving} of ${service.wanted} serve`);
  rows(by("workers").tBodies[0], status.workers, (one) => [
    [String(one.number), ""],
    [stateOf(one.state), ""],
    [short(one.rate), "number"],
    [short(one.requests), "number mid"],
    [short(one.connections), "number mid"],
    [size(one.memory), "number"],
    [age(one.age), "number"],
    [whole(one.served), "number more"],
    [String(one.generation), "number more"],
    [String(one.pid), "number more"],
  ]);
  by("certificates-part").hidden = !status.certificates.length;
  rows(by("certificates").tBodies[0], status.certificates, (one) => [
    [one.name || one.listener, ""],
    [new Date(one.expires * 1000).toISOString().slice(0, 10), ""],
    [one.days_left >= 10 ? String(Math.floor(one.days_left)) : one.days_left.toFixed(1), "number"],
    [one.certfile, "mid file"],
  ]);
  const exits = Object.entries(totals.worker_exits).filter(([, count]) => count).map(([why, count]) => `${count} ${why.replace("_", " ")}`);
  terms(by("totals"), [
    ["Requests over HTTP/1.1", whole(totals.by_protocol["http/1.1"])],
    ["Requests over HTTP/2", whole(totals.by_protocol.h2)],
    ["Refused requests", whole(totals.refused)],
    ["Connections", whole(totals.connections)],
    ["WebSockets", whole(totals.websockets)],
    ["Received", size(totals.received)],
    ["Sent", size(totals.sent)],
    ["Reloads", `${totals.reloads.done}${totals.reloads.failed ? ` and ${totals.reloads.failed} failed` : ""}`],
    ["Workers that ended", exits.join(", ") || "none"],
  ]);
  put(by("about"), `asgiri ${service.version}, Python ${service.python}, master pid ${service.pid}`);
}

function icon(tone) {
  const link = by("icon");
  if (link.dataset.tone === tone) return;
  link.dataset.tone = tone;
  const colour = { good: "%233c9a6a", warn: "%23e0a437", bad: "%23cf4238" }[tone];
  link.href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='6' fill='${colour}'/></svg>`;
}

function showAway(why) {
  const since = heard ? ` since ${heard.toLocaleTimeString()}` : "";
  put(by("away"), `The service does not answer${since} (${why}).`);
  by("away").hidden = false;
  document.body.classList.add("away");
  by("state").dataset.state = "bad";
  put(by("word"), "no answer");
  document.title = "no answer – asgiri";
  icon("bad");
}

async function ask() {
  const last = points.size ? Math.max(...points.keys()) : 0;
  const answer = await fetch(`status?history=${last}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const status = await answer.json();
  if (status.second < latest) points.clear(); // another machine, or another start of it
  latest = status.second;
  for (const point of status.history) points.set(point.second, point);
  for (const second of points.keys()) if (second <= latest - SECONDS) points.delete(second);
  heard = new Date();
  by("away").hidden = true;
  document.body.classList.remove("away");
  show(status);
  draw();
}

async function turn() {
  if (!document.hidden) {
    try {
      await ask();
    } catch (error) {
      showAway(error.name === "TimeoutError" ? "it takes too long" : error.name === "TypeError" ? "no connection" : error.message);
      if (!["TimeoutError", "TypeError"].includes(error.name)) console.error(error);
    }
  }
  setTimeout(turn, EVERY);
}

turn();
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask().catch(() => {}); });
