// What are the figures of each instance, each bucket, the router and the gateways, now? Real tables, patched in place.

import { Keyed, NONE, bucketText, bytes, effort, make, milliseconds, moment, number, percent, plural, ranges, setAttribute, setText, showState, stateLook } from "./view.js";

const MOST_EVENTS = 50; // in the list; /api/history has more
const SMALLEST_FULL_BAR = 16; // sequences: below it a queue is no news and its bar stays short

/** Share of the bar that `depth` fills, 0 to 1; the bars of a table have one scale, the deepest queue of the last five minutes. */
const filled = (depth, deepest) => Math.min(1, depth / Math.max(SMALLEST_FULL_BAR, deepest));

function makeBar() {
  return make("span", { class: "bar", "aria-hidden": "true" }, make("span", { class: "fill" }));
}

function showBar(bar, share) {
  bar.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
}

const text = (of) => (cell, one, context) => setText(cell, of(one, context));

/** Whether the kernel runs it where the plan says, and how far down the ladder of memory binding it had to go. */
export function verification({ verified, state }) {
  if (!verified) return { level: "off", says: ["stopped", "failed", "backoff"].includes(state) ? "not running" : "not yet" };
  const where = verified.membind.length ? ` ${plural(verified.membind.length, "node").replace(/^\d+ /, "")} ${ranges(verified.membind)}` : "";
  if (!verified.matches_plan) return { level: "bad", says: `✖ no: ${verified.notes.join("; ") || `CPU ${ranges(verified.cpus)}`}` };
  return { level: "good", says: `✔ ${verified.policy}${where}` };
}

const COLUMNS = [
  { name: "State", render: (cell, one) => showState(cell.firstChild, one.state), create: () => make("span", { class: "pill" }) },
  { name: "PID", num: true, render: text((one) => one.pid ?? NONE) },
  { name: "Tokens", title: "Sequence lengths of its bucket, in tokens", num: true, render: text((one) => bucketText(one.bucket)) },
  { name: "CPUs", num: true, render: text((one) => ranges(one.cpus)) },
  { name: "Node", num: true, render: text((one) => one.node ?? NONE) },
  { name: "Verified", title: "Read back from the kernel, never from the plan", class: "verified", render: showVerified },
  { name: "Seq/s", num: true, render: text((one) => number(one.sequences_per_second)) },
  { name: "Tok/s", num: true, render: text((one) => number(one.tokens_per_second)) },
  { name: "p50 ms", num: true, group: true, render: text((one) => milliseconds(one.latency_ms.p50)) },
  { name: "p95 ms", num: true, render: text((one) => milliseconds(one.latency_ms.p95)) },
  { name: "p99 ms", num: true, render: text((one) => milliseconds(one.latency_ms.p99)) },
  { name: "Queue", title: "Sequences waiting that it is the first choice for", class: "queue", num: true, group: true, create: () => [make("span", { class: "value" }), makeBar()], render: showQueue },
  { name: "Busy", title: "Share of the time that it computes", num: true, render: text((one) => percent(one.busy_ratio)) },
  { name: "Batch", title: "Sequences per batch, mean", num: true, render: text((one) => number(one.batch_mean)) },
  { name: "Padding", title: "Share of computed tokens that were padding", num: true, render: text((one) => percent(one.padding_ratio)) },
  { name: "RSS", title: "Resident memory", num: true, group: true, render: text((one) => bytes(one.rss_bytes)) },
  { name: "Restarts", num: true, render: text((one) => number(one.restarts)) },
];

function showVerified(cell, one) {
  const { level, says } = verification(one);
  setText(cell, says);
  setAttribute(cell, "data-level", level);
  setAttribute(cell, "title", one.verified ? `Threads ${one.verified.threads}, CPU ${ranges(one.verified.cpus)}` : null);
}

function showQueue(cell, one, { deepest }) {
  setText(cell.firstChild, number(one.queue_depth));
  showBar(cell.lastChild, filled(one.queue_depth, deepest));
}

