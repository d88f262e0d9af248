"""The two figures of `notebooks/00_explore.ipynb`, from what `lib.explore` computes."""

import base64
import io
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.explore.explorer import BUDGETS, View
from lib.report.figures import COLOURS, DASHES, MARKERS, WIDTH, overlay


def draw_views(views: dict[str, View], classes: tuple[str, ...], label: str) -> Figure:
    """Everything about one image at one budget, a block of panels per variant.

    `classes`: their short names in label order; `label`: what data and model it shows, written below.
    """
    figure = plt.figure(figsize=(WIDTH + 0.6, 4.3), layout="none")
    halves = figure.add_gridspec(1, len(views), left=0.01, right=0.99, top=0.955, bottom=0.08, wspace=0.08)
    for half, (variant, view) in zip(halves, views.items(), strict=True):
        grid = half.subgridspec(3, 3, wspace=0.06, hspace=0.17)
        clean, attacked = view.clean.pixels, view.attacked.pixels
        delta = attacked - clean
        factor = 127 / max(np.abs(delta).max(), 1e-6)
        pictures = [
            ((0, 0), f"{variant}: clean", clean),
            ((0, 1), f"perturbation x {factor:.3g}", 128 + factor * delta),
            ((0, 2), "attacked", attacked),
            ((1, 0), "Grad-CAM: clean", overlay(clean, view.gradcam[0])),
            ((1, 1), "attacked", overlay(attacked, view.gradcam[1])),
        ]
        if view.attention is not None:
            pictures += [
                ((2, 0), "attention map: clean", overlay(clean, view.attention[0], True)),
                ((2, 1), "attacked", overlay(attacked, view.attention[1], True)),
            ]
        for place, title, picture in pictures:
            ax = figure.add_subplot(grid[place])
            ax.imshow(np.clip(np.round(picture), 0, 255).astype("uint8"))
            ax.set_title(title, fontsize=7.5, pad=2.5)
            ax.axis("off")
        if view.attention is None:
            ax = figure.add_subplot(grid[2, :2])
            ax.text(0.5, 0.5, f"no attention block in the {variant}", ha="center", va="center", fontsize=7.5,
                    color="0.35")  # fmt: skip
            ax.axis("off")
        _bars(figure.add_subplot(grid[1:, 2]), view, classes, COLOURS[variant])
    figure.text(0.01, 0.005, _wrapped(label, figure), ha="left", va="bottom", fontsize=7, color="0.35")
    return figure


def _bars(ax, view, classes, colour):
    """Class probabilities, clean above attacked, with the true class in bold."""
    for k, name in enumerate(classes):
        ax.text(0.02, k - 0.12, name, fontsize=7.5, va="bottom", fontweight="bold" if k == view.label else "normal")
        for found, y, alpha in ((view.clean, k + 0.02, 0.35), (view.attacked, k + 0.29, 1.0)):
            share = found.probabilities[k]
            ax.barh(y, share, 0.25, color=colour, alpha=alpha)
            if share >= 0.005:
                ax.text(share + 0.03, y, f"{share:.0%}", fontsize=7, va="center_baseline")
    ax.set(xlim=(0, 1.3), ylim=(len(classes) - 0.5, -0.5), xticks=[], yticks=[])
    ax.set_title("clean (pale), attacked", fontsize=7.5, pad=2.5)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.spines["left"].set_visible(True)


def draw_falls(smallest: dict[str, float], curves: pd.DataFrame, goal: str, label: str) -> Figure:
    """Outcome and probability against the budget for one image; arguments as `Explorer.falls` gives them.

    `goal`: the class whose probability it is, and why it is watched, for the axis; `label` as in `draw_views`.
    """
    figure, (outcome, probability) = plt.subplots(2, 1, figsize=(WIDTH + 0.6, 2.9), height_ratios=(1, 2.6), sharex=True)
    for variant, curve in curves.groupby("variant", sort=False):
        curve = curve[curve["epsilon"] > 0]
        style = {"color": COLOURS[variant], "linestyle": DASHES[variant]}
        falls = smallest[variant]
        known = np.isfinite(falls)
        name = f"{variant} falls at {falls:.3g}" if known else f"{variant} stands throughout"
        edge = np.clip(falls, BUDGETS[0] / 2, BUDGETS[-1] * 1.4)
        outcome.plot([BUDGETS[0] / 2, edge, edge, BUDGETS[-1] * 1.4], [1, 1, 0, 0] if known else [1] * 4, **style)
        probability.plot(curve["epsilon"], curve["probability"], label=name, **style)
        for stands, face in ((True, COLOURS[variant]), (False, "white")):
            part = curve[curve["stands"] == stands]
            probability.plot(part["epsilon"], part["probability"], MARKERS[variant], color=COLOURS[variant],
                             markerfacecolor=face, markersize=4.5)  # fmt: skip
        if known and falls > 0:
            probability.axvline(falls, linewidth=0.8, **style)
    outcome.set(yticks=[0, 1], yticklabels=["fallen", "stands"], ylim=(-0.15, 1.15))
    probability.set(xscale="log", xlim=(BUDGETS[0] / 1.3, BUDGETS[-1] * 1.3), ylim=(-0.03, 1.03))
    probability.set(xlabel="epsilon (gray levels)", ylabel=f"probability of\n{goal}")
    probability.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    probability.legend(frameon=False, loc="best")
    figure.supxlabel(_wrapped(label, figure), x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def _wrapped(label, figure):
    """The label in lines of 7 points that are no wider than the figure."""
    return textwrap.fill(label, int(18 * figure.get_figwidth()))


def png(figure: Figure, dpi: int = 130) -> str:
    """The figure as a PNG in base64; closes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
