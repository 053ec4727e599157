"""The report of a study in a browser, at two widths, light and dark."""

import pytest

from ifttn.experiment.claims import decide, load_claims
from ifttn.experiment.tables import fill, load
from lab.report import write
from tests.lab.test_report import ABOUT, FACTORS, OURS, PICTURE, of_study, progress

pytestmark = pytest.mark.slow

CLAIMS = """() => [...document.querySelectorAll('.claims > tbody')].filter(claim => {
    const text = document.createRange(), link = claim.querySelector('summary').getBoundingClientRect();
    text.selectNodeContents(claim.querySelector('th'));
    return text.getBoundingClientRect().bottom > link.top + 2 }).map(claim => claim.textContent)"""
"""Claims with a text that overlaps the link to their numbers."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1600])
def test_the_report_has_no_horizontal_scroll_bar_and_no_overlapping_texts(browser, tmp_path, width, scheme):
    path = tmp_path / "report.html"
    tables = [fill(table, of_study, OURS, FACTORS) for table in load().values()]
    findings = decide(load_claims(), [of_study], OURS, FACTORS)
    assert {"supported", "not measured"} <= {finding.verdict for finding in findings}
    write(path, ABOUT, progress(), tables, [PICTURE, PICTURE._replace(title="Figure 6: all maps")], findings)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth + 1)")
    assert page.evaluate(CLAIMS) == []
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(set(names)) == len(names)
    context.close()
