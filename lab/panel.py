"""What every panel shares: one state, one worker, a line that says how it goes, a look, keys, and a clean end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from threading import RLock, local
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from ipywidgets import HTML, Box, Button, FloatProgress, HBox, Layout, VBox, Widget
from traitlets import HasTraits, TraitError, link

from ifttn.vocabulary import IfttnError, duration
from lab.shelf import Shelf
from lab.sketches import prose
from lab.worker import Worker

STYLE = """
.ifttn{--ink:var(--jp-ui-font-color1,#222);--quiet:var(--jp-ui-font-color2,#666);--rule:var(--jp-border-color2,#ddd);
 --accent:var(--jp-brand-color1,#1976d2);color:var(--ink);
font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);
 border:1px solid var(--rule);border-radius:6px;padding:12px 14px;max-width:1080px;overflow:hidden;gap:8px}
.ifttn:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.ifttn .noUi-handle:focus-visible,.ifttn button:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.ifttn .widget-box{overflow:visible}.ifttn .widget-image{margin:0}.ifttn .widget-html{margin:0;max-width:100%}
.ifttn .ifttn-columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:8px 20px}
.ifttn .ifttn-columns>*{min-width:0}.ifttn .widget-html-content{line-height:1.45;overflow-wrap:break-word}
.ifttn h3{font-size:15px;font-weight:600;margin:0}.ifttn h4{font-size:13px;font-weight:600;margin:4px 0 0}
.ifttn h4 small{font-weight:400}
.ifttn small,.ifttn .quiet,.ifttn .legend{color:var(--quiet);font-size:11.5px}
.ifttn .empty{color:var(--quiet);border:1px dashed var(--rule);border-radius:4px;padding:18px;text-align:center}
.ifttn .stage{aspect-ratio:4/3;box-sizing:border-box;display:grid;place-content:center;font-size:13px}
.ifttn .stage p{margin:2px 0;max-width:24em}
.ifttn [role=alert]{border-left:3px solid #c62828;background:rgba(198,40,40,.08);padding:6px 10px;border-radius:3px}
.ifttn .warn{border-left:3px solid #ef8e00;background:rgba(239,142,0,.1);padding:6px 10px;border-radius:3px}
.ifttn pre{font-size:11px;max-height:14em;overflow:auto;margin:4px 0}
.ifttn kbd{border:1px solid var(--rule);border-radius:3px;padding:0 4px;font-size:11px}
.ifttn table{border-collapse:collapse;border:0;table-layout:auto;color:inherit;font-variant-numeric:tabular-nums;
font-size:12px;margin:0}
.ifttn th{font-weight:400;text-align:left;white-space:nowrap;padding:2px 8px 2px 0}
.ifttn td{text-align:right;padding:2px 8px 2px 0;white-space:nowrap}
.ifttn tbody th:nth-child(n){text-align:left}
.ifttn tbody tr,.ifttn tbody tr:nth-child(n),.ifttn tbody tr:hover{background:none}
.ifttn .cams td{white-space:normal;padding:2px 6px 4px 0}.ifttn .cams img{width:100%;max-width:200px;display:block;
border-radius:3px}
.ifttn thead th{border-bottom:1px solid var(--rule);font-weight:600;vertical-align:bottom}
.ifttn table:not(.bars,.cams,.words) thead th:nth-child(n+2){text-align:right}
.ifttn thead small{display:block;font-weight:400}
.ifttn table.bars{width:100%;table-layout:fixed}.ifttn .bars th{white-space:normal;line-height:1.2}
.ifttn .bars thead td,.ifttn .bars tbody th{width:36%;font-size:11.5px}
.ifttn .bars td{position:relative;text-align:left;
padding:2px 6px 2px 0}
.ifttn .bars i{display:inline-block;height:12px;max-width:calc(100% - 24px);border-radius:0 2px 2px 0;
vertical-align:-2px;min-width:1px}
.ifttn .bars b{font-weight:400;font-size:11px;margin-left:3px}.ifttn .bars .true th{font-weight:600}
.ifttn .timeline{position:relative;margin:0 6px;padding-top:1px}
.ifttn .spans{position:relative;height:22px}
.ifttn .spans div{position:absolute;top:0;bottom:0;box-sizing:border-box;border:1px solid var(--rule);font-size:11px;
 color:var(--quiet);text-align:left;padding-left:4px;background:rgba(128,128,128,.06);overflow:hidden}
.ifttn .spans div:nth-child(even){background:rgba(128,128,128,.16)}
.ifttn .timeline u{position:absolute;bottom:0;width:0;height:0;border:5px solid transparent;
border-bottom:8px solid #d55e00;
 margin-left:-5px;text-decoration:none}
.ifttn .timeline svg{display:block;width:100%;height:14px;margin-top:2px}
.ifttn .timeline path{vector-effect:non-scaling-stroke;stroke-width:2}
.ifttn .timeline s{position:absolute;top:0;height:24px;border-left:1.5px dashed #7b1fa2;margin-left:-1px}
.ifttn .timeline em{position:absolute;top:-2px;bottom:-2px;width:2px;margin-left:-1px;background:var(--accent);
 left:calc(var(--at,0)*100%)}
.ifttn .legend{display:flex;flex-wrap:wrap;gap:2px 14px;margin:2px 6px}
.ifttn .legend i{display:inline-block;width:9px;height:9px;border-radius:2px;margin:0 3px 0 4px}
.ifttn .legend u{display:inline-block;border:4px solid transparent;border-bottom:7px solid #d55e00;vertical-align:2px}
.ifttn .legend s{display:inline-block;height:11px;border-left:1.5px dashed #7b1fa2;vertical-align:-1px;margin:0 3px}
.ifttn .picture{background:#1118;border-radius:4px;overflow:hidden;line-height:0}
.ifttn .picture img{width:100%;height:auto;max-height:min(70vh,540px);object-fit:contain;display:block}
.ifttn .ifttn-reel>img{display:none}
.ifttn .ifttn-reel>.at,.ifttn .ifttn-reel:not(:has(>.at))>:first-child{display:block}
.ifttn .ifttn-scrub{width:auto;height:22px}
.ifttn .ifttn-scrub .noUi-origin{transform:translate(calc((var(--at,0) - 1)*1000%),0)!important}
.ifttn .ifttn-scrub>label{position:absolute;clip-path:inset(50%)}
.ifttn .widget-html-content dl{display:grid;grid-template-columns:minmax(5em,max-content) 1fr;gap:1px 12px;
margin:0 0 8px;font-size:12px}
.ifttn .widget-html-content dl dt{color:var(--quiet);float:none;width:auto;font-weight:400;margin:0;
white-space:nowrap}
.ifttn .widget-html-content dl dd{margin:0;float:none;width:auto;min-width:0}
.ifttn figure{margin:0}.ifttn .chart svg{width:100%;display:block}
.ifttn .chart text,.ifttn .confusion text{font-size:9.5px;fill:var(--quiet)}
.ifttn .chart text.title{font-size:12px;fill:var(--ink);font-weight:600}.ifttn .grid{stroke:var(--rule);
stroke-width:1}.ifttn .mark{stroke:var(--quiet);stroke-width:1;stroke-dasharray:2,3}
.ifttn .confusion{width:100%;display:block}.ifttn .confusion text[fill]{fill:revert-layer;font-size:8.5px}
.ifttn .interval{width:100px;height:14px;display:block}.ifttn .interval .range{stroke:var(--accent);stroke-width:2.4}
.ifttn .interval .ours{fill:var(--accent)}.ifttn .interval .paper{fill:none;stroke:var(--quiet);stroke-width:1.2}
.ifttn .row-cells{display:grid;align-items:center;font-size:12px;font-variant-numeric:tabular-nums;text-align:right;
gap:0 8px}.ifttn .row-cells .interval{width:100%}.ifttn .ifttn-row>*{flex:none}
.ifttn .row-cells small{white-space:nowrap}.ifttn .row-cells .ours{font-weight:600}
.ifttn .ifttn-row>button{text-align:left;padding:3px 8px;white-space:normal;height:auto;min-height:28px;line-height:1.3}
.ifttn .ifttn-row>button.mod-chosen{box-shadow:inset 3px 0 var(--accent)}
.ifttn .chart text{paint-order:stroke;stroke:var(--jp-layout-color1,#fff);stroke-width:2.5px}
.ifttn code{font-size:12px;background:rgba(128,128,128,.14);padding:1px 4px;border-radius:3px}
@media (prefers-reduced-motion:reduce){.ifttn *{transition:none!important}}
"""

# Runs in the page when the panel's style is in force. Every key without Ctrl or Meta ends at the panel: JupyterLab
# listens further out, and would delete or turn the cell, for it takes the focus of any control for that of the cell.
# --at is set on the time line and the slider alone: on the whole panel, every step would style every element anew.
# To play is a matter of the page: each frame is shown at its time, and where the page comes late none is left out. The
# kernel hears of it a few times a second, and where it ends; every step would cost six messages, and bring 20 a second.
KEYS = """
const root=this.closest('.ifttn');
if(root&&!root.dataset.keys){root.dataset.keys='on';root.tabIndex=0;root.setAttribute('role','region');root.setAttribute('aria-label',this.dataset.title);
const names={' ':'space','[':'less',']':'more','?':'help'},q=what=>root.querySelector(what);
const slider=()=>q('.ifttn-scrub .noUi-target')?.noUiSlider;
let at=0,playing=0,due=0,told=0,line;
const show=(to,last)=>{at=to;
for(const e of root.querySelectorAll('.ifttn-line,.ifttn-scrub'))e.style.setProperty('--at',last>0?to/last:0);
const reel=q('.ifttn-reel'),now=reel?.children[to];
if(now&&!now.matches('.at')){reel.querySelector('.at')?.classList.remove('at');now.classList.add('at')}};
const follow=()=>{const h=q('.ifttn-scrub .noUi-handle');if(!h)return;
h.setAttribute('aria-label','Frame');show(Math.round(h.getAttribute('aria-valuenow')),+h.getAttribute('aria-valuemax'))};
new MutationObserver(follow).observe(root,{subtree:true,
attributes:true,attributeFilter:['aria-valuenow','aria-valuemax']});
const say=text=>{const b=q('.ifttn-play');if(b)b.textContent=text};
const stop=()=>{cancelAnimationFrame(playing);playing=0;slider()?.set(at);say('▶ play')};
const step=now=>{const s=slider(),rate=+q('.ifttn-rate')?.dataset.rate,many=Math.ceil(rate/60),each=1000*many/rate;
if(!s||!root.isConnected||q('.timeline')!==line)return stop();
if(now>due-4){const last=s.options.range.max;due=Math.max(due+each,now);show(Math.min(last,at+many),last);
if(at>=last)return stop();if(now>told+250){told=now;s.set(at)}}
playing=requestAnimationFrame(step)};
const play=()=>{if(playing)return stop();line=q('.timeline');if(at>=slider()?.options.range.max)at=-1;
due=told=performance.now();say('❚❚ pause');playing=requestAnimationFrame(step)};
root.addEventListener('keydown',e=>{const t=e.target;
if(e.ctrlKey||e.metaKey)return;
e.stopPropagation();if(e.altKey||t.matches('input:not([type=checkbox]),textarea,select'))return;
const handle=t.closest('.noUi-handle'),scrub=q('.ifttn-scrub .noUi-handle');
if(scrub&&!handle&&!e.shiftKey&&['ArrowLeft','ArrowRight','Home','End'].includes(e.key)){
if(playing)stop();scrub.dispatchEvent(new KeyboardEvent('keydown',{key:e.key,cancelable:true}));
e.preventDefault();return}
if(t.matches('button')&&(e.key===' '||e.key==='Enter'))return;
const name='key-'+(e.shiftKey&&e.key.length>1?'shift-':'')+(names[e.key]||e.key.toLowerCase());
const found=q('.'+CSS.escape(name));
if(found){(found.matches('button')?found:found.querySelector('button')).click();e.preventDefault()}});
root.addEventListener('click',e=>{const line=e.target.closest('.timeline'),s=slider();
if(e.target.closest('.ifttn')!==root)return;if(e.target.closest('.ifttn-play'))return play();
if(line&&s){const r=line.getBoundingClientRect(),o=s.options.range;
s.set(Math.round(o.min+(o.max-o.min)*(e.clientX-r.left)/r.width))}})}
"""

Own = TypeVar("Own", bound="Panel")


class Panel(VBox):
    """A widget with a state, a worker and an end.

    `close()` ends the thread and every widget inside; a panel is a context manager that does so. A cell that is run
    again closes the panel of the same kind that it made before. Nothing that takes long is done in a callback: it goes
    to `work`. Errors of both show in the panel.

    Args:
        title: its heading, and its name for those who do not see it.
        state: all that a person chooses.
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
    """

    state: Any
    dataset: widgets.Dropdown
    """Of panels that begin with a data set."""
    _of_cells: ClassVar[dict[tuple[str, str], tuple[str, "WeakSet[Panel]"]]] = {}
    """(kind, id of a notebook's cell) -> which run of the cell it was, and the panels of that kind that it made."""

    def __init__(self, title: str, state: HasTraits, results: Shelf | Path | str) -> None:
        self.title, self.state, self.worker = title, state, Worker()
        self.shelf = results if isinstance(results, Shelf) else Shelf(results)
        self._filling, self._lock = local(), RLock()
        self._watched: list[tuple[HasTraits, list[str], Callable[..., Any]]] = []
        self._owned: list[Widget] = []
        self._ends: list[Callable[[], object]] = []
        look = HTML(f'<style data-title="{escape(title)}" onload="{escape(KEYS, quote=True)}">{STYLE}</style>')
        self._status = HTML()
        self._bar = FloatProgress(max=1.0, layout=Layout(width="140px", height="10px", visibility="hidden"))
        self._alert = HTML()
        heading = HTML(f"<h3>{escape(title)}</h3>")
        progress = HBox([self._bar, self._status], layout=Layout(align_items="center", grid_gap="10px"))
        apart = Layout(justify_content="space-between", align_items="center", width="100%")
        top = HBox([heading, progress], layout=apart)
        super().__init__([look, top, self._alert])
        self.add_class("ifttn")
        self.watch(self.worker, ["doing", "share", "paused"], self._show_progress)
        self.watch(self.worker, ["error"], self._show_error)
        self._show_progress()
        self._replace_earlier()

    def _replace_earlier(self) -> None:
        """Close what an earlier run of the same cell made, which no page shows any more."""
        cell, run = _running_cell()
        if cell:
            place = type(self).__name__, cell
            earlier, panels = self._of_cells.get(place, (run, WeakSet[Panel]()))
            if earlier != run:
                for panel in list(panels):
                    panel.close()
                panels = WeakSet[Panel]()
            panels.add(self)
            self._of_cells[place] = run, panels

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, Any]:
        """With a word for pages that were saved without a kernel, in place of the names of every widget inside."""
        bundle: Any = super()._repr_mimebundle_(**asked)
        bundle["text/plain"] = f"[{self.title}: a panel; run the notebook to use it]"
        return bundle

    def fill(self, *children: Widget) -> None:
        """Put these below the heading."""
        self.children = (*self.children, *children)

    def watch(self, of: HasTraits, names: Sequence[str], call: Callable[[], object]) -> None:
        """Call whenever one of these traits changes; an error of the call shows in the panel."""
        self._observe(of, names, lambda _: call())

    def _observe(self, of: HasTraits, names: Sequence[str], call: Callable[[Any], object]) -> None:
        """The same with the new value of the trait."""

        def changed(change: Mapping[str, Any]) -> None:
            self.guard(lambda: call(change["new"]))

        of.observe(changed, names=list(names))
        self._watched.append((of, list(names), changed))

    def begin(self, chosen: Mapping[str, object]) -> None:
        """Choose what was asked for, and otherwise the data set with most runs; for panels with a choice of those."""
        self.guard(lambda: self._begin(chosen))

    def _begin(self, chosen: Mapping[str, object]) -> None:
        names = self.state.trait_names()
        for name in chosen:
            if name not in names:
                raise IfttnError(f"no {name!r} to choose: {', '.join(sorted(names))}")
        self.dataset.options = self.shelf.datasets
        try:
            with self.state.hold_trait_notifications():
                self.state.dataset = self.shelf.usual_dataset
                for name, value in chosen.items():
                    setattr(self.state, name, value)
        except TraitError as error:
            raise IfttnError(str(error)) from error

    def offer(self, *names: str) -> None:
        """Let controls of these names say to the state what is chosen with them."""
        for name in names:
            control = getattr(self, name)
            self._observe(control, ["value"], lambda value, name=name, of=control: self.choose(name, value, of))

    def choose(self, name: str, value: object, control: Any = None) -> None:
        """A control was touched; where a thread fills its list just then, the choice waits for that, and stands."""
        if self.silent or value is None:
            return
        with self._lock:
            if control is not None and control.value != value:
                with self.filling():
                    control.value = value
            setattr(self.state, name, value)

    @property
    def silent(self) -> bool:
        """Whether this thread fills lists, so that what they report is no choice; other threads do not count."""
        return getattr(self._filling, "deep", 0) > 0

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While this thread fills lists: what they report is no choice."""
        with self._lock:
            self._filling.deep = getattr(self._filling, "deep", 0) + 1
            try:
                yield
            finally:
                self._filling.deep -= 1

    def button(
        self, text: str, call: Callable[[], object], tip: str = "", key: str = "", width: str = "auto"
    ) -> Button:
        """A button whose errors show in the panel; `key` presses it, too."""
        made = Button(description=text, tooltip=tip + (f" (key {key})" if key else ""), layout=Layout(width=width))
        made.on_click(lambda _: self.guard(call))
        if key:
            made.add_class(f"key-{key}")
        return made

    def guard(self, call: Callable[[], object]) -> None:
        """Call; what it raises would be lost in a callback, and is shown."""
        try:
            call()
        except Exception as error:
            self.worker.say(error)

    def work(self, doing: str, job: Callable[[], Iterator[float | None]]) -> None:
        """Let the worker do it, in place of what it does."""
        self.worker.start(doing, job)

    def own(self, *more: Widget) -> None:
        """Close these with the panel: widgets that are not among its children, such as links."""
        self._owned.extend(more)

    def tie(self, source: tuple[HasTraits, str], target: tuple[HasTraits, str]) -> None:
        """Keep two traits equal until the panel is closed; the source says what they begin with."""
        self._ends.append(link(source, target).unlink)

    def wait(self, timeout: float | int | None = 60) -> bool:
        """Until nothing is under way: for scripts and tests, never in a callback."""
        return self.worker.wait(timeout)

    def close(self) -> None:
        """End the thread, the links and every widget inside."""
        self.worker.close()
        for of, names, changed in self._watched:
            of.unobserve(changed, names=names)
        self._watched.clear()
        for end in self._ends:
            end()
        self._ends.clear()
        inside = set().union(*(_inside(widget) for widget in (self, *self._owned)))
        for widget in inside - {self}:
            widget.close()
        self._owned.clear()
        super().close()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show_progress(self) -> None:
        worker = self.worker
        left = f", {duration(worker.seconds_left)} to go" if worker.seconds_left else ""
        said = f"{escape(worker.doing)}{' (paused)' if worker.paused else left}" if worker.doing else "ready"
        self._status.value = f"<span class=quiet role=status>{said}</span>"
        self._bar.value = worker.share or 0.0
        self._bar.layout.visibility = "visible" if worker.doing and worker.share else "hidden"

    def _show_error(self) -> None:
        error, details = prose(self.worker.error), escape(self.worker.details)
        more = f"<details><summary>where</summary><pre>{details}</pre></details>" if details else ""
        self._alert.value = f"<div role=alert>{error}{more}</div>" if error else ""


def _running_cell() -> tuple[str, str]:
    """The id of the notebook's cell that runs, and the id of this run of it; both empty outside of a cell."""
    asked: Mapping[str, Any] = getattr(get_ipython(), "get_parent", dict)()
    return asked.get("metadata", {}).get("cellId") or "", asked.get("header", {}).get("msg_id", "")


def _inside(widget: Widget) -> set[Widget]:
    """A widget and all that hangs on it: children, layouts, styles, the ends of a link."""
    found: set[Widget] = set()
    queue = [widget]
    while queue:
        each = queue.pop()
        if each in found:
            continue
        found.add(each)
        for name in each.keys:
            value = getattr(each, name, None)
            values = value if isinstance(value, tuple | list) else [value]
            queue.extend(v for v in values if isinstance(v, Widget))
    return found


def columns(*parts: Widget) -> Box:
    """Parts side by side where there is room, else one below the other, each as wide as the panel."""
    made = Box(parts, layout=Layout(width="100%"))
    made.add_class("ifttn-columns")
    return made


def labelled(text: str, widget: Any) -> Any:
    """A control with its description as wide as it needs."""
    widget.description = text
    widget.style.description_width = "initial"
    return widget


def choose(text: str, options: Sequence[Any] = (), **more: Any) -> widgets.Dropdown:
    """A labelled choice."""
    made = widgets.Dropdown(options=options, layout=Layout(width="auto", **more))
    labelled(text, made)
    return made
