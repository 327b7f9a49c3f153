// Plan viewer: draws the data that forethought.viewer put beside each .viewer element.
// Positions are [row, col], drawn with x = col and y = row. No library, no network.
(() => {
"use strict";
const NAMESPACE = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI;
const INK = "#2d3848", MUTED = "#8893a2", IMAGINED = "#3d6fb4", EXECUTED = "#e8743b", ALARM = "#c8323c";
const still = matchMedia("(prefers-reduced-motion: reduce)");

function shape(parent, name, attributes = {}) {
  const element = document.createElementNS(NAMESPACE, name);
  set(element, attributes);
  return parent.appendChild(element);
}
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}
const fixed = (number) => number.toFixed(3);
const line = (path) => path.length ? "M" + path.map(([row, col]) => `${fixed(col)} ${fixed(row)}`).join("L") : "";
const dots = (path) => path.map(([row, col]) => `M${fixed(col)} ${fixed(row)}h0`).join("");
const mix = (a, b, u) => a.map((point, i) => [0, 1].map((k) => (1 - u) * point[k] + u * b[i][k]));
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const clamp = (number, low, high) => Math.min(high, Math.max(low, Math.round(number)));

class Viewer {
  constructor(root, number) {
    this.root = root;
    this.number = number;  // in the page, from 1: "plan" of a link
    this.data = JSON.parse(root.querySelector("script").textContent);
    const data = this.data;
    this.last = data.frames.length - 1;
    this.end = Math.max(data.executed.length, data.imagined.length) - 1;
    const both = Math.min(data.executed.length, data.imagined.length);
    this.distances = both ? data.executed.map((p, t) => distance(p, this.besideAt(t))) : [];
    const rest = data.arrival ? Math.min(data.arrival, this.end) : this.end;
    this.state = { step: this.last, time: Math.max(rest, 0), candidate: data.chosen, show: "samples" };
    this.hovered = null;
    this.shown = this.last;  // the step that is drawn, on its way to state.step
    this.find();
    this.drawMaze();
    this.drawPaths();
    this.drawSpark();
    this.listCandidates();
    this.listen();
    root.hidden = false;
  }

  find() {
    const get = (query) => this.root.querySelector(query);
    this.parts = {
      maze: get(".maze"), step: get(".step"), time: get(".time"), all: get(".all"), list: get(".list"),
      stepNumber: get(".step-number"), stepLabel: get(".step-label"), timeNumber: get(".time-number"),
      distance: get(".distance"), spark: get(".spark svg"), bound: get(".bound"), parting: get(".parting"),
      imagined: get(".show-imagined"), executed: get(".show-executed"), count: get(".count"),
      playStep: get("[data-play=step]"), playTime: get("[data-play=time]"),
      views: [...this.root.querySelectorAll(".view")],
    };
    const { data, parts } = this, n = data.candidates.length;
    parts.step.max = this.last;
    parts.time.max = Math.max(this.end, 0);
    parts.count.textContent = n > 1 ? `${n} candidates, by value` : "One candidate";
    get(".choice").hidden = n < 2;
    get(".execution").hidden = this.end < 1;
    get(".views").hidden = !data.frames.some((frame) => frame.samples && frame.estimates);
    for (const view of parts.views) view.name = `view-${this.number}`;
    for (const name of ["imagined", "executed"]) {
      parts[name].closest("label").hidden = get(`.key-${name}`).hidden = !data[name].length;
    }
    get(".key-parting").hidden = data.parting === null;
  }

  at(path, time) { return path[Math.min(time, path.length - 1)]; }

  // what the run is compared with: the nearest point of the imagined path, or where the plan would
  // be by the clock; after its end it stays at its last point
  besideAt(time) { return this.at(this.data.beside.length ? this.data.beside : this.data.imagined, time); }

  // positions of candidate k at a step that may lie between two
  positions(k, step) {
    const low = Math.floor(step), frames = this.data.frames;
    const pick = (frame) => (frame[this.state.show] || frame.samples || frame.estimates)[k];
    return low === step ? pick(frames[low]) : mix(pick(frames[low]), pick(frames[low + 1]), step - low);
  }

  drawMaze() {
    const { rows, edge, start, goal } = this.data, svg = this.parts.maze, rim = 0.6;
    const [height, width] = [rows.length, rows[0].length];
    set(svg, { "aria-label": `The maze of ${this.data.recipe}, with the plan and its execution` });
    set(svg, { viewBox: `${edge + rim} ${edge + rim} ${width - 2 * rim} ${height - 2 * rim}` });
    shape(svg, "rect", { x: edge, y: edge, width, height, fill: "#fff" });
    let walls = "";
    rows.forEach((row, r) => [...row].forEach((cell, c) => {
      if (cell === "#") walls += `M${fixed(edge + c)} ${fixed(edge + r)}h1.004v1.004h-1.004z`;
    }));
    shape(svg, "path", { d: walls, fill: INK, "class": "walls" });
    this.layers = {};
    for (const name of ["others", "held", "paths", "ends", "movers"]) {
      this.layers[name] = shape(svg, "g", { "class": name, fill: "none", "stroke-linecap": "round", "stroke-linejoin": "round" });
    }
    const ring = { r: 0.2, fill: "#fff", stroke: INK, "stroke-width": 0.07 };
    shape(this.layers.ends, "circle", { cx: start[1], cy: start[0], ...ring, r: 0.16 });
    shape(this.layers.ends, "circle", { cx: goal[1], cy: goal[0], ...ring });
    const star = Array.from({ length: 10 }, (_, i) => {
      const angle = Math.PI * i / 5, radius = i % 2 ? 0.055 : 0.14;
      return [goal[0] - radius * Math.cos(angle), goal[1] + radius * Math.sin(angle)];
    });
    shape(this.layers.ends, "path", { d: line(star) + "z", fill: INK });
  }

  drawPaths() {
    const { data, layers } = this;
    this.candidates = data.candidates.map(() => ({
      line: shape(layers.others, "path", { stroke: "#7f9cc6", "stroke-width": 0.035 }),
      dots: shape(layers.others, "path", { stroke: "#7f9cc6", "stroke-width": 0.1, "stroke-opacity": 0.75 }),
    }));
    this.heldLine = shape(layers.held, "path", { stroke: MUTED, "stroke-width": 0.05 });
    this.heldDots = data.colors.map((fill) => shape(layers.held, "circle", { fill, r: 0.085 }));
    const dashed = { stroke: IMAGINED, "stroke-width": 0.07, "stroke-dasharray": "0.14 0.13" };
    this.imagined = shape(layers.paths, "path", { d: line(data.imagined), ...dashed, "class": "imagined" });
    this.executed = shape(layers.paths, "g", { stroke: EXECUTED, "class": "executed" });
    shape(this.executed, "path", { d: line(data.executed), "stroke-width": 0.06, "stroke-opacity": 0.3 });
    this.trail = shape(this.executed, "path", { "stroke-width": 0.1 });
    this.gap = shape(layers.movers, "path", { stroke: ALARM, "stroke-width": 0.05, "class": "gap" });
    this.cross = shape(layers.movers, "path", { stroke: ALARM, "stroke-width": 0.08, "class": "part" });
    if (data.parting !== null) {
      const [row, col] = data.executed[data.parting], s = 0.1;
      const d = `M${col - s} ${row - s}L${col + s} ${row + s}M${col - s} ${row + s}L${col + s} ${row - s}`;
      const halo = { d, stroke: "#fff", "stroke-width": 0.15 };
      layers.movers.insertBefore(shape(layers.movers, "path", halo), this.cross).classList.add("part");
      set(this.cross, { d });
    }
    this.ghost = shape(layers.movers, "circle", { r: 0.15, fill: "#fff", stroke: IMAGINED, "stroke-width": 0.07, "class": "ghost" });
    this.ball = shape(layers.movers, "circle", { r: 0.17, fill: EXECUTED, stroke: "#fff", "stroke-width": 0.06, "class": "ball" });
  }

  drawSpark() {
    const { data, parts, distances } = this;
    if (!distances.length) {
      parts.spark.parentNode.hidden = parts.parting.hidden = true;
      return;
    }
    const most = Math.max(...distances), top = 1.15 * Math.max(most, 1.2 * data.near);
    const n = Math.max(distances.length - 1, 1), y = (d) => fixed(40 * (1 - d / top));
    const thin = { fill: "none", "vector-effect": "non-scaling-stroke" }, svg = parts.spark;
    set(svg, { viewBox: `0 0 ${this.end} 40` });
    const outline = distances.map((d, t) => `${t} ${y(d)}`).join("L");
    shape(svg, "path", { d: `M0 40L${outline}L${n} 40z`, fill: "#f6c9b1" });
    shape(svg, "path", { d: `M${outline}`, stroke: EXECUTED, "stroke-width": 1.5, ...thin });
    shape(svg, "path", { d: `M0 ${y(data.near)}H${this.end}`, stroke: ALARM, "stroke-width": 1, "stroke-dasharray": "4 3", ...thin });
    if (data.parting !== null) {
      shape(svg, "path", { d: `M${data.parting} 0V40`, stroke: ALARM, "stroke-width": 2, ...thin });
    }
    this.cursor = shape(svg, "path", { stroke: INK, "stroke-width": 1.5, ...thin });
    parts.bound.textContent = `${data.near} apart`;
    parts.bound.style.top = `${100 * (1 - data.near / top)}%`;
    const far = distances.indexOf(most), apart = distances.filter((d) => d > data.near).length;
    const farthest = `farthest at step ${far}, ${most.toFixed(2)} cells apart`;
    const how = data.beside.length ? " Distances are to the nearest point of the imagined path, which "
      + "this controller pursues without following its clock." : "";
    let text = `Never more than ${data.near} apart; ${farthest}.${how}`;
    if (data.parting !== null) {
      text = `: more than ${data.near} cells apart for the first time, for ${apart} of `
        + `${distances.length} steps in all; ${farthest}.${how}`;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `Part at step ${data.parting}`;
      button.onclick = () => this.change({ time: data.parting, step: this.last }, true);
      parts.parting.append(button);
    }
    parts.parting.append(text);
    set(svg, { "aria-label": "Distance between imagined and executed over time. " + parts.parting.textContent });
  }

  listCandidates() {
    const { data, parts } = this;
    const values = data.candidates.map((c) => c.value), known = values.filter((v) => v !== null);
    const low = Math.min(...known), span = Math.max(...known) - low;
    const digits = Math.max(...known.map(Math.abs)) < 100 ? 3 : 1;
    this.items = data.candidates.map((candidate, k) => {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "radio", name: `candidate-${this.number}`, value: k });
      input.onchange = () => this.change({ candidate: k }, true);
      const rank = document.createElement("b"), value = document.createElement("span");
      const chosen = k === data.chosen;
      rank.textContent = (chosen ? "★" : "") + (k + 1);
      value.textContent = candidate.value === null ? "–" : candidate.value.toFixed(digits).replace("-", "−");
      const name = `candidate ${k + 1}, value ${value.textContent}` + (chosen ? ", chosen" : "");
      input.setAttribute("aria-label", name);
      label.title = `${name}; drawn as number ${candidate.drawn + 1}`;
      const share = candidate.value === null ? 0 : span > 0 ? (candidate.value - low) / span : 1;
      label.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
      label.append(input, rank, value);
      label.onpointerenter = () => this.hover(k);
      label.onpointerleave = () => this.hover(null);
      parts.list.append(label);
      return label;
    });
  }

  listen() {
    const { parts } = this;
    parts.step.oninput = () => this.change({ step: +parts.step.value });
    parts.time.oninput = () => this.change({ time: +parts.time.value, step: this.last });
    parts.step.onchange = parts.time.onchange = () => this.link();
    for (const view of parts.views) view.onchange = () => this.change({ show: view.value }, true);
    for (const box of [parts.all, parts.imagined, parts.executed]) box.onchange = () => this.render();
    parts.playStep.onclick = () => this.play("step", this.last, this.last / 4.5);
    parts.playTime.onclick = () => this.play("time", this.end, this.end / 9);
    const seek = (event) => {
      const box = parts.spark.getBoundingClientRect();
      this.change({ time: (event.clientX - box.left) / box.width * this.end, step: this.last });
    };
    parts.spark.onpointerdown = (event) => { parts.spark.setPointerCapture(event.pointerId); seek(event); };
    parts.spark.onpointermove = (event) => { if (event.buttons) seek(event); };
    parts.spark.onpointerup = () => this.link();
    parts.maze.onpointermove = (event) => this.hover(this.nearest(event));
    parts.maze.onpointerleave = () => this.hover(null);
    parts.maze.onclick = (event) => {
      const k = this.nearest(event);
      if (k !== null) this.change({ candidate: k }, true);
    };
  }

  // the candidate under the pointer, or null
  nearest(event) {
    if (!this.parts.all.checked || this.candidates.length < 2) return null;
    const svg = this.parts.maze, point = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = point.matrixTransform(svg.getScreenCTM().inverse());
    let best = null, least = 0.2;
    this.candidates.forEach((_, k) => this.positions(k, this.state.step).forEach((p) => {
      const d = distance(p, [y, x]);
      if (d < least) [best, least] = [k, d];
    }));
    return best;
  }

  hover(k) {
    if (k === this.hovered) return;
    this.hovered = k;
    this.render();
  }

  // new state, within bounds; `link`: the address of the page follows
  change(wanted, link = false, playing = false) {
    const state = { ...this.state, ...wanted };
    if (!playing) this.stop();
    state.step = clamp(state.step, 0, this.last);
    state.time = clamp(state.time, 0, Math.max(this.end, 0));
    state.candidate = clamp(state.candidate, 0, this.data.candidates.length - 1);
    if (state.show !== "estimates") state.show = "samples";
    this.state = state;
    if (link) this.link();
    this.approach();
    this.render();
  }

  // the drawn step glides to the wanted one
  approach() {
    if (still.matches || document.hidden || this.shown === null) this.shown = this.state.step;
    if (this.gliding || this.shown === this.state.step) return;
    let before = performance.now();
    const glide = (now) => {
      const gap = this.state.step - this.shown, pace = Math.max(6, 8 * Math.abs(gap));
      const move = Math.min(Math.abs(gap), pace * Math.max(now - before, 1) / 1000);
      before = now;
      this.shown = Math.abs(gap) - move < 1e-6 ? this.state.step : this.shown + Math.sign(gap) * move;
      this.render();
      this.gliding = this.shown === this.state.step ? null : requestAnimationFrame(glide);
    };
    this.gliding = requestAnimationFrame(glide);
  }

  play(what, end, pace) {
    if (this.playing === what) return this.stop(true);
    this.stop();
    this.playing = what;
    const from = this.state[what] >= end ? 0 : this.state[what], began = performance.now();
    const tick = (now) => {
      const value = Math.min(end, from + pace * Math.max(now - began, 0) / 1000);
      this.change(what === "time" ? { time: value, step: this.last } : { step: Math.floor(value) }, false, true);
      if (value >= end) return this.stop(true);
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
    this.render();
  }

  stop(link = false) {
    if (!this.playing) return;
    cancelAnimationFrame(this.timer);
    this.playing = null;
    if (link) this.link();
    this.render();
  }

  link() {
    const { step, time, candidate, show } = this.state;
    const words = new URLSearchParams({ plan: this.number, step, time, candidate: candidate + 1, show });
    try { history.replaceState(null, "", `#${words}`); } catch { /* some viewers of local files forbid it */ }
  }

  // from the words of a link; those that make no sense are left out
  open(words) {
    const wanted = {};
    for (const name of ["step", "time", "candidate"]) {
      const number = parseFloat(words.get(name));
      if (Number.isFinite(number)) wanted[name] = name === "candidate" ? number - 1 : number;
    }
    if (words.get("show")) wanted.show = words.get("show");
    this.shown = null;
    this.change(wanted);
  }

  render() {
    this.renderDenoising();
    if (this.end > 0) this.renderExecution();
    for (const [what, button] of [["step", this.parts.playStep], ["time", this.parts.playTime]]) {
      const on = this.playing === what, name = what === "step" ? "the denoising" : "the execution";
      button.textContent = on ? "❚❚" : "▶";
      set(button, { "aria-label": `${on ? "Pause" : "Play"} ${name}` });
    }
  }

  renderDenoising() {
    const { data, parts, state, shown } = this, held = this.hovered ?? state.candidate;
    const frame = data.frames[state.step], smooth = !frame.samples || (state.show === "estimates" && frame.estimates);
    const done = smooth || !this.last ? 1 : Math.max(0, shown - this.last + 1);  // noise is no path
    const resting = state.step === this.last && state.time > 0 && this.end > 0;
    this.candidates.forEach((candidate, k) => {
      const visible = parts.all.checked && k !== held, path = visible ? this.positions(k, shown) : [];
      set(candidate.dots, { d: dots(path) });
      set(candidate.line, { d: line(path), "stroke-opacity": (0.7 * done).toFixed(2) });
    });
    set(this.layers.others, { opacity: resting && this.hovered === null ? 0.55 : 1 });
    const path = this.positions(held, shown);
    set(this.heldLine, { d: line(path), "stroke-opacity": done.toFixed(2) });
    path.forEach(([row, col], i) => set(this.heldDots[i], { cx: fixed(col), cy: fixed(row) }));
    parts.step.value = state.step;
    parts.stepNumber.value = `${state.step} of ${this.last}`;
    parts.stepLabel.value = frame.label;
    set(parts.step, { "aria-valuetext": `step ${state.step} of ${this.last}: ${frame.label}` });
    for (const view of parts.views) view.checked = view.value === state.show;
    this.items.forEach((label, k) => {
      label.classList.toggle("shown", k === held);
      label.firstChild.checked = k === state.candidate;
    });
  }

  renderExecution() {
    const { data, parts, state } = this, { executed, imagined } = data, t = state.time;
    const gap = this.distances.length ? this.distances[Math.min(t, this.distances.length - 1)] : null;
    const [row, col] = executed.length ? this.at(executed, t) : [0, 0];
    const [ghostRow, ghostCol] = imagined.length ? this.besideAt(t) : [0, 0];
    set(this.trail, { d: line(executed.slice(0, t + 1)) });
    set(this.ball, { cx: fixed(col), cy: fixed(row) });
    set(this.ghost, { cx: fixed(ghostCol), cy: fixed(ghostRow) });
    set(this.gap, { d: line([[row, col], [ghostRow, ghostCol]]) });
    // nothing is executed before the plan is there
    const opacity = state.step === this.last && this.shown === this.last ? 1 : 0;
    for (const name of ["paths", "movers"]) set(this.layers[name], { opacity });
    const show = (element, on) => set(element, { visibility: on ? "visible" : "hidden" });
    const plan = parts.imagined.checked && imagined.length, run = parts.executed.checked && executed.length;
    for (const element of [this.imagined, this.ghost]) show(element, plan);
    for (const element of [this.executed, this.ball]) show(element, run);
    show(this.gap, plan && run);
    for (const element of this.layers.movers.querySelectorAll(".part")) show(element, run && data.parting !== null);
    parts.time.value = t;
    parts.timeNumber.value = `${t} of ${this.end}`;
    const text = gap === null ? "" : `${gap.toFixed(2)} apart`;
    parts.distance.value = text;
    set(parts.time, { "aria-valuetext": `step ${t} of ${this.end}${text && ", " + text}` });
    if (this.cursor) set(this.cursor, { d: `M${t} 0V40` });
  }
}

const viewers = [...document.querySelectorAll(".viewer")].map((root, i) => new Viewer(root, i + 1));
for (const figure of document.querySelectorAll("[data-without-script]")) figure.hidden = true;
function openLink() {
  const words = new URLSearchParams(location.hash.slice(1));
  const wanted = viewers[(parseInt(words.get("plan"), 10) || 1) - 1];
  for (const viewer of viewers) viewer === wanted ? viewer.open(words) : viewer.render();
  if (wanted && words.has("plan")) wanted.root.scrollIntoView({ block: "nearest" });
}
addEventListener("hashchange", openLink);
openLink();
})();
