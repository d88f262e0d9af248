"""One HTML file that answers the question with a run's numbers, and holds its claims, figures and tables."""

import base64
import html
import io
import re
import sys
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import yaml
from PIL import Image

from lib import ROOT, StudyError, artifacts
from lib.evaluation.claims import CLAIMS, FEW_RUNS, estimate
from lib.profile import Profile, load_profile
from lib.report import real, sentences
from lib.report.compared import write_compared
from lib.report.curves import attack_in_full
from lib.report.index import FIGURES, figures, write_index
from lib.report.tables import rounded, timings, write_table, written

TEMPLATE = Path(__file__).with_name("page.html.j2")
LEAD = ("tasks", "planned", "up_to")  # the figures that the page opens with
MAIN_FIGURES = (*LEAD, "robust_accuracy")
WIDEST = 1200  # pixels of a picture in the page
LARGEST_TABLE = 40  # rows; longer ones are named, and lie beside the page as CSV


def write_report(profile: Profile) -> Path:
    """Write `figures/<profile>/report.html`, with everything embedded, its index and the timings table; return the
    report's path."""
    out = ROOT / "figures" / profile.profile
    spent, about = timings(ROOT / "data" / "runs" / profile.profile), {"profile": profile.profile}
    write_table(spent, out / "tables" / "timings", f"Seconds per stage ({profile.label})", about)
    tables = written(out / "tables")
    if missing := {"claims", "effects"}.difference(tables):
        raise StudyError(f"{out / 'tables'} has no {min(missing)}.csv; run the notebooks first, with ./reproduce.")
    record = {name: artifacts.read_provenance(out / "tables" / name) for name in tables}
    titles = sentences.titles_of(profile)
    answer, published = (
        _bold(text) for text in (sentences.answer(tables, profile), real.sentence(profile, "06_results"))
    )
    claims = tables["claims"].replace({"dataset": titles})
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        profile=profile,
        real=published,
        answer=answer,
        answers=sentences.answers(tables, profile).to_dict("records"),
        attack=attack_in_full(profile.evaluation.named(profile.evaluation.headline)),
        claims=[_row(row) for _, row in claims.iterrows()],
        rules=dict(zip(claims["claim"], claims["rule"], strict=True)),
        few_runs=FEW_RUNS,
        lead=LEAD,
        figures=[_embedded(out, name) for name in figures(out)],
        tables=[
            (record[name].get("title", name), _html(name, tables[name].replace({"dataset": titles}))) for name in tables
        ],
        settings=yaml.safe_dump(profile.model_dump(), sort_keys=False),
        provenance={k: v for k, v in record["claims"].items() if k != "title"},
    )
    artifacts.write_text(out / "report.html", page)
    write_index(out)
    return out / "report.html"


def _bold(text: str) -> str:
    """Markdown of one paragraph as HTML; what it links to lies elsewhere than the page."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", html.escape(text, quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _number(row) -> str:
    said = estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"])
    return said.replace(" (relative)", "").replace(" to +inf)", " to no upper end)")


def _row(row) -> dict:
    """A claim as the page's table shows it."""
    known = "" if pd.isna(row["n"]) else f"{row['n']:.0f}"
    facts = {name: row[name] for name in ("claim", "statement", "dataset", "paper")}
    if row.get("against", "baseline") != "baseline" or row.get("variant", "attention") != "attention":
        facts["dataset"] += f", {row['variant']} against {row['against']}"
    return facts | {"here": _number(row), "n": known, "verdict": row["verdict"], "drawn": drawn(row)}


def drawn(row) -> str:
    """An estimate, its interval and the paper's value as an SVG; "" without an estimate. An endless interval is cut."""
    if pd.isna(row["ours"]) or not np.isfinite(row["ours"]):
        return ""
    paper = CLAIMS[row["claim"]].paper_value
    values = [0.0, row["ours"], *(row[end] for end in ("ci_low", "ci_high")), paper or 0.0]
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    low, span = (low, high - low) if high > low else (low - 1, 2)

    def x(value):
        return f"{8 + 144 * float(np.clip((value - low) / span, -0.04, 1.04)):.1f}"

    parts = [f'<line x1="{x(0)}" x2="{x(0)}" y1="1" y2="21"/>']
    if pd.notna(row["ci_low"]):
        parts.append(f'<line class="ci" x1="{x(row["ci_low"])}" x2="{x(row["ci_high"])}" y1="11" y2="11"/>')
    parts.append(f'<circle cx="{x(row["ours"])}" cy="11" r="4"/>')
    if paper is not None:
        parts.append(f'<path class="paper" transform="translate({x(paper)} 11)" d="M0-6 6 0 0 6-6 0Z"/>')
    return f'<svg viewBox="0 0 160 22" role="img" aria-label="{_number(row)}">{"".join(parts)}</svg>'


def with_palette(picture: Image.Image, width: int) -> Image.Image:
    """A figure in 128 colours, so many pixels wide."""
    picture = picture.convert("RGB")
    if width != picture.width:
        size = width, round(picture.height * width / picture.width)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture.quantize(128, dither=Image.Dither.NONE)


def _embedded(out: Path, name: str) -> dict:
    """A figure for the page: with a palette, and no wider than it is shown on a dense screen."""
    picture, held = Image.open(out / f"{name}.png"), io.BytesIO()
    picture = with_palette(picture, min(picture.width, WIDEST))
    picture.save(held, "PNG", optimize=True)
    image = base64.b64encode(held.getvalue()).decode()
    width, height = picture.size
    return {"name": name, "about": FIGURES[name], "image": image, "width": width, "height": height}


def _html(name: str, table: pd.DataFrame) -> str:
    shown = rounded(table.head(LARGEST_TABLE)).to_html(index=False, border=0)
    more = f"<p>The first {LARGEST_TABLE} of {len(table)} rows; all are in tables/{name}.csv.</p>"
    return shown + more * (len(table) > LARGEST_TABLE)


if __name__ == "__main__":
    try:
        profile = load_profile(sys.argv[1])
        write_report(profile)
        print("\n".join(write_compared(profile)))
    except StudyError as error:
        sys.exit(f"report: {error}")
