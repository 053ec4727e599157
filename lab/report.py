"""The study as one HTML file: no network, no script, every picture inside, legible on paper and in the dark."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jinja2 import Environment

from ifttn.experiment.claims import EXPLAINED, Finding
from ifttn.experiment.steps import Progress
from ifttn.experiment.tables import Column, Table, as_p, empty, heading, orders, to_frame
from ifttn.files import write_whole
from ifttn.vocabulary import duration
from lab.sketches import prose

State = Literal["done", "running", "to come", "failed"]


class StepRow(NamedTuple):
    """One step of the study."""

    kind: str
    """What it does, as the time is added up: "videos", "store", a recipe, "figures"."""
    subject: str
    """What it works on: a data set and split."""
    state: State = "to come"
    seconds: float = 0.0
    reason: str = ""
    """Why it failed."""


class Figure(NamedTuple):
    """A picture of the report."""

    title: str
    """Also what is read out in the picture's place."""
    caption: str
    png: bytes


@dataclass(frozen=True)
class StudyState:
    """What the report says of how it was made, and how far the study is."""

    preset: str
    device: str
    datasets: Mapping[str, str]
    """Name -> a line about it."""
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    date: str
    steps: tuple[StepRow, ...]
    title: str = "Information Fused Temporal Transformation Network"


def steps(progress: Progress) -> tuple[StepRow, ...]:
    """The steps of a study, in its order."""

    def state(name: str) -> State:
        if name in progress.failed:
            return "failed"
        return "done" if name in progress.done else "running" if name in progress.running else "to come"

    def step(name: str) -> StepRow:
        subject, _, kind = name.partition(": ")
        return StepRow(kind, subject, state(name), progress.seconds.get(name, 0.0), progress.failed.get(name, ""))

    return tuple(step(task.name) for task in progress.steps)


def write(
    path: Path,
    state: StudyState,
    tables: Sequence[Table],
    figures: Sequence[Figure],
    findings: Sequence[Finding] = (),
) -> None:
    """Write the report, whole or not at all; call it again after every step.

    Args:
        path: the HTML file.
        state: how far the study is.
        tables: measured as far as they can be.
        figures: those drawn so far.
        findings: what became of the paper's claims, as far as it is known.
    """
    page = PAGE.render(
        state=state,
        tables=tables,
        figures=figures,
        done=sum(step.state == "done" for step in state.steps),
        seconds=sum((step.seconds for step in state.steps), start=0.0),
        kinds=_kinds(state.steps),
        findings=findings,
    )
    write_whole(path, page.encode())


def _kinds(steps: Sequence[StepRow]) -> list[tuple[str, int, float]]:
    """Per kind: how many steps took time, and how much; the longest first."""
    kinds = {step.kind: [other.seconds for other in steps if other.kind == step.kind] for step in steps}
    rows = [(kind, sum(s > 0 for s in seconds), sum(seconds)) for kind, seconds in kinds.items()]
    return sorted((row for row in rows if row[2]), key=lambda row: -row[2])


def _subject(table: Table, column: Column) -> str:
    """What the measured numbers of a column are of."""
    timed = [cell.speed.on for cell in table.cells if cell.column == column and cell.speed]
    if timed:
        return f"snippets a second, {', '.join(dict.fromkeys(timed))}"
    found = [cell.measured for cell in table.cells if cell.column == column and cell.measured]
    datasets = dict.fromkeys(measurement.dataset for measurement in found)
    videos = sorted({measurement.videos for measurement in found})
    return f"measured on {', '.join(datasets)}, {' or '.join(map(str, videos))} videos" if found else "not measured"


def _parts(table: Table, column: Column) -> list[str]:
    """Headings under a column: what is not a share has no classes and no factors."""
    share = column.unit == "%" and any(cell.measured for cell in table.cells)
    return [f"paper ({column.dataset})", "measured", *(["mean class", "1:1:1", *table.factors] if share else [])]


ENVIRONMENT = Environment(
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: prose(value) if isinstance(value, str) else value,
)


