// What does the orchestrator report, how fresh is that, and what is wrong in it?

import { clock, number, plural } from "./view.js";

const SILENCE_MS = 5_000; // one event a second is promised
const GIVE_UP_MS = 15_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const LONG_WAIT_MS = 1_000;

/** Text from the wire as a Status, or an Error that says what it lacks. */
export function decode(text) {
  const status = JSON.parse(text);
  for (const [field, fits] of [
    ["time_unix", Number.isFinite],
    ["uptime_seconds", Number.isFinite],
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

/** A History from the wire, or an Error that says what it lacks. */
function decodePast(text) {
  const past = JSON.parse(text);
  for (const field of ["points", "instances", "grown", "counts", "events"]) {
    if (!Array.isArray(past?.[field])) throw new Error(`the history has no usable "${field}"`);
  }
  return past;
}

/**
 * The stream, kept open. `phase` is connecting (nothing received yet), live, or stale (was live once).
 * `reason` says why it is not live. `changed` is called whenever either or the document changes. What was before the stream comes
 * to `recalled`; `forgotten` says why it does not, and is empty while it does.
 */
export class Feed {
  constructor({ stateUrl, streamUrl, historyUrl, received, recalled, changed }) {
    this.historyUrl = historyUrl;
    this.recalled = recalled;
    this.forgotten = "";
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
    this.recall(2); // not waited for: it fills what is missing whenever it comes
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

  /** Asks for the last ten minutes (step 2) or six hours (step 60). */
  async recall(step) {
    try {
      const answer = await fetch(`${this.historyUrl}?step=${step}`, { cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) });
      const body = await answer.text();
      if (!answer.ok) throw new Error(refusal(answer, body));
      this.recalled(decodePast(body));
      this.forgotten = "";
    } catch (error) {
      this.forgotten = error.name === "TimeoutError" ? "the orchestrator does not answer" : error.message;
    }
    this.changed();
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
