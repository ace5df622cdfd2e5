// What was before now? The samples that the charts draw and the events of the list, from the orchestrator's memory and from each new document.

export const WINDOW_SECONDS = 300; // of the fine samples, and of what counts as lately
const MOST_SAMPLES = 1200; // four a second; a faster stream shortens the window instead of growing the page
const MOST_EVENTS = 500;
const CLOCK_SET_SECONDS = 0.5; // by more than this the orchestrator's clock does not wander from one document to the next
const SAME_SECONDS = 0.001;

/**
 * A sample is `{t, instances, grown?, counts?}`: `instances` by name, `grown` what counters of trouble grew by since the sample
 * before, `counts` how they stood. Samples lie on the supervisor's uptime, and `t` dates them by its clock as it is now: if somebody
 * sets that, all samples move together and no line tears.
 */
export class History {
  constructor() {
    this.samples = []; // the last five minutes, one for each document and, before those, one in two seconds
    this.coarse = []; // the last six hours, one in a minute, once they have been asked for
    this.step = 2; // seconds between two points of the orchestrator's memory; of many instances it gives fewer points
    this.coarseStep = 60;
    this.events = []; // {t, part, before, after, why}, oldest first
    this.pid = null;
    this.offset = null; // what makes seconds since the epoch of an uptime
  }

  /** A document of the stream. */
  add(status) {
    this.settle(status);
    const t = this.offset + status.uptime_seconds;
    // A document that is not newer replaces what it contradicts: the same second read twice.
    while (this.samples.length && this.samples.at(-1).t >= t - SAME_SECONDS) this.samples.pop();
    this.samples.push({
      t,
      instances: new Map(
        status.instances.map((one) => [
          one.name,
          { rate: one.sequences_per_second, p50: one.latency_ms.p50, p99: one.latency_ms.p99, queue: one.queue_depth },
        ]),
      ),
      counts: counts(status),
    });
    this.tell(status.events ?? []);
    this.prune();
  }

  /** The answer of /api/history. What this page has seen itself before and after it stays. */
  merge(past) {
    this.settle(past);
    const samples = samplesOf(past, this.offset);
    if (past.step_seconds >= 60) {
      this.coarseStep = past.step_seconds;
      this.coarse = joined(this.coarse, samples).slice(-MOST_SAMPLES);
    } else {
      this.step = past.step_seconds;
      this.samples = joined(this.samples, samples);
      this.prune();
    }
    this.tell(past.events);
  }

  /** Whose uptime it is, and when that began. */
  settle({ pid, time_unix: now, uptime_seconds: uptime }) {
    const offset = now - uptime;
    const shift = this.pid === pid ? offset - this.offset : 0;
    if (Math.abs(shift) > CLOCK_SET_SECONDS) {
      for (const one of [...this.samples, ...this.coarse, ...this.events]) one.t += shift;
    }
    if (this.pid !== pid || Math.abs(shift) > CLOCK_SET_SECONDS) this.offset = offset;
    this.pid = pid;
  }

  tell(events) {
    const known = new Set(this.events.map(({ key }) => key));
    const fresh = events
      .map((event) => ({ ...event, key: `${this.pid} ${event.uptime_seconds} ${event.part} ${event.after}`, t: this.offset + event.uptime_seconds }))
      .filter(({ key }) => !known.has(key));
    if (fresh.length) this.events = [...this.events, ...fresh].sort((a, b) => a.t - b.t).slice(-MOST_EVENTS);
  }

  prune() {
    const newest = this.samples.at(-1)?.t ?? 0;
    while (this.samples.length && (this.samples[0].t < newest - WINDOW_SECONDS || this.samples.length > MOST_SAMPLES)) this.samples.shift();
  }

  /** How much counters grew over the window, as `kind\u0000what` → count, those that did not left out. */
  increases() {
    const total = new Map();
    for (let i = 1; i < this.samples.length; i += 1) {
      const { grown, counts: now } = this.samples[i];
      for (const [key, more] of grown ?? growth(this.samples[i - 1].counts, now)) {
        const told = key.slice(0, key.lastIndexOf("\u0000"));
        total.set(told, (total.get(told) ?? 0) + more);
      }
    }
    return total;
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

/** What was known before and after `samples`, and those in place of what was known of their time. */
function joined(known, samples) {
  if (!samples.length) return known;
  const [first, last] = [samples[0].t - SAME_SECONDS, samples.at(-1).t + SAME_SECONDS];
  return [...known.filter(({ t }) => t < first), ...samples, ...known.filter(({ t }) => t > last)];
}

/** The points of a History document as samples; an instance is in those at which it was there. */
function samplesOf(past, offset) {
  const grown = new Map(past.points.map((uptime) => [uptime, new Map()]));
  for (const { uptime_seconds: uptime, kind, what, part, count } of past.grown) grown.get(uptime)?.set(keyOf(kind, what, part), count);
  const samples = past.points.map((uptime, i) => ({
    t: offset + uptime,
    instances: new Map(
      past.instances
        .filter((one) => one.state[i] !== null)
        .map((one) => [one.name, { rate: one.sequences_per_second[i], p50: one.latency_ms.p50[i], p99: one.latency_ms.p99[i], queue: one.queue_depth[i] }]),
    ),
    grown: grown.get(uptime),
  }));
  if (samples.length) samples.at(-1).counts = new Map(past.counts.map(({ kind, what, part, count }) => [keyOf(kind, what, part), count]));
  return samples;
}

/** A counter that fell began anew at zero; one that was not there yet has counted from zero since then. */
function growth(before, now) {
  const grown = new Map();
  for (const [key, count] of before ? now : []) {
    const then = before.get(key) ?? 0;
    const more = count >= then ? count - then : count;
    if (more > 0) grown.set(key, more);
  }
  return grown;
}

const keyOf = (kind, what, part) => `${kind}\u0000${what}\u0000${part}`;

/** Counters whose growth an operator should hear of, by kind, what and the part that counts: of one that is gone there is nothing to tell. */
function counts(status) {
  const found = new Map();
  const add = (kind, what, part, count) => found.set(keyOf(kind, what, part), count);
  for (const [reason, count] of Object.entries(status.router.rejected)) add("rejected", reason, "router", count);
  add("malformed", "router", "router", status.router.malformed_frames);
  add("restarted", "router", "router", status.router.restarts);
  for (const gateway of status.gateways) {
    add("restarted", gateway.name, gateway.name, gateway.restarts);
    for (const [what, count] of Object.entries(gateway.responses)) {
      if (/ 5\d\d$/.test(what)) add("response", what, gateway.name, count);
    }
  }
  for (const one of status.instances) add("restarted", one.name, one.name, one.restarts);
  return found;
}
