"""Training on adversarial images: PGD-AT and TRADES, what a practitioner would use instead of attention."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from lib.attacks import Classifier, make_attack
from lib.attacks.base import Program, checked_problem, into_ball
from lib.attacks.gradients import value_and_gradient
from lib.attacks.norms import Linf, per_image
from lib.profile import Adversarial

# Standard deviation, in gray levels, of the noise TRADES starts from, as in its public code.
START = 0.001 * 255


def divergence(clean, adversarial):
    """KL(p(clean) || p(adversarial)) of logits (n, classes): shape (n,)."""
    clean, adversarial = ops.log_softmax(clean), ops.log_softmax(adversarial)
    return ops.sum(ops.exp(clean) * (clean - adversarial), axis=-1)


@keras.saving.register_keras_serializable("study")
class TradesLoss(keras.losses.Loss):
    """Cross-entropy of clean images plus beta KL(p(clean) || p(adversarial)) (Zhang et al. 2019, equation 5).

    Of logits (2n, classes) of n clean images and then of their n adversarial ones, with one-hot classes of the same
    shape. Gives a vector (2n,) whose mean is the mean of that sum over the n pairs: twice the cross-entropy in
    the first half, twice the divergence in the second.
    """

    def __init__(self, beta=6.0, name="trades", **kwargs):
        super().__init__(name=name, **kwargs)
        self.beta = beta

    def call(self, y_true, y_pred):
        n = ops.shape(y_pred)[0] // 2
        natural = keras.losses.categorical_crossentropy(y_true[:n], y_pred[:n], from_logits=True)
        return 2 * ops.concatenate([natural, self.beta * divergence(y_pred[:n], y_pred[n:])])

    def get_config(self):
        return super().get_config() | {"beta": self.beta}


@dataclass(frozen=True)
class DivergenceSteps(Program):
    """Signed gradient steps up the divergence from the clean images' logits, state["clean"]."""

    def step(self, classifier, problem, state, numbers, k):
        def objective(x):
            return divergence(state["clean"], classifier.logits_of(x)), ()

        *_, gradient = value_and_gradient(objective, state["x"])
        move = per_image(numbers["step"] * problem["epsilon"]) * Linf().direction(gradient)
        return {"x": Linf().inside(problem, state["x"] + move), "clean": state["clean"]}


class AdversarialTrainer:
    """Trains the weights of a compiled classifier on adversarial images.

    PGD-AT (Madry et al. 2018, equation 2.1) replaces every image of a batch by the last image of a PGD attack on its
    cross-entropy, whether that attack had won before or not. TRADES (Zhang et al. 2019, algorithm 1) shows the
    model each batch twice in one pass, clean and adversarial, where adversarial means far from the clean
    prediction. Both attack the model in inference mode, with the moving averages of its batch normalisation,
    that is, the model that is evaluated later. (The public code of both attacks in training mode.)

    The model's optimizer is used, and its state kept with the model. Random starts depend on (seed, epoch, batch).
    """

    def __init__(self, model: keras.Model, settings: Adversarial):
        self.settings = settings
        self.classifier = Classifier(model, float32=False)  # a copy would not be trained
        trades = settings.method == "trades"
        # The model without its softmax: it shares all weights, and logits lose nothing where the softmax saturates.
        self.network = self.classifier.network
        self.network.compile(
            model.optimizer,
            TradesLoss(settings.beta) if trades else keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=model.jit_compile,
        )
        self.attack = self._trades if trades else self._pgd

    def epoch(self, batches, seed: int, epoch: int) -> dict[str, float]:
        """One pass over `batches` of (images, one-hot classes, weights); mean loss and accuracy of what was trained on.

        For TRADES the accuracy is that over clean and adversarial images together.
        """
        results, sizes = [], []
        for batch in range(len(batches)):
            images, classes, weights = batches[batch]
            start = int(np.random.SeedSequence([seed, epoch, batch]).generate_state(1)[0])
            adversarial = self.attack(images, classes.argmax(axis=1), start)
            if self.settings.method == "trades":
                adversarial, classes, weights = (
                    np.concatenate(pair) for pair in ((images, adversarial), (classes, classes), (weights, weights))
                )
            results.append(self.network.train_on_batch(adversarial, classes, weights, return_dict=True))
            sizes.append(len(images))
        return {key: float(np.average([r[key] for r in results], weights=sizes)) for key in results[0]}

    def _pgd(self, images, labels, start):
        settings = self.settings
        attack = make_attack(
            "pgd",
            steps=settings.steps,
            path_length=settings.step_length * settings.steps / settings.epsilon,
            leave=False,  # an image that has fallen is pushed on: training wants the worst, not the first
        )
        return attack(self.classifier, images, labels, settings.epsilon, seed=start)

    def _trades(self, images, labels, start):
        settings = self.settings
        problem = checked_problem(self.classifier, images, labels, settings.epsilon)
        noise = np.random.default_rng(start).normal(0, START, images.shape)
        state = {"x": into_ball(Linf(), problem, images + noise), "clean": self.classifier.logits(images)}
        numbers = {
            "done": np.int32(0),
            "steps": np.int32(settings.steps),
            "step": np.float32(settings.step_length / settings.epsilon),
        }
        return self.classifier.run(DivergenceSteps(), problem.tensors(), state, numbers)["x"]
