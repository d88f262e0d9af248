"""The image panels of the figures: which pictures stand side by side, and what is written over them."""

import numpy as np

from lib.study import Study

PAIR = ("baseline", "attention")  # the study compares these; with every control there is no room for pictures


def adversarial_rows(study: Study, n: int) -> list[dict]:
    """Rows for `lib.figures.adversarial_examples`: the first image of each of n classes that Grad-CAM explains."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in PAIR}
    first = np.flatnonzero(~chosen["label"].duplicated().to_numpy())[:n]
    classes = study.info.classes

    def says(variant, i, attacked):
        arrays = explained[variant]
        return f"{classes[arrays['predicted'][i, attacked]]} ({arrays['confidence'][i, attacked]:.0%})"

    return [
        {
            "title": chosen["class_name"].iloc[i],
            "clean": study.pixels(chosen.iloc[[i]])[0],
            "clean_says": {variant: says(variant, i, 0) for variant in explained},
            "attacked": {
                variant: {"image": arrays["adversarial"][i], "says": says(variant, i, 1)}
                for variant, arrays in explained.items()
            },
        }
        for i in first
    ]


def gradcam_rows(study: Study, n: int) -> list[dict]:
    """Rows for `lib.figures.gradcam`: n of the chosen images, spread over the classes."""
    chosen = study.chosen()
    explained = {variant: study.explanations(variant) for variant in PAIR}
    rows = []
    for i in np.unique(np.linspace(0, len(chosen) - 1, n).round().astype(int)):
        clean = study.pixels(chosen.iloc[[i]])[0]
        panels = [("clean image", clean, None)]
        for kind, title in (("gradcam", "Grad-CAM"), ("attention", "attention map")):
            for variant, arrays in explained.items():
                if kind in arrays:
                    panels.append((f"{variant}\n{title},\nclean", clean, arrays[kind][i, 0]))
                    panels.append(
                        (f"{variant}\n{title},\nattacked", arrays["adversarial"][i], arrays[kind][i, 1])
                    )
        rows.append({"title": chosen["class_name"].iloc[i], "panels": panels})
    return rows
