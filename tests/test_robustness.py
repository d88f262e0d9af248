"""Robust accuracy per image and budget: closed form, bookkeeping, and the short cut against the long way."""

import keras
import numpy as np
import pytest
from test_attacks import CLASSES, SIZE, convolutional, linear_problem

from lib import StudyError
from lib.attacks import Classifier, make_attack, trust
from lib.attacks.base import Attack
from lib.attacks.gradient_attacks import PGD, GradientAttack
from lib.evaluation.robustness import robust_accuracy

GRID = (0.1, 0.3, 0.6, 1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def classifier():
    return Classifier(convolutional())


@pytest.fixture(scope="module")
def data(classifier):
    """Images and labels of which the first three are clean mistakes."""
    images = np.random.default_rng(4).integers(0, 256, (24, SIZE, SIZE, 3)).astype("float32")
    labels = classifier.predict(images)
    labels[:3] = (labels[:3] + 1) % CLASSES
    return images, labels


def curve(table):
    return table.groupby("epsilon")["correct"].mean()


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_linear_model_has_its_closed_form_curve(norm, dual):
    model, images, w, margins = linear_problem()
    smallest = margins / np.linalg.norm(w, dual)
    grid = np.quantile(smallest, [0.1, 0.5, 0.9]) * 1.01
    table = robust_accuracy(model, images, np.zeros(6, int), make_attack("bim", norm=norm), grid)
    expected = [(smallest > epsilon).mean() for epsilon in (0, *grid)]
    assert curve(table).tolist() == expected
    found = table[table.epsilon == 0].smallest_epsilon.to_numpy()
    fell = np.isfinite(found)
    assert (found[fell] >= smallest[fell] * 0.999).all()
    assert (found[fell] <= smallest[fell] * 1.1).all()


@pytest.mark.parametrize("name", ["pgd", "fgsm", "mi_fgsm"])
def test_table_is_tidy_and_curve_monotone(classifier, data, name):
    images, labels = data
    ids = [f"ISIC_{i}" for i in range(len(images))]
    table = robust_accuracy(classifier, images, labels, make_attack(name), GRID, image_ids=ids, batch_size=5)
    columns = ["image_id", "label", "attack", "norm", "epsilon", "correct", "predicted", "smallest_epsilon"]
    assert list(table.columns) == columns
    assert len(table) == len(images) * (len(GRID) + 1)
    assert not table.duplicated(["image_id", "epsilon"]).any()
    assert sorted(set(table.epsilon)) == [0, *GRID]
    assert (curve(table).diff().dropna() <= 0).all()
    assert 0 < curve(table).iloc[3] < curve(table).iloc[0]
    per_image = table.pivot_table(index="image_id", columns="epsilon", values="correct", aggfunc="first")
    assert (per_image.astype(int).diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    assert ((table.predicted == table.label) == table.correct).all()
    assert ((table.smallest_epsilon > table.epsilon * 1.0001 + 1e-4) == table.correct).all()


def test_clean_mistakes_are_never_attacked(classifier, data):
    images, labels = data
    attacked = []

    class Spy:
        name, steps, norm, batch_size = "spy", 20, make_attack("pgd").norm, 64

        def __call__(self, classifier, images, labels, epsilon, **_):
            attacked.append(len(images))
            return images

        def refinement(self):
            return None

    table = robust_accuracy(classifier, images, labels, Spy(), GRID)
    assert attacked == [21]
    mistakes = table[table.image_id.isin(["0", "1", "2"])]
    assert not mistakes.correct.any()
    assert (mistakes.smallest_epsilon == 0).all()
    assert table[~table.image_id.isin(["0", "1", "2"])].correct.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_search_changes_no_figure(classifier, data, norm):
    """Searching the budgets downwards finds what attacking at every budget finds, or more."""
    images, labels = data
    grid = np.array(GRID) * (1 if norm == "linf" else 15)
    attack = make_attack("pgd", norm=norm)
    search = robust_accuracy(classifier, images, labels, attack, grid)
    long_way = [classifier.predict(attack(classifier, images, labels, e)) == labels for e in (1e-6, *grid)]
    long_way = np.minimum.accumulate(np.array(long_way), axis=0).mean(axis=1)
    assert 0 < long_way[3] < 0.8
    assert (curve(search).to_numpy() <= long_way + 1e-9).all()
    assert (curve(search).to_numpy() >= long_way - 0.05).all()


def test_going_on_from_larger_budgets_saves_steps_and_hides_nothing(classifier, data, monkeypatch):
    """One step from what fell at the next larger budget: fewer gradients in all, and nobody stands who fell without."""
    images, labels = data
    grid = (*GRID, 64.0)  # where nobody stands
    steps, advance = [], Attack.advance

    def counted(self, classifier, program, problem, state, done, more):
        steps.append(len(problem) * more)
        return advance(self, classifier, program, problem, state, done, more)

    monkeypatch.setattr(Attack, "advance", counted)
    with_it = robust_accuracy(classifier, images, labels, make_attack("pgd"), grid)
    cost = sum(steps)
    steps.clear()
    monkeypatch.setattr(GradientAttack, "refinement", lambda self: None)
    without = robust_accuracy(classifier, images, labels, make_attack("pgd"), grid)
    assert cost < sum(steps)
    assert not (with_it.correct & ~without.correct).any()
    # An attack without gradients must not be helped by any.
    assert make_attack("square").refinement() is None
    assert make_attack("cw", norm="l2").refinement() is None


def test_an_image_that_is_missed_at_the_largest_budget_is_tried_at_all_others(classifier, data):
    """As where a softmax saturates: no gradient far from the image, and a good one near it."""
    images, labels = data

    class Saturates(PGD):
        def __call__(self, model, images, labels, epsilon, **options):
            found = super().__call__(model, images, labels, epsilon, **options)
            return np.where(np.asarray(epsilon).reshape(-1, 1, 1, 1) == GRID[-1], images, found)

    missed = robust_accuracy(classifier, images, labels, Saturates(), GRID)
    found = robust_accuracy(classifier, images, labels, PGD(), GRID[:-1])
    merged = missed.merge(found, on=["image_id", "epsilon"], suffixes=("", "_found"))
    assert found.correct.mean() < 0.9
    assert (merged.correct == merged.correct_found).mean() > 0.97


def test_single_steps_are_tried_at_every_budget(classifier, data):
    """FGSM may fail at a large budget where it succeeds at a small one: the curve holds every success."""
    images, labels = data
    attack, grid = make_attack("fgsm"), (0.5, 2.0, 64.0)
    table = robust_accuracy(classifier, images, labels, attack, grid)
    stands = np.ones(len(images), bool)
    for epsilon in grid:
        stands &= classifier.predict(attack(classifier, images, labels, epsilon)) == labels
        assert not (table[table.epsilon == epsilon].correct.to_numpy() & ~stands).any()


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_towards_a_class_a_linear_model_has_its_closed_form_too(norm, dual):
    """With two logits (0, w.x + b), the goal 1 is reached where the budget times the dual norm covers the margin."""
    model, images, w, margins = linear_problem()
    smallest = margins / np.linalg.norm(w, dual)
    grid = np.quantile(smallest, [0.1, 0.5, 0.9]) * 1.01
    labels, attack = np.zeros(6, int), make_attack("bim", norm=norm)
    table = robust_accuracy(model, images, labels, attack, grid, targets=np.ones(6, int))
    assert curve(table).tolist() == [(smallest > epsilon).mean() for epsilon in (0, *grid)]


def test_an_image_that_is_wrong_but_not_as_wanted_has_not_reached_its_goal(classifier, data):
    images, labels = data
    said = classifier.predict(images)
    goals = (said + 1 + (np.arange(len(said)) % (CLASSES - 1))) % CLASSES
    labels = (goals + 1) % CLASSES  # most are mistakes from the start, none of them the goal
    table = robust_accuracy(classifier, images, labels, make_attack("pgd"), GRID, targets=goals)
    clean = table[table.epsilon == 0]
    assert clean.correct.all()
    reached = table[(table.epsilon == GRID[-1]) & ~table.correct]
    assert len(reached)
    by_id = dict(zip(map(str, range(len(goals))), goals, strict=True))
    assert (reached.predicted == reached.image_id.map(by_id)).all()


def test_same_seed_same_table(classifier, data):
    images, labels = data
    attack = make_attack("pgd", steps=5)
    first, second = (robust_accuracy(classifier, images, labels, attack, GRID, seed=3) for _ in range(2))
    assert first.to_csv() == second.to_csv()


def test_softmax_saturation_shows(data):
    """Logits times 1e3: through the softmax the model looks robust, through the logits it is not."""
    model = convolutional()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 1e3, bias])
    images, _ = data
    labels = Classifier(model).predict(images)
    attack = make_attack("pgd", loss="margin")
    naive = robust_accuracy(Classifier(model, "softmax"), images, labels, make_attack("pgd"), (4.0,))
    right = robust_accuracy(Classifier(model), images, labels, attack, (4.0,))
    assert curve(naive)[4.0] > 0.8
    assert curve(right)[4.0] < 0.2


