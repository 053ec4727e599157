"""The clip inspector where there is no kernel: one HTML page with its frames inside, which scrubs offline."""

import base64
from collections.abc import Sequence
from html import escape

from IPython.display import HTML

from lab import pictures, sketches
from lab.inspector import Inspector
from lab.panel import STYLE

PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>
<style>{style} body{{margin:0}} .ifttn{{max-width:520px}} input{{width:100%;margin:4px 0}} img{{width:100%;
display:block;border-radius:4px}} p{{margin:8px 0 0}} button{{font:inherit;color:inherit;background:none;width:84px;
border:1px solid var(--rule);border-radius:4px;padding:3px 0;margin-right:8px;cursor:pointer}}
button:hover{{background:rgba(128,128,128,.14)}}</style>
<body><div class="ifttn widget-html-content" id=root><div><b>{title}</b> <small>{note}</small></div>
<img id=frame alt="a frame of {title}">
<input id=at type=range min=0 max={last} value=0 aria-label=Frame>
{line}<p><button id=play aria-label="play or pause">▶ play</button> <small id=said role=status></small></p></div>
<script>
const frames={frames},fps={fps}
,[root,frame,at,play,said]=['root','frame','at','play','said'].map(x=>document.getElementById(x));
let timer=0;
const show=()=>{{const i=+at.value;frame.src='data:image/jpeg;base64,'+frames[i];
root.style.setProperty('--at',frames.length>1?i/(frames.length-1):0);
at.setAttribute('aria-valuetext','frame '+(i+1)+' of '+frames.length);
said.textContent='frame '+(i+1)+' of '+frames.length+', '+(i/fps).toFixed(2)+' s'}};
at.oninput=show;
play.onclick=()=>{{if(timer){{clearInterval(timer);timer=0}}
else timer=setInterval(()=>{{at.value=(+at.value+1)%frames.length;show()}},1000/fps);
play.textContent=timer?'❚❚ pause':'▶ play'}};show()
</script></body></html>"""


def page(frames: Sequence[bytes], fps: float, title: str, note: str = "", line: str = "") -> str:
    """The player as a page of its own.

    Args:
        frames: JPEG bytes.
        fps: at which it plays.
        title: over the picture.
        note: beside the title.
        line: HTML of a time line.
    """
    inside = ",".join(f"'{base64.b64encode(frame).decode()}'" for frame in frames)
    return PAGE.format(
        title=escape(title),
        note=escape(note),
        style=STYLE,
        last=len(frames) - 1,
        line=line,
        frames=f"[{inside}]",
        fps=fps,
    )


def player(inspector: Inspector) -> HTML:
    """What the inspector shows, with its layers, for a notebook that is read without a kernel;
    waits until it is drawn."""
    inspector.wait()
    clip, reading = inspector.clip, inspector.reading
    if clip is None:
        return HTML(f"<p>{escape(inspector.worker.error)}</p>")
    paint = inspector.painter()
    frames = [pictures.jpeg(paint(index), 80) for index in range(len(clip.frames))]
    sampled = reading.sampled.tolist() if reading else []
    line = sketches.timeline(len(clip.kinds), sampled, clip.kinds, clip.cuts, clip.fps)
    told = f"predicted: {reading.actions[int(reading.fused.argmax())]} {reading.fused.max():.2f}" if reading else ""
    text = page(frames, clip.fps / clip.step, clip.label or clip.name, told, line)
    height = 172 + round(520 * clip.frames.shape[1] / clip.frames.shape[2])  # the picture, and what is around it
    frame = f'<iframe srcdoc="{escape(text, quote=True)}" width="560" height="{height}" style="border:0"></iframe>'
    return HTML(f"<div>{frame}</div>")  # bare, IPython would advise an IFrame, which wants a file
