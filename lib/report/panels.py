"""The image panels of the figures: which pictures stand side by side, and what is written over them."""

import numpy as np
import pandas as pd

from lib.report.curves import ATTACK_TITLES, NORM_TITLES


def pair(study) -> tuple[str, str]:
    """The two variants that the pictures show: with all of them there is no room."""
    return "baseline", study.profile.attentive


def adversarial_rows(study, n: int) -> list[dict]:
    """Rows for `figures.adversarial_examples`: an image of each of n classes, of those that Grad-CAM explains."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in pair(study)}
    first = _fooled_first(chosen, explained).drop_duplicates("label").sort_values("label")["place"][:n]
    classes = study.info.classes

    def says(variant, i, attacked):
        arrays = explained[variant]
        return f"{classes[arrays['predicted'][i, attacked]]} ({arrays['confidence'][i, attacked]:.0%})"

    def outcome(variant, i):
        return _outcome(explained[variant]["predicted"][i], chosen["label"].iloc[i])

    return [
        {
            "title": chosen["class_name"].iloc[i],
            "clean": study.pixels(chosen.iloc[[i]])[0],
            "clean_says": {variant: says(variant, i, 0) for variant in explained},
            "attacked": {
                variant: {
                    "image": arrays["adversarial"][i],
                    "says": says(variant, i, 1),
                    "outcome": outcome(variant, i),
                }
                for variant, arrays in explained.items()
            },
        }
        for i in first
    ]


def gradcam_rows(study, n: int) -> list[dict]:
    """Rows for `lib.report.figures.gradcam`: n of the chosen images, classes in turn; below attention maps their range,
    1 being an even map."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in pair(study)}
    classes, rows = study.info.classes, []
    shown = _fooled_first(chosen, explained)[:n].sort_values("place")["place"]
    for i in shown:
        clean, label = study.pixels(chosen.iloc[[i]])[0], chosen["label"].iloc[i]
        panels = [("clean image", clean, None, "", False)]
        for kind, title in (("gradcam", "Grad-CAM"), ("attention", "attention map")):
            for variant, arrays in explained.items():
                if kind not in arrays:
                    continue
                predicted, images = arrays["predicted"][i], (clean, arrays["adversarial"][i])
                for j, state in enumerate(("clean", "attacked")):
                    says = f"{classes[predicted[j]]}\n{arrays['confidence'][i, j]:.0%}"
                    says += f", {_outcome(predicted, label)}" if j else ""
                    heading = f"{variant}\n{title},\n{state}"
                    heat = arrays[kind][i, j]
                    if kind == "attention":
                        says = "{:.1f} to {:.1f}".format(*np.array([heat.min(), heat.max()]) / heat.mean())
                    panels.append((heading, images[j], heat, says, kind == "attention"))
        rows.append({"title": chosen["class_name"].iloc[i], "panels": panels})
    return rows


def _fooled_first(chosen, explained) -> pd.DataFrame:
    """Places and labels of the chosen images: those first on which every network is fooled, classes in turn."""
    labels = chosen["label"].to_numpy()
    fooled = [
        (arrays["predicted"][:, 0] == labels) & (arrays["predicted"][:, 1] != labels) for arrays in explained.values()
    ]
    table = pd.DataFrame({"place": range(len(labels)), "label": labels, "fooled": np.all(fooled, axis=0)})
    table["turn"] = table.groupby(["fooled", "label"]).cumcount()
    return table.sort_values(["fooled", "turn"], ascending=[False, True], kind="stable")


def attack_title(study) -> str:
    """The attack that the pictures show and its budget, such as `PGD, $L_\\infty$, $\\epsilon$ = 1 (1/255)`."""
    entry = study.examined()
    name = f"{ATTACK_TITLES.get(entry.attack, entry.attack)}, {NORM_TITLES[entry.norm]}"
    return rf"{name}, $\epsilon$ = {study.profile.evaluation.gradcam_epsilon:g} gray levels (1/255)"


def _outcome(predicted, label):
    """What an attack did, from the classes predicted before and after it."""
    if predicted[0] != label:
        return "wrong before"
    return "FOOLED" if predicted[1] != label else "not fooled"
