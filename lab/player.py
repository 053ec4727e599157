"""A clip where there is no kernel: one HTML page with its frames inside, which scrubs and plays offline."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from IPython.display import HTML
from jinja2 import Template

from lab.panel import PANEL_CSS

WIDTH = 520
"""Pixels of the picture, across."""
PLAYER = Template(Path(__file__).with_name("player.html").read_text(encoding="utf-8"), autoescape=True)


def page(frames: Sequence[bytes], fps: float, title: str, note: str = "", line: str = "") -> str:
    """The player as a page of its own.

    Args:
        frames: JPEG bytes.
        fps: at which it plays.
        title: over the picture.
        note: beside the title.
        line: HTML of a time line.
    """
    encoded = [base64.b64encode(frame).decode() for frame in frames]
    return PLAYER.render(frames=encoded, fps=fps, title=title, note=note, line=line, styles=PANEL_CSS, width=WIDTH)


def framed(page: str, height: int) -> HTML:
    """A page inside a notebook's output; `height` is that of its picture."""
    size = f'width="{WIDTH + 40}" height="{height + 172}"'
    frame = f'<iframe srcdoc="{escape(page, quote=True)}" {size} style="border:0"></iframe>'
    return HTML(f"<div>{frame}</div>")  # bare, IPython would advise an IFrame, which needs a file