# Trust: a deliberately gradient-masked model must be caught


def masked_model():
    """Logits times 1e4 into the softmax, on quantised input: a weak model whose gradients say nothing."""
    model = convolutional()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 1e4, bias * 1e4])
    inputs = keras.Input((SIZE, SIZE, 3))
    quantised = keras.layers.Lambda(lambda x: keras.ops.round(x / 4) * 4)(inputs)
    network = keras.Model(model.inputs, [model.get_layer("logits").output, model.output])
    logits, _ = network(quantised)
    logits = keras.layers.Identity(name="logits")(logits)
    return keras.Model(inputs, keras.layers.Softmax()(logits))


def test_masked_gradients_are_exposed(data):
    """A naive PGD calls the masked model robust; the checks say otherwise, and autoattack breaks it."""
    model = masked_model()
    masked, right = Classifier(model, through="softmax"), Classifier(model)
    images, _ = data
    labels = masked.predict(images)
    pgd = make_attack("pgd", random_start=False)
    assert curve(robust_accuracy(masked, images, labels, pgd, (6.0,)))[6.0] == 1.0
    table = trust(masked, images, labels, 6.0, attack=pgd, queries=300).set_index("check")
    assert list(table.columns) == ["passed", "value", "sentence"]
    assert not table.passed["large budget"]
    assert not table.passed["black box"]
    assert not table.passed["input gradient"]
    assert table.value["input gradient"] == 1.0
    assert table.passed["deterministic"]
    attack = make_attack("autoattack", steps=5, queries=600)
    assert curve(robust_accuracy(right, images, labels, attack, (6.0,)))[6.0] < 0.4


