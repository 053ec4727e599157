"""HTML in a panel whose parts can be chosen by mouse and keys."""

from collections.abc import Callable
from pathlib import Path

from anywidget import AnyWidget
from traitlets import Unicode


class Pickable(AnyWidget):
    """Each part with an attribute `data-pick` is a button (`pickable.js`).

    Args:
        call: is called with the `data-pick` of what a person presses.
    """

    _esm = Path(__file__).with_name("pickable.js").read_text(encoding="utf-8")
    value = Unicode(help="the HTML").tag(sync=True)

    def __init__(self, call: Callable[[str], object]) -> None:
        super().__init__()
        self.on_msg(lambda _, said, __: call(said["pick"]))
