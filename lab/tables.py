"""A table's frame (`ifttn.experiment.table_frames.to_frame`) as a Styler for a notebook or a page, and as LaTeX."""

import re
from html import escape

import pandas as pd
from markupsafe import Markup
from pandas.io.formats.style import Styler

from ifttn.experiment.scores import READINGS
from ifttn.experiment.table_frames import OPTIONAL, reasons, shown
from lab.sketches import prose

NARROW = ("method", "column", "paper", "paper on", "measured", "95 %", "p", "reversed")
"""Columns for a notebook, whose page is narrow; factors follow."""


def style(frame: pd.DataFrame) -> Styler:
    """For a notebook: the columns that tell rows apart, with our numbers in bold and reasons for empty cells on top."""
    text = shown(frame)
    text = text[[name for name in (*NARROW, *frame.attrs["factors"]) if name in text]]
    words = [name for name in ("method", "column") if name in text]
    text.loc[text["method"].duplicated(), "method"] = ""
    caption = [prose(f"Table {frame.attrs['number']}. {frame.attrs['caption']}")]
    for why, methods in reasons(frame).items():
        caption.append(Markup("<br><small>Empty, {}: {}.</small>").format(prose(why), ", ".join(methods)))
    return (
        text.style.format(escape="html")
        .hide(axis="index")
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
    """For a paper: a `table` environment in booktabs style (`\\usepackage{booktabs}`)."""
    text = shown(frame, ("95 %", "splits", "measured on", "why"))
    styler = text.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    latex = styler.to_latex(
        hrules=True,
        position_float="centering",
        column_format="".join("l" if name in ("method", "column") else "r" for name in text),
        caption=re.sub(r"([&%_#])", r"\\\1", frame.attrs["caption"]),
        label=f"tab:{frame.attrs['number']}",
    )
    return latex.replace("<0.001", "$<$0.001")


def page_table(frame: pd.DataFrame) -> Styler:
    """For a page: one row for each method, with the paper's columns side by side."""
    text = shown(frame)
    parts: dict[tuple[str, str], list[str]] = {}
    classes: dict[tuple[str, str], str] = {}
    for name in frame["column"].unique():
        rows = frame["column"] == name
        cells, numbers = text[rows], frame[rows]
        head = Markup("{}<small class=quiet>{}</small>").format(name, _subject(numbers))
        theirs, ours = (head, f"paper ({numbers['paper on'].iloc[0]})"), (head, "measured")
        parts[theirs], classes[theirs] = cells["paper"].to_list(), "paper first"
        share = bool(name.endswith("(%)") and frame["videos"].count())
        parts[ours] = [_with_interval(cell, share) for _, cell in cells.iterrows()]
        classes[ours] = "ours"
        if share:
            parts |= {(head, part): cells[part].to_list() for part in ("mean class", "1:1:1")}
            parts |= {(head, factor): [_meter(value) for value in cells[factor]] for factor in frame.attrs["factors"]}
    ran = frame.groupby("method", sort=False)["videos"].any()
    methods = [f"<b>{escape(method)}</b>" if known else escape(method) for method, known in ran.items()]
    table = pd.DataFrame(parts, index=methods)
    table.columns.names = [None, "Method"]
    of_cells = pd.DataFrame({part: classes.get(part, "") for part in parts}, index=methods)
    return Styler(table, cell_ids=False).set_td_classes(of_cells).set_caption(prose(frame.attrs["caption"]))


def _subject(numbers: pd.DataFrame) -> str:
    """What the measured numbers of a column are."""
    on = ", ".join(name for name in numbers["measured on"].unique() if name)
    if not on:
        return "not measured"
    counts = sorted(numbers["videos"].dropna().unique())
    return f"measured on {on}, {' or '.join(map(str, counts))} videos" if counts else f"snippets a second, {on}"


def _with_interval(cell: pd.Series, share: bool) -> str:
    lines = [cell["95 %"].replace("-", "&ndash;")] if share and cell["95 %"] else []
    tested, _, splits = cell["splits"].partition(" of ")
    lines += [f"{cell['splits']} splits"] if tested != splits else []
    return cell["measured"] + "".join(f"<small>{line}</small>" for line in lines)


def _meter(value: str) -> str:
    """A factor's accuracy over a line that runs from chance to 1."""
    return f"<span class=meter style='--share:{max(0.0, 2 * float(value) - 1):.2f}'>{value}</span>" if value else ""


def details(frame: pd.DataFrame) -> Styler:
    """For a page: top-5, spread, tests and read-outs of order of the measured cells."""
    text = shown(frame)
    rows = text[text["videos"] != ""]
    order = [name for name in (*OPTIONAL[:3], *READINGS, *OPTIONAL[7:], "p") if name in rows]
    names = [name for name in ("method", "column") if name in rows]
    labels = [escape(": ".join(row)) for row in rows[names].to_numpy().tolist()]
    table = rows[order].set_axis(labels).rename_axis(columns=": ".join(names))
    return Styler(table, cell_ids=False).format(escape="html")


def page_html(styler: Styler) -> Markup:
    """A Styler as a table of a page with a style sheet of its own, whose headings a screen reader can tell apart."""
    html = styler.to_html()
    html = re.sub(r' id="T_[^"]*"', "", html[html.index("<table") :])
    html = html.replace('<th class="row', '<th scope="row" class="row')
    return Markup(html.replace('<th class="', '<th scope="col" class="'))