/** One `tbody` per instance: its row, and under it what does not fit a column or must not be overlooked. */
export class InstanceTable {
  constructor(table, note) {
    this.note = note;
    this.open = new Set();
    const heads = COLUMNS.map((column) =>
      make("th", { scope: "col", role: "columnheader", title: column.title, class: `${column.num ? "num" : ""}${column.group ? " group" : ""}` }, column.name),
    );
    table.append(
      make("caption", { class: "visually-hidden" }, "Every instance with its placement and its figures"),
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, [make("th", { scope: "col", role: "columnheader" }, "Instance"), ...heads])),
    );
    this.bodies = new Keyed(
      table,
      (one) => this.create(one),
      (body, one) => this.update(body, one),
      table.tHead,
    );
  }

  show(status, slotOf, deepestQueues) {
    this.slotOf = slotOf;
    this.context = { deepest: Math.max(0, ...deepestQueues.values()) };
    setText(this.note, `rates and latency over ${number(status.window_seconds)} s`);
    this.bodies.show(status.instances, (one) => one.name);
  }

  create(one) {
    const toggle = make("button", { type: "button", class: "name", "aria-expanded": "false" }, [make("span", { class: `swatch slot-${this.slotOf(one.name)}` }), make("span", {}, one.name)]);
    const cells = COLUMNS.map((column) =>
      make(
        "td",
        { role: "cell", "data-label": column.name, class: [column.num && "num", column.group && "group", column.class].filter(Boolean).join(" ") },
        column.create ? column.create() : [],
      ),
    );
    const detail = make("tr", { class: "detail", role: "row", hidden: "" }, make("td", { role: "cell", colspan: COLUMNS.length + 1 }, [make("p", { class: "error" }), make("dl", { class: "facts" })]));
    const body = make("tbody", { role: "rowgroup", "data-instance": one.name }, [
      make("tr", { role: "row" }, [make("th", { scope: "row", role: "rowheader" }, toggle), ...cells]),
      detail,
    ]);
    toggle.addEventListener("click", () => {
      if (!this.open.delete(one.name)) this.open.add(one.name);
      this.update(body, body.shown);
    });
    return body;
  }

  update(body, one) {
    body.shown = one;
    const [row, detail] = body.children;
    setAttribute(body, "data-state", one.state);
    COLUMNS.forEach((column, i) => column.render(row.children[i + 1], one, this.context));
    const open = this.open.has(one.name);
    setAttribute(row.querySelector("button"), "aria-expanded", open);
    // An error of a life that ended well is history; of one that did not it must be seen without a click.
    const error = one.last_error && (open || one.state !== "ready") ? `Last error: ${one.last_error}` : "";
    detail.hidden = !open && !error;
    const [message, facts] = detail.firstChild.children;
    setText(message, error);
    message.hidden = !error;
    facts.hidden = !open;
    if (open) showFacts(facts, factsOf(one));
  }
}

function factsOf(one) {
  return [
    ["Why here", one.reasons.join("; ") || NONE],
    ["Memory from", one.membind.length ? `node ${ranges(one.membind)}` : NONE],
    ["Verified notes", one.verified?.notes.join("; ") || NONE],
    ["Threads", `${one.threads}${one.verified ? `, ${one.verified.threads} in the kernel` : ""}`],
    ["Computes", one.precision ? `${one.precision} on ${one.engine}` : NONE],
    ["Longest input", `${number(one.max_seqlen)} tokens`],
    ["Incarnation", `${number(one.incarnation)}, ready after ${one.ready_seconds === null ? NONE : `${number(one.ready_seconds)} s`}`],
    ["In flight", number(one.in_flight)],
    ["Oldest wait", `${milliseconds(one.oldest_wait_ms)} ms`],
    ["Served", `${number(one.served)} sequences in ${number(one.batches)} batches`],
    ["Taken from other buckets", number(one.stolen)],
  ];
}

/** Term and value pairs into a `dl`, patched by term. */
export function showFacts(list, facts) {
  if (!list.facts) {
    list.facts = new Keyed(
      list,
      ([term]) => make("div", {}, [make("dt", {}, term), make("dd")]),
      (node, [, value, level]) => {
        setText(node.lastChild, value);
        setAttribute(node, "data-level", level ?? null);
      },
    );
  }
  list.facts.show(facts, ([term]) => term);
}

/** Waiting sequences by bucket; replicas of a bucket are added up. */
export class QueueTable {
  constructor(table) {
    const body = make("tbody");
    table.append(
      make("caption", { class: "visually-hidden" }, "Sequences waiting per bucket of sequence length"),
      make("thead", {}, make("tr", {}, [make("th", { scope: "col" }, "Tokens"), make("th", { scope: "col" }, "Instances"), make("th", { scope: "col", class: "num" }, "Waiting"), make("th", { scope: "col", class: "num" }, "Oldest")])),
      body,
    );
    this.rows = new Keyed(
      body,
      () => make("tr", {}, [make("th", { scope: "row" }), make("td", { class: "names" }), make("td", { class: "num queue" }, [make("span", { class: "value" }), makeBar()]), make("td", { class: "num" })]),
      (row, bucket) => {
        const [label, names, depth, oldest] = row.children;
        setText(label, bucket.label);
        setText(names, bucket.names.join(", "));
        setText(depth.firstChild, number(bucket.depth));
        showBar(depth.lastChild, filled(bucket.depth, this.deepest));
        setText(oldest, bucket.depth ? `${milliseconds(bucket.oldest)} ms` : NONE);
      },
    );
  }

