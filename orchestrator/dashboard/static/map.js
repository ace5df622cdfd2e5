// Which instance runs on which core? Packages hold nodes, nodes hold cache domains, those hold cores, cores hold hardware threads.

import { Keyed, make, plural, ranges, setAttribute, setText, stateLook } from "./view.js";

const KINDS = {
  instance: "instance",
  sibling: "SMT sibling kept idle beside an instance",
  housekeeping: "housekeeping: supervisor, router, gateways",
  idle: "idle: no one was placed here",
  barred: "barred: this process may not use it",
  offline: "offline",
};

/** What a hardware thread is used for: one of KINDS, and the instance it belongs to if any. */
export function roleOf(cpu) {
  if (!cpu.online) return { kind: "offline", owner: null };
  if (cpu.used_by === "housekeeping") return { kind: "housekeeping", owner: null };
  if (cpu.used_by) return { kind: "instance", owner: cpu.used_by };
  if (cpu.sibling_of) return { kind: "sibling", owner: cpu.sibling_of };
  return { kind: cpu.allowed ? "idle" : "barred", owner: null };
}

const PRECEDENCE = ["instance", "housekeeping", "sibling", "idle", "barred", "offline"];

/** Cores in order of their first CPU: {cpus, kind, owner}. An offline CPU whose core the kernel does not tell stands alone. */
export function coresOf(cpus) {
  const cores = new Map();
  for (const cpu of [...cpus].sort((a, b) => a.cpu - b.cpu)) {
    const key = cpu.core === null ? `cpu ${cpu.cpu}` : `core ${cpu.core}`;
    if (!cores.has(key)) cores.set(key, []);
    cores.get(key).push({ ...cpu, ...roleOf(cpu) });
  }
  return [...cores.values()].map((members) => {
    const first = PRECEDENCE.map((kind) => members.find((cpu) => cpu.kind === kind)).find(Boolean);
    return { cpus: members, kind: first.kind, owner: first.owner };
  });
}

/** Neighbouring cores of one use, drawn under one caption: "short-0, 8 cores, CPU 0–7". */
export function runsOf(cores) {
  const runs = [];
  for (const core of cores) {
    const last = runs.at(-1);
    if (last && last.kind === core.kind && last.owner === core.owner) last.cores.push(core);
    else runs.push({ kind: core.kind, owner: core.owner, cores: [core] });
  }
  return runs;
}

/** [[value of `field`, cpus], …] in ascending order, CPUs without one last. */
export function groupBy(cpus, field) {
  const groups = new Map();
  for (const cpu of cpus) {
    if (!groups.has(cpu[field])) groups.set(cpu[field], []);
    groups.get(cpu[field]).push(cpu);
  }
  return [...groups].sort(([a], [b]) => (a ?? Infinity) - (b ?? Infinity));
}

/** "8 cores, CPU 0–7"; of an offline CPU the kernel may tell no core, and then none is counted. */
function extent(cores, cpus) {
  const known = cores.filter((core) => core.cpus[0].core !== null).length;
  return `${known ? `${plural(known, "core")}, ` : ""}CPU ${ranges(cpus)}`;
}

export class MachineMap {
  constructor({ place, key, tip, note }) {
    Object.assign(this, { place, key, tip, note });
    this.drawn = "";
    this.focusable = null;
    this.keys = new Keyed(
      key,
      (kind) => make("li", {}, [make("span", { class: "pu", "data-kind": kind, "aria-hidden": "true" }, "7"), KINDS[kind]]),
      () => {},
    );
    place.addEventListener("pointerover", (event) => this.hover(event.target.closest(".core")));
    place.addEventListener("pointerleave", () => this.hover(null));
    place.addEventListener("focusin", (event) => this.hover(event.target.closest(".core")));
    place.addEventListener("focusout", () => this.hover(null));
    place.addEventListener("keydown", (event) => this.move(event));
  }

