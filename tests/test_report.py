"""The page of a run: its first screen, its drawn intervals, and that nothing is fetched from elsewhere."""

import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import PUBLISHED, artifacts
from lib.profile import load_profile
from lib.report import page as report

NUMBER = st.floats(-3000, 3000)


def row(claim="C1", ours=5.0, low=-1.0, high=9.0, unit="% (relative)"):
    return pd.Series({"claim": claim, "ours": ours, "ci_low": low, "ci_high": high, "unit": unit})


@given(claim=st.sampled_from(["C1", "C2", "C3", "C4"]), numbers=st.lists(NUMBER, min_size=3, max_size=3))
def test_what_is_drawn_is_in_order_and_within_the_picture(claim, numbers):
    low, ours, high = sorted(numbers)
    drawn = report.drawn(row(claim, ours, low, high))
    left, right = map(float, re.search(r'class="ci" x1="([\d.-]+)" x2="([\d.-]+)"', drawn).groups())
    dot = float(re.search(r'cx="([\d.-]+)"', drawn)[1])
    assert 0 <= left <= dot <= right <= 160
    assert ("paper" in drawn) == (claim in ("C1", "C3", "C4"))


def test_an_interval_without_an_end_is_cut_and_said():
    drawn = report.drawn(row(high=float("inf")))
    assert float(re.search(r'x2="([\d.]+)" y1="11"', drawn)[1]) <= 160
    assert "no upper end" in drawn
    assert report.drawn(row(ours=float("nan"))) == ""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page made again from the published run, whose figures and tables are what a run leaves."""
    root = tmp_path_factory.mktemp("root")
    profile = load_profile("quick")
    folder = root / "figures" / profile.profile
    folder.parent.mkdir()
    folder.symlink_to(PUBLISHED / profile.profile)
    patch = pytest.MonkeyPatch()
    patch.setattr(report, "ROOT", root)
    patch.setattr(report, "timings", lambda _: pd.DataFrame())
    patch.setattr(report, "write_table", lambda *_: None)
    patch.setattr(report, "write_index", lambda _: None)
    written = {}
    patch.setattr(report.artifacts, "write_text", lambda path, text: written.update({path.name: text}))
    report.write_report(profile)
    patch.undo()
    return written["report.html"]


def test_the_page_answers_first_and_says_phantom(page):
    order = [
        "Does a soft attention block",
        'class="answer"',
        'id="planned"',
        'id="up_to"',
        'aria-label="The claims"',
        "<details>",
    ]
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    assert "phantoms" in page[places[1] : places[2]]
    before = page[places[1] : places[2]]
    assert page.count('class="answer"') == 1  # what real images say, before all that phantoms say
    effects = pd.read_csv(PUBLISHED / "ham10000" / "tables" / "effects.csv").iloc[0]
    assert f"{effects['difference']:+.1f} percentage points (95 % CI {effects['ci_low']:+.1f}" in before
    assert before.count('<th scope="row">') == 3  # then a row for each data set
    assert "**" not in page[: places[2]]
    assert page.count("<img") == len(list((PUBLISHED / "quick").glob("*.png")))


def test_the_page_is_small_and_asks_no_other_host(page):
    assert len(page) < 3_000_000
    assert not re.findall(r'(?:src|href)="(?!data:|https://arxiv\.org/)', page)


def test_every_claim_of_the_table_is_there_with_its_verdict(page):
    claims = pd.read_csv(PUBLISHED / "quick" / "tables" / "claims.csv")
    body = page[page.index('aria-label="The claims"') : page.index("The rules of the verdicts")]
    assert body.count('<th scope="row">') == len(claims)
    for verdict in claims["verdict"]:
        assert verdict.split(" (")[0].replace("<", "&lt;") in body
    assert artifacts.read_provenance(PUBLISHED / "quick" / "tables" / "claims")["commit"] in page
