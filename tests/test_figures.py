"""Figures are for readers with any eyes, and in print: colours, sizes of words."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from skimage.color import rgb2lab
from test_planned import outcomes as made_up

from lib import PUBLISHED
from lib.evaluation import planned, tasks
from lib.evaluation.comparison import under
from lib.evaluation.natural import CHANGES, accuracies
from lib.profile import Attack, load_profile
from lib.report import charts, curves, figures, forest

pytestmark = pytest.mark.usefixtures("few_resamples")

TITLES = {"ham10000": "HAM10000", "chestxray14": "ChestX-ray14", "eyepacs": "EyePACS"}

# Machado, Oliveira and Fernandes 2009: deuteranopia (severity 1), on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
APART = 15  # CIELAB units; about 2.3 are just noticeable (Mahy et al. 1994)


def seen_with_deuteranopia(colour):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(DEUTERANOPIA @ linear, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


def distance(one, other):
    return np.linalg.norm(seen_with_deuteranopia(one) - seen_with_deuteranopia(other))


def test_the_simulation_confuses_what_deuteranopes_confuse():
    assert distance("#d7191c", "#6a7a00") < APART  # a red and an olive
    assert distance("#ffffff", "#000000") == pytest.approx(100, abs=0.1)  # and leaves gray alone


@pytest.mark.parametrize(
    "palette",
    [figures.COLOURS, figures.SPLIT_COLOURS],
    ids=["variants", "splits"],
)
def test_colours_are_apart_with_deuteranopia(palette):
    for one, other in combinations(palette, 2):
        assert distance(palette[one], palette[other]) > APART, (one, other)


def test_variants_differ_by_marker_too():
    assert len(set(figures.MARKERS.values())) == len(figures.MARKERS)


def histories():
    rows = [
        {"dataset": d, "variant": v, "seed": 0, "epoch": e, "loss": 1 / e, "val_loss": 100 if e == 2 else 2 / e}
        for d in TITLES for v in ("baseline", "attention") for e in range(1, 21)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(accuracy=0.5, val_accuracy=0.5)


def gamma():
    runs = [
        pd.DataFrame({"seed": seed, "step": range(1, 41), "gamma": np.linspace(0.01, end, 40)})
        for seed, end in enumerate((0.03, -0.01))
    ]
    return pd.concat(runs)


def table(name, profile="quick"):
    return pd.read_csv(PUBLISHED / profile / "tables" / f"{name}.csv")


def few(attacks, ways=("logits",)):
    robust = table("robust_accuracy")
    norm = np.where(robust["attack"] == "cw", "l2", "linf")
    return robust[robust["attack"].isin(attacks) & robust["through"].isin(ways) & (robust["norm"] == norm)]


def changes(name):
    attack = load_profile(name).evaluation.named("autoattack-linf")
    each = under(table("robust_accuracy", name), "autoattack", "linf", "logits")
    return curves.relative_change(table("comparison", name), each, TITLES, attack)


IMAGE = np.full((8, 8, 3), 128.0, "float32")


def strips():
    said = dict.fromkeys(("baseline", "attention"), "no pneumothorax (100%)")
    attacked = {variant: {"image": IMAGE + 1, "says": says, "outcome": "FOOLED"} for variant, says in said.items()}
    return [{"title": "pneumothorax", "clean": IMAGE, "clean_says": said, "attacked": attacked}] * 2


def maps():
    panels = [("clean image", IMAGE, None, "", False)]
    panels += [("attention\nGrad-CAM,\nclean", IMAGE, np.eye(4), "no pneumothorax\n99%", False)] * 6
    return [{"title": "pneumothorax", "panels": panels}] * 2


def predictions(variants=("baseline", "attention")):
    each = pd.DataFrame({"label": [0, 1, 1], "predicted": [0, 1, 0]})
    return pd.concat([each.assign(variant=variant) for variant in variants])


DRAWN = {
    "robust_curves": lambda: curves.robust_curves(few(["fgsm", "pgd", "square", "autoattack", "cw"]), TITLES),
    "relative_change": lambda: changes("quick"),
    "map_shift": lambda: figures.map_shift(table("gradcam_shift"), TITLES),
    "ratios": lambda: charts.ratios(table("why_ratios").assign(variant="attention"), TITLES),
    "training_curves": lambda: curves.training_curves(histories(), TITLES),
    "adversarial_examples": lambda: figures.adversarial_examples(strips(), "PGD"),
    "gradcam": lambda: figures.gradcam(maps(), "PGD"),
    "confusion": lambda: figures.confusion(predictions(), ("no pneumothorax", "pneumothorax")),
    "confusion, 7 variants": lambda: figures.confusion(predictions(list("abcdefg")), tuple("ABCDEFG")),
    "gamma_by_step": lambda: curves.gamma_by_step(gamma()),
    "gamma_by_step_of_none": lambda: curves.gamma_by_step(gamma().iloc[:0]),
    "class_counts": lambda: figures.class_counts(table("datasets").query("dataset == 'eyepacs'")),
}
REAL = "ham10000"  # one data set, several training runs
EARLIER = "ham10000-cpu"  # the maps of three training runs, and controls with one
DRAWN |= {
    "relative_change, 1 data set": lambda: changes(REAL),
    "map_shift, 3 runs": lambda: figures.map_shift(table("gradcam_shift", EARLIER), TITLES),
    "ratios, 3 runs": lambda: charts.ratios(table("why_ratios", EARLIER).assign(variant="attention"), TITLES),
}


PLAN = load_profile("ham10000").planned
BUDGETS = [1.0, 2.0]


def planned_runs():
    """Eight training runs of made-up networks on two data sets."""
    variants = sorted({name for pair in PLAN.pairs for name in pair})
    tables = [made_up(images=60, seeds=8, variants=variants, rng=rng).assign(dataset=name) for rng, name in
              enumerate(("ham10000", "eyepacs"))]  # fmt: skip
    return planned.worst_case(pd.concat(tables, ignore_index=True))


def forest_plot():
    worst = planned_runs()
    effects, runs = (
        planned.effects(worst, worst[worst["epsilon"] == 0], PLAN, BUDGETS),
        planned.by_run(worst, PLAN.pairs, BUDGETS),
    )
    return forest.forest(effects, runs, PLAN.margin, pd.Series({"ham10000": 40.0, "eyepacs": 60.0}), TITLES)


def test_the_dots_of_a_comparison_are_its_own_runs():
    figure = forest_plot()
    for ax, (_, worst) in zip(figure.axes, planned_runs().groupby("dataset", sort=False), strict=True):
        table = planned.effects(worst, worst[worst["epsilon"] == 0], PLAN, BUDGETS)
        dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "."]
        assert "intact control" in set(table["kind"])
        assert [len(values) for values in dots] == list(table["runs"])
        np.testing.assert_allclose([np.mean(values) for values in dots], table["difference"])
    plt.close(figure)


def tasks_plot(titles=TITLES):
    made = [made_up(images=60, seeds=6, variants=["baseline", "attention-reference"], rng=rng) for rng in range(3)]
    rows = [tasks.of_task(planned.worst_case(t.assign(dataset=d)), t[t["epsilon"] == 0].assign(dataset=d), BUDGETS, 2.0)
            for t, d in zip(made, tasks.TASKS, strict=True)]  # fmt: skip
    table = pd.concat(rows)
    return forest.tasks(pd.concat([table, tasks.together(table)]), titles)


def test_the_forest_of_tasks_names_those_that_a_run_does_not_have():
    figure = tasks_plot({"eyepacs": "photographs"})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["HAM10000, 6 runs", "ChestX-ray14, 6 runs", "photographs, 6 runs", "all tasks, 18 runs"]
    plt.close(figure)


def doses():
    points = planned.by_run(planned_runs(), PLAN.pairs, BUDGETS).rename(columns={"one": "variant"})
    return points.assign(part=np.linspace(0, 60, len(points)))


def answers():
    kinds = [("none", 0), *((kind, severity) for kind in CHANGES for severity in range(1, 6))]
    rows = [
        ("eyepacs", variant, 0, f"i{i}", kind, severity, (i + severity + len(variant)) % 7 > 1)
        for variant in [*PLAN.primary, "baseline"] for kind, severity in kinds for i in range(20)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["dataset", "variant", "seed", "image_id", "change", "severity", "correct"])


def spreads():
    maps = ["attention", "attention-reference"]
    rows = [("eyepacs", variant, seed, state, 60, 49, 49 - 40 * (variant == "attention") - seed, 1.0)
            for variant in maps for seed in range(3) for state in (False, True)]  # fmt: skip
    columns = ["dataset", "variant", "seed", "attacked", "n", "positions", "effective", "peak"]
    return pd.DataFrame(rows, columns=columns)


def spreads_in_training():
    rows = [(network, "eyepacs", variant, seed, 14 * epoch, 49 - 4 * epoch * (variant == "attention") - seed)
            for network in ("ResNet-50 V2", "MobileNetV2") for variant in ("attention", "attention-reference")
            for seed in range(2) for epoch in range(1, 8)]  # fmt: skip
    return pd.DataFrame(rows, columns=["network", "dataset", "variant", "seed", "step", "effective"])


DRAWN |= {
    "planned": forest_plot,
    "tasks": tasks_plot,
    "up_to": lambda: forest.up_to(planned.largest_gains(planned_runs(), PLAN.pairs), TITLES),
    "dose": lambda: forest.dose(doses(), TITLES),
    "spread": lambda: forest.spread(spreads(), TITLES),
    "natural": lambda: forest.natural(accuracies(answers()), "EyePACS"),
    "spread_by_step": lambda: forest.spread_by_step(spreads_in_training(), TITLES),
    "xray_orders": lambda: figures.side_by_side(dict.fromkeys(("one", "two", "three", "four"), IMAGE[..., 0])),
}


@pytest.fixture
def drawn(request):
    """The figure of this name, laid out."""
    with plt.rc_context():
        figures.use_style()
        figure = DRAWN[request.param]()
        figure.draw_without_rendering()
        yield figure
    plt.close(figure)


# Without those of images, and the slanted words of `confusion`, whose boxes overlap though they do not.
CHARTS = [name for name in DRAWN if not name.startswith(("adversarial_examples", "gradcam", "confusion"))]


@pytest.mark.parametrize(("drawn", "name"), [(name, name) for name in DRAWN], indirect=["drawn"], ids=DRAWN)
def test_words_have_their_place_and_7_points_in_print(drawn, name, tmp_path):
    if name in CHARTS:
        check_places(drawn)
    plt.rcParams["savefig.dpi"] = 30  # only the page of the .pdf is looked at
    figures.save(drawn, tmp_path / name, "phantom data; profile test")
    box = (tmp_path / f"{name}.pdf").read_bytes().split(b"/MediaBox [")[1].split(b"]")[0]
    shrunk = min(1, 72 * figures.WIDTH / float(box.split()[2]))
    sizes = {text.get_text(): text.get_fontsize() for text in drawn.findobj(Text) if text.get_text().strip()}
    small = {words: size for words, size in sizes.items() if round(size * shrunk, 1) < 7}
    assert len(sizes) > 3
    assert not small


def check_places(figure):
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]
        boxes = [label.get_window_extent() for label in ticks if label.get_visible()]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert not any(label.get_text() for label in axis.get_minorticklabels())
    box = figure.get_tightbbox()
    assert box.height < figure.get_figheight() + 0.05
    assert box.width < figures.WIDTH + 0.05


@pytest.mark.parametrize(
    ("drawn", "rows"),
    [
        ("map_shift, 3 runs", table("gradcam_shift", EARLIER).query("measure == 'SSIM'")),
        ("ratios, 3 runs", table("why_ratios", EARLIER)),
    ],
    indirect=["drawn"],
    ids=["map_shift", "ratios"],
)
def test_every_training_run_has_a_marker_of_its_own(drawn, rows):
    heights = np.concatenate([bar.lines[0].get_ydata().astype(float) for bar in drawn.axes[0].containers])
    assert len(heights) == len(set(heights.round(6))) == len(rows)
    assert "one marker per training run" in [text.get_text() for text in drawn.findobj(Text)]


@pytest.mark.parametrize("drawn", ["robust_curves"], indirect=True)
def test_the_largest_budget_has_a_label(drawn):
    for ax in drawn.axes:
        assert ax.get_xticks().max() == max(line.get_xdata().max() for line in ax.lines)


@pytest.mark.parametrize("drawn", ["training_curves"], indirect=True)
def test_a_loss_above_its_panel_is_told_from_a_variant(drawn):
    assert curves.ARROW["marker"] not in figures.MARKERS.values()
    assert curves.ARROW["marker"] in [line.get_marker() for line in drawn.axes[0].lines]
    assert "loss above the panel" in [text.get_text() for text in drawn.findobj(Text)]


def test_figures_say_what_data_they_show(tmp_path):
    with plt.rc_context():
        figures.use_style()
        figure = figures.save(DRAWN["training_curves"](), tmp_path / "x", "phantom data")
    assert "phantom data" in [text.get_text() for text in figure.texts]
    plt.close(figure)


def test_an_interval_that_ends_short_of_its_estimate_has_no_whisker_on_that_side():
    np.testing.assert_array_equal(
        figures.whiskers([1.0, 0.5, np.nan], [1.1, 0.25, np.nan], [1.5, 0.75, np.nan]),
        [[0, 0.25, np.nan], [0.5, 0.25, np.nan]],
    )


def test_points_of_many_variants_stay_within_their_panel():
    for figure in charts.sanity(table("why_sanity", REAL)), charts.frequency(table("why_frequency", REAL), 0.2):
        for ax in figure.axes:
            low, high = ax.get_xlim()
            x = np.concatenate([bars.lines[0].get_xdata() for bars in ax.containers])
            assert len(x) > 10
            assert low <= x.min() <= x.max() <= high
        plt.close(figure)


def test_panels_stay_as_high_whatever_the_legend_needs():
    heights = []
    with plt.rc_context():
        figures.use_style()
        for number in (1, 30):
            figure, ax = plt.subplots(figsize=(5, 2.4))
            ax.plot(np.zeros((2, number)), label=[f"{i}" for i in range(number)])
            figures.legend(figure, [ax], columns=3)
            figure.draw_without_rendering()
            heights.append(ax.get_position().height * figure.get_figheight())
            plt.close(figure)
    assert heights[1] == pytest.approx(heights[0], rel=0.15)


def test_an_attack_cut_short_is_named_with_the_published_numbers():
    attack = Attack(attack="autoattack", parameters={"steps": 12, "target_classes": 2})
    assert curves.attack_in_full(attack) == "AutoAttack (12 of 100 steps, 2 target classes)"
    assert curves.attack_in_full(attack, 7) == "AutoAttack (12 of 100 steps, 2 of 6 target classes)"
    assert curves.attack_in_full(attack, 2) == "AutoAttack (12 of 100 steps, every wrong class as target)"
    assert curves.attack_in_full(Attack(attack="fgsm"), 2) == "FGSM"
    targeted = Attack(attack="apgd_t", parameters={"target_classes": 3})
    assert curves.attack_in_full(targeted, 7) == "APGD (targeted) (3 target classes)"


def test_a_flat_attention_map_looks_flat_and_a_peak_bright():
    flat, peaked = np.ones((4, 4)), np.where(np.eye(4), 9.0, 0.1)
    assert figures.overlay(IMAGE, flat, True).max() < figures.overlay(IMAGE, flat).max() / 1.5
    assert figures.overlay(IMAGE, peaked, True).max() > 1.5 * figures.overlay(IMAGE, flat, True).max()
