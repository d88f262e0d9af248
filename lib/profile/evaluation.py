"""The section `evaluation` of a profile: which attacks, at which budgets, and how closely networks are looked at."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of a profile: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Attack(Section):
    """One attack and the budgets it is run at; parameters go to `lib.attacks.make_attack`."""

    attack: Literal[
        "fgsm", "bim", "mi_fgsm", "pgd", "apgd_ce", "apgd_dlr", "apgd_t", "fab_t", "square", "cw", "autoattack"
    ]
    norm: Literal["linf", "l2"] = "linf"
    epsilons: list[Annotated[float, Field(gt=0)]] | None = None
    through: Literal["logits", "softmax"] = "logits"
    images: Positive | None = None  # a stratified subset of the attacked images, for slow attacks
    every_run: bool = False  # also in those runs that meet, with repeats: claims, little more than the headline attack
    parameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """A name that is unique within a profile and safe in file names."""
        return "-".join([self.attack, self.norm] + (["softmax"] if self.through == "softmax" else []))


class Trust(Section):
    """How hard the trust section tries; see `lib.attacks.trust`."""

    longer: Positive = 5  # times the steps, with two more restarts
    queries: Positive = 1000  # of the black-box attack, where the profile's own attacks hold none
    steps: Positive = 100  # of the attack with another loss


class Why(Section):
    """How much of 05_why is measured; see `lib.explain.measured`."""

    images: Positive = 100  # test images that each measure looks at
    epsilons: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [0.25, 1, 4]
    steps: Positive = 20  # of the attack that the measures are taken on
    sanity_images: Positive = 20

    @model_validator(mode="after")
    def epsilons_increase(self):
        if sorted(set(self.epsilons)) != self.epsilons:
            raise ValueError(f"epsilons must increase strictly, got {self.epsilons}")
        return self


class Evaluation(Section):
    """Threat model: epsilons in units of 1/255, that is, in gray levels of an image in [0, 255]."""

    images: Positive | None = None  # test images attacked per data set; null for all of them
    balanced: bool = False  # as many of each class, as far as they go; else in the test split's proportions
    epsilons: list[Annotated[float, Field(gt=0)]] = [0.03, 0.1, 0.25, 0.5, 1, 2, 4, 8]
    attacks: list[Attack]
    batch_size: Positive = 64
    headline: str = "autoattack-linf"  # the attack whose curve the claims are judged on
    gradcam_attack: str = "pgd-linf"  # the attack whose images Grad-CAM explains and the trust section examines
    trust_images: Positive = 100
    trust_epsilon: Annotated[float, Field(gt=0)] = 1
    trust: Trust = Trust()
    convergence_images: Positive | None = None  # that stand at trust_epsilon, for AutoAttack as it was published
    gradcam_images: Annotated[int, Field(ge=6)] = 12
    gradcam_shown: Annotated[int, Field(ge=6)] = 6
    gradcam_epsilon: Annotated[float, Field(gt=0)] = 1
    why: Why = Why()

    @model_validator(mode="after")
    def attacks_fit_together(self):
        if self.balanced and not self.images:
            raise ValueError("balanced shares out a number of images, which evaluation.images must name")
        names = [attack.name for attack in self.attacks]
        if len(set(names)) < len(names):
            raise ValueError("attacks lists the same attack, norm and output twice")
        for key in ("headline", "gradcam_attack"):
            if getattr(self, key) not in names:
                raise ValueError(f"{key} names {getattr(self, key)!r}, which is not among the attacks {names}")
        trusted = self.named(self.gradcam_attack)
        if self.trust_epsilon not in (trusted.epsilons or self.epsilons):
            raise ValueError(f"trust_epsilon must be one of the epsilons of {trusted.name}")
        for epsilons in [self.epsilons] + [attack.epsilons for attack in self.attacks if attack.epsilons]:
            if sorted(set(epsilons)) != epsilons:
                raise ValueError(f"epsilons must increase strictly, got {epsilons}")
        return self

    def named(self, name: str) -> Attack:
        """The entry of `attacks` with this name, such as `pgd-linf`."""
        return next(attack for attack in self.attacks if attack.name == name)

    @property
    def ensemble(self) -> Attack | None:
        """The headline attack if it is an AutoAttack on the terms of `gradcam_attack`, for the trust section."""
        headline, examined = self.named(self.headline), self.named(self.gradcam_attack)
        alike = (headline.norm, headline.through) == (examined.norm, examined.through)
        return headline if headline.attack == "autoattack" and alike else None
