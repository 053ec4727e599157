"""One meaning a word: no public name is defined in two modules of ifttn and lab."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = {
    "run": "what `ifttn.cli` calls in the module of a verb or of a part of `ifttn bench`",
    "solve": "the algorithm, which each engine of TV-L1 has",
    "CHUNK": "pairs at once, which each engine of TV-L1 has",
    "load": "a row of a file: tables, and weights",
    "write": "a file: a data set, a video, a report",
    "to_frame": "a DataFrame of a table, and of a preparation",
}
"""Names that several modules define on purpose, and why."""


def names_of(path: Path) -> Iterator[str]:
    """The public classes, functions and constants of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_public_name_has_two_meanings() -> None:
    found = defaultdict[str, list[str]](list)
    for path in [*(ROOT / "ifttn").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]:
        for name in {name for name in names_of(path) if not name.startswith("_")}:
            found[name].append(str(path.relative_to(ROOT)))
    assert not {name: sorted(paths) for name, paths in found.items() if len(paths) > 1 and name not in SHARED}