def _sure(table: Table) -> list[list[str]]:
    """What is known of each measured cell beside its accuracy, with the names first; what no cell has is left out."""
    read = orders(table).set_index(["method", "column"])
    found = to_frame(table).dropna(subset="measured").set_index(["method", "column"])
    sure = found[["top-5", "sd splits", "sd seeds"]].join(read).assign(p=found.p).dropna(axis=1, how="all")
    digits = {name: as_p if name.startswith("p") else _percent for name in sure.columns}
    names = ("method", "column") if len(table.columns) > 1 else ("method",)
    lines = sure.apply({name: lambda column, show=show: column.map(show) for name, show in digits.items()})
    labels = [list(index[: len(names)]) for index in sure.index]
    return [[*names, *sure.columns], *(a + b for a, b in zip(labels, lines.to_numpy().tolist(), strict=True))]


def _percent(value: float) -> str:
    return "" if value != value else f"{value:.1f}"


ENVIRONMENT.filters.update(
    duration=duration,
    percent=lambda share: f"{100 * share:.1f}",
    base64=lambda content: base64.b64encode(content).decode(),
)
ENVIRONMENT.globals.update(
    heading=heading,
    subject=_subject,
    parts=_parts,
    sure=_sure,
    empty=empty,
    explained=EXPLAINED,
    colours={"supported": "holds", "undecided": "open", "not supported": "fails", "not measured": "quiet"},
)

STYLE = """
:root { color-scheme: light dark; --page: #fcfbf8; --ink: #23211d; --quiet: #696459; --rule: #dcd6ca;
  --tint: #f3f0e8; --accent: #1d5c87; --holds: #2c6637; --open: #7d5400; --fails: #96291c; }
@media (prefers-color-scheme: dark) { :root { --page: #17191c; --ink: #e7e3da; --quiet: #a8a295; --rule: #373a3f;
  --tint: #1f2226; --accent: #84b9e0; --holds: #8ecb98; --open: #e0b45c; --fails: #f09a8c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 17px/1.55 "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", Georgia, serif; }
main { max-width: 1200px; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; font-weight: 600; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.35rem; font-weight: 600; margin: 3.2rem 0 .8rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1.08rem; font-weight: 600; margin: 2.4rem 0 .2rem; }
p, .notes, figcaption, caption, dl { max-width: min(46rem, 100vw - 3rem); }
a { color: var(--accent); }
.quiet, small, caption, figcaption { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .92rem; }
dt { color: var(--quiet); } dd { margin: 0; }
progress { width: 100%; max-width: 46rem; height: .5rem; accent-color: var(--accent); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font: 13px/1.35 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; border-bottom: 1.5px solid var(--ink); }
caption { caption-side: top; text-align: left; padding: 0 0 .6rem; }
thead { border-top: 1.5px solid var(--ink); border-bottom: 1px solid var(--ink); }
th { font-weight: 600; text-align: left; } thead th { vertical-align: bottom; }
th, td { padding: .3rem .4rem; } td, .n { text-align: right; vertical-align: top; }
tbody th { font-weight: 400; vertical-align: top; min-width: 9rem; }
tbody tr + tr { border-top: 1px solid var(--rule); }
th small { display: block; font-weight: 400; } td small { display: block; font-size: 11px; white-space: nowrap; }
.first { padding-left: 1.4rem; } .paper { color: var(--quiet); } .ours { font-weight: 700; }
.ours small { font-weight: 400; } thead .n { font-weight: 400; color: var(--quiet); }
.ran th { font-weight: 600; } .word { text-align: left; }
.meter { --long: calc(100% - .8rem); background: no-repeat left .4rem top 1.75em / calc(var(--long) * var(--share)) 2px
  linear-gradient(var(--accent) 0 0), no-repeat left .4rem top 1.75em / var(--long) 2px
  linear-gradient(var(--rule) 0 0); }
.notes { font-size: .86rem; color: var(--quiet); margin: .6rem 0 0; padding-left: 1.1rem; }
.findings { list-style: none; padding: 0; }
.findings li { display: grid; grid-template-columns: 7rem minmax(12rem, 2fr) 3fr; gap: 0 1rem; padding: .45rem 0;
  border-top: 1px solid var(--rule); align-items: baseline; }
.findings li:first-child { border: 0; } .findings li > * { grid-column: 2 / -1; } .findings .verdict { grid-column: 1; }
@media (min-width: 60rem), print { .findings small { grid-column: 3; } .findings p { grid-column: 2; } }
.findings p { margin: 0; grid-row: 1; } .findings small { font-size: .84rem; line-height: 1.4; }
.verdict { font: 600 12px/2 system-ui, "Segoe UI", Arial, sans-serif; }
.holds { color: var(--holds); } .open { color: var(--open); } .fails { color: var(--fails); }
figure { margin: 2rem 0; } figcaption { font-size: .92rem; margin-top: .5rem; } figcaption b { color: var(--ink); }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); }
summary { cursor: pointer; margin: 1rem 0; } .bar { width: 16rem; padding-right: 0; }
.bar span { display: block; height: .6rem; margin-top: .25rem; background: var(--accent); }
@page { size: A4 landscape; margin: 13mm; }
@media print { :root { --page: #fff; --ink: #000; --quiet: #555; --rule: #ccc; --accent: #1d5c87; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; } main { padding: 0; }
  table { font-size: 8pt; } .scroll { overflow: visible; } section, tr, figure, .findings li { break-inside: avoid; }
  h2, h3 { break-after: avoid; } nav { display: none; } }
"""

