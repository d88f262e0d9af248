"""A run beside the published one of the same profile: did the study come out the same here?"""

import pandas as pd

from lib import PUBLISHED, ROOT, artifacts
from lib.evaluation.claims import estimate, stem, undecided
from lib.profile import Profile
from lib.report.sentences import titles_of
from lib.report.tables import markdown

KEYS = ["claim", "dataset", "variant", "against"]
ABOUT = ["processor", "python", "commit", "date", "training runs", "data"]


def compare_claims(published: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Two claims tables side by side, a row for each claim and data set of either; contradictions first.

    Columns: claim, dataset, unit, published, published_low, published_high, published_verdict, ours, ours_low,
    ours_high, ours_verdict (both verdicts without what stands in brackets), overlap (of the 95 % intervals; missing
    where either has none), agree (of the verdicts) and contradiction (other verdicts, or intervals that are apart).
    """
    sides = []
    for name, table in (("published", published), ("ours", ours)):
        side = _keyed(table).set_index(KEYS)[["ours", "ci_low", "ci_high", "verdict"]]
        side["verdict"] = side["verdict"].map(stem)
        sides.append(side.set_axis([name, f"{name}_low", f"{name}_high", f"{name}_verdict"], axis="columns"))
    table = pd.concat(sides, axis="columns", join="outer")
    units = pd.concat([_keyed(ours), _keyed(published)]).drop_duplicates(KEYS).set_index(KEYS)["unit"]
    table.insert(0, "unit", units)
    ends = ["published_low", "published_high", "ours_low", "ours_high"]
    overlap = (table["published_low"] <= table["ours_high"]) & (table["ours_low"] <= table["published_high"])
    table["overlap"] = overlap.astype("boolean").mask(table[ends].isna().any(axis="columns"))
    kinds = [table[f"{name}_verdict"].str.split(",").str[0] for name in ("published", "ours")]  # not what is excluded
    table["agree"] = kinds[0] == kinds[1]
    # An interval of one training run covers the choice of images alone: another run may well lie beside it.
    judged = table["ours_verdict"] != undecided(1)
    table["contradiction"] = ~table["agree"] | (judged & ~table["overlap"].fillna(True).astype(bool))
    return table.reset_index().sort_values("contradiction", ascending=False, kind="stable", ignore_index=True)


def _keyed(table: pd.DataFrame) -> pd.DataFrame:
    """A claims table with the pair of variants that each row is about, also one from before there were several."""
    return table.assign(variant=table.get("variant", "attention"), against=table.get("against", "baseline"))


def _estimate(row, side) -> str:
    return estimate(row[side], row[f"{side}_low"], row[f"{side}_high"], row["unit"])


def _about(record: dict) -> dict[str, str]:
    seeds = record.get("seed", [])
    return {
        "processor": record.get("machine", "unknown"),
        "python": f"Python {record.get('python', '?')}, "
        + ", ".join(f"{name} {version}" for name, version in record.get("packages", {}).items()),
        "commit": record.get("commit", "unknown")[:12],
        "date": record.get("date", "unknown")[:10],
        "training runs": f"seeds {', '.join(map(str, seeds))}",
        "data": ", ".join(f"{name} {mark}" for name, mark in record.get("data_fingerprint", {}).items()),
    }


def summary(table: pd.DataFrame, records: tuple[dict, dict]) -> list[str]:
    """Five lines: contradictions, verdicts, intervals, data and machines; `records`: published and ours."""
    against = table[table["contradiction"]]
    named = "; ".join(f"{row['claim']} on {row['dataset']}" for _, row in against.iterrows())
    known = table["overlap"].dropna()
    theirs, ours = records
    marks = [record.get("data_fingerprint", {}) for record in records]
    shared = [name for name in marks[0] if name in marks[1]]
    same = [name for name in shared if marks[0][name] == marks[1][name]]
    return [
        f"Contradictions with the published run: {named or 'none'}",
        f"Verdicts that agree: {table['agree'].sum()} of {len(table)}",
        f"95 % intervals that overlap: {known.sum()} of {len(known)}",
        f"Data sets with the same fingerprint: {len(same)} of {len(shared)}",
        f"Published: {_about(theirs)['processor']}; here: {_about(ours)['processor']}",
    ]


def write_compared(profile: Profile) -> list[str]:
    """Write figures/<profile>/compared.md, and return its five lines for the terminal (one without a published run)."""
    out, published = ROOT / "figures" / profile.profile, PUBLISHED / profile.profile
    if not (published / "tables" / "claims.csv").is_file():
        line = f"There is no published run of profile {profile.profile} to compare with."
        artifacts.write_text(out / "compared.md", f"# {profile.title}\n\n{line}\n")
        return [line]
    folders = published / "tables", out / "tables"
    table = compare_claims(*(pd.read_csv(folder / "claims.csv") for folder in folders))
    records = tuple(artifacts.read_provenance(folder / "claims") for folder in folders)
    lines = summary(table, records)
    titles = titles_of(profile)
    shown = pd.DataFrame(
        {
            "claim": table["claim"],
            "compared": table["variant"] + " with " + table["against"],
            "data set": table["dataset"].replace(titles),
            "published (95 % interval)": [_estimate(row, "published") for _, row in table.iterrows()],
            "here (95 % interval)": [_estimate(row, "ours") for _, row in table.iterrows()],
            "intervals overlap": table["overlap"].map({True: "yes", False: "**no**"}).fillna("-"),
            "published verdict": table["published_verdict"].fillna("-"),
            "verdict here": table["ours_verdict"].fillna("-"),
            "verdicts agree": table["agree"].map({True: "yes", False: "**no**"}),
        }
    )
    theirs, ours = map(_about, records)
    facts = pd.DataFrame({"": ABOUT, "published": theirs.values(), "here": ours.values()})
    parts = [
        f"# This run beside the published one: {profile.title} ({profile.label})",
        "\n".join(f"- {line}" for line in lines),
        "A contradiction is another verdict, or 95 % intervals over training runs that do not overlap (that of one "
        "run covers the choice of images alone). Training is not the same to the bit on two kinds of processor, so "
        "estimates differ; the data, and what is concluded, should not. Verdicts are compared without what follows a "
        "comma: *inconclusive* and *inconclusive, +16 % excluded* count as the same.",
        markdown(shown),
        markdown(facts),
    ]
    artifacts.write_text(out / "compared.md", "\n\n".join(parts) + "\n")
    return lines
