// What does the orchestrator report, how fresh is that, and what is wrong in it?

import { clock, number, plural } from "./view.js";

export const WINDOW_SECONDS = 300;
const MOST_SAMPLES = 1200; // four a second; a faster stream shortens the window instead of growing the page
const SILENCE_MS = 5_000; // one event a second is promised
const GIVE_UP_MS = 15_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const LONG_WAIT_MS = 1_000;

/** The last five minutes, one sample per document, by the orchestrator's own clock. */
export class History {
  constructor() {
    this.samples = [];
  }

  add(status) {
    const t = status.time_unix;
    // A document that is not newer replaces what it contradicts: the same second read twice, or a clock set back.
    while (this.samples.length && this.samples.at(-1).t >= t) this.samples.pop();
    this.samples.push({
      t,
      instances: new Map(
        status.instances.map((one) => [
          one.name,
          {
            rate: one.sequences_per_second,
            p50: one.latency_ms.p50,
            p99: one.latency_ms.p99,
            queue: one.queue_depth,
          },
        ]),
      ),
      counts: counts(status),
    });
    while (this.samples[0].t < t - WINDOW_SECONDS || this.samples.length > MOST_SAMPLES) this.samples.shift();
  }

  /** How much each counter grew over the window, those that did not left out. A counter that fell began anew at zero. */
  increases() {
    const grown = new Map();
    for (let i = 1; i < this.samples.length; i += 1) {
      const before = this.samples[i - 1].counts;
      for (const [key, now] of this.samples[i].counts) {
        // One that was not there yet has counted from zero since then; the very first sample is no growth at all.
        const then = before.get(key) ?? 0;
        const more = now >= then ? now - then : now;
        if (more > 0) grown.set(key, (grown.get(key) ?? 0) + more);
      }
    }
    return grown;
  }

  /** The deepest queue of each instance over the window. */
  deepestQueues() {
    const deepest = new Map();
    for (const sample of this.samples) {
      for (const [name, values] of sample.instances) deepest.set(name, Math.max(deepest.get(name) ?? 0, values.queue));
    }
    return deepest;
  }
}

/** Counters whose growth an operator should hear of, as `kind\u0000what` → count. */
function counts(status) {
  const found = new Map();
  const add = (kind, what, count) => found.set(`${kind}\u0000${what}`, (found.get(`${kind}\u0000${what}`) ?? 0) + count);
  for (const [reason, count] of Object.entries(status.router.rejected)) add("rejected", reason, count);
  add("malformed", "router", status.router.malformed_frames);
  add("restarted", "router", status.router.restarts);
  for (const gateway of status.gateways) {
    add("restarted", gateway.name, gateway.restarts);
    for (const [what, count] of Object.entries(gateway.responses)) {
      if (/ 5\d\d$/.test(what)) add("response", what, count);
    }
  }
  for (const one of status.instances) add("restarted", one.name, one.restarts);
  return found;
}

/** Text from the wire as a Status, or an Error that says what it lacks. */
export function decode(text) {
  const status = JSON.parse(text);
  for (const [field, fits] of [
    ["time_unix", Number.isFinite],
    ["state", (value) => typeof value === "string"],
    ["instances", Array.isArray],
    ["gateways", Array.isArray],
    ["warnings", Array.isArray],
    ["router", (value) => value !== null && typeof value === "object"],
    ["model", (value) => value !== null && typeof value === "object"],
    ["machine", (value) => Array.isArray(value?.cpus)],
  ]) {
    if (!fits(status?.[field])) throw new Error(`the state has no usable "${field}"`);
  }
  return status;
}

/**
 * The stream, kept open. `phase` is connecting (nothing received yet), live, or stale (was live once).
 * `reason` says why it is not live. `changed` is called whenever either or the document changes.
 */
export class Feed {
  constructor({ stateUrl, streamUrl, received, changed }) {
    this.stateUrl = stateUrl;
    this.streamUrl = streamUrl;
    this.received = received;
    this.changed = changed;
    this.phase = "connecting";
    this.reason = "";
    this.receivedAt = null; // milliseconds of this browser's clock
    this.source = null;
    this.failures = 0;
  }

  start() {
    this.attempt();
    setInterval(() => this.watch(), 1_000);
  }

  async attempt() {
    // The plain document first: it fills the page at once, and unlike the stream it can say why there is none.
    let answer;
    let body;
    try {
      answer = await fetch(this.stateUrl, { cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) });
      body = await answer.text();
    } catch (error) {
      return this.broke(error.name === "TimeoutError" ? "the orchestrator does not answer" : "the orchestrator cannot be reached");
    }
    if (!answer.ok) return this.broke(refusal(answer, body));
    if (!this.take(body)) return undefined;
    const source = new EventSource(this.streamUrl);
    this.source = source;
    source.onmessage = (event) => {
      if (!this.take(event.data)) return;
      this.failures = 0;
      this.turn("live", "");
    };
    // The browser would retry some failures and not others; closing it makes one rule for all of them.
    source.onerror = () => this.broke("the stream broke");
    return undefined;
  }

  /** Whether the text was a document; one that is not ends this attempt. */
  take(text) {
    let status;
    try {
      status = decode(text);
    } catch (error) {
      this.broke(`what the orchestrator sent cannot be read: ${error.message}`);
      return false;
    }
    this.receivedAt = Date.now();
    this.received(status);
    return true;
  }

  broke(reason) {
    this.source?.close();
    this.source = null;
    this.turn(this.receivedAt === null ? "connecting" : "stale", reason);
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    setTimeout(() => this.attempt(), wait);
  }

  watch() {
    if (this.source && this.receivedAt !== null) {
      const silent = Date.now() - this.receivedAt;
      if (silent > GIVE_UP_MS) this.broke("the stream fell silent");
      else if (silent > SILENCE_MS) this.turn("stale", "the stream fell silent");
    }
    this.changed();
  }

  turn(phase, reason) {
    this.phase = phase;
    this.reason = reason;
    this.changed();
  }
}

