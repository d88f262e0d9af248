"""The figures and the page of a network of one's own, from what `lib.evaluation.benchmark` found."""

import base64
import io
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import artifacts
from lib.report.curves import ATTACK_TITLES, NORM_TITLES
from lib.report.figures import overlay, use_style
from lib.report.tables import rounded

TEMPLATE = Path(__file__).with_name("own.html.j2")
COLOURS = {"network": "#0072B2", "other": "#D55E00"}
TABLES = ("curve", "distances", "trust", "comparison", "maps", "outcomes")


def curve(result) -> Figure:
    """Robust accuracy against epsilon with 95 % bands, and of a second network beside it."""
    table = result.curve if "network" in result.curve else result.curve.assign(network="network")
    figure, ax = plt.subplots(figsize=(5.2, 2.9))
    for (name, run), line, marker in zip(table.groupby("network", sort=False), ("-", "--"), "os", strict=False):
        x = range(len(run))
        label = {"network": result.facts["network"], "other": "compared with"}[name]
        ax.fill_between(x, run["ci_low"], run["ci_high"], color=COLOURS[name], alpha=0.16, linewidth=0)
        ax.plot(x, run["robust_accuracy"], line, marker=marker, color=COLOURS[name], markersize=4, label=label)
        ax.set_xticks(x, [f"{epsilon:g}" for epsilon in run["epsilon"]])
    ax.set(ylim=(0, 1), xlabel=rf"$\epsilon$ ({result.facts['bounds'].split(';')[0]}), {attack(result)}",
           ylabel="robust accuracy")  # fmt: skip
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.text(0.98, 0.95, f"n = {run['n'].iloc[0]}", transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    if table["network"].nunique() > 1:
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def attack(result) -> str:
    """The attack and its norm, such as `AutoAttack, $L_\\infty$`."""
    name = result.facts["attack"]
    return f"{ATTACK_TITLES.get(name, name)}, {NORM_TITLES[result.facts['norm']]}"


def maps(result) -> Figure | None:
    """Images, clean and attacked, and Grad-CAM of both; None where there are no maps."""
    pictures = result.pictures
    if "map of image" not in pictures:
        return None
    names, n = result.facts["classes"].split(", "), len(pictures["image"])
    figure, axes = plt.subplots(n, 4, figsize=(5.6, 1.4 * n + 0.3), squeeze=False)
    for i, line in enumerate(axes):
        shown = [pictures["image"][i], pictures["attacked"][i]]
        shown += [overlay(pictures[name][i], pictures[f"map of {name}"][i]) for name in ("image", "attacked")]
        for ax, picture in zip(line, shown, strict=True):
            ax.imshow(np.clip(np.round(picture), 0, 255).astype("uint8").squeeze(), cmap="gray")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(names[pictures["label"][i]], fontsize=7)
        line[1].set_xlabel(f"says {names[pictures['predicted'][i]]}", fontsize=7)
    for ax, title in zip(axes[0], ("image", "attacked", "Grad-CAM", "Grad-CAM, attacked"), strict=True):
        ax.set_title(title, fontsize=7.5, loc="center")
    return figure


def _drawn(result) -> dict[str, bytes]:
    held = {}
    with plt.rc_context():
        use_style()
        for name, figure in {"curve": curve(result), "maps": maps(result)}.items():
            if figure is not None:
                figure.savefig(held.setdefault(name, io.BytesIO()), format="png", dpi=150, bbox_inches="tight")
                plt.close(figure)
    return {name: file.getvalue() for name, file in held.items()}


def write(result, folder: Path) -> Path:
    """Write a result's tables, figures and page into a folder; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: getattr(result, name) for name in TABLES}
    tables = {name: table for name, table in tables.items() if len(table)}
    for name, table in tables.items():
        with artifacts.replacing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    drawn = _drawn(result)
    for name, data in drawn.items():
        with artifacts.replacing(folder / f"{name}.png") as temporary:
            Path(temporary).write_bytes(data)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts=result.facts,
        attack=ATTACK_TITLES.get(result.facts["attack"], result.facts["attack"]),
        answer=answer(result),
        no_maps=str(result.pictures.get("why no maps", "")),
        failed=result.trust[~result.trust["passed"].astype(bool)]["sentence"].tolist(),
        checks=len(result.trust),
        pictures={name: base64.b64encode(data).decode() for name, data in drawn.items()},
        tables={n: rounded(t).to_html(index=False, border=0) for n, t in tables.items() if n != "outcomes"},
    )
    artifacts.write_text(folder / "index.html", page)
    return folder / "index.html"


def answer(result) -> str:
    """The curve in a sentence."""
    table = result.curve[result.curve["network"] == "network"] if "network" in result.curve else result.curve
    said = [
        f"{row['robust_accuracy']:.0%} ({row['ci_low']:.0%} to {row['ci_high']:.0%}) "
        + ("without attack" if row["epsilon"] == 0 else f"at epsilon {row['epsilon']:g}")
        for _, row in table.iterrows()
    ]
    return f"Of {table['n'].iloc[0]} images {result.facts['network']} keeps right: {'; '.join(said)} (95 % intervals)."


def shown(result) -> dict[str, str]:
    """What a notebook shows of a result."""
    image = base64.b64encode(_drawn(result)["curve"]).decode()
    failed = result.trust[~result.trust["passed"].astype(bool)]["sentence"].tolist()
    doubts = f"<p><b>Look first:</b> {' '.join(failed)}</p>" if failed else ""
    table = rounded(result.curve).to_html(index=False, border=0)
    html = f'<p>{answer(result)}</p>{doubts}<img alt="Robust accuracy against epsilon" width="520" ' \
           f'src="data:image/png;base64,{image}">{table}'  # fmt: skip
    return {"text/html": html, "text/plain": answer(result)}
