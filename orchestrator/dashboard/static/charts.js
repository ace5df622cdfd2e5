// How did a figure of each instance move over the time that is shown? A line chart in SVG, read by eye, pointer or arrow keys.

import { clock, make, makeSvg, number, setAttribute, setText } from "./view.js";

const MARGIN = { top: 12, right: 12, bottom: 22, left: 46 };
const LABEL_GUTTER = 92;
const LABEL_HEIGHT = 13;
const MOST_LABELS = 10;
const MOST_READ = 12;

/** Round numbers from zero to at least `top`, four or five of them. Returns [ticks, end of the axis]. */
export function linearTicks(top) {
  const rough = Math.max(top, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const count = Math.ceil(top / step - 1e-9) || 1;
  return [Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(12))), count * step];
}

/** 1, 2, 5, 10, … around what is shown, thinned to the decades where that is too many. Returns [ticks, low, high]. */
export function logTicks(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) all.push(Number((factor * 10 ** power).toPrecision(6)));
  }
  const start = all.findLast((tick) => tick <= low) ?? all[0];
  let end = all.find((tick) => tick >= high) ?? all.at(-1);
  if (end === start) end = all[all.indexOf(start) + 1];
  const within = all.filter((tick) => tick >= start && tick <= end);
  const decades = within.filter((tick) => Number.isInteger(Math.log10(tick)));
  return [within.length > 8 && decades.length > 1 ? decades : within, start, end];
}

