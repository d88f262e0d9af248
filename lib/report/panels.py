"""The image panels of the figures: which pictures stand side by side, and what is written over them."""

import numpy as np

from lib.report.curves import ATTACK_TITLES, NORM_TITLES

PAIR = ("baseline", "attention")  # the study compares these; with every control there is no room for pictures


def adversarial_rows(study, n: int) -> list[dict]:
    """Rows for `figures.adversarial_examples`: the first image of each of n classes that Grad-CAM explains."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in PAIR}
    first = np.flatnonzero(~chosen["label"].duplicated().to_numpy())[:n]
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
    """Rows for `lib.report.figures.gradcam`: n of the chosen images, spread over the classes."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in PAIR}
    classes, rows = study.info.classes, []
    for i in np.unique(np.linspace(0, len(chosen) - 1, n).round().astype(int)):
        clean, label = study.pixels(chosen.iloc[[i]])[0], chosen["label"].iloc[i]
        panels = [("clean image", clean, None, "")]
        for kind, title in (("gradcam", "Grad-CAM"), ("attention", "attention map")):
            for variant, arrays in explained.items():
                if kind not in arrays:
                    continue
                predicted, images = arrays["predicted"][i], (clean, arrays["adversarial"][i])
                for j, state in enumerate(("clean", "attacked")):
                    says = f"{classes[predicted[j]]}\n{arrays['confidence'][i, j]:.0%}"
                    says += f", {_outcome(predicted, label)}" if j else ""
                    heading = f"{variant}\n{title},\n{state}"
                    panels.append((heading, images[j], arrays[kind][i, j], says if kind == "gradcam" else ""))
        rows.append({"title": chosen["class_name"].iloc[i], "panels": panels})
    return rows


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
