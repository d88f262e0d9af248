"""Can this evaluation be trusted? Checks after Carlini et al. 2019 ("On evaluating adversarial robustness",
sections 4 and 5) and Athalye et al. 2018 ("Obfuscated gradients give a false sense of security", section
3.1). A model whose gradients are masked looks robust to attacks that follow them; each check looks for one
sign of that."""

import numpy as np
import pandas as pd

from lib.attacks.apgd import APGDDLR
from lib.attacks.base import checked_problem
from lib.attacks.gradient_attacks import FGSM, PGD
from lib.attacks.gradients import as_classifier
from lib.attacks.patch import InputGradient
from lib.attacks.square import Square

VANISHED = 1e-12  # largest derivative by any pixel below which a gradient says nothing


def trust(
    model,
    images,
    labels,
    epsilon,
    *,
    attack=None,
    ensemble=None,
    surrogates=(),
    known=None,
    longer=5,
    queries=1000,
    steps=100,
    tolerance=0.02,
    seed=0,
):
    """Checks of a white-box attack on a model, as a DataFrame: check, passed, value, sentence.

    Parameters
    ----------
    model : Keras model or Classifier, through what the evaluation attacks it.
    images : (n, H, W, C) in [0, 255].  labels : int (n,).  epsilon : the budget looked at, in pixel units.
    attack : the gradient attack under question (`lib.attacks.PGD` in L-inf when None).
    ensemble : an AutoAttack under question as well, of `attack`'s norm; none, no check, and none where it has the
        published numbers.
    surrogates : other models, on which the attack's examples are made for the transfer check; none, no check.
    known : what is known already, by name of an attack: bool (n,), which images stand after it at this budget.
        Looked up are the attack's own name, "fgsm", "square" and "apgd_dlr"; what is missing is run.
    longer : how many times the steps, with two more restarts, the attack is run for the "more steps" check, and how
        many times the steps and queries, up to the published ones, the ensemble for "longer ensemble".
    queries : of the black-box attack.  steps : of the APGD with another loss.
    tolerance : share of images by which another attack may be ahead.

    A value is a share of all images, but for the accuracy at a large budget and the difference in logits.
    """
    classifier = as_classifier(model)
    attack = PGD() if attack is None else attack
    labels = np.asarray(labels)
    norm = attack.norm
    everything = 128.0 if norm.name == "linf" else 128.0 * np.sqrt(np.prod(images.shape[1:]))
    examine = Examination(classifier, images, labels, epsilon, seed, known or {})
    stands = examine.stands(attack)
    rows = []

    def share(name, value, sentence):
        rows.append((name, bool(value <= tolerance), float(value), sentence))

    left = examine.stands_after(attack, examine.correct, everything).mean()
    share("large budget", left, f"At a budget of half the range {left:.0%} stand; a sound attack leaves none.")
    ahead = (stands & ~examine.stands(FGSM(norm=norm))).mean()
    share(
        "single step", ahead, f"A single step fools {ahead:.0%} that the iterative attack does not; expected are none."
    )
    black = (stands & ~examine.stands(Square(norm=norm, steps=queries), stands)).mean()
    share("black box", black, f"Without any gradient, random search fools another {black:.0%}; expected are none.")
    for number, surrogate in enumerate(surrogates, 1):
        adversarial = attack.with_(leave=False)(surrogate, images, labels, epsilon, seed=seed)
        moved = (stands & (classifier.predict(adversarial) != labels)).mean()
        name = f"transfer {number}" if len(surrogates) > 1 else "transfer"
        share(name, moved, f"Examples made on another model fool another {moved:.0%}; expected are none.")
    more = attack.with_(steps=longer * attack.steps, restarts=attack.restarts + 2)
    gain = (stands & ~examine.stands_after(more, stands)).mean()
    said = f"{longer} times the steps and two more restarts fool another {gain:.0%}; a converged attack gains none."
    share("more steps", gain, said)
    if ensemble is not None and (fuller := ensemble.fuller(longer)) != ensemble:
        left = examine.stands(ensemble)
        gain = (left & ~examine.stands_after(fuller, left)).mean()
        said = (
            f"AutoAttack with {fuller.steps} steps, {fuller.queries} queries and up to {fuller.target_classes} targets "
        )
        said += f"fools another {gain:.0%}; one that was cut short without loss leaves none."
        share("longer ensemble", gain, said)
    other = (stands & ~examine.stands(APGDDLR(norm=norm, steps=steps), stands)).mean()
    said = f"APGD on a loss that ignores the logits' scale fools another {other:.0%} of what {attack.name} leaves (the "
    said += "ensemble has such a loss itself); sound gradients leave it little."
    share("other loss", other, said)
    dead = examine.vanished_gradients()
    said = f"The input gradient vanishes on {dead:.0%} of the images; attacks that follow it go nowhere there."
    share("input gradient", dead, said)
    noise = float(np.abs(classifier.logits(images) - classifier.logits(images)).max())
    said = f"The same images twice give logits that differ by up to {noise:.1g}; a deterministic model gives 0."
    rows.append(("deterministic", noise <= 1e-3, noise, said))
    return pd.DataFrame(rows, columns=["check", "passed", "value", "sentence"])


class Examination:
    """The images under examination, and who of them stands after an attack."""

    def __init__(self, classifier, images, labels, epsilon, seed, known):
        self.classifier, self.images, self.labels = classifier, np.asarray(images, "float32"), labels
        self.epsilon, self.seed, self.known = epsilon, seed, known
        self.correct = classifier.predict(self.images) == labels

    def stands(self, attack, candidates=None):
        """Who stands after an attack at the budget looked at, from what is known if it is."""
        if attack.name in self.known:
            return np.asarray(self.known[attack.name], bool)
        return self.stands_after(attack, self.correct if candidates is None else candidates)

    def stands_after(self, attack, candidates, epsilon=None):
        """Of the candidates, bool (n,), those that an attack does not fool."""
        rows = np.flatnonzero(candidates)
        epsilon = self.epsilon if epsilon is None else epsilon
        x = attack(self.classifier, self.images[rows], self.labels[rows], epsilon, seed=self.seed, index=rows)
        stands = np.zeros(len(self.images), bool)
        stands[rows] = self.classifier.predict(x) == self.labels[rows]
        return stands

    def vanished_gradients(self):
        """Share of images on which the gradient of the cross-entropy is zero, tiny or not finite."""
        vanished = []
        for first in range(0, len(self.images), 16):
            rows = slice(first, first + 16)
            problem = checked_problem(self.classifier, self.images[rows], self.labels[rows], 0.0)
            gradient = np.abs(self.classifier.run(InputGradient(), problem.tensors())).max(axis=(1, 2, 3))
            vanished.append(~np.isfinite(gradient) | (gradient < VANISHED))
        return np.concatenate(vanished).mean()