  /** `slotOf(name)` gives the colour of an instance. The map is drawn anew only where something in it changed. */
  show(status, slotOf) {
    const states = new Map(status.instances.map((one) => [one.name, { state: one.state, pid: one.pid, slot: slotOf(one.name) }]));
    const signature = JSON.stringify([status.machine, [...states], status.housekeeping_cpus]);
    if (signature === this.drawn) return;
    this.drawn = signature;
    this.states = states;
    this.shared = new Set(status.housekeeping_cpus);
    const { machine } = status;
    const nodesWithCpus = new Set(machine.cpus.map((cpu) => cpu.node).filter((node) => node !== null)).size;
    const bare = machine.nodes - nodesWithCpus;
    setText(
      this.note,
      [
        machine.model_name,
        plural(machine.packages, "package"),
        plural(machine.nodes, "node") + (bare > 0 && nodesWithCpus ? ` (${bare} without CPUs)` : ""),
        plural(machine.cores, "core"),
        plural(machine.cpus.length, "CPU"),
      ]
        .filter(Boolean)
        .join(" · "),
    );
    const kinds = new Set(machine.cpus.map((cpu) => roleOf(cpu).kind));
    this.keys.show(Object.keys(KINDS).filter((kind) => kinds.has(kind) && kind !== "instance"), (kind) => kind);

    const told = !this.tip.hidden;
    const focused = this.place.contains(document.activeElement) ? document.activeElement.dataset.core : null;
    this.place.replaceChildren(...groupBy(machine.cpus, "package").map(([id, cpus]) => this.package(id, cpus)));
    const cells = [...this.place.querySelectorAll(".core")];
    this.focusable = cells.find((cell) => cell.dataset.core === focused) ?? cells[0] ?? null;
    if (this.focusable) setAttribute(this.focusable, "tabindex", "0");
    if (focused !== null) this.focusable?.focus({ preventScroll: true });
    if (focused === null || !told) this.hover(null); // one that Escape closed stays closed
  }

  package(id, cpus) {
    const title = id === null ? "Package unknown" : `Package ${id}`;
    return make("section", { class: "package", "aria-label": title }, [
      make("h3", {}, title),
      ...groupBy(cpus, "node").map(([node, members]) => this.node(node, members)),
    ]);
  }

  node(id, cpus) {
    const title = id === null ? "Node unknown" : `Node ${id}`;
    const cores = coresOf(cpus);
    const domains = groupBy(cpus, "llc");
    return make("section", { class: "node", "aria-label": title, "data-node": id }, [
      make("h4", {}, [title, make("span", { class: "note" }, extent(cores, cpus.map((cpu) => cpu.cpu)))]),
      ...domains.map(([llc, members]) => this.domain(domains.length > 1 ? llc : undefined, members)),
    ]);
  }

  domain(llc, cpus) {
    const runs = runsOf(coresOf(cpus)).map((run) => this.run(run));
    const title = llc === null ? "Cache unknown" : `Cache ${llc}`;
    return make("div", { class: "domain" }, llc === undefined ? runs : [make("p", { class: "domain-title" }, title), ...runs]);
  }

  run({ kind, owner, cores }) {
    const used = cores.flatMap((core) => core.cpus.filter((cpu) => cpu.kind === kind)).map((cpu) => cpu.cpu);
    const name = kind === "instance" || kind === "sibling" ? owner : kind;
    const state = kind === "instance" ? (this.states.get(owner)?.state ?? "unknown") : null;
    const level = state ? stateLook(state).level : null;
    const caption = make("p", { class: "run-title" }, [
      make("strong", {}, name),
      ...(state && state !== "ready" ? [make("span", { class: "pill", "data-level": level }, `${stateLook(state).sign} ${state}`)] : []),
      make("span", { class: "note" }, extent(cores, used)),
      ...(kind === "instance" && used.some((cpu) => this.shared.has(cpu)) ? [make("span", { class: "note" }, "shared with housekeeping")] : []),
    ]);
    const list = make("ul", { class: "cores", "aria-label": `${name}, ${extent(cores, used)}` }, cores.map((core) => this.core(core)));
    return make("div", { class: "run", "data-kind": kind, "data-owner": owner, "data-level": level }, [caption, list]);
  }

