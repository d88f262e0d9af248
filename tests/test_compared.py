"""A run beside the published one: what counts as a contradiction, and that it is shown first."""

import json

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from lib import ROOT
from lib.report import compared
from lib.report.compared import compare_claims, summary

COLUMNS = ["claim", "dataset", "unit", "ours", "ci_low", "ci_high", "verdict"]
RECORD = {"data_fingerprint": {"a": "1", "b": "2"}, "machine": "X", "seed": [0, 1]}


def table(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


PUBLISHED = table(
    ("C1", "a", "%", 5.0, -1.0, 11.0, "inconclusive (phantom data)"),
    ("C3", "a", "points", 0.0, -1.0, 1.0, "reproduced (phantom data)"),
    ("C4", "any", "%", 1.25, None, None, "reproduced (the block; with more)"),
)


def test_a_run_does_not_contradict_itself():
    same = compare_claims(PUBLISHED, PUBLISHED)
    assert not same["contradiction"].any()
    assert same["overlap"].isna().tolist() == [False, False, True]
    lines = summary(same, (RECORD, RECORD))
    assert lines[0].endswith(": none")
    assert lines[1:4] == [
        "Verdicts that agree: 3 of 3",
        "95 % intervals that overlap: 2 of 2",
        "Data sets with the same fingerprint: 2 of 2",
    ]


def test_another_verdict_or_an_interval_apart_is_a_contradiction_and_comes_first():
    ours = PUBLISHED.copy()
    ours.loc[1, "verdict"] = "not reproduced (phantom data)"
    found = compare_claims(PUBLISHED, ours)
    assert found.loc[0, ["claim", "contradiction", "agree", "overlap"]].tolist() == ["C3", True, False, True]
    ours = PUBLISHED.copy()
    ours.loc[1, ["ours", "ci_low", "ci_high"]] = [9.0, 8.0, 10.0]
    found = compare_claims(PUBLISHED, ours)
    assert found.loc[0, ["claim", "contradiction", "agree", "overlap"]].tolist() == ["C3", True, True, False]
    other = RECORD | {"data_fingerprint": {"a": "1", "b": "other"}}
    lines = summary(found, (RECORD, other))
    assert lines[0].endswith(": C3 on a")
    assert lines[3] == "Data sets with the same fingerprint: 1 of 2"


def test_one_training_run_beside_another_is_no_contradiction():
    verdict = "not judged, one training run (phantom data)"
    rows = [("C6", "a", "points", low + 1, low, low + 2, verdict) for low in (0, 5)]
    found = compare_claims(*(table(row) for row in rows))
    assert found.loc[0, ["contradiction", "agree", "overlap"]].tolist() == [False, True, False]


def test_what_stands_behind_a_verdict_does_not_contradict():
    ours = PUBLISHED.assign(verdict=PUBLISHED["verdict"].str.replace(")", "; attention inactive in 1 of 3 runs)"))
    assert not compare_claims(PUBLISHED, ours)["contradiction"].any()


def test_a_claim_that_only_one_of_the_two_has_is_shown_as_a_contradiction():
    found = compare_claims(PUBLISHED, PUBLISHED.iloc[:2])
    assert found.loc[0, "claim"] == "C4"
    assert found["contradiction"].sum() == 1


@given(ends=st.lists(st.floats(-100, 100), min_size=4, max_size=4))
def test_overlap_is_symmetric_and_is_that_of_intervals(ends):
    first, second = sorted(ends[:2]), sorted(ends[2:])
    one, other = (table(("C1", "a", "%", sum(e) / 2, *e, "inconclusive (phantom data)")) for e in (first, second))
    there, back = (compare_claims(*pair)["overlap"].item() for pair in ((one, other), (other, one)))
    assert there == back == (max(first[0], second[0]) <= min(first[1], second[1]))


def test_without_a_published_run_it_says_so(tmp_path, monkeypatch):
    from lib.profile import load_profile

    monkeypatch.setattr(compared, "ROOT", tmp_path)
    monkeypatch.setattr(compared, "PUBLISHED", tmp_path / "none")
    (line,) = compared.write_compared(load_profile("test"))
    assert "no published run of profile test" in line
    assert line in (tmp_path / "figures" / "test" / "compared.md").read_text()


def test_verdicts_that_depend_on_the_processor_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    machines = __import__("machines")
    same = pd.concat([PUBLISHED.assign(setting=name) for name in machines.SETTINGS], ignore_index=True)
    assert machines.differing(same).empty
    same.loc[0, "verdict"] = "reproduced"
    assert set(machines.differing(same)["claim"]) == {"C1"}
    assert len(machines.differing(same)) == 3


def test_times_of_other_works_stay_where_machine_and_versions_are_the_same(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    attacks, here = __import__("attacks"), {"machine": "a"}

    def measured(work, ours):
        return pd.DataFrame({"work": [work], "peer": "art", "unit": "seconds", "ours": ours})

    for work, ours in (("A (7, 5 stand), 64 px", 1.0), ("B", 2.0), ("A (7, 4 stand), 64 px", 3.0)):
        table = attacks.with_earlier(measured(work, ours), here, tmp_path)
        table.to_csv(tmp_path / "attacks.csv", index=False)
        (tmp_path / "attacks.json").write_text(json.dumps(here))
    assert table[["work", "ours"]].to_numpy().tolist() == [["A (7, 4 stand), 64 px", 3.0], ["B", 2.0]]  # sizes first
    assert len(attacks.with_earlier(measured("B", 4.0), {"machine": "b"}, tmp_path)) == 1
