"""Tables (`ifttn.experiment.table_frames.to_frame`) as a Styler for a notebook or a page, and as LaTeX."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
from markupsafe import Markup
from pandas.io.formats.style import Styler

from ifttn.experiment.claims import Finding
from ifttn.experiment.reversal_frames import SORTS, blocks_of, sums_of
from ifttn.experiment.scores import READINGS
from ifttn.experiment.table_texts import P_OF_ORDER, WORDS_LEFT, reasons, shown
from lab.sketches import prose

NARROW = ("method", "column", "paper", "paper on", "measured", "95 %", "seeds", "p", "reversed")
"""The columns in a notebook, whose page is narrow. The factors follow them."""


def claims_matrix(findings: Sequence[Finding]) -> dict[str, dict[str, Finding]]:
    """Claim -> data set -> its finding, in the order of the findings."""
    return {
        text: {each.dataset: each for each in findings if each.text == text}
        for text in dict.fromkeys(each.text for each in findings)
    }


def texts_of(frame: pd.DataFrame, without: Sequence[str] = ()) -> pd.DataFrame:
    """The numbers of a table as short texts (`table_texts.shown`)."""
    return pd.DataFrame(shown(frame.to_dict("list"), without))


def style(frame: pd.DataFrame) -> Styler:
    """A table for a notebook: our numbers are bold, and the caption has the reasons for empty cells."""
    text = texts_of(frame)
    text["method"] = text["method"].mask(text.duplicated("method"), "")
    styler = Styler(text[[name for name in (*NARROW, *frame.attrs["factors"]) if name in text]])
    styler.format(escape="html")
    words = [name for name in ("method", "column") if name in text]
    unit = "" if "column" in words else f" Here: {frame['column'].iloc[0]}."
    caption = [prose(f"Table {frame.attrs['number']}. {frame.attrs['caption']}{unit}")]
    for why, methods in reasons(frame.to_dict("list")).items():
        caption.append(Markup("<br><small>Empty ({}): {}.</small>").format(prose(why), ", ".join(methods)))
    return (
        styler.hide(axis="index")
        .set_caption("".join(caption))
        .set_properties(subset=["paper"], opacity="0.65")
        .set_properties(subset=["measured"], **{"font-weight": "bold"})
        .set_properties(subset=words, **{"text-align": "left", "white-space": "nowrap"})
        .set_table_styles(
            [
                {
                    "selector": "caption",
                    "props": "text-align: left; caption-side: top; max-width: 60em; color: inherit",
                },
                {"selector": "", "props": "margin-bottom: 1.2em"},
                {"selector": "td, th", "props": "padding: .2em .7em"},
                *({"selector": f".col_heading.col{i}", "props": "text-align: left"} for i in range(len(words))),
            ]
        )
    )


def to_latex(frame: pd.DataFrame) -> str:
    """A `table` environment of LaTeX in booktabs style (`\\usepackage{booktabs}`)."""
    text = texts_of(frame, ("95 %", "splits", "measured on", "why"))
    styler = text.style
    styler.format(escape="latex")
    styler.format_index(escape="latex", axis=1)
    latex = styler.hide(axis="index").to_latex(
        hrules=True,
        position_float="centering",
        column_format="".join("l" if name in WORDS_LEFT else "r" for name in text),
        caption=re.sub(r"([&%_#])", r"\\\1", frame.attrs["caption"]),
        label=f"tab:{frame.attrs['number']}",
    )
    return latex.replace("<0.001", "$<$0.001")


def page_table(frame: pd.DataFrame) -> Styler:
    """A table for a page: a row for each method, and the paper's columns side by side."""
    texts = texts_of(frame).assign(column=frame["column"], on=frame["paper on"]).to_dict("records")
    parts: dict[tuple[str, str], list[str]] = {}
    classes: dict[tuple[str, str], str] = {}
    for column in dict.fromkeys(cell["column"] for cell in texts):
        cells = [cell for cell in texts if cell["column"] == column]
        share = any(cell["videos"] for cell in cells)
        head = Markup("{}<small class=quiet>{}</small>").format(column, _subject(cells))
        theirs, ours = (head, Markup("paper<small>{}</small>").format(cells[0]["on"])), (head, "measured")
        classes |= {theirs: "paper first", ours: "ours"}
        parts[theirs] = [cell["paper"] for cell in cells]
        if any(cell["measured"] for cell in cells):
            parts[ours] = [_with_interval(cell) if share else cell["measured"] for cell in cells]
        if share:
            parts[head, "1:1:1"] = [cell["1:1:1"] for cell in cells]
            parts |= {(head, name): [_meter(cell[name]) for cell in cells] for name in frame.attrs["factors"]}
    ran = {cell["method"] for cell in texts if cell["videos"]}
    methods = [f"<b>{escape(name)}</b>" if name in ran else escape(name) for name in frame["method"].unique()]
    table = pd.DataFrame(parts, index=methods)
    table.columns.names = [None, "Method"]
    of_cells = pd.DataFrame({part: classes.get(part, "") for part in parts}, index=methods)
    return Styler(table, cell_ids=False).set_td_classes(of_cells).set_caption(prose(frame.attrs["caption"]))