  core({ cpus }) {
    const cells = cpus.map((cpu) =>
      make("span", { class: `pu${this.states.has(cpu.owner) ? ` slot-${this.states.get(cpu.owner).slot}` : ""}`, "data-cpu": cpu.cpu, "data-kind": cpu.kind, "data-owner": cpu.owner }, String(cpu.cpu)),
    );
    return make("li", { class: "core", tabindex: "-1", "data-core": cpus[0].cpu, "aria-label": this.describe(cpus).join(". ") }, cells);
  }

  /** A line for the place of a core, then one for each of its hardware threads. */
  describe(cpus) {
    const [{ core, node, package: pack, llc }] = cpus;
    const known = (name, value) => (value === null ? `${name} unknown` : `${name} ${value}`);
    const lines = [[known("Core", core), known("node", node), known("package", pack), known("cache", llc)].join(", ")];
    for (const cpu of cpus) {
      const rank = cpus.length > 1 && cpu.smt_rank !== null ? ` (thread ${cpu.smt_rank})` : "";
      const instance = this.states.get(cpu.owner);
      const use = {
        instance: `runs ${cpu.owner}, ${instance?.state ?? "unknown"}${instance?.pid ? `, pid ${instance.pid}` : ""}`,
        sibling: `kept idle beside ${cpu.owner}`,
        housekeeping: "housekeeping",
        idle: "idle",
        barred: "barred: this process may not use it",
        offline: "offline",
      }[cpu.kind];
      const shared = cpu.kind === "instance" && this.shared.has(cpu.cpu) ? ", and housekeeping" : "";
      lines.push(`CPU ${cpu.cpu}${rank}: ${use}${shared}`);
    }
    return lines;
  }

  hover(cell) {
    this.tip.hidden = !cell;
    if (!cell) return;
    this.tip.replaceChildren(...cell.getAttribute("aria-label").split(". ").map((line) => make("div", {}, line)));
    const around = this.tip.offsetParent.getBoundingClientRect();
    const box = cell.getBoundingClientRect();
    const left = Math.min(Math.max(box.left - around.left, 0), Math.max(0, around.width - this.tip.offsetWidth - 8));
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${box.bottom - around.top + 6}px`;
  }

  move(event) {
    const cells = [...this.place.querySelectorAll(".core")];
    const at = cells.indexOf(event.target.closest(".core"));
    if (at < 0) return;
    if (event.key === "Escape") return void this.hover(null);
    const box = cells[at].getBoundingClientRect();
    const beside = (direction) => nearest(cells, box, direction);
    const to = {
      ArrowLeft: () => cells[at - 1],
      ArrowRight: () => cells[at + 1],
      ArrowUp: () => beside(-1),
      ArrowDown: () => beside(1),
      Home: () => cells[0],
      End: () => cells.at(-1),
    }[event.key]?.();
    if (!to) return;
    event.preventDefault();
    setAttribute(this.focusable, "tabindex", "-1");
    this.focusable = to;
    setAttribute(to, "tabindex", "0");
    to.focus();
  }
}

/** The cell of the next row above (-1) or below (1) that lies nearest sideways. */
function nearest(cells, box, direction) {
  let best = null;
  for (const cell of cells) {
    const other = cell.getBoundingClientRect();
    const away = (other.top - box.top) * direction;
    if (away < box.height / 2) continue;
    const cost = away * 1000 + Math.abs(other.left - box.left);
    if (!best || cost < best.cost) best = { cell, cost };
  }
  return best?.cell;
}
