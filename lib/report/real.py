"""What the published study on real images says to the question of a notebook: a sentence beside what phantoms show."""

from lib import PUBLISHED
from lib.evaluation.claims import first_pair
from lib.profile import Profile, load_profile
from lib.report import conclusions, sentences
from lib.report.tables import written

REAL = DATASET = "ham10000"  # the published run on real images, and its data set


def sentence(profile: Profile, notebook: str) -> str:
    """What stands in the published tables to the question of a notebook (`02_training`), as Markdown with a link.

    "" for a run that is itself of real images, and where nothing is published.
    """
    tables = written(PUBLISHED / REAL / "tables")
    if profile.phantom is None or "effects" not in tables:
        return ""
    about = load_profile(REAL)
    primary, controls, secondary = sentences.by_kind(tables["effects"])
    claims = first_pair(tables["claims"]).set_index("claim")
    ratios = tables["why_ratios"].query("against == 'baseline'")
    return sentences.say(
        "real",
        notebook=notebook,
        place=f"../figures/published/{REAL}/notebooks/{notebook}",
        suffix="" if notebook.endswith("results") else f"_{DATASET}_seed{about.seeds[0]}",
        title=sentences.titles_of(about)[DATASET],
        images=tables["datasets"]["n"].sum(),
        classes=tables["datasets"]["label"].nunique(),
        primary=primary,
        plain=next((row for row in [primary, *secondary] if row.other == "baseline"), primary),
        words=sentences.lead(primary, controls),
        maps=claims.loc["C6"],
        mechanism=conclusions.mechanism(ratios, sentences.titles_of(about)).split(": ", 1)[1].rstrip("."),
    )
