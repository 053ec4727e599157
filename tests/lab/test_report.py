import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifttn.experiment.claims import decide, load_claims
from ifttn.experiment.reversal_frames import reversal_frame
from ifttn.experiment.reversals import backwards
from ifttn.experiment.scores import READINGS, Scores
from ifttn.experiment.significance import mcnemar
from ifttn.experiment.steps import Progress, Step
from ifttn.experiment.table_texts import table_text
from ifttn.experiment.tables import Table, fill, load
from lab.report import About, Illustration, steps, write

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=")
PICTURE = Illustration("Figure 6: class activation maps", "Where each stream looks.", PNG)
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Collects the tags with their attributes, and checks that they are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


ABOUT = About("tiny", "2 cores", {"embedded-ucf": "960 videos"}, (0,), {"torch": "2.15"}, "4 March 2025")
VIDEOS, STORE, SPATIAL = "embedded-ucf: videos", "embedded-ucf: store", "embedded-ucf split 1: spatial"


def progress(*names: str, **how_far: Any) -> Progress:
    return Progress([Step(name, print) for name in names], **how_far)


OURS, FACTORS = (
    ("embedded-ucf",),
    {"embedded-ucf": {"speed": np.array([0, 0, 1, 1]), "order": np.array([0, 1, 0, 1])}},
)