def test_sound_models_are_trusted(classifier, data):
    images, _ = data
    labels = classifier.predict(images)
    attack = make_attack("pgd", steps=40, restarts=2, loss="margin")
    table = trust(classifier, images, labels, 0.5, attack=attack, surrogates=[convolutional(1)], queries=200)
    assert table.passed.all(), table[~table.passed]
    assert "transfer" in set(table.check)
    assert table.sentence.str.endswith(".").all()


def test_an_ensemble_cut_short_is_held_against_a_fuller_one(classifier, data):
    """Who stands after one step of it, at a budget at which the published ensemble leaves fewer."""
    images, _ = data
    labels = classifier.predict(images)
    short = make_attack("autoattack", steps=1, queries=1, target_classes=1)

    def standing(attack, epsilon):
        return (classifier.predict(attack(classifier, images, labels, epsilon)) == labels).mean()

    gaps = ((epsilon, standing(short, epsilon) - standing(short.fuller(100), epsilon)) for epsilon in (1.2, 0.8, 1.6))
    epsilon, gap = next(pair for pair in gaps if pair[1] > 0.02)
    table = trust(classifier, images, labels, epsilon, ensemble=short, longer=100, queries=3, steps=2)
    table = table.set_index("check")
    assert table.value["longer ensemble"] == pytest.approx(gap)
    assert not table.passed["longer ensemble"]
    published = make_attack("autoattack")
    assert short.fuller(100).steps == published.steps == published.fuller(5).steps
    assert short.fuller(3).queries == 3
    assert "longer ensemble" not in set(
        trust(classifier, images, labels, 0.5, ensemble=published, queries=3, steps=2).check
    )


def test_a_model_that_gets_everything_wrong_is_examined_all_the_same(classifier, data):
    images, _ = data
    labels = (classifier.predict(images) + 1) % CLASSES
    table = robust_accuracy(classifier, images, labels, make_attack("pgd", steps=2), GRID)
    assert not table.correct.any()
    checks = trust(classifier, images, labels, 0.5, attack=make_attack("pgd", steps=2), queries=3, steps=2)
    assert (checks.set_index("check").value[["large budget", "single step", "black box", "more steps"]] == 0).all()


def test_what_is_known_is_not_run_again(classifier, data):
    """Outcomes handed over decide the checks: here a made-up black box that fools what PGD does not."""
    images, _ = data
    labels = classifier.predict(images)
    stands = np.arange(len(labels)) % 2 == 0
    known = {"pgd": np.ones(len(labels), bool), "square": stands, "fgsm": stands, "apgd_dlr": stands}
    table = trust(classifier, images, labels, 0.5, attack=make_attack("pgd"), known=known, longer=1)
    values = table.set_index("check").value
    assert values[["black box", "single step", "other loss"]].tolist() == [0.5] * 3
    assert not table.set_index("check").passed[["black box", "single step", "other loss"]].any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilons": []}, "epsilons must be one or more"),
        ({"epsilons": [0.0, 1.0]}, "above 0"),
        ({"image_ids": ["a"] * 24}, "different names"),
    ],
)
def test_bad_input_is_refused(classifier, data, change, sentence):
    images, labels = data
    with pytest.raises(StudyError, match=sentence):
        robust_accuracy(classifier, images, labels, make_attack("pgd"), **({"epsilons": GRID} | change))
