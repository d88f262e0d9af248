"""Attacks on Keras image classifiers, in pixel units, through logits or softmax.

attack = make_attack("pgd", norm="linf", steps=20)
adversarial = attack(Classifier(model), images, labels, epsilon=1.0, seed=0)
"""

from dataclasses import fields

from lib import StudyError
from lib.attacks.apgd import APGDCE, APGDDLR, APGDT
from lib.attacks.autoattack import AutoAttack
from lib.attacks.cw import CW
from lib.attacks.fab import FABT
from lib.attacks.gradient_attacks import BIM, FGSM, MIFGSM, PGD
from lib.attacks.gradients import Classifier, as_classifier
from lib.attacks.norms import L2, NORMS, Linf
from lib.attacks.patch import apply_patch, make_patch
from lib.attacks.square import Square
from lib.attacks.trust import trust

ATTACKS = {
    attack.name: attack for attack in (FGSM, BIM, MIFGSM, PGD, APGDCE, APGDDLR, APGDT, FABT, Square, CW, AutoAttack)
}

__all__ = [
    "APGDCE",
    "APGDDLR",
    "APGDT",
    "ATTACKS",
    "BIM",
    "CW",
    "FABT",
    "FGSM",
    "L2",
    "MIFGSM",
    "NORMS",
    "PGD",
    "AutoAttack",
    "Classifier",
    "Linf",
    "Square",
    "apply_patch",
    "as_classifier",
    "make_attack",
    "make_patch",
    "trust",
]


def make_attack(name, **params):
    """The attack of this name with these numbers, as in a profile: make_attack("pgd", norm="l2", steps=40).

    Raises StudyError for a name or a parameter that does not exist (and lists those that do), and for values
    that the attack refuses.
    """
    if name not in ATTACKS:
        raise StudyError(f"Unknown attack {name!r}; known are {', '.join(ATTACKS)}.")
    known = [field.name for field in fields(ATTACKS[name]) if field.name != "name"]
    for param in params:
        if param not in known:
            raise StudyError(f"Attack {name!r} has no parameter {param!r}; it has {', '.join(known)}.")
    return ATTACKS[name](**params)
