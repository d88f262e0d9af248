"""Grad-CAM and attention maps of a study's networks, clean and attacked, and how far they move."""

import numpy as np
import pandas as pd

from lib.attacks import Classifier
from lib.data import subset
from lib.explain import attention_map, choose_images, grad_cam, map_shift
from lib.models import without_branch
from lib.models.spread import effective_positions, peak


def chosen(study) -> pd.DataFrame:
    """The test images that Grad-CAM explains, chosen by `lib.explain.choose_images`, not by hand."""
    predictions = study.predictions()
    predictions = predictions[predictions["image_id"].isin(study.evaluated["image_id"])]
    correct = predictions.pivot_table(index="image_id", columns="variant", values="correct", aggfunc="all")
    correct = correct.reindex(study.evaluated["image_id"])
    rows = choose_images(
        study.evaluated["label"].to_numpy(),
        {variant: correct[variant].to_numpy(bool) for variant in study.whole_variants},
        study.profile.evaluation.gradcam_images,
        study.profile.split.seed,
    )
    return study.evaluated.iloc[rows]


def explanations(study, variant: str) -> dict[str, np.ndarray]:
    """Grad-CAM and attention maps of the chosen images, clean and attacked.

    Arrays: image_id; adversarial (n, size, size, 3); predicted and confidence of the clean and of the
    adversarial images (n, 2); gradcam and attention (n, 2, h, w) at the feature map's own resolution.
    Grad-CAM explains the true class, so that both maps answer the same question.
    """
    evaluation, entry = study.profile.evaluation, study.examined()
    chosen = study.chosen()

    def make():
        model, _ = study.trained(variant)
        clean, labels = study.pixels(chosen), chosen["label"].to_numpy()
        # All steps on every image: one that left at its first mistake would be perturbed less than the others.
        attack = study.attack(entry).with_(leave=False)
        classifier = study.classifier(variant, entry.through)
        adversarial = attack(classifier, clean, labels, evaluation.gradcam_epsilon, seed=study.seed)
        both = [clean, np.asarray(adversarial)]
        probabilities = np.stack([model.predict_on_batch(x) for x in both], axis=1)
        arrays = {
            "image_id": chosen["image_id"].to_numpy(str),
            "adversarial": both[1],
            "predicted": probabilities.argmax(-1),
            "confidence": probabilities.max(-1),
            "gradcam": np.stack([grad_cam(model, x, labels, upsample=False) for x in both], axis=1),
        }
        if "attention" in variant:
            maps = [attention_map(model, x, upsample=False) for x in both]
            arrays["attention"] = np.stack(maps, axis=1)
        return arrays

    inputs = [chosen["image_id"].tolist(), entry.model_dump(), evaluation.gradcam_epsilon]
    return study.kept("explanations.npz", variant, inputs, make)


def branch_of(study, variant: str) -> pd.DataFrame:
    """What the attention branch has a part in: one row per attacked image; none for a network without a branch.

    Columns: image_id, label, size (of the logits, the root of the sum of squares about their mean), change (of the
    logits when the branch is taken out, likewise), predicted and without (the answers with the branch and without it).
    """

    def make():
        model, rows = study.trained(variant)[0], study.evaluated
        other = without_branch(model)
        table = rows[["image_id", "label"]].head(0 if other is None else len(rows))
        if other is None:
            return table.assign(size=[], change=[], predicted=[], without=[])
        whole, left = (Classifier(each).logits(study.pixels(rows)) for each in (model, other))
        centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (whole, left)]
        return table.assign(
            size=np.linalg.norm(centred[0], axis=1),
            change=np.linalg.norm(centred[0] - centred[1], axis=1),
            predicted=whole.argmax(1),
            without=left.argmax(1),
        )

    return study.kept("branch.csv", variant, [study.evaluated["image_id"].tolist()], make)


def spread_of(study, variant: str) -> pd.DataFrame:
    """How far the attention maps of one network spread: a row per image, clean and attacked; none without such maps.

    Columns: image_id, label, attacked, positions (of the map), effective and peak, see `lib.models.spread`. The images
    are those that the trust section examines, under its attack at Grad-CAM's budget. None, too, of a network that was
    published without its weights before this was measured.
    """
    evaluation, entry, directory = study.profile.evaluation, study.examined(), study.directory(variant)
    rows = subset(study.evaluated, evaluation.trust_images, study.profile.split.seed)
    columns = ["image_id", "label", "attacked", "positions", "effective", "peak"]
    study.history(variant)
    here = any((directory / name).is_file() for name in ("spread.csv", "model.keras"))
    if not here or "attention" not in variant:
        return pd.DataFrame(columns=columns)

    def make():
        model, (clean, labels) = study.trained(variant)[0], (study.pixels(rows), rows["label"].to_numpy())
        attack, classifier = study.attack(entry).with_(leave=False), study.classifier(variant, entry.through)
        attacked = attack(classifier, clean, labels, evaluation.gradcam_epsilon, seed=study.seed)
        tables = []
        for state, images in ((False, clean), (True, attacked)):
            maps = attention_map(model, images, upsample=False)
            measured = {"positions": maps[0].size, "effective": effective_positions(maps), "peak": peak(maps)}
            tables.append(rows[["image_id", "label"]].assign(attacked=state, **measured))
        return pd.concat(tables)

    inputs = [rows["image_id"].tolist(), entry.model_dump(), evaluation.gradcam_epsilon]
    return study.kept("spread.csv", variant, inputs, make)


def shifts_of(study, variant: str) -> pd.DataFrame:
    """How far each map of one variant moves under attack: one row per image and kind of map."""
    arrays = study.explanations(variant)
    tables = []
    for kind in ("gradcam", "attention"):
        if kind in arrays:
            clean, adversarial = arrays[kind][:, 0], arrays[kind][:, 1]
            table = map_shift(clean, adversarial, study.images.shape[1:3])
            table.insert(0, "map", kind)
            table.insert(0, "image_id", arrays["image_id"])
            tables.append(table)
    return pd.concat(tables, ignore_index=True)
