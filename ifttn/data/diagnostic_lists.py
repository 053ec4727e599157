"""The lists of the embedded data set, in the formats of real data sets.

Each function takes the plan of the videos (`diagnostic.plan_videos`) and returns path -> text of every list file.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd


def ucf_lists(planned: pd.DataFrame) -> dict[str, str]:
    """UCF101's lists: CRLF, labels from 1 except in test lists; splits 1, 2, 3 test the groups 1-7, 8-14, 15-21."""
    actions = sorted(planned.action.unique())
    texts = {"classInd": [f"{label} {action}" for label, action in enumerate(actions, 1)]}
    labels = planned.set_index("file").action.map(actions.index) + 1
    for split in (1, 2, 3):
        tested = (planned.group - 1) // 7 == split - 1
        texts[f"trainlist0{split}"] = [f"{file} {labels[file]}" for file in sorted(planned.file[~tested])]
        texts[f"testlist0{split}"] = sorted(planned.file[tested])
    return {f"ucfTrainTestlist/{name}.txt": "".join(f"{x}\r\n" for x in lines) for name, lines in texts.items()}


def hmdb_lists(planned: pd.DataFrame) -> dict[str, str]:
    """HMDB51's lists: a file per action and split; 1 is train, 2 is test (30 %, disjoint over splits), 0 is unused."""
    texts = {}
    for action, rows in planned.sort_values("file").groupby("action"):
        for split in (1, 2, 3):
            place = (rows.group - 1 - 9 * (split - 1)) % 30  # reels 0-8 of this count are tested, and reel 9 is unused
            flags = np.select([place < 9, place == 9], [2, 0], 1)
            lines = [f"{Path(file).name} {flag} \n" for file, flag in zip(rows.file, flags, strict=True)]
            texts[f"testTrainMulti_7030_splits/{action}_test_split{split}.txt"] = "".join(lines)
    return texts


def something_lists(planned: pd.DataFrame) -> dict[str, str]:
    """Something-Something V2's lists: JSON, templates with brackets, one split, groups 1-7 in the validation set."""
    actions = sorted(planned.action.unique())
    texts = {"labels": json.dumps({action: str(label) for label, action in enumerate(actions)})}
    tested = planned.group <= 7
    for side, rows in (("train", planned[~tested]), ("validation", planned[tested])):
        entries = [
            {"id": Path(file).stem, "label": action, "template": action.replace("red", "[red]")}
            for file, action in zip(rows.file, rows.action, strict=True)
        ]
        texts[side] = json.dumps(entries)
    return {f"labels/something-something-v2-{name}.json": text for name, text in texts.items()}