function refusal(answer, body) {
  let said = "";
  try {
    const parsed = JSON.parse(body);
    said = typeof parsed?.error === "string" ? parsed.error : (parsed?.error?.message ?? "");
  } catch {
    said = ""; // not JSON: a proxy's page, of which only the status code is of use
  }
  return `the orchestrator answered ${answer.status}${said ? `: ${said}` : ""}`;
}

const RANK = { bad: 0, warn: 1, busy: 2, note: 3 };

/**
 * Everything an operator must know, worst first: `{level: bad | warn | busy | note, what, why, next}`.
 * Nothing in it changes by the second alone, since screen readers announce it.
 */
export function problems(status, grown) {
  const found = [];
  const say = (level, what, why = "", next = "") => found.push({ level, what, why, next });
  const ready = status.instances.filter((one) => one.state === "ready").length;
  const all = status.instances.length;

  if (status.state === "draining") {
    say("warn", "Draining", "New requests are refused with 503; those already accepted are still answered.");
  } else if (status.state === "stopped") {
    say("bad", "Stopped", "Nothing is served.");
  } else if (status.state === "starting") {
    say("busy", "Starting", `${ready} of ${plural(all, "instance")} ready.`);
  } else if (ready === 0) {
    say("bad", "No instance is ready", "Requests are refused with 503.");
  }
  for (const one of status.instances) {
    if (one.state === "failed") {
      say("bad", `${one.name} failed`, one.last_error ?? "It reported no error.", `Next: orchestrator logs ${one.name}, then orchestrator restart ${one.name}`);
    } else if (one.state === "backoff" || one.state === "killing") {
      say("warn", `${one.name} is in ${one.state}`, one.last_error ?? "");
    } else if (one.state === "drained") {
      say("warn", `${one.name} is drained`, "It gets no work until somebody puts it back.", `Next: orchestrator resume ${one.name}`);
    }
    if (one.verified && !one.verified.matches_plan) {
      say("warn", `${one.name} is not where it was planned`, one.verified.notes.join("; "));
    }
    if (one.oldest_wait_ms >= LONG_WAIT_MS) {
      say("warn", `${one.name} keeps requests waiting`, "The oldest has waited for more than a second.");
    }
  }
  for (const [name, state] of [["router", status.router.state], ...status.gateways.map((one) => [one.name, one.state])]) {
    if (["failed", "stopped", "backoff", "killing"].includes(state) && status.state !== "stopped") {
      say(state === "failed" || state === "stopped" ? "bad" : "warn", `${name} is ${state === "backoff" ? "in backoff" : state}`);
    }
  }
  if (!status.gateways.length && status.state === "ready") say("bad", "No gateway runs", "HTTP requests find nobody.");

  const families = new Map();
  for (const [key, count] of grown) {
    const [kind, what] = key.split("\u0000");
    if (!families.has(kind)) families.set(kind, []);
    families.get(kind).push([what, count]);
  }
  const list = (kind) => families.get(kind).map(([what, count]) => `${what} ${number(count)}`).join(", ");
  const within = "in the last 5 minutes";
  if (families.has("response")) say("warn", `Errors were answered ${within}`, list("response"));
  if (families.has("rejected")) say("warn", `Sequences were refused ${within}`, list("rejected"));
  if (families.has("restarted")) say("warn", `Restarts ${within}`, list("restarted"));
  if (families.has("malformed")) say("warn", `Malformed frames reached the router ${within}`, list("malformed"));
  // The orchestrator puts some states into words too; what stands above already is not said twice.
  const processes = [...status.instances, ...status.gateways, { name: "router", state: status.router.state }];
  const told = [...found.map(({ what }) => what), ...processes.filter((one) => ["failed", "backoff"].includes(one.state)).map((one) => `${one.name} is in ${one.state}: `)];
  for (const warning of status.warnings) {
    if (!told.some((start) => warning.startsWith(start))) say("note", warning);
  }
  return found.sort((a, b) => RANK[a.level] - RANK[b.level]);
}

/** One sentence for the whole: what a tired reader takes away. */
export function verdict(status, found) {
  const ready = status.instances.filter((one) => one.state === "ready").length;
  const running = `${ready} of ${plural(status.instances.length, "instance")} ready`;
  const bad = found.filter((one) => one.level === "bad").length;
  const warn = found.filter((one) => one.level === "warn").length;
  const worst = bad ? "bad" : warn ? "warn" : found.some((one) => one.level === "busy") ? "busy" : "good";
  if (worst === "good") return { level: "good", text: `All is well: ${running}.` };
  if (worst === "busy") return { level: "busy", text: `${running}, no problem so far.` };
  return { level: worst, text: `${plural(bad + warn, "problem")}: ${running}.` };
}

export const staleText = (feed) => `Stale since ${clock(feed.receivedAt / 1000)}`;
