"""How does a result become a page that one can send to somebody? One file, no script, nothing from elsewhere, light and dark. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from orchestrator.bench.environment import Environment

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2128; --muted: #57606a; --rule: #d5dbe1; --warn: #8a5a00;
  --warn-back: #fff4d6; --heat: 10 88 202; --on-dark: #fff;
  --slot-0: #0a58ca; --slot-1: #c24400; --slot-2: #2f7d4d; --slot-3: #7c1c84; --slot-4: #605034; --slot-5: #9a3fb0;
  --slot-6: #7c1cfc; --slot-7: #ac3c74; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --text: #e6edf3; --muted: #9aa4b2; --rule: #30363d;
  --warn: #f2b84b; --warn-back: #322503; --heat: 90 167 255; --on-dark: #0b0e13;
  --slot-0: #5aa7ff; --slot-1: #ff9d45; --slot-2: #38e090; --slot-3: #9a70ff; --slot-4: #d59a3f; --slot-5: #e08cf0;
  --slot-6: #f8c804; --slot-7: #f02fb6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1400px; background: var(--page); color: var(--text);
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 8px; }
p { margin: 4px 0; } .muted { color: var(--muted); }
.warn { background: var(--warn-back); color: var(--warn); border-left: 4px solid var(--warn); padding: 6px 12px; margin: 6px 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 20px 32px; }
figure { margin: 0; break-inside: avoid; min-width: 0; } figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin: 0 0 4px; }
svg { width: 100%; height: auto; max-width: 760px; display: block; } svg text { font-size: 11px; fill: var(--text); }
svg .tick { fill: var(--muted); } svg .axis { fill: var(--muted); } svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke: var(--own); stroke-width: 1.8; } svg .mark, svg .label { fill: var(--own); }
.slot-0 { --own: var(--slot-0); } .slot-1 { --own: var(--slot-1); } .slot-2 { --own: var(--slot-2); } .slot-3 { --own: var(--slot-3); }
.slot-4 { --own: var(--slot-4); } .slot-5 { --own: var(--slot-5); } .slot-6 { --own: var(--slot-6); } .slot-7 { --own: var(--slot-7); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: 3px 8px; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--rule); font-weight: 600; } tbody tr { border-bottom: 1px solid var(--rule); }
.rows td.text, .rows th.text { text-align: left; } .noisy { color: var(--warn); }
.heat th { text-align: left; font-weight: 500; } .heat thead th { text-align: right; } .heat td { min-width: 64px; }
.heat .none { color: var(--muted); } .heat .dark { color: var(--on-dark); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
@page { size: landscape; margin: 10mm; }
@media print { body { padding: 0; max-width: none; font-size: 9px; } .charts { grid-template-columns: 1fr 1fr; }
  * { print-color-adjust: exact; } th, td { padding: 1px 4px; } .scroll { overflow: visible; } }
""" + "\n".join(f".heat .h{step} {{ background: rgb(var(--heat) / {4 + step * 9}%); }}" for step in range(11))


def page(
    title: str, said: Sequence[str], charts: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str],
    environment: Environment, settings: Mapping[str, Any], left: int = 1,
) -> str:  # fmt: skip
    """`said` stands below the title, `cells` is a table with its head, whose first `left` columns are words; `notes` are what
    could not be measured; `charts` are finished figures."""
    warnings = "".join(f'<p class="warn">{escape(each)}</p>' for each in (*environment.warnings, *notes))
    drawn = "".join(charts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{''.join(f'<p>{escape(each)}</p>' for each in said)}"
        f'<p class="muted">{escape(environment.when)}, {escape(environment.cpu)}, commit {escape(environment.commit or "not known")}</p>'
        f"{warnings}"
        f"{f'<h2>Charts</h2><div class=charts>{drawn}</div>' if drawn else ''}"
        f"<h2>Figures</h2>{_table(cells, left)}"
        f"<h2>Measured with</h2>{_facts(settings)}"
        f"<h2>Measured on</h2>{_facts(msgspec.to_builtins(environment))}"
        "</body></html>\n"
    )


def _table(cells: Sequence[Sequence[str]], left: int) -> str:
    def row(line: Sequence[str], tag: str) -> str:
        noisy = ' class="noisy"' if line[-1] and tag == "td" else ""
        return f"<tr{noisy}>" + "".join(
            f"<{tag}{' class=text' if column < left or column == len(line) - 1 else ''}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(line)
        ) + "</tr>"  # fmt: skip

    body = "".join(row(line, "td") for line in cells[1:])
    return f'<div class="scroll"><table class="rows"><thead>{row(cells[0], "th")}</thead><tbody>{body}</tbody></table></div>'


def _facts(facts: Mapping[str, Any]) -> str:
    def said(value: Any) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{name} {said(each)}" for name, each in value.items()) or "none"
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "none"
        return "none" if value is None else str(value)

    shown = (
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(said(value))}</dd>" for name, value in facts.items()
    )
    return f"<dl>{''.join(shown)}</dl>"
