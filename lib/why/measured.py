"""The measures of 06_why on a study's models: per-image tables, as artifacts on disk, for every variant that was trained.

All variants look at the same images. `common` images are drawn from the attacked ones; `masked` images have a lesion mask
and are right under every variant when clean, so that there is evidence to point to and an attack to be hit by.
"""

import numpy as np
import pandas as pd

from lib import artifacts, evaluation
from lib.attacks import make_attack
from lib.datasets import subset
from lib.explain import attention_map, constant, grad_cam, map_shift
from lib.robustness import robust_accuracy
from lib.study import Study, read_table
from lib.why import frequency, sanity, surface, where

CUTOFFS = (0.0625, 0.125, 0.25)
"""Cutoffs of the filters, cycles per pixel: an eighth, a quarter and a half of the highest frequency along an axis."""


def variants(study: Study) -> list[str]:
    """The variants of this study, the one place that says which are compared."""
    return list(study.profile.variants)


def gather(study: Study, read) -> pd.DataFrame:
    """The tables that `read(variant)` gives, with columns dataset, variant, seed in front."""
    tables = []
    for variant in variants(study):
        table = read(variant).copy()
        for column, value in (("seed", study.seed), ("variant", variant), ("dataset", study.dataset)):
            table.insert(0, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def common(study: Study) -> pd.DataFrame:
    """The images that surface, frequency and matched confidence are measured on: rows of the index."""
    return subset(study.evaluated, study.profile.evaluation.why.images, study.profile.split.seed)


def masks(study: Study, rows: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Masks, bool (n, size, size), of these rows, and where they come from ("" if the set has none)."""
    size = study.images.shape[1]
    return where.lesion_masks(rows["image_id"], study.dataset, study.raw / study.dataset, size)


def masked(study: Study) -> pd.DataFrame:
    """Test images with a mask that every variant gets right when clean; without masks, right images of the set."""
    predictions = study.predictions()
    right = predictions.groupby("image_id")["correct"].all()
    test = study.index[study.index["split"] == "test"]
    test = test[test["image_id"].map(right).astype(bool)]
    found, source = masks(study, test)
    if source:
        test = test[found.any(axis=(1, 2))]
    return subset(test, study.profile.evaluation.why.images, study.profile.split.seed)


def _kept(study, variant, name, rows, modules, make, *more):
    """A per-image table of one variant, made by `make()` and kept as `why/<name>.csv`."""
    path = study.directory(variant) / "why" / f"{name}.csv"
    key = artifacts.key_of(
        study.model_key(variant),
        rows["image_id"].tolist(),
        study.profile.evaluation.why.model_dump(),
        more,
        artifacts.code_key("attacks", "explain", "robustness", "why/measured", *modules),
    )

    def write(temporary):
        make().to_csv(temporary, index=False)

    return artifacts.cached(path, key, write, read_table, **study.provenance(), variant=variant)


def _attack(study, name, norm="linf"):
    """An attack that goes on with fallen images, so that all of them are perturbed alike."""
    steps = {} if name == "fgsm" else {"steps": study.profile.evaluation.why.steps}
    return make_attack(name, norm=norm, leave=False, batch_size=study.profile.evaluation.batch_size, **steps)


def _noise(study, images, epsilon):
    """Images with every pixel moved up or down by epsilon, at random: what a perturbation without a model does."""
    rng = np.random.default_rng(study.seed)
    return np.clip(images + epsilon * rng.choice(np.float32([-1, 1]), images.shape), 0, 255)


def _perturbed(study, variant, images, labels, epsilon):
    """The images perturbed in each way at a budget: (attack, norm) to images. L2 balls have the same size per pixel."""
    classifier, per_pixel = study.classifier(variant), np.sqrt(np.prod(images.shape[1:]))
    perturbed = {("noise", "linf"): _noise(study, images, epsilon)}
    for name, norm, size in (("fgsm", "linf", 1), ("pgd", "linf", 1), ("pgd", "l2", per_pixel)):
        attack = _attack(study, name, norm)
        perturbed[name, norm] = attack(classifier, images, labels, epsilon * size, seed=study.seed)
    return perturbed


def _maps(study, variant, images, labels):
    """The maps of a variant at the feature map's resolution: by kind, (n, h, w)."""
    model, _ = study.trained(variant)
    maps = {"gradcam": grad_cam(model, images, labels, upsample=False)}
    if any(layer.name == "soft_attention" for layer in model.layers):
        maps["attention"] = attention_map(model, images, upsample=False)
    return maps


def where_it_is_hit(study: Study) -> pd.DataFrame:
    """Where perturbations and maps lie, per image: one row per perturbation and region or map.

    Columns: dataset, variant, seed, image_id, kind ("energy" or "map"), attack, norm, epsilon (0 for the clean image and the
    gradient there), correct (still, under the perturbation), region or map, area (of the region), share (of the energy in
    it), pointing, iou, rank_correlation and top20_overlap (with the clean map), undefined (a constant map).
    """
    rows = masked(study)

    def measure(variant):
        found, source = masks(study, rows)

        def make():
            return _where(study, variant, rows, found if source else None)

        return _kept(study, variant, "where", rows, ["why/where"], make, source, int(found.sum()))

    return gather(study, measure)


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
            columns = map_shift(clean[kind], maps, size)
            flat = constant(maps)
            columns = {name: columns[name].to_numpy() for name in ("rank_correlation", "top20_overlap")}
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


def loss_surface(study: Study) -> pd.DataFrame:
    """How the loss lies around each image: dataset, variant, seed, image_id, label, correct, loss, confidence, margin,
    slope (by gradient, per gray level), slope_by_attack, distance (margin / slope, gray levels), gradient_l2,
    eigenvalue (per squared gray level), temperature and eigenvalue_matched (at the confidence of the baseline).
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
            attack = _attack(study, "pgd").with_(loss="margin")
            attacked = attack(classifier, images, labels, _middle(why.epsilons), seed=study.seed)
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
        return _kept(study, variant, "surface", rows, ["why/surface"], make, keys)

    return gather(study, measure)


def _middle(values):
    return values[len(values) // 2]


def temperatures(study: Study) -> dict[str, float]:
    """The temperature of each variant at which its mean clean confidence is the baseline's (1 for the baseline).

    On the probabilities of the validation split: they must not see the images that are then attacked.
    """
    images, _ = study.split("validation")
    logits = {}
    for variant in variants(study):
        logits[variant] = study.classifier(variant).logits(np.asarray(images[:], "float32"))
    wanted = surface.confidence(logits["baseline"]).mean()
    return {
        name: 1.0 if name == "baseline" else surface.matching_temperature(z, wanted)
        for name, z in logits.items()
    }


def matched(study: Study) -> pd.DataFrame:
    """Outcomes of the examined attack, as it is and at equal clean confidence, through each output the profile has.

    Columns: dataset, variant, seed, image_id, through, epsilon, correct, matched, temperature. The baseline's two are the
    same. Equal confidence is that of `temperatures`; only the attack sees it, predictions do not depend on it.
    """
    rows, entry = common(study), study.examined()
    entries = [
        other
        for other in study.profile.evaluation.attacks
        if (other.attack, other.norm) == (entry.attack, entry.norm)
    ]

    def measure(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            temperature, parts = temperatures(study)[variant], []
            for entry in entries:
                known = evaluation.outcomes_of_one(study, variant, entry)
                known = known[known["image_id"].isin(rows["image_id"])].assign(temperature=1.0)
                parts += [known.assign(matched=False)]
                if temperature == 1:
                    parts += [known.assign(matched=True)]
                    continue
                table = robust_accuracy(
                    surface.Tempered(study.trained(variant)[0], entry.through, temperature),
                    images,
                    labels,
                    study.attack(entry),
                    entry.epsilons or study.profile.evaluation.epsilons,
                    image_ids=rows["image_id"],
                    batch_size=study.profile.evaluation.batch_size,
                    seed=study.seed,
                )
                parts += [table.assign(through=entry.through, temperature=temperature, matched=True)]
            columns = ["image_id", "through", "epsilon", "correct", "matched", "temperature"]
            return pd.concat(parts, ignore_index=True)[columns]

        keys = [study.model_key(name) for name in ("baseline", variant)]
        entries_used = [entry.model_dump() for entry in entries]
        return _kept(study, variant, "matched", rows, ["why/surface"], make, keys, entries_used)

    return gather(study, measure)


def loss_planes(study: Study) -> dict[str, np.ndarray]:
    """By variant: the loss on a plane through each of a few images, (n, points, points), see `surface.plane`.

    The first direction is the variant's own PGD perturbation at the middle epsilon, the second a random sign per pixel.
    """
    why = study.profile.evaluation.why
    rows = masked(study).iloc[: why.plane_images]

    def planes(variant):
        path = study.directory(variant) / "why" / "planes.npy"
        key = artifacts.key_of(
            study.model_key(variant), rows["image_id"].tolist(), why.model_dump(),
            artifacts.code_key("attacks", "why/measured", "why/surface"),
        )  # fmt: skip

        def make(temporary):
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier = study.classifier(variant)
            adversarial = _attack(study, "pgd")(
                classifier, images, labels, _middle(why.epsilons), seed=study.seed
            )
            random = np.random.default_rng(study.seed).choice(np.float32([-1, 1]), images.shape)
            losses = surface.plane(
                classifier, images, labels, adversarial - images, random, max(why.epsilons), why.plane_points
            )
            with open(temporary, "wb") as file:
                np.save(file, losses)

        return artifacts.cached(path, key, make, np.load, **study.provenance(), variant=variant)

    return {variant: planes(variant) for variant in variants(study)}


def frequencies(study: Study) -> pd.DataFrame:
    """Perturbations by frequency, per image: dataset, variant, seed, image_id, source (gradient, pgd-linf, pgd-l2, noise),
    epsilon, cutoff (0: unfiltered), keep (low, high or all), correct, energy (the share that the filter leaves),
    mean_frequency and band0, band1, ... (shares of the energy, unfiltered rows only).
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
            epsilon = _middle(why.epsilons)
            note("noise", epsilon, _noise(study, images, epsilon) - images)
            for epsilon in why.epsilons:
                delta = _attack(study, "pgd")(classifier, images, labels, epsilon, seed=study.seed) - images
                note("pgd", epsilon, delta)
                for cutoff in CUTOFFS:
                    for keep in ("low", "high"):
                        note("pgd", epsilon, frequency.filtered(delta, cutoff, keep), cutoff, keep, delta)
            return pd.concat(tables, ignore_index=True)

        return _kept(study, variant, "frequency", rows, ["why/frequency", "why/surface"], make)

    return gather(study, measure)


def soundness(study: Study) -> pd.DataFrame:
    """Is the explanation sound, per image: dataset, variant, seed, image_id, map, against, rank_correlation.

    `against`: "logits", "attention block", "backbone, top", ... (the map after this and all above it were randomised), or
    "Grad-CAM++", "Score-CAM" (the same model's map by another method).
    """
    why = study.profile.evaluation.why
    rows = masked(study).iloc[: why.sanity_images]

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

        return _kept(study, variant, "sanity", rows, ["why/sanity"], make)

    return gather(study, measure)
