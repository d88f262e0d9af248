"""The measures of 05_why on a study's models: per-image tables, as artifacts on disk, for every variant that
was trained.
"""

import logging

import numpy as np
import pandas as pd

from lib.explain import attention_map, constant, frequency, grad_cam, sanity, surface, where
from lib.explain.looked_at import (
    common,
    going_on,
    kept,
    masked,
    masks,
    middle,
    noise,
    spread,
    temperatures,
)

# Every explainer and every randomised model is traced anew, of which TensorFlow warns in the middle of a notebook.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

CUTOFFS = (0.0625, 0.125, 0.25)
"""Cutoffs of the filters, cycles per pixel: an eighth, a quarter and a half of the highest frequency along an
axis.
"""


def _perturbed(study, variant, images, labels, epsilon):
    """The images perturbed in each way at a budget: (attack, norm) to images. L2 balls have the same size per
    pixel.
    """
    classifier, per_pixel = study.classifier(variant), np.sqrt(np.prod(images.shape[1:]))
    perturbed = {("noise", "linf"): noise(study, images, epsilon)}
    for name, norm, size in (("fgsm", "linf", 1), ("pgd", "linf", 1), ("pgd", "l2", per_pixel)):
        attack = going_on(study, name, norm)
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
    regions = {} if found is None else {"lesion": found}
    for kind, maps in clean.items():
        region = where.top_area(where.enlarged(maps, size), 0.2)
        region[constant(maps)] = np.nan
        regions[kind] = region
    tables = []

    def note(kind, about, correct, target, **columns):
        facts = dict(zip(("attack", "norm", "epsilon"), about, strict=True))
        table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "kind": kind, **facts})
        tables.append(table.assign(correct=correct, target=target, **columns))

    def energies(about, perturbation, correct):
        energy = where.energy(perturbation)
        for name, region in regions.items():
            area, share = region.mean(axis=(1, 2)), where.energy_share(energy, region)
            note("energy", about, correct, name, area=area, share=share)

    def pointed(about, by_kind, correct):
        for kind, maps in by_kind.items():
            flat = constant(maps)
            columns = {
                "rank_correlation": sanity.agreement(clean[kind], maps),
                "top20_overlap": where.overlap(clean[kind], maps),
            }
            if found is not None:
                large = where.enlarged(maps, size)
                columns |= {
                    "area": found.mean(axis=(1, 2)),
                    "pointing": np.where(flat, np.nan, where.pointing(large, found)),
                    "iou": np.where(flat, np.nan, where.iou(large, found)),
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
    """How the loss lies around each image: dataset, variant, seed, image_id, label, correct, loss,
    confidence, margin, slope (by gradient, per gray level), slope_by_attack, distance (margin / slope, gray
    levels), gradient_l2, eigenvalue (per squared gray level), temperature and eigenvalue_matched (at the
    confidence of the baseline).
    """
    rows, why = common(study), study.profile.evaluation.why

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier = study.classifier(variant)
            logits = classifier.logits(images)
            margin = surface.margins(logits, labels)
            slope = surface.lipschitz_by_gradient(classifier, images, labels)
            loss, gradient = surface.loss_gradient(classifier, images, labels)
            attack = going_on(study, "pgd").with_(loss="margin")
            attacked = attack(classifier, images, labels, middle(why.epsilons), seed=study.seed)
            temperature = temperatures(study)[variant]
            cooled = classifier
            if temperature != 1:
                cooled = surface.Tempered(study.trained(variant)[0], temperature=temperature)
            curvature = [
                surface.top_eigenvalue(model, images, labels, why.power_steps, study.seed)
                for model in dict.fromkeys((classifier, cooled))
            ]
            return pd.DataFrame(
                {
                    "image_id": rows["image_id"].to_numpy(),
                    "label": labels,
                    "correct": margin > 0,
                    "loss": loss,
                    "confidence": surface.confidence(logits),
                    "margin": margin,
                    "slope": slope,
                    "slope_by_attack": surface.lipschitz_by_attack(classifier, images, attacked, labels),
                    "distance": np.maximum(margin, 0) / slope,
                    "gradient_l2": np.sqrt(np.square(gradient, dtype=float).sum(axis=(1, 2, 3))),
                    "eigenvalue": curvature[0],
                    "temperature": temperature,
                    "eigenvalue_matched": curvature[-1],
                }
            )

        keys = [study.model_key(name) for name in ("baseline", variant)]
        return kept(study, variant, "surface", rows, make, keys)

    return study.gather(measure, study.whole_variants)


def matched(study) -> pd.DataFrame:
    """Outcomes of the examined attack, as it is and at equal clean confidence, through each output the
    profile has.

    Columns: dataset, variant, seed, image_id, through, epsilon, correct, matched, temperature. The baseline's
    two are the same. Equal confidence is that of `temperatures`; only the attack sees it, predictions do not
    depend on it.
    """
    rows, entry = common(study), study.examined()
    entries = [
        other
        for other in study.profile.evaluation.attacks
        if (other.attack, other.norm, other.images) == (entry.attack, entry.norm, entry.images)
    ]

    def measure(variant):
        def make():
            temperature, parts = temperatures(study)[variant], []
            for entry in entries:
                known = study.outcomes_of(variant, entry)
                known = known[known["image_id"].isin(rows["image_id"])].assign(temperature=1.0)
                parts += [known.assign(matched=False)]
                if temperature == 1:
                    parts += [known.assign(matched=True)]
                    continue
                tempered = surface.Tempered(study.trained(variant)[0], entry.through, temperature)
                table = study.robust_accuracy(tempered, rows, entry)
                parts += [table.assign(through=entry.through, temperature=temperature, matched=True)]
            columns = ["image_id", "through", "epsilon", "correct", "matched", "temperature"]
            return pd.concat(parts, ignore_index=True)[columns]

        keys = [study.model_key(name) for name in ("baseline", variant)]
        entries_used = [entry.model_dump() for entry in entries]
        return kept(study, variant, "matched", rows, make, keys, entries_used)

    return study.gather(measure, study.whole_variants)


def frequencies(study) -> pd.DataFrame:
    """Perturbations by frequency, per image: dataset, variant, seed, image_id, source (clean, gradient, pgd
    in L-inf, noise), epsilon, cutoff (0: unfiltered), keep (low, high or all), correct, energy (the share that
    the filter leaves), mean_frequency and band0, band1, ... (shares of the energy, unfiltered rows only).
    """
    rows, why = common(study), study.profile.evaluation.why

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier, tables = study.classifier(variant), []

            def note(source, epsilon, delta, cutoff=0.0, keep="all", whole=None):
                x = np.clip(images + delta, 0, 255)
                table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "source": source})
                table = table.assign(epsilon=epsilon, cutoff=cutoff, keep=keep)
                table["correct"] = classifier.predict(x) == labels
                if whole is None:
                    table["mean_frequency"] = frequency.mean_frequency(delta)
                    for b, shares in enumerate(frequency.spectrum(delta).T):
                        table[f"band{b}"] = shares
                else:
                    table["energy"] = np.square(delta, dtype=float).sum(axis=(1, 2, 3)) / np.maximum(
                        np.square(whole, dtype=float).sum(axis=(1, 2, 3)), 1e-30
                    )
                tables.append(table)

            note("clean", 0.0, np.zeros_like(images))
            _, gradient = surface.loss_gradient(classifier, images, labels)
            # Its spectrum is what counts; scaled so that the pixels hardly move.
            note("gradient", 0.0, gradient / max(np.abs(gradient).max(), 1e-30) * 1e-3)
            epsilon = middle(why.epsilons)
            note("noise", epsilon, noise(study, images, epsilon) - images)
            for epsilon in why.epsilons:
                delta = going_on(study, "pgd")(classifier, images, labels, epsilon, seed=study.seed) - images
                note("pgd", epsilon, delta)
                for cutoff in CUTOFFS:
                    for keep in ("low", "high"):
                        note("pgd", epsilon, frequency.filtered(delta, cutoff, keep), cutoff, keep, delta)
            return pd.concat(tables, ignore_index=True)

        return kept(study, variant, "frequency", rows, make)

    return study.gather(measure, study.whole_variants)


