"""AutoAttack (Croce and Hein 2020a, section 5): APGD on the cross-entropy, targeted APGD on the DLR, targeted
FAB and Square, in this order, each on what still stands, with the state on disk."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.attacks.apgd import APGDCE, APGDT
from lib.attacks.base import Attack, checked_problem, fallen
from lib.attacks.fab import FABT
from lib.attacks.gradient_attacks import long_step
from lib.attacks.gradients import as_classifier
from lib.attacks.square import Square


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The standard ensemble with the standard numbers, untargeted or towards given targets.

    `steps`: of APGD and FAB. `queries`: of Square. `target_classes`: tried by the targeted attacks; with two
    classes there is one, and the margin takes the place of the DLR, which two classes do not have.
    `state`: folder in which each call keeps how far it is; a call that was killed and is made again with the
    same model, images and numbers continues after its last finished attack.
    """

    name: str = "autoattack"
    steps: int = 100
    queries: int = 5000
    target_classes: int = 9
    state: str | None = None

    def refinement(self):
        return long_step(self)

    def fuller(self, times: int) -> "AutoAttack":
        """The same with so many times the steps and queries, at most the published ones, and all published targets."""
        published = AutoAttack()
        return self.with_(
            steps=max(self.steps, min(times * self.steps, published.steps)),
            queries=max(self.queries, min(times * self.queries, published.queries)),
            target_classes=max(self.target_classes, published.target_classes),
        )

    def ensemble(self):
        """The attacks, in order."""
        common = {"norm": self.norm, "leave": self.leave, "batch_size": self.batch_size}
        return (
            APGDCE(steps=self.steps, restarts=self.restarts, **common),
            APGDT(steps=self.steps, target_classes=self.target_classes, **common),
            FABT(steps=self.steps, target_classes=self.target_classes, **common),
            Square(steps=self.queries, **common),
        )

    def __call__(self, model, images, labels, epsilon, start=None, seed=0, *, targets=None, index=None, progress=None):
        classifier = as_classifier(model)
        problem = checked_problem(classifier, images, labels, epsilon, targets, index)
        targeted = targets is not None
        attacks = self.ensemble()
        file = self.state_file(classifier, problem, targeted, start, seed)
        adversarial, done = load(file, problem.images)
        for number, attack in enumerate(attacks[done:], start=done):
            rows = np.flatnonzero(~fallen(classifier.predict(adversarial, self.batch_size), problem, targeted))
            if not len(rows):
                break
            here = problem[rows]
            begun = None if start is None or number else np.asarray(start)[rows]
            options = {"start": begun, "seed": seed, "targets": here.targets if targeted else None, "index": here.index}
            adversarial[rows] = attack(classifier, here.images, here.labels, here.epsilon, **options)
            save(file, adversarial, number + 1)
            if progress:
                progress(number + 1, len(attacks))
        return adversarial

    def state_file(self, classifier, problem, targeted, start, seed):
        """Where this call keeps its state: a name made of all that its result depends on. None without."""
        if self.state is None:
            return None
        digest = hashlib.blake2b(classifier.fingerprint(), digest_size=16)
        numbers = self.with_(state=None, batch_size=1)
        digest.update(repr((numbers, classifier.through, targeted, seed)).encode())
        for array in (*vars(problem).values(), np.zeros(0) if start is None else np.asarray(start)):
            digest.update(np.ascontiguousarray(array))
        return Path(self.state) / f"{digest.hexdigest()}.npz"


def load(file, images):
    """Adversarial images so far and the number of attacks done; the images and 0 at first."""
    if file is None or not file.exists():
        return images.copy(), 0
    with np.load(file) as saved:
        return saved["adversarial"], int(saved["done"])


def save(file, adversarial, done):
    """Write the state in one move, so that a kill at any moment leaves the old or the new one."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new.npz")
    np.savez(new, adversarial=adversarial, done=done)
    os.replace(new, file)
