"""The progress of a study: a bar in a terminal or in the output of a notebook cell."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from IPython.core.getipython import get_ipython
from IPython.display import HTML, display
from tqdm import tqdm

from ifttn.vocabulary import duration
from lab.sketches import prose

_PAGE = (
    "<div style='max-width:46rem'><progress max=1 value={share:.3f} style='width:100%' aria-label='share done'>"
    "</progress><small role=status>{text}</small></div>"
)


class StudyBar:
    """Shows how much of a study is done: in a notebook as HTML, because it would store every state of a text bar.

    With `brief`, the bar of a terminal disappears at the end.
    """

    def __init__(self, brief: bool = False) -> None:
        kernel = getattr(get_ipython(), "kernel", None)
        self._page = display(HTML(_PAGE.format(share=0, text="")), display_id=True) if kernel else None
        bar = "{l_bar}{bar}| {elapsed} gone{postfix}"
        self._bar = tqdm(total=1.0, bar_format=bar, leave=not brief, disable=self._page is not None)

    def update(self, share: float, running: Iterable[str], seconds_left: float | None = None) -> None:
        """Show the share that is done (0..1), the names of the running steps, and the expected time left."""
        left = [] if seconds_left is None else [f"about {duration(seconds_left)} to go"]
        self._bar.update(share - self._bar.n)
        self._bar.set_postfix_str(", ".join([*left, *sorted(running)]))
        if self._page is not None:
            done = ", ".join([f"{100 * share:.0f} % done", *left])
            text = f"{done}. Now: {', '.join(sorted(running)) or 'the next step'}"
            self._page.update(HTML(_PAGE.format(share=share, text=escape(text))))

    def print(self, line: str) -> None:
        """Print a line above the bar of a terminal. A notebook does not show it."""
        if self._page is None:
            self._bar.write(line)

    def end(self, sentence: str = "", places: Mapping[str, Path] | None = None) -> None:
        """Replace the bar by a sentence and the paths of files."""
        self._bar.close()
        if self._page is not None:
            links = " · ".join(f"{name}: {_link(path)}" for name, path in (places or {}).items())
            self._page.update(HTML(f"<p>{prose(sentence)}<br>{links}</p>"))
        elif sentence:
            print("\n".join([sentence, *(f"{name}: {path}" for name, path in (places or {}).items())]))


def _link(path: Path) -> str:
    """A link to a file, or the plain path of a folder, which a browser cannot show."""
    text = escape(str(path))
    return f"<a href='{text}'>{text}</a>" if path.suffix else f"<code>{text}</code>"