def soundness(study) -> pd.DataFrame:
    """Is the explanation sound, per image: dataset, variant, seed, image_id, map, against, rank_correlation.

    `against`: "logits", "attention block", "backbone, top", ... (the map after this and all above it were
    randomised), or "Grad-CAM++", "Score-CAM" (the same model's map by another method).
    """
    why = study.profile.evaluation.why
    rows = spread(masked(study), why.sanity_images)

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            model, _ = study.trained(variant)
            maps, tables = _maps(study, variant, images, labels), []

            def note(kind, against, other):
                table = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "map": kind, "against": against})
                tables.append(table.assign(rank_correlation=sanity.agreement(maps[kind], other)))

            for step, destroyed in sanity.randomised(model, study.seed):
                note("gradcam", step, grad_cam(destroyed, images, labels, upsample=False))
                if "attention" in maps:
                    note("attention", step, attention_map(destroyed, images, upsample=False))
            note("gradcam", "Grad-CAM++", sanity.grad_cam_plus_plus(model, images, labels))
            channels = min(why.score_cam_channels, model.get_layer("features").output.shape[-1])
            note("gradcam", "Score-CAM", sanity.score_cam(model, images, labels, channels))
            return pd.concat(tables, ignore_index=True)

        return kept(study, variant, "sanity", rows, make)

    return study.gather(measure, study.whole_variants)