/** Path data through [x, y | null] points; a null and a jump wider than `gap` lift the pen. */
export function pathData(points, gap) {
  let data = "";
  let lastX = null;
  for (let i = 0; i < points.length; i += 1) {
    const [x, y] = points[i];
    if (y === null) {
      lastX = null;
      continue;
    }
    if (lastX === null || x - lastX > gap) {
      data += `M${x.toFixed(1)} ${y.toFixed(1)}`;
      const next = points[i + 1];
      // A single point has no length: draw it as a dot by the round cap of an empty stroke.
      if (!next || next[1] === null || next[0] - x > gap) data += "h0";
    } else {
      data += `L${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    lastX = x;
  }
  return data;
}

/** Moves labels apart that would overlap, keeping their order and staying inside [top, bottom]. */
export function spread(labels, top, bottom, height) {
  const placed = labels.map((label) => ({ ...label })).sort((a, b) => a.y - b.y);
  let floor = top;
  for (const label of placed) {
    label.y = Math.max(label.y, floor);
    floor = label.y + height;
  }
  let ceiling = bottom;
  for (const label of placed.reverse()) {
    label.y = Math.min(label.y, ceiling);
    ceiling = label.y - height;
  }
  return placed;
}

export class LineChart {
  /**
   * `measures` are fields of a sample's instances: {key, name, dashed}. `scale` is linear (from zero) or log.
   * `announce` receives what an arrow key has read, for a live region.
   */
  constructor(figure, { title, unit, scale, measures, empty, announce }) {
    Object.assign(this, { figure, title, unit, scale, measures, empty, announce });
    this.lines = new Map();
    this.cursor = null; // {t} pinned by the keyboard, or {x} following the pointer
    this.shown = null;
    this.width = 0;
    this.height = 0;

    this.caption = make("figcaption", {}, [make("span", { class: "chart-title" }, title), make("span", { class: "chart-unit" }, unit)]);
    for (const measure of measures.length > 1 ? measures : []) {
      this.caption.append(
        make("span", { class: "chart-measure" }, [
          makeSvg("svg", { width: 22, height: 8, "aria-hidden": "true" }, makeSvg("line", { x1: 1, x2: 21, y1: 4, y2: 4, class: `line ${measure.dashed ? "dashed" : ""}` })),
          measure.name,
        ]),
      );
    }
    this.grid = makeSvg("g", { class: "grid" });
    this.plot = makeSvg("g", { class: "lines" });
    this.labels = makeSvg("g", { class: "labels" });
    this.needle = makeSvg("line", { class: "needle", visibility: "hidden" });
    this.dots = makeSvg("g", { class: "dots" });
    this.message = makeSvg("text", { class: "chart-empty", "text-anchor": "middle" });
    this.svg = makeSvg("svg", { role: "img" }, [this.grid, this.plot, this.labels, this.needle, this.dots, this.message]);
    this.reading = make("div", { class: "reading", hidden: "", "aria-hidden": "true" });
    this.area = make("div", { class: "chart-area", tabindex: "0", role: "group", "aria-label": `${title}: arrow keys read single moments, Escape stops` }, [this.svg, this.reading]);
    figure.append(this.caption, this.area);

    this.area.addEventListener("pointermove", (event) => this.point({ x: event.clientX - this.area.getBoundingClientRect().left }));
    this.area.addEventListener("pointerdown", (event) => this.point({ x: event.clientX - this.area.getBoundingClientRect().left }));
    this.area.addEventListener("pointerleave", () => this.point(null));
    this.area.addEventListener("blur", () => this.point(null));
    this.area.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.area);
  }

  resize() {
    const { width, height } = this.area.getBoundingClientRect();
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${height}`);
    if (this.shown) this.show(this.shown);
  }

  /**
   * `samples` as in History; `instances` in order: {name, slot, hidden}; `range` as in RANGES of main.js: the seconds that the axis
   * covers, from where on two samples are too far apart for a line between them, and how many seconds lie between two ticks.
   */
  show(shown) {
    this.shown = shown;
    if (!this.width || !this.height) return;
    const visible = shown.instances.filter((one) => !one.hidden);
    const samples = shown.samples;
    const end = samples.at(-1)?.t ?? 0;
    const labelled = this.width >= 560 && visible.length > 1 && visible.length <= MOST_LABELS;
    const left = MARGIN.left;
    const right = this.width - MARGIN.right - (labelled ? LABEL_GUTTER : 0);
    const bottom = this.height - MARGIN.bottom;
    this.frame = { left, right, top: MARGIN.top, bottom, end };
    this.xOf = (t) => right - ((end - t) / shown.range.seconds) * (right - left);

    const values = [];
    for (const sample of samples) {
      for (const { name } of visible) {
        for (const { key } of this.measures) {
          const value = sample.instances.get(name)?.[key];
          if (Number.isFinite(value)) values.push(value);
        }
      }
    }
    const ticks = this.scaleTo(values);
    this.drawGrid(ticks, samples.length > 0);
    this.drawLines(visible, samples);
    this.drawLabels(labelled ? visible : [], samples.at(-1));
    setText(this.message, values.length ? "" : samples.length ? `${this.empty} ${shown.range.words}` : "No data yet");
    setAttribute(this.message, "x", (left + right) / 2);
    setAttribute(this.message, "y", (MARGIN.top + bottom) / 2);
    setAttribute(this.svg, "aria-label", this.summary(visible, samples.at(-1)));
    this.read();
  }

  scaleTo(values) {
    const { top, bottom } = this.frame;
    if (this.scale === "log") {
      const positive = values.filter((value) => value > 0);
      const [ticks, low, high] = positive.length ? logTicks(positive.reduce((a, b) => Math.min(a, b)), positive.reduce((a, b) => Math.max(a, b))) : logTicks(1, 100);
      const span = Math.log(high / low);
      this.yOf = (value) => bottom - (Math.log(Math.max(value, low) / low) / span) * (bottom - top);
      return ticks;
    }
    const [ticks, high] = linearTicks(values.reduce((most, value) => Math.max(most, value), 0) || 1);
    this.yOf = (value) => bottom - (value / high) * (bottom - top);
    return ticks;
  }

  drawGrid(ticks, dated) {
    const { left, right, top, bottom, end } = this.frame;
    const { seconds, tick: between } = this.shown.range;
    const parts = [];
    for (const tick of ticks) {
      const y = this.yOf(tick);
      parts.push(makeSvg("line", { x1: left, x2: right, y1: y, y2: y, class: tick === ticks[0] ? "axis" : "" }));
      parts.push(makeSvg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, number(tick)));
    }
    for (let minute = Math.ceil((end - seconds) / between) * between; dated && minute <= end; minute += between) {
      const x = this.xOf(minute);
      parts.push(makeSvg("line", { x1: x, x2: x, y1: top, y2: bottom + 4, class: "minute" }));
      if (x > left + 14 && x < right - 14) parts.push(makeSvg("text", { x, y: bottom + 17, "text-anchor": "middle" }, clock(minute, false)));
    }
    this.grid.replaceChildren(...parts);
  }

  drawLines(visible, samples) {
    const gap = (this.shown.range.gap() / this.shown.range.seconds) * (this.frame.right - this.frame.left);
    const wanted = new Set();
    for (const { name, slot } of visible) {
      for (const { key, dashed } of this.measures) {
        const id = `${key}\u0000${name}`;
        wanted.add(id);
        let line = this.lines.get(id);
        if (!line) {
          line = makeSvg("path", { "data-instance": name, "data-measure": key });
          this.lines.set(id, line);
          this.plot.append(line);
        }
        setAttribute(line, "class", `line slot-${slot}${dashed ? " dashed" : ""}`);
        const points = [];
        for (const sample of samples) {
          const value = sample.instances.get(name)?.[key];
          points.push([this.xOf(sample.t), Number.isFinite(value) ? this.yOf(value) : null]);
        }
        setAttribute(line, "d", pathData(points, gap));
      }
    }
    for (const [id, line] of this.lines) {
      if (!wanted.has(id)) {
        line.remove();
        this.lines.delete(id);
      }
    }
  }

  drawLabels(visible, last) {
    const { key } = this.measures.at(-1);
    const labels = [];
    for (const { name, slot } of visible) {
      const value = last?.instances.get(name)?.[key];
      if (Number.isFinite(value)) labels.push({ name, slot, y: this.yOf(value), at: this.yOf(value) });
    }
    const x = this.frame.right;
    const parts = [];
    for (const { name, slot, y, at } of spread(labels, this.frame.top, this.frame.bottom, LABEL_HEIGHT)) {
      parts.push(makeSvg("path", { class: `lead slot-${slot}`, d: `M${x + 2} ${at.toFixed(1)}L${x + 9} ${y.toFixed(1)}` }));
      parts.push(makeSvg("text", { x: x + 12, y: y + 4 }, name.length > 13 ? `${name.slice(0, 12)}…` : name));
    }
    this.labels.replaceChildren(...parts);
  }

  summary(visible, last) {
    if (!last) return `${this.title}, ${this.unit}: no data yet`;
    const parts = visible.map(({ name }) => `${name} ${this.valuesOf(last, name)}`);
    return `${this.title}, ${this.unit}, now: ${parts.join("; ") || "no instance shown"}`;
  }

  valuesOf(sample, name) {
    const values = sample.instances.get(name);
    return this.measures.map(({ key, name: measure }) => `${this.measures.length > 1 ? `${measure} ` : ""}${number(values?.[key])}`).join(", ");
  }

  point(cursor) {
    this.cursor = cursor;
    this.read();
  }

  key(event) {
    const samples = this.shown?.samples ?? [];
    if (!samples.length) return;
    const here = this.sampleAtCursor();
    const at = here ? samples.indexOf(here) : samples.length - 1;
    const step = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: at - (here ? step : 0), ArrowRight: at + step, Home: 0, End: samples.length - 1 }[event.key];
    if (event.key === "Escape") return void this.point(null);
    if (to === undefined) return;
    event.preventDefault();
    const sample = samples[Math.min(Math.max(to, 0), samples.length - 1)];
    this.point({ t: sample.t });
    const parts = this.shown.instances.filter((one) => !one.hidden).map(({ name }) => `${name} ${this.valuesOf(sample, name)}`);
    this.announce(`${clock(sample.t)}: ${parts.join("; ")}`);
  }

  sampleAtCursor() {
    if (!this.cursor || !this.shown?.samples.length || !this.xOf) return null;
    const { left, right, end } = this.frame;
    const t = this.cursor.t ?? end - ((right - Math.min(Math.max(this.cursor.x, left), right)) / (right - left)) * this.shown.range.seconds;
    let best = null;
    for (const sample of this.shown.samples) {
      if (!best || Math.abs(sample.t - t) < Math.abs(best.t - t)) best = sample;
    }
    return best;
  }

  read() {
    const sample = this.sampleAtCursor();
    this.reading.hidden = !sample;
    setAttribute(this.needle, "visibility", sample ? "visible" : "hidden");
    this.dots.replaceChildren();
    if (!sample) return;
    const x = this.xOf(sample.t);
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", this.frame.top], ["y2", this.frame.bottom]]) setAttribute(this.needle, name, value);

    const order = this.measures.at(-1).key;
    const visible = this.shown.instances.filter((one) => !one.hidden && sample.instances.has(one.name));
    visible.sort((a, b) => (sample.instances.get(b.name)[order] ?? -1) - (sample.instances.get(a.name)[order] ?? -1));
    const rows = [make("tr", {}, [make("th", {}, clock(sample.t)), ...this.measures.map(({ name }) => make("th", { class: "num" }, this.measures.length > 1 ? `${name}` : this.unit))])];
    for (const { name, slot } of visible.slice(0, MOST_READ)) {
      const values = sample.instances.get(name);
      rows.push(
        make("tr", {}, [
          make("td", {}, [make("span", { class: `swatch slot-${slot}` }), name]),
          ...this.measures.map(({ key }) => make("td", { class: "num" }, number(values[key]))),
        ]),
      );
      for (const { key } of this.measures) {
        if (Number.isFinite(values[key])) this.dots.append(makeSvg("circle", { cx: x, cy: this.yOf(values[key]), r: 3, class: `slot-${slot}` }));
      }
    }
    if (visible.length > MOST_READ) rows.push(make("tr", {}, make("td", { colspan: 1 + this.measures.length }, `and ${visible.length - MOST_READ} more`)));
    this.reading.replaceChildren(make("table", {}, make("tbody", {}, rows)));
    const half = (this.frame.left + this.frame.right) / 2;
    this.reading.style.left = x < half ? `${x + 10}px` : "auto";
    this.reading.style.right = x < half ? "auto" : `${this.width - x + 10}px`;
  }
}