def of_study(dataset: str, split: int, recipe: str) -> Scores | None:
    labels = np.arange(40) % 4
    right = np.eye(4, dtype=np.float32)[labels]
    heads = {"rgb": right[:, ::-1], "flow": np.eye(4, dtype=np.float32)[labels // 2 * 2], "ttn": 5 * right}
    names = tuple(f"v{i}" for i in range(40))
    turned = {**heads, "ttn": heads["ttn"][:, ::-1]}
    known = recipe in ("spatial", "temporal", "if-ttn") and split == 1
    readings = dict(zip(READINGS, (heads, turned, turned), strict=True))
    return Scores(names, labels, tuple("abcd"), heads, readings) if known else None


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return [fill(table, of_study, OURS, FACTORS) for table in load().values()]


@pytest.fixture
def html(tmp_path: Path, tables: list[Table]) -> str:
    half = progress(VIDEOS, SPATIAL, seconds={VIDEOS: 71.0}, done={VIDEOS}, running={SPATIAL: 0.0})
    findings = decide(load_claims(), [of_study], OURS, FACTORS)
    turned = backwards(load_claims(), [of_study], OURS[0], (1,))
    reversals = reversal_frame(turned, tuple("abcd"), np.array([3, 2, 1, 0]), OURS[0])
    write(tmp_path / "report.html", ABOUT, half, tables, [PICTURE], findings, reversals)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_loads_no_other_file(html: str):
    page = Page(html)
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?:|@import|url\(", html)
    assert [image["src"] for image in page.all("img")] == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"]).removeprefix("#") for link in page.all("a")} <= anchors


def test_the_report_is_made_for_screen_readers(html: str):
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all("scope" in header for header in page.all("th"))


def test_every_row_of_a_table_has_as_many_cells_as_the_header(html: str):
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        head, *body = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        if "colspan" in head:
            second, *body = body
            width = len(re.findall("<th", second))
        else:
            width = len(re.findall("<t[hd]", head))
        assert body
        assert {len(re.findall("<t[hd]", line)) for line in body} == {width}


def test_numbers_of_the_paper_and_measured_numbers_have_separate_columns(html: str):
    line = re.search(r"<tr>\s*<th [^>]*><b>TTN branch</b></th>.*?</tr>", html, re.DOTALL)
    assert line
    ours = r'<td [^>]*ours"\s*>100\.0<small>91\.2&ndash;100\.0'
    assert re.search(rf'<td [^>]*paper first"\s*>92\.3</td>\s*{ours}', line[0])
    empty = re.search(r"<tr>\s*<th [^>]*>iDT \[24\]</th>.*?</tr>", html, re.DOTALL)
    assert empty
    assert re.findall(r"\d+\.\d", empty[0]) == ["86.4", "61.7"]
    assert "measured on embedded-ucf, 40 videos" in html
    assert "1 of 3 splits" in html


def test_the_report_begins_with_the_claims_and_their_intervals(html: str):
    head = html[: html.index('id="tables"')]
    assert "The TTN knows the order of snippets, and TSN does not<" in head
    labels = np.arange(40) % 4
    low, high = mcnemar(labels >= 0, labels % 2 == 0).interval
    row = ("order accuracy the TTN branch, two-stream TSN", "100.0 %", "50.0 %")
    row += (f"+50.0 points [{100 * low:+.1f}, {100 * high:+.1f}]", "&lt;0.001", "20 : 0 of 40 videos of one training")
    assert list(row) in [re.findall(r"<td[^>]*>(.*?)</td>", line)[1:] for line in head.split("<tr>")]
    assert '<span class="verdict holds">supported</span>' in head
    assert '<span class="verdict quiet">not measured</span>' in head
    assert "needs a tested run of ttn-separate" in head
    assert "McNemar&#39;s exact test" in head


def test_a_claim_on_two_data_sets_is_one_row_of_a_matrix(tmp_path: Path):
    def on_two(dataset: str, split: int, recipe: str) -> Scores | None:
        return of_study(dataset, split, recipe) if recipe != "temporal" or dataset == OURS[0] else None

    findings = decide(load_claims(), [on_two], (*OURS, "other"), FACTORS)
    write(tmp_path / "report.html", ABOUT, progress(), [], [], findings)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    Page(html)
    assert html.count('scope="row">The TTN knows the order of snippets, and TSN does not<') == 1
    row = html[html.index("The two streams add to the TTN branch") :].split("<details>")[0]
    assert len(re.findall("class=.verdict", row)) == 2  # a cell for each data set
    lone = html[html.index("Fusing the streams inside") :].split("<details>")[0]
    assert len(re.findall("class=.verdict", lone)) == 1  # without runs on the second


def test_a_stage_that_ended_early_is_marked_and_explained(tmp_path: Path):
    line = "if-ttn on embedded-ucf, split 1, seed 0: stage ttn ended with 0.64 of its training videos right"

    def short(dataset: str, split: int, recipe: str) -> Scores | None:
        found = of_study(dataset, split, recipe)
        return replace(found, short=(line,)) if found and recipe == "if-ttn" else found

    table = fill(load()[3], short, OURS, FACTORS)
    write(tmp_path / "report.html", ABOUT, progress(), [table], [])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count(f"<li>! {line}.</li>") == 1
    assert len(re.findall(r"100\.0 !<small>", html)) == 2  # the TTN branch and the complete network, not the streams
    assert f"! {line}" in table_text(table).replace("\n  ", " ")


def test_below_each_table_are_the_accuracies_in_other_orders(html: str):
    line = re.findall(r"<tr>\s*<th [^>]*>TTN branch</th>.*?</tr>", html, re.DOTALL)[-1]
    assert re.findall(r"<td [^>]*>(.*?)</td>", line) == [
        "100.0",
        "100.0",
        "0.0",
        "0.0",
        "&lt;0.001",
        "&lt;0.001",
        "1.00",
    ]


def test_predictions_for_reversed_actions_have_a_section(html: str, tmp_path: Path, tables: list[Table]):
    part = html[html.index('id="backwards"') : html.index('id="figures"')]
    assert "Actions with a reverse: 4 of embedded-ucf" in part
    assert "stays the same" in part
    line = re.search(r"<tr>\s*<td [^>]*>a</td>.*?</tr>", part, re.DOTALL)
    assert line
    assert re.findall(r"<td [^>]*>(.*?)</td>", line[0])[1:] == [
        "d",
        "10",
        "100.0",
        *["100.0 [72, 100]"] * 2,
        "0.0 [0, 28]",
        "d",
    ]
    write(tmp_path / "none.html", ABOUT, progress(), tables, [])
    assert "backwards" not in (tmp_path / "none.html").read_text(encoding="utf-8")


def test_the_report_begins_with_the_paper_and_a_summary(html: str):
    head = html[: html.index("<nav")].replace("\N{NO-BREAK SPACE}", " ")
    assert "Ke Yang, Peng Qiao, Dongsheng Li and Yong Dou" in head
    assert "the accuracy of IF-TTN is 100.0 % on 40 test videos (95 % interval 91.2 to 100.0)" in head
    assert re.search(r"that of two streams with late fusion is \d", head)
    assert "the TTN branch goes from 100.0 % to 0.0 %, and that of two streams stays at" in head
    assert "motion vectors" not in head  # they were not tested


def test_the_four_factors_are_shown_if_the_data_set_has_them(tmp_path: Path, html: str):
    assert 'aria-label="The four factors of an action' in html
    write(tmp_path / "other.html", ABOUT, progress(), [fill(load()[3], of_study, OURS)], [])
    assert "The four factors" not in (tmp_path / "other.html").read_text(encoding="utf-8")


def test_a_figure_has_a_heading_and_a_link_to_it(html: str):
    assert '<h3 id="figure-6">Figure 6: class activation maps</h3>' in html
    assert '<a href="#figure-6">Figure 6</a>' in html


def test_less_important_columns_are_in_a_collapsed_section(html: str):
    tables = [table for table in re.findall(r"<table>.*?</table>", html, re.DOTALL) if ">1:1:1</th>" in table]
    assert tables
    assert not any("mean class" in table for table in tables)
    assert ">mean class</th>" in html[html.index("<summary>Mean over classes") :]


def test_an_empty_cell_has_a_reason(html: str):
    assert "Empty (no tested run of if-ttn-adaptive on embedded-ucf, split 1): Adaptive IFM Two-Stream" in html


def test_commands_are_code_and_have_no_backticks(tmp_path: Path, tables: list[Table], html: str):
    assert "<code>ifttn bench speed --csv results/speed.csv</code>" in html
    assert "`" not in html
    write(tmp_path / "other.html", ABOUT, progress(), tables, [PICTURE._replace(caption="`ifttn figures` <draws> it")])
    assert "<code>ifttn figures</code> &lt;draws&gt; it" in (tmp_path / "other.html").read_text(encoding="utf-8")


def test_the_report_shows_the_progress_and_the_time_of_the_study(html: str):
    assert re.search(r"1 of 2 steps are done\.\s*Now: spatial of embedded-ucf split 1\.", html)
    assert "1 min 11 s" in html


def test_each_column_names_its_data_set(html: str):
    assert re.search(r">embedded-ucf \(%\)<small", html)
    assert ">paper<small>HMDB-51</small></th>" in html


def test_a_new_study_has_a_report(tmp_path: Path):
    write(tmp_path / "report.html", ABOUT, progress(VIDEOS, running={VIDEOS: 0.0}), [load()[3]], [])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "None of the runs that it needs is tested yet" in html
    Page(html)


def test_the_report_of_a_finished_study_does_not_ask_to_reload(tmp_path: Path, tables: list[Table]):
    whole = progress(VIDEOS, seconds={VIDEOS: 3.0}, done={VIDEOS})
    write(tmp_path / "report.html", ABOUT, whole, tables, [PICTURE])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "reload" not in html
    assert "<progress" not in html


def test_a_failed_step_is_shown_with_its_escaped_reason(tmp_path: Path):
    failed = progress(STORE, failed={STORE: "IfttnError: no space for <b>store</b>"})
    write(tmp_path / "report.html", ABOUT, failed, [], [])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no space for &lt;b&gt;store&lt;/b&gt;" in html
    Page(html)


def test_the_steps_are_in_the_order_of_the_study():
    names = (VIDEOS, STORE, SPATIAL, "embedded-ucf split 1: temporal")
    half = progress(*names, seconds={VIDEOS: 2.0}, running={SPATIAL: 0.0}, done={VIDEOS}, failed={STORE: "full"})
    assert steps(half).to_numpy().tolist() == [
        ["videos", "embedded-ucf", "done", 2.0, ""],
        ["store", "embedded-ucf", "failed", 0.0, "full"],
        ["spatial", "embedded-ucf split 1", "running", 0.0, ""],
        ["temporal", "embedded-ucf split 1", "to come", 0.0, ""],
    ]
