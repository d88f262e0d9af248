"""One HTML file with a run's claims, figures and tables, and the time that each stage took."""

import base64
import sys
from pathlib import Path

import jinja2

from lib import ROOT, StudyError, artifacts
from lib.compared import write_compared
from lib.index import FIGURES, figures, write_index
from lib.profile import Profile, load_profile
from lib.tables import rounded, timings, write_table, written

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ profile.title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
h1, h2 { line-height: 1.2 } figure { margin: 2rem 0 } img { max-width: 100%; height: auto }
figcaption, .note { color: #444; font-size: .92rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .84rem } th, td { padding: .25rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } th { border-bottom: 2px solid #777 }
details { margin: 1rem 0 } summary { cursor: pointer; font-weight: 600 }
</style></head><body>
<h1>{{ profile.title }}</h1>
<p>Does a soft attention block make a medical image classifier more robust to adversarial images, at no cost in clean
accuracy? A reproducibility study of Wasserman 2022 (<a href="https://arxiv.org/abs/2210.14405">arXiv:2210.14405</a>).
This report: <b>{{ profile.label }}</b>; {{ profile.backbone_title }}; profile <code>{{ profile.profile }}</code>,
{{ profile.seeds | length }} training run(s) per variant.</p>
<h2>The claims</h2><div class="scroll">{{ claims }}</div>
<h2>Figures</h2>
{% for name, caption, image in figures %}
<figure id="{{ name }}"><img alt="{{ caption }}" src="data:image/png;base64,{{ image }}">
<figcaption>{{ caption }} ({{ profile.label }})</figcaption></figure>
{% endfor %}
<h2>Tables</h2>
{% for title, table in tables %}
<details><summary>{{ title }}</summary><div class="scroll">{{ table }}</div></details>
{% endfor %}
<h2>Where it came from</h2>
<p class="note">{% for key, value in provenance.items() %}{{ key }}: {{ value }}<br>{% endfor %}</p>
</body></html>
"""


def write_report(profile: Profile) -> Path:
    """Write `figures/<profile>/report.html`, with everything embedded, its index and the timings table; return the
    report's path."""
    out = ROOT / "figures" / profile.profile
    spent = timings(ROOT / "data" / "runs" / profile.profile)
    write_table(
        spent,
        out / "tables" / "timings",
        f"Seconds per stage ({profile.label})",
        {"profile": profile.profile},
    )
    tables = written(out / "tables")
    if "claims" not in tables:
        raise StudyError(f"{out / 'tables'} has no claims.csv; run the notebooks first, with ./reproduce.")
    record = {name: artifacts.read_provenance(out / "tables" / name) for name in tables}
    pictures = [
        (name, FIGURES[name].shows, base64.b64encode((out / f"{name}.png").read_bytes()).decode())
        for name in figures(out)
    ]

    def html(table):
        return rounded(table).to_html(index=False, border=0)

    page = jinja2.Template(PAGE).render(
        profile=profile,
        claims=html(tables["claims"]),
        figures=pictures,
        tables=[(record[name].get("title", name), html(table)) for name, table in tables.items()],
        provenance={k: v for k, v in record["claims"].items() if k != "title"},
    )
    artifacts.write_text(out / "report.html", page)
    write_index(out)
    stages = spent.groupby("stage", sort=False)["seconds"].sum()
    print("Time per stage: " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in stages.items()))
    return out / "report.html"


if __name__ == "__main__":
    try:
        profile = load_profile(sys.argv[1])
        write_report(profile)
        print("\n".join(write_compared(profile)))
    except StudyError as error:
        sys.exit(f"report: {error}")
