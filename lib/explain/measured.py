"""The measures of 05_why on a study's models: per-image tables, as artifacts on disk, for every variant that was
trained."""

import logging

import numpy as np
import pandas as pd

from lib.explain import attention_map, constant, frequency, grad_cam, overlap, regions, sanity, surface, top_area
from lib.explain.selected import attack_all, common, kept, masked, masks, middle, noise, spread

# Every explainer and every randomised model is traced anew, of which TensorFlow warns in the middle of a notebook.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

CUTOFFS = (0.0625, 0.125, 0.25)
"""Cutoffs of the filters, cycles per pixel: an eighth, a quarter and a half of the highest frequency along an
axis.
"""


def _perturbed(study, variant, images, labels, epsilon):
    """The images perturbed in each way at a budget: (attack, norm) to images. L2 balls have the same size per pixel."""
    classifier, per_pixel = study.classifier(variant), np.sqrt(np.prod(images.shape[1:]))
    perturbed = {("noise", "linf"): noise(study, images, epsilon)}
    for name, norm, size in (("fgsm", "linf", 1), ("pgd", "linf", 1), ("pgd", "l2", per_pixel)):
        attack = attack_all(study, name, norm)
        perturbed[name, norm] = attack(classifier, images, labels, epsilon * size, seed=study.seed)
    return perturbed


def _maps(study, variant, images, labels):
    """The maps of a variant at the feature map's resolution: by kind, (n, h, w)."""
    model, _ = study.trained(variant)
    maps = {"gradcam": grad_cam(model, images, labels, upsample=False)}
    if any(layer.name == "soft_attention" for layer in model.layers):
        maps["attention"] = attention_map(model, images, upsample=False)
    return maps


def where_it_is_hit(study) -> pd.DataFrame:
    """Where perturbations and maps lie: one row per image, perturbation and region or map.

    Columns: dataset, variant, seed, image_id, kind ("energy" or "map"), attack, norm, epsilon (0 for the
    clean image and the gradient there), correct (still, under the perturbation), target (the region that the
    energy is looked for in, or the map), area (of the region, or of the lesion), share (of the energy in it),
    pointing, iou, rank_correlation and top20_overlap (with the clean map), undefined (a constant map).
    """
    rows = masked(study)

    def measure(variant):
        found, source = masks(study, rows)

        def make():
            return _where(study, variant, rows, found if found.any() else None)

        return kept(study, variant, "where", rows, make, source, int(found.sum()))

    return study.gather(measure, study.whole_variants)


def _where(study, variant, rows, found):
    images, labels = study.pixels(rows), rows["label"].to_numpy()
    classifier, size = study.classifier(variant), images.shape[1:3]
    clean = _maps(study, variant, images, labels)
    areas = {} if found is None else {"lesion": found}
    for kind, maps in clean.items():
        areas[kind] = top_area(regions.enlarged(maps, size), 0.2)
        areas[kind][constant(maps)] = np.nan
    tables = []

    def note(kind, about, correct, target, **columns):
        facts = dict(zip(("attack", "norm", "epsilon"), about, strict=True))
        table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "kind": kind, **facts})
        tables.append(table.assign(correct=correct, target=target, **columns))

    def energies(about, perturbation, correct):
        energy = regions.energy(perturbation)
        for name, region in areas.items():
            area, share = region.mean(axis=(1, 2)), regions.energy_share(energy, region)
            note("energy", about, correct, name, area=area, share=share)

    def pointed(about, by_kind, correct):
        for kind, maps in by_kind.items():
            flat = constant(maps)
            columns = {
                "rank_correlation": sanity.agreement(clean[kind], maps),
                "top20_overlap": overlap(clean[kind], maps),
            }
            if found is not None:
                large = regions.enlarged(maps, size)
                columns |= {
                    "area": found.mean(axis=(1, 2)),
                    "pointing": np.where(flat, np.nan, regions.pointing(large, found)),
                    "iou": np.where(flat, np.nan, regions.iou(large, found)),
                }
            note("map", about, correct, kind, undefined=flat, **columns)

    def look(perturbed, epsilon):
        # All in one call: what costs most of a small map is to build the model that gives it.
        together = np.concatenate(list(perturbed.values()))
        maps = _maps(study, variant, together, np.tile(labels, len(perturbed)))
        maps = {kind: np.split(m, len(perturbed)) for kind, m in maps.items()}
        for n, ((attack, norm), x) in enumerate(perturbed.items()):
            about, correct = (attack, norm, epsilon), classifier.predict(x) == labels
            pointed(about, {kind: m[n] for kind, m in maps.items()}, correct)
            if attack != "clean":
                energies(about, x - images, correct)

    look({("clean", "none"): images}, 0.0)
    _, gradient = surface.loss_gradient(classifier, images, labels)
    energies(("gradient", "none", 0.0), gradient, classifier.predict(images) == labels)
    for epsilon in study.profile.evaluation.why.epsilons:
        look(_perturbed(study, variant, images, labels, epsilon), epsilon)
    return pd.concat(tables, ignore_index=True)


