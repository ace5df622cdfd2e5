// What does an operator see? Takes each document as it comes and shows it; the other modules do one part each.

import { LineChart } from "./charts.js";
import { MachineMap } from "./map.js";
import { History, WINDOW_SECONDS } from "./history.js";
import { Feed, problems, staleText, verdict } from "./state.js";
import { EventList, InstanceTable, ProcessList, QueueTable, showFacts } from "./tables.js";
import { Keyed, NONE, duration, make, milliseconds, number, setAttribute, setText, showState } from "./view.js";

const SLOTS = 8; // colours in style.css; beyond them names tell instances apart

// A line is not drawn over a time of which nothing is known: there a point is missing, or several of the documents that come once a second.
const FINE = { gap: () => Math.max(4.5, 1.6 * history.step), samples: () => history.samples };
const COARSE = { gap: () => 1.6 * history.coarseStep, samples: () => history.coarse };
const RANGES = [
  { name: "5 min", words: "in the last 5 minutes", seconds: WINDOW_SECONDS, tick: 60, ...FINE },
  { name: "1 h", words: "in the last hour", seconds: 3600, tick: 600, ...COARSE },
  { name: "6 h", words: "in the last 6 hours", seconds: 6 * 3600, tick: 3600, ...COARSE },
];
const RECALL_MS = 30_000; // points of a minute do not change faster

const byId = (id) => document.getElementById(id);
const history = new History();
const hidden = new Set();
const slots = new Map();
let status = null;
let firstVersion = null;
let fault = null;
let range = RANGES[0];
let recalledAt = -Infinity; // by performance.now(): when the hours were last asked for
let summary = "Connecting: nothing has been received yet.";

/** The colour of an instance, kept for as long as the page is open whatever comes and goes. */
function slotOf(name) {
  if (!slots.has(name)) slots.set(name, slots.size % SLOTS);
  return slots.get(name);
}

const announce = (said) => setText(byId("chart-reading"), said);
const throughput = new LineChart(byId("throughput"), {
  title: "Throughput",
  unit: "sequences/s",
  scale: "linear",
  measures: [{ key: "rate", name: "sequences/s", dashed: false }],
  empty: "No instance ran",
  announce,
});
const latency = new LineChart(byId("latency"), {
  title: "Latency",
  unit: "ms, log scale",
  scale: "log",
  measures: [
    { key: "p50", name: "p50", dashed: true },
    { key: "p99", name: "p99", dashed: false },
  ],
  empty: "Nothing was answered",
  announce,
});
const table = new InstanceTable(byId("instances-table"), byId("instances-note"));
const queues = new QueueTable(byId("queues"));
const events = new EventList(byId("events"), byId("events-note"));
const processes = new ProcessList(byId("processes"));
const map = new MachineMap({ place: byId("map"), key: byId("map-key"), tip: byId("tip"), note: byId("machine") });

const legend = new Keyed(
  byId("legend"),
  (one) => {
    const button = make("button", { type: "button" }, [make("span", { class: `swatch slot-${slotOf(one.name)}` }), one.name]);
    button.addEventListener("click", () => {
      if (!hidden.delete(one.name)) hidden.add(one.name);
      showCharts();
    });
    return make("li", { "data-instance": one.name }, button);
  },
  (item, one) => setAttribute(item.firstChild, "aria-pressed", !hidden.has(one.name)),
);

const problemList = new Keyed(
  byId("problems"),
  ({ level }) => make("li", { "data-level": level }, [make("span", { class: "sign", "aria-hidden": "true" }), make("strong"), " ", make("span", { class: "why" }), make("span", { class: "next" })]),
  (item, { level, what, why, next }) => {
    setText(item.children[0], { bad: "✖", warn: "▲", busy: "◌", note: "·" }[level]);
    setText(item.children[1], why ? `${what}:` : what);
    setText(item.children[2], why);
    setText(item.children[3], next);
    item.children[3].hidden = !next;
  },
);

function showCharts() {
  const instances = status.instances.map(({ name }) => ({ name, slot: slotOf(name), hidden: hidden.has(name) }));
  legend.show(status.instances, (one) => one.name);
  const shown = { samples: range.samples(), instances, range };
  throughput.show(shown);
  latency.show(shown);
}

for (const one of RANGES) {
  const button = make("button", { type: "button" }, one.name);
  button.addEventListener("click", () => {
    range = one;
    recalledAt = -Infinity;
    showRange();
    if (!status) return;
    recallHours();
    guarded(showCharts);
  });
  byId("ranges").append(button);
}

function showRange() {
  setText(byId("charts-title"), `L${range.words.slice("in the l".length)}`);
  RANGES.forEach((one, i) => setAttribute(byId("ranges").children[i], "aria-pressed", one === range));
}

/** The hours are not in the stream: they are asked for when they are shown, and now and then anew. */
function recallHours() {
  if (range.samples !== COARSE.samples || performance.now() - recalledAt < RECALL_MS) return;
  recalledAt = performance.now();
  feed.recall(60);
}

