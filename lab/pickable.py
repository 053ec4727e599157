"""HTML in a panel, with parts that a person can click on or choose by keys."""

from collections.abc import Callable
from pathlib import Path

from anywidget import AnyWidget
from traitlets import Unicode


class Pickable(AnyWidget):
    """Each part with an attribute `data-pick` is a button (`pickable.js`).

    Args:
        call: is called with the `data-pick` of the pressed part.
    """

    _esm = Path(__file__).with_name("pickable.js").read_text(encoding="utf-8")
    value = Unicode(help="the HTML").tag(sync=True)

    def __init__(self, call: Callable[[str], object]) -> None:
        super().__init__()
        self.on_msg(lambda _, message, __: call(message["pick"]))