def _subject(cells: Sequence[Mapping[Any, str]]) -> str:
    """A description of the measured numbers of a column."""
    on = ", ".join(dict.fromkeys(cell["measured on"] for cell in cells if cell["measured on"]))
    if not on:
        return "not measured"
    counts = sorted({int(cell["videos"]) for cell in cells if cell["videos"]})
    return f"measured on {on}, {' or '.join(map(str, counts))} videos" if counts else f"snippets a second, {on}"


def _with_interval(cell: Mapping[Any, str]) -> str:
    tested, _, splits = cell["splits"].partition(" of ")
    lines = [cell["95 %"].replace("-", "&ndash;"), f"{cell['splits']} splits" if tested != splits else ""]
    lines += [f"{cell['seeds']} seeds"] if cell.get("seeds") not in (None, "", "1") else []
    return cell["measured"] + "".join(f"<small>{line}</small>" for line in lines if line)


def _meter(value: str) -> str:
    """The accuracy of a factor, above a line from chance to 1."""
    return f"<span class=meter style='--share:{max(0.0, 2 * float(value) - 1):.2f}'>{value}</span>" if value else ""


def details(frame: pd.DataFrame) -> Styler:
    """More columns of the measured cells for a page: mean class, top-5, spread, order of snippets and p-values."""
    text = texts_of(frame)
    order = ("mean class", "top-5", "sd splits", "sd seeds", *READINGS, *P_OF_ORDER.values(), "p")
    names = [name for name in ("method", "column") if name in text]
    cells = [cell for cell in text.to_dict("records") if cell["videos"]]
    table = pd.DataFrame(
        {name: [cell[name] for cell in cells] for name in order if name in text},
        pd.Index([escape(": ".join(cell[name] for name in names)) for cell in cells]),
    )
    table.columns.name = ": ".join(names)
    styler = Styler(table, cell_ids=False)
    styler.format(escape="html")
    return styler


def reversal_tables(frame: pd.DataFrame) -> list[tuple[str, Styler]]:
    """The reversal table for a page: a table for all actions (heading ""), then one for each kind of action."""
    blocks = ((f"{SORTS[kind]}: {len(texts)} of {dataset}", texts) for dataset, kind, texts in blocks_of(frame))
    parts = [("", sums_of(frame)), *blocks]
    return [(heading, _words(texts)) for heading, texts in parts]


def _words(texts: pd.DataFrame) -> Styler:
    """A table of short texts with words aligned to the left. The headings do not break within IF-TTN."""
    texts = texts.rename(columns=lambda name: name.replace("IF-TTN", "IF\N{NON-BREAKING HYPHEN}TTN"))
    styler = Styler(texts, cell_ids=False)
    classes = pd.DataFrame({name: "word" if name in (*WORDS_LEFT, "called") else "" for name in texts}, texts.index)
    styler.format(escape="html")
    return styler.set_td_classes(classes).hide(axis="index")


def page_html(styler: Styler) -> Markup:
    """A Styler as HTML without its own styles; the headings have a scope for screen readers."""
    html = styler.to_html()
    html = re.sub(r' id="T_[^"]*"', "", html[html.index("<table") :])
    html = html.replace('<th class="row', '<th scope="row" class="row')
    for column in re.findall(r' row0 (col\d+) word"', html):
        html = html.replace(f' level0 {column}"', f' level0 {column} word"')
    return Markup(html.replace('<th class="', '<th scope="col" class="'))