function showHeader() {
  const { model } = status;
  showState(byId("state"), status.state);
  showFacts(byId("facts"), [
    ["model", model.id],
    ["engine", `${model.engine} ${model.precision}`],
    ["longest", `${number(model.max_seqlen)} tokens`],
    ["policy", status.policy],
    ["endpoint", status.endpoint],
    ["up", duration(status.uptime_seconds)],
    ["version", status.version],
  ]);
}

/** The slowest gateway's figure: with several gateways an upper bound of the whole, with one the whole. */
function worst(gateways, quantile) {
  const values = gateways.map((one) => one.latency_ms[quantile]).filter(Number.isFinite);
  return values.length ? Math.max(...values) : null;
}

function showFigures(grown) {
  const sum = (field) => status.instances.reduce((total, one) => total + one[field], 0);
  let refused = 0;
  for (const [key, count] of grown) if (key.startsWith("rejected\u0000")) refused += count;
  const several = status.gateways.length > 1 ? " of the slowest gateway" : "";
  const figures = [
    ["sequences/s", number(sum("sequences_per_second"))],
    ["tokens/s", number(sum("tokens_per_second"))],
    [`p50 ms${several}`, milliseconds(worst(status.gateways, "p50"))],
    [`p99 ms${several}`, milliseconds(worst(status.gateways, "p99"))],
    ["queued", number(status.router.queued)],
    ["in flight", number(status.router.in_flight)],
    ["refused in 5 min", number(refused), refused ? "warn" : null],
  ];
  showFacts(byId("figures"), figures);
}

function showProblems(grown) {
  const found = problems(status, grown);
  if (status.version !== firstVersion) found.push({ level: "note", what: `The orchestrator is now version ${status.version}`, why: "reload this page.", next: "" });
  const { level, text } = verdict(status, found);
  summary = text;
  setAttribute(byId("summary"), "data-level", level);
  setAttribute(document.body, "data-level", level);
  problemList.show(found, ({ level: rank, what }) => `${rank} ${what}`);
  document.title = `${level === "bad" ? "✖ " : level === "warn" ? "▲ " : ""}${status.state} · ${status.model.id} · orchestrator`;
}

/** Outermost frame of all that is done with a document: a fault of this page must not look like a quiet system. */
function guarded(work) {
  try {
    work();
    fault = null;
  } catch (error) {
    console.error(error);
    fault = error;
  }
  showFeed();
}

function draw() {
  if (!status || document.hidden) return;
  const grown = history.increases();
  const deepest = history.deepestQueues();
  showHeader();
  showProblems(grown);
  showFigures(grown);
  showCharts();
  recallHours();
  events.show(history.events, status.time_unix);
  table.show(status, slotOf, deepest);
  queues.show(status, deepest);
  processes.show(status);
  map.show(status, slotOf);
}

const feed = new Feed({
  // Beside this module's own address, so that a proxy may put the whole under a prefix.
  stateUrl: new URL("../api/state", import.meta.url),
  streamUrl: new URL("../api/stream", import.meta.url),
  historyUrl: new URL("../api/history", import.meta.url),
  recalled(past) {
    guarded(() => {
      history.merge(past);
      draw();
    });
  },
  received(latest) {
    guarded(() => {
      history.add(latest);
      status = latest;
      firstVersion ??= status.version;
      for (const { name } of status.instances) slotOf(name);
      draw();
    });
  },
  changed: showFeed,
});

function showFeed() {
  const { phase, reason, receivedAt } = feed;
  setAttribute(document.body, "data-feed", phase);
  setText(byId("feed-state"), phase);
  setText(byId("charts-note"), feed.forgotten ? `What was before this page is not known: ${feed.forgotten}.` : "");
  setText(byId("summary"), phase === "stale" ? `When last heard of: ${summary}` : summary);
  const ago = phase === "stale" ? `${duration((Date.now() - receivedAt) / 1000)} ago` : "";
  if (phase === "stale") {
    const asked = status?.state === "draining" ? " It was draining, so it has most likely stopped as it was asked to." : "";
    showBanner(`${staleText(feed)}.`, `What follows is from then: ${reason}.${asked} Trying again.`, ago);
    document.title = `stale · ${status?.model.id ?? "no state"} · orchestrator`;
  } else if (fault) {
    showBanner("This page failed to draw the state.", `${fault.message}. Reload it; orchestrator status shows the same.`, "");
  } else if (phase === "connecting" && reason) {
    showBanner("No data yet.", `Waiting: ${reason}. Trying again.`, "");
  } else {
    byId("banner").hidden = true;
  }
}

function showBanner(what, why, age) {
  setText(byId("banner-what"), what);
  setText(byId("banner-why"), why);
  setText(byId("banner-age"), age);
  byId("banner").hidden = false;
}

document.addEventListener("visibilitychange", () => guarded(draw));
showFacts(byId("figures"), ["sequences/s", "tokens/s", "p50 ms", "p99 ms", "queued", "in flight", "refused in 5 min"].map((name) => [name, NONE]));
showRange();
throughput.show({ samples: [], instances: [], range });
latency.show({ samples: [], instances: [], range });
feed.start();
