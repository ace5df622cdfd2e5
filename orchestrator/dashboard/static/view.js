// How do values become text, and text become nodes? Everything is inserted as text, never parsed as HTML.

export const NONE = "–";

/** An element with attributes (`class`, `data-x`, `aria-x`, …; null leaves one out) and children, nodes or text. */
export function make(tag, attributes = {}, children = []) {
  return dress(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

export function makeSvg(tag, attributes = {}, children = []) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...[children].flat());
  return node;
}

/** Writes only what differs, so that a page at rest causes no layout. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/** Children of `parent`, one per item, kept by key over updates so that focus and open details survive. */
export class Keyed {
  /** `after` is a child of `parent` that stays in front of the keyed ones. */
  constructor(parent, create, update, after = null) {
    this.parent = parent;
    this.after = after;
    this.create = create;
    this.update = update;
    this.nodes = new Map();
  }

  show(items, keyOf) {
    const wanted = new Set();
    let previous = this.after;
    for (const item of items) {
      const key = keyOf(item);
      if (wanted.has(key)) continue;
      wanted.add(key);
      let node = this.nodes.get(key);
      if (!node) {
        node = this.create(item);
        this.nodes.set(key, node);
      }
      const place = previous ? previous.nextSibling : this.parent.firstChild;
      if (place !== node) this.parent.insertBefore(node, place);
      this.update(node, item);
      previous = node;
    }
    for (const [key, node] of this.nodes) {
      if (!wanted.has(key)) {
        node.remove();
        this.nodes.delete(key);
      }
    }
  }
}

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** A count or a rate with about three digits that mean something: 0.42, 7.1, 128, 12,345. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 100) return whole.format(value);
  return value.toFixed(size < 1 ? 2 : 1);
}

export const milliseconds = (value) => number(value);

export function percent(ratio) {
  if (ratio === null || ratio === undefined || !Number.isFinite(ratio)) return NONE;
  return `${(ratio * 100).toFixed(ratio > 0 && ratio < 0.1 ? 1 : 0)} %`;
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? size.toFixed(0) : size.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const total = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${total % 60} s`;
  return `${total} s`;
}

/** Seconds of computing: tenths where they are few. */
export const effort = (seconds) => (Number.isFinite(seconds) && seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds));

const pad = (value) => String(value).padStart(2, "0");

/** Seconds since the epoch as this browser's wall clock, the way its operator reads the logs. */
export function clock(unix, withSeconds = true) {
  const date = new Date(unix * 1000);
  const minutes = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  return withSeconds ? `${minutes}:${pad(date.getSeconds())}` : minutes;
}

/** The same with its date, where that is not the day of `now`: 2026-11-20 15:07:00. */
export function moment(unix, now) {
  const [date, today] = [unix, now].map((seconds) => new Date(seconds * 1000));
  const day = (one) => `${one.getFullYear()}-${pad(one.getMonth() + 1)}-${pad(one.getDate())}`;
  return day(date) === day(today) ? clock(unix) : `${day(date)} ${clock(unix)}`;
}

/** The kernel's list form of CPU numbers: 0–7, 48. */
export function ranges(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts = [];
  for (let first = 0; first < sorted.length; ) {
    let last = first;
    while (last + 1 < sorted.length && sorted[last + 1] <= sorted[last] + 1) last += 1;
    const ends = sorted[first] === sorted[last] ? `${sorted[first]}` : `${sorted[first]}–${sorted[last]}`;
    parts.push(ends);
    first = last + 1;
  }
  return parts.length ? parts.join(", ") : NONE;
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export const bucketText = (bucket) => (bucket ? `${bucket.min}–${bucket.max}` : "any");

const STATES = {
  ready: ["●", "good"],
  initial: ["○", "busy"],
  starting: ["◌", "busy"],
  draining: ["◐", "warn"],
  drained: ["◐", "warn"],
  stopping: ["◐", "warn"],
  killing: ["▲", "warn"],
  backoff: ["▲", "warn"],
  degraded: ["▲", "warn"],
  failed: ["✖", "bad"],
  stopped: ["■", "off"],
};

/** How a state is told apart without colour: a sign of its own, and its name beside it. */
export function stateLook(state) {
  const [sign, level] = STATES[state] ?? ["●", "off"];
  return { sign, level };
}

export function showState(node, state) {
  const { sign, level } = stateLook(state);
  setText(node, `${sign} ${state}`);
  setAttribute(node, "data-level", level);
}
