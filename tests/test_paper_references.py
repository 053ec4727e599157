"""Whatever notebooks, code and README name of the paper is there, and stands where they say."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {"1", "2", "3", "3.1", "3.2", "3.3", "3.4", "4", "4.1", "4.2", "4.3", "4.4", "5"}
STANDS_IN = {
    "Equation": {1: "3.1", 2: "3.1", 3: "3.1", 4: "3.2", 5: "3.2"},
    "Table": {1: "4.3", 2: "4.3", 3: "4.3", 4: "4.3", 5: "4.3", 6: "4.4"},
    "Figure": {1: "1, 4.3", 2: "3", 3: "3.1", 4: "3.2", 5: "3.2", 6: "4.3", 7: "4.3"},
}
"""Where the paper (arXiv 1902.09928) speaks of each."""
NUMBERS = r"(\d(?:\.\d)?(?:(?:, | and |, and | to |-)\d(?:\.\d)?)*)(?!\d|\.\d)"
NAMED = re.compile(rf"\b(Section|Equation|Eq|Table|Figure)s?\.? {NUMBERS}", re.IGNORECASE)
IN_SHORT = re.compile(rf"\bpaper,? {NUMBERS}")
"""As the reasons of presets have it: "paper 4.2"."""
OF_ANOTHER = re.compile(r"\bet al\.|\b(?:CVPR|ICML|ECCV|ICCV|BMVC)\b")
"""On a line, these say that the number is of another paper."""
NOT_OURS = ("ifttn/model/peers/", "ifttn/data/h264.py")
"""Code that follows another paper, or a standard."""


def lines() -> list[tuple[str, str]]:
    """(place, line) of everything that speaks of the paper."""
    found = []
    for pattern in ("README.md", "docs/*.md", "notebooks/*.ipynb", "ifttn/**/*.py", "ifttn/**/*.toml", "lab/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            name, text = path.relative_to(ROOT).as_posix(), path.read_text()
            if path.suffix == ".ipynb":
                text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
            if not name.startswith(NOT_OURS):
                found += [(f"{name}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return found


def each(numbers: str) -> list[str]:
    """ "1, 2 and 4" and "1 to 4", one by one; of sections, the ends of a range."""
    single = re.findall(r"\d(?:\.\d)?", numbers)
    if re.search(r" to |-", numbers) and not any("." in number for number in single):
        return [str(number) for number in range(int(single[0]), int(single[-1]) + 1)]
    return single


def named(line: str) -> list[tuple[str, str]]:
    """(kind, number) of all that a line names of the paper."""
    if OF_ANOTHER.search(line):
        return []
    found = [(kind.capitalize(), number) for kind, numbers in NAMED.findall(line) for number in each(numbers)]
    found += [("Section", number) for numbers in IN_SHORT.findall(line) for number in each(numbers)]
    return [("Equation" if kind == "Eq" else kind, number) for kind, number in found]


def test_what_is_named_of_the_paper_is_there():
    seen = [(place, kind, number) for place, line in lines() for kind, number in named(line)]
    exist = {kind: {str(number) for number in there} for kind, there in STANDS_IN.items()} | {"Section": SECTIONS}
    exist["Table"].add("7")  # ours: what came after the paper
    assert [each for each in seen if each[2] not in exist[each[1]]] == []
    assert {kind for _, kind, _ in seen} == set(exist)
    assert len(seen) > 60


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebooks_tables_figures_and_equations_stand_in_the_sections_that_it_names(path):
    cells = json.loads(path.read_text())["cells"]
    (question,) = (part for part in "".join(cells[0]["source"]).split("\n\n") if part.startswith("**Question.**"))
    found = named(question.replace("\n", " "))
    sections = {number for kind, number in found if kind == "Section"}
    assert sections
    for kind, number in found:
        if kind != "Section":
            where = set(STANDS_IN[kind][int(number)].split(", "))
            assert where & sections or any(a <= b <= c for b in where for a, c in [(min(sections), max(sections))])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("(sections 3.1 to 3.3, Equations 1 to 6)", [("Section", "3.1"), ("Section", "3.3"), ("Equation", "6")]),
        ("Tables 1, 2 and 4; Eq. 5", [("Table", "4"), ("Equation", "5")]),
        ("paper 4.2: K = 7", [("Section", "4.2")]),
        ("Table 5's C3D", [("Table", "5")]),
    ],
)
def test_a_reference_is_read_as_it_is_written(line, found):
    assert set(found) <= set(named(line))