PAGE = ENVIRONMENT.from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ state.title }}: {{ state.preset }}</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body><main>
<header>
<h1>{{ state.title }}</h1>
<p class="quiet">{{ "The study so far" if done < state.steps|length else "The study" }},
at preset {{ state.preset }}, {{ state.date }}.</p>
{% if done < state.steps|length %}
<p role="status"><label for="progress">{{ done }} of {{ state.steps|length }} steps are done.
{% for step in state.steps if step.state == "running" %}
{{ "Now:" if loop.first else "and" }} {{ step.kind }} of {{ step.subject }}{{ "." if loop.last }}
{% endfor %}
This page is written anew after every step: reload it.</label></p>
<progress id="progress" value="{{ done }}" max="{{ state.steps|length }}"></progress>
{% for step in state.steps if step.state == "failed" %}
<p class="fails">Failed: {{ step.kind }} of {{ step.subject }}: {{ step.reason }}</p>
{% endfor %}
{% endif %}
<nav aria-label="Contents"><p>{% if findings %}<a href="#findings">Findings</a> · {% endif %}
{% for table in tables %}<a href="#table-{{ table.number }}">Table {{ table.number }}</a> · {% endfor %}
{% if figures %}<a href="#figures">Figures</a> · {% endif %}<a href="#time">Time</a></p></nav>
<dl>
{% for name, line in state.datasets.items() %}<dt>Data set</dt><dd><b>{{ name }}</b>: {{ line }}</dd>{% endfor %}
<dt>Device</dt><dd>{{ state.device }}</dd>
<dt>Seeds</dt><dd>{{ state.seeds|join(", ") }}</dd>
<dt>Versions</dt><dd>{% for name, number in state.versions.items() %}{{ name }} {{ number }}{{ "," if not loop.last }}
{% endfor %}</dd>
</dl>
</header>

{% if findings %}
<h2 id="findings">What the paper claims, and what is seen here</h2>
<p class="quiet">{{ explained }}</p>
<ul class="findings">
{% for finding in findings %}
<li><span class="verdict {{ colours[finding.verdict] }}">{{ finding.verdict }}</span>
<p>{{ finding.text }}.</p><small>{{ finding.evidence }}</small></li>
{% endfor %}
</ul>
{% endif %}

