"""How a long call is getting on: a bar in a terminal, and in a notebook one output that its end replaces."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from IPython.core.getipython import get_ipython
from IPython.display import HTML, display
from tqdm import tqdm

from ifttn.vocabulary import duration

BAR = "{l_bar}{bar}| {elapsed} gone{postfix}"
PAGE = (
    "<div style='max-width:46rem'><progress max=1 value={share:.3f} style='width:100%' aria-label='share done'>"
    "</progress><small role=status>{told}</small></div>"
)


class Live:
    """Tell it how much is done; `end` says what came of it.

    A bar of text on stderr would be kept in a notebook with all its steps, and read badly on paper.

    Args:
        brief: the bar is gone at the end.
    """

    def __init__(self, brief: bool = False) -> None:
        kernel = getattr(get_ipython(), "kernel", None)
        self._page = display(HTML(PAGE.format(share=0, told="")), display_id=True) if kernel else None
        self._bar = tqdm(total=1.0, bar_format=BAR, leave=not brief, disable=self._page is not None)

    def update(self, share: float, doing: Iterable[str], seconds_left: float | None = None) -> None:
        """So much is done, in 0..1, these are under way, and the rest takes about so long, where that is known."""
        left = [] if seconds_left is None else [f"about {duration(seconds_left)} to go"]
        self._bar.update(share - self._bar.n)
        self._bar.set_postfix_str(", ".join([*left, *sorted(doing)]))
        if self._page is not None:
            done = ", ".join([f"{100 * share:.0f} % done", *left])
            told = f"{done}. Now: {', '.join(sorted(doing)) or 'the next step'}"
            self._page.update(HTML(PAGE.format(share=share, told=escape(told))))

    def say(self, line: str) -> None:
        """A line that stays, in a terminal."""
        if self._page is None:
            self._bar.write(line)

    def end(self, told: str = "", places: Mapping[str, Path] | None = None) -> None:
        """A sentence and where things lie, in the place of the bar."""
        self._bar.close()
        if self._page is not None:
            found = " · ".join(f"{name}: {_linked(path)}" for name, path in (places or {}).items())
            self._page.update(HTML(f"<p>{escape(told)}<br>{found}</p>"))
        elif told:
            print("\n".join([told, *(f"{name}: {path}" for name, path in (places or {}).items())]))


def _linked(path: Path) -> str:
    """A path, and a link where a click can show it: no page shows a folder."""
    text = escape(str(path))
    return f"<a href='{text}'>{text}</a>" if path.suffix else f"<code>{text}</code>"
