"""`ifttn predict`: print the most likely actions of a video."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ifttn.files import write_whole
from ifttn.recognizer import Prediction, Recognizer
from ifttn.vocabulary import IfttnError

BARS = ("█·", "#.")
"""Characters of a bar, filled and empty, for terminals with UTF-8 and for other terminals."""


def run(o: argparse.Namespace) -> int:
    """Print the predictions. The exit code is 1 if a video could not be read, or not to its end."""
    recognize, failed, found = Recognizer.load(o.run, o.device, o.crops), 0, {}
    for video in o.video:
        prediction = None
        try:
            for prediction in predictions(recognize, video, o.every):
                found[str(video)] = prediction
                if o.every:
                    print(time_line(prediction, prediction.seconds[-1]), flush=True)
        except IfttnError as error:  # earlier predictions of a stream are kept
            print(f"ifttn: {error}", file=sys.stderr)
            failed += 1
        if prediction:
            print_prediction(prediction, o.top, with_segments=not o.every)
    if o.json:
        write_whole(o.json, json.dumps({name: each.as_json() for name, each in found.items()}, indent=1).encode())
        print(f"scores: {o.json}")
    return 1 if failed else 0


def print_prediction(prediction: Prediction, top: int, with_segments: bool) -> None:
    """Print the most likely actions, and a time line of the segments."""
    for action, probability in prediction.top(top):
        print(f"  {probability:6.1%}  {action}")
    for segment in prediction.segments if with_segments else ():
        print(time_line(segment, segment.seconds[0]))


def predictions(recognize: Recognizer, video: Path, every: float | None) -> Iterator[Prediction]:
    """The prediction for the video or, with `every`, a prediction after each segment. Prints the name of the video
    first, and at the end what was lost."""
    if every:
        print(video)
        notes = yield from recognize.stream(video, every)
    else:
        prediction = recognize(video)
        print(video)
        yield prediction
        notes = prediction.notes
    for note in notes:
        print(f"ifttn: {video}: {note}", file=sys.stderr)


def time_line(prediction: Prediction, seconds: float) -> str:
    """One line with the time, the most likely action, and its probability as a number and as a bar."""
    ((action, probability),) = prediction.top(1)
    full, empty = next(bar for bar in BARS if _can_print(bar))
    bar = full * round(probability * 20)
    return f"  {int(seconds) // 60:3}:{seconds % 60:04.1f}  {bar:{empty}<20} {probability:4.0%}  {action}"


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