<h2 id="tables">Tables</h2>
<p>The column <i>paper</i> repeats what the paper prints, on its data; <i>measured</i> is ours, on the data named in the
heading: compare the order of the rows, not the numbers. Accuracies are in %, with Wilson's 95% interval over all test
videos below; an empty cell was not measured. <i>1:1:1</i> is the same late fusion with equal weights.
{% if tables|map(attribute="factors")|select|list %}A factor is the share of videos whose predicted action has the right
value of it; the line under it runs from chance, 0.50, to 1.00.{% endif %}</p>
{% for table in tables %}
<section>
<h3 id="table-{{ table.number }}">Table {{ table.number }}. {{ table.title }}</h3>
<div class="scroll" tabindex="0" role="region" aria-labelledby="table-{{ table.number }}">
<table>
<caption>{{ heading(table) }}</caption>
<thead>
<tr><th rowspan="2" scope="col">Method</th>
{% for column in table.columns %}
<th class="first" colspan="{{ parts(table, column)|length }}" scope="colgroup">{{ column.label }}
<small class="quiet">{{ subject(table, column) }}</small></th>
{% endfor %}</tr>
<tr>{% for column in table.columns %}{% for part in parts(table, column) %}
<th class="n{{ " first" if loop.first }}" scope="col">{{ part }}</th>{% endfor %}{% endfor %}</tr>
</thead>
<tbody>
{% for row in table.rows %}
<tr{% if row|selectattr("measured")|list %} class="ran"{% endif %}><th scope="row">{{ row[0].method }}</th>
{% for cell in row %}
<td class="paper first">{% if cell.paper is not none %}
{{ cell.paper if cell.column.unit == "%" else cell.paper|int }}{% endif %}</td>
{% if cell.measured %}{% with m = cell.measured %}
<td class="ours">{{ m.top1|percent }}<small>{{ m.interval[0]|percent }}&ndash;{{ m.interval[1]|percent }}</small>
{%- if m.splits|length < table.splits|length %}
<small>{{ m.splits|length }} of {{ table.splits|length }} splits</small>{% endif %}</td>
<td>{{ m.mean_class|percent }}</td>
<td>{% if m.equal_weights is not none %}{{ m.equal_weights|percent }}{% endif %}</td>
{% for factor in table.factors %}{% if factor in m.factors %}{% with value = m.factors[factor] %}
<td class="meter" style="--share: {{ "%.2f"|format([2 * value - 1, 0]|max) }}">{{ "%.2f"|format(value) }}</td>
{% endwith %}{% else %}<td></td>{% endif %}{% endfor %}
{% endwith %}{% elif cell.speed %}<td class="ours">{{ "%.3g"|format(cell.speed.rate) }}</td>
{% else %}{% for part in parts(table, cell.column)[1:] %}<td></td>{% endfor %}{% endif %}
{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if table.cells|selectattr("measured")|list %}{% with lines = sure(table) %}
<details><summary>Top-5, spread, and the order of the snippets</summary>
<div class="scroll"><table>
<caption>In %; <i>one view</i>, <i>reversed</i> and <i>shuffled</i> are top-1 on the centre view with the snippets in
order and in wrong orders; <i>p reversed</i> and <i>p shuffled</i> compare these (McNemar), <i>p</i> compares a row with
the last measured one.</caption>
<thead><tr>{% for name in lines[0] %}<th scope="col"{% if name not in ("method", "column") %} class="n"{% endif %}>
{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in lines[1:] %}<tr>{% for entry in line %}{% if lines[0][loop.index0] in ("method", "column") %}
<th scope="row">{{ entry }}</th>{% else %}<td>{{ entry }}</td>{% endif %}{% endfor %}</tr>{% endfor %}</tbody>
</table></div></details>
{% endwith %}{% endif %}
<ul class="notes">{% for note in table.notes %}<li>{{ note }}</li>{% endfor %}
{% for why, names in empty(table).items() %}<li>Empty, {{ why }}: {{ names|join("; ") }}</li>{% endfor %}</ul>
</section>
{% endfor %}

{% if figures %}
<h2 id="figures">Figures</h2>
{% for figure in figures %}
<figure><img src="data:image/png;base64,{{ figure.png|base64 }}" alt="{{ figure.title }}">
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption }}</figcaption></figure>
{% endfor %}
{% endif %}

<h2 id="time">Where the time went</h2>
<div class="scroll"><table>
<caption>{{ done }} of {{ state.steps|length }} steps are done; their times add up to {{ seconds|duration }}.
Steps that ran side by side count one by one.</caption>
<thead><tr><th scope="col">Work</th><th class="n" scope="col">steps</th><th class="n" scope="col">time</th>
<th class="n" scope="col">share</th><td></td></tr></thead>
<tbody>{% for kind, count, time in kinds %}
<tr><th scope="row">{{ kind }}</th><td>{{ count }}</td><td>{{ time|duration }}</td>
<td>{{ "%.0f"|format(100 * time / seconds) }} %</td>
<td class="bar"><span style="width: {{ "%.1f"|format(100 * time / seconds) }}%"></span></td></tr>{% endfor %}
</tbody></table></div>
<details{{ " open" if done < state.steps|length }}><summary>All steps</summary>
<div class="scroll"><table>
<thead><tr><th scope="col">Step</th><th scope="col">of</th><th scope="col">state</th>
<th class="n" scope="col">time</th></tr></thead>
<tbody>{% for step in state.steps %}
<tr{% if step.state == "running" %} class="ran"{% endif %}><th scope="row">{{ step.kind }}</th>
<td class="word">{{ step.subject }}</td><td class="word">{{ step.state }}</td>
<td>{{ step.seconds|duration if step.seconds }}</td></tr>{% endfor %}
</tbody></table></div></details>
</main></body>
</html>
"""
)