  show(status, deepestQueues) {
    const buckets = bucketsOf(status.instances);
    const deepest = ({ names }) => names.reduce((sum, name) => sum + (deepestQueues.get(name) ?? 0), 0);
    this.deepest = Math.max(0, ...buckets.map(deepest));
    this.rows.show(buckets, (bucket) => bucket.label);
  }
}

/** [{label, names, depth, oldest}] in ascending order of length. */
export function bucketsOf(instances) {
  const buckets = new Map();
  for (const one of instances) {
    const label = bucketText(one.bucket);
    const bucket = buckets.get(label) ?? { label, from: one.bucket?.min ?? 0, names: [], depth: 0, oldest: 0 };
    bucket.names.push(one.name);
    bucket.depth += one.queue_depth;
    bucket.oldest = Math.max(bucket.oldest, one.oldest_wait_ms);
    buckets.set(label, bucket);
  }
  return [...buckets.values()].sort((a, b) => a.from - b.from);
}

/** The router and each gateway: a heading with the state, and its counters. */
export class ProcessList {
  constructor(place) {
    this.cards = new Keyed(
      place,
      ({ name }) => make("article", { class: "process", "data-process": name }, [make("h3", {}, [make("span", {}, name), make("span", { class: "pill" })]), make("dl", { class: "facts" })]),
      (card, { state, facts }) => {
        showState(card.firstChild.lastChild, state);
        showFacts(card.lastChild, facts);
      },
    );
  }

  show({ router, gateways }) {
    this.cards.show([{ name: "router", state: router.state, facts: routerFacts(router) }, ...gateways.map((one) => ({ name: one.name, state: one.state, facts: gatewayFacts(one) }))], (one) => one.name);
  }
}

/** What changed, the newest first. */
export class EventList {
  constructor(list, note) {
    this.note = note;
    this.items = new Keyed(
      list,
      () => make("li", {}, [make("time"), " ", make("strong"), " ", make("span", { class: "change" }), " ", make("span", { class: "why" })]),
      (item, { t, part, before, after, why }) => {
        const [time, name, change, reason] = item.children;
        setText(time, moment(t, this.now));
        setAttribute(time, "datetime", new Date(t * 1000).toISOString());
        setText(name, part);
        setText(change, before ? `${before} → ${after}` : after);
        setAttribute(change, "data-level", stateLook(after).level);
        setText(reason, why === after ? "" : why);
      },
    );
  }

  /** `now` in seconds since the epoch: what is of another day is dated. */
  show(events, now) {
    this.now = now;
    setText(this.note, events.length ? "" : "Nothing has happened since the start");
    this.items.show(events.slice(-MOST_EVENTS).reverse(), ({ key }) => key);
  }
}

const life = (one) => [
  ["pid", one.pid ?? NONE],
  ["restarts", number(one.restarts)],
  ["CPU time", effort(one.cpu_seconds)],
  ["RSS", bytes(one.rss_bytes)],
];

function routerFacts(router) {
  const refused = Object.entries(router.rejected).filter(([, count]) => count > 0);
  return [
    ["queued", number(router.queued)],
    ["in flight", number(router.in_flight)],
    ["settled", number(router.settled)],
    ["refused", refused.length ? refused.map(([reason, count]) => `${reason} ${number(count)}`).join(", ") : "0", refused.length ? "warn" : null],
    ["retried", number(router.retried)],
    ["late", number(router.late_results)],
    ["duplicates", number(router.duplicates)],
    ["malformed", number(router.malformed_frames), router.malformed_frames ? "warn" : null],
    ...life(router),
  ];
}

function gatewayFacts(gateway) {
  const classes = new Map();
  for (const [what, count] of Object.entries(gateway.responses)) {
    const family = `${what.match(/ (\d)\d\d$/)?.[1] ?? "?"}xx`;
    classes.set(family, (classes.get(family) ?? 0) + count);
  }
  return [
    ["requests/s", number(gateway.requests_per_second)],
    ["p50", `${milliseconds(gateway.latency_ms.p50)} ms`],
    ["p99", `${milliseconds(gateway.latency_ms.p99)} ms`],
    ["in flight", number(gateway.in_flight)],
    ["connections", number(gateway.connections)],
    ["answers", [...classes].sort().map(([family, count]) => `${family} ${number(count)}`).join(", ") || "0", classes.has("5xx") ? "warn" : null],
    ["resubmitted", number(gateway.resubmitted)],
    ["late", number(gateway.late_replies)],
    ["tokenizing", effort(gateway.tokenize_seconds)],
    ...life(gateway),
  ];
}