def loss_surface(study) -> pd.DataFrame:
    """How the loss lies around each image: dataset, variant, seed, image_id, label, correct, margin, slope (by
    gradient, per gray level), slope_by_attack, distance (margin / slope, gray levels)."""
    rows, why = common(study), study.profile.evaluation.why

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier = study.classifier(variant)
            margin = surface.margins(classifier.logits(images), labels)
            slope = surface.lipschitz_by_gradient(classifier, images, labels)
            attack = attack_all(study, "pgd").with_(loss="margin")
            attacked = attack(classifier, images, labels, middle(why.epsilons), seed=study.seed)
            columns = {
                "image_id": rows["image_id"].to_numpy(),
                "label": labels,
                "correct": margin > 0,
                "margin": margin,
                "slope": slope,
                "slope_by_attack": surface.lipschitz_by_attack(classifier, images, attacked, labels),
                "distance": np.maximum(margin, 0) / slope,
            }
            return pd.DataFrame(columns)

        return kept(study, variant, "surface", rows, make)

    return study.gather(measure, study.whole_variants)


def frequencies(study) -> pd.DataFrame:
    """Parts of perturbations by frequency, per image: dataset, variant, seed, image_id, source (clean, or pgd),
    epsilon, cutoff (0: unfiltered), keep (low, high or all), correct, energy (the share that the filter leaves)."""
    rows, why = common(study), study.profile.evaluation.why

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier, tables = study.classifier(variant), []

            def note(source, epsilon, part, whole, cutoff=0.0, keep="all"):
                energy = [np.square(delta, dtype=float).sum(axis=(1, 2, 3)) for delta in (part, whole)]
                table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "source": source, "epsilon": epsilon})
                table = table.assign(cutoff=cutoff, keep=keep, energy=energy[0] / np.maximum(energy[1], 1e-30))
                table["correct"] = classifier.predict(np.clip(images + part, 0, 255)) == labels
                tables.append(table)

            note("clean", 0.0, np.zeros_like(images), np.zeros_like(images))
            for epsilon in why.epsilons:
                delta = attack_all(study, "pgd")(classifier, images, labels, epsilon, seed=study.seed) - images
                note("pgd", epsilon, delta, delta)
                for cutoff in CUTOFFS:
                    for keep in ("low", "high"):
                        note("pgd", epsilon, frequency.filtered(delta, cutoff, keep), delta, cutoff, keep)
            return pd.concat(tables, ignore_index=True)

        return kept(study, variant, "frequency", rows, make)

    return study.gather(measure, study.whole_variants)


def soundness(study) -> pd.DataFrame:
    """Is the explanation sound, per image: dataset, variant, seed, image_id, map, against, rank_correlation.

    `against`: "logits", "attention block", "backbone, top", ...: what was randomised, with all above it.
    """
    rows = spread(masked(study), study.profile.evaluation.why.sanity_images)

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            model, _ = study.trained(variant)
            maps, tables = _maps(study, variant, images, labels), []
            for step, destroyed in sanity.randomised(model, study.seed):
                found = {"gradcam": grad_cam(destroyed, images, labels, upsample=False)}
                if "attention" in maps:
                    found["attention"] = attention_map(destroyed, images, upsample=False)
                for kind, other in found.items():
                    table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "map": kind, "against": step})
                    tables.append(table.assign(rank_correlation=sanity.agreement(maps[kind], other)))
            return pd.concat(tables, ignore_index=True)

        return kept(study, variant, "sanity", rows, make)

    return study.gather(measure, study.whole_variants)
