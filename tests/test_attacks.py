"""Attacks: against ART on the same Keras model, against closed forms of linear models, and invariants."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import StudyError
from lib.attacks import ATTACKS, Classifier, apply_patch, make_attack, make_patch
from lib.attacks.base import checked_problem
from lib.attacks.networks import logits_of

SIZE, CLASSES = 12, 4
GRADIENT_ATTACKS = ("fgsm", "bim", "mi_fgsm", "pgd")


def convolutional(seed=0):
    """A small random model with batch normalisation and dropout, ending in logits and softmax."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="tanh")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(12, 3, activation="tanh")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    logits = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, keras.layers.Softmax()(logits))


def linear(weights, bias, ending="logits"):
    """A linear model of flattened pixels, with one of the endings that real models have."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(inputs)
    units = weights.shape[1]
    if ending == "activation":
        x = keras.layers.Dense(units, activation="softmax", name="last")(x)
    else:
        x = keras.layers.Dense(units, name=ending)(x)
        x = keras.layers.Softmax()(x) if ending != "bare" else x
    model = keras.Model(inputs, x)
    next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).set_weights([weights, bias])
    return model


@pytest.fixture(scope="module")
def classifier():
    return Classifier(convolutional())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (21, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def labels(classifier, images):
    return classifier.predict(images)


def norms_of(norm, delta):
    """Norms of perturbations, by NumPy in float64."""
    order = {"linf": np.inf, "l2": 2}[norm]
    return np.linalg.norm(delta.astype("float64").reshape(len(delta), -1), order, axis=1)


def linear_problem(scale=0.01):
    """A two-class linear model, images of class 0 well inside the range, and w = w1 - w0."""
    generator = np.random.default_rng(2)
    weights = generator.normal(0, scale, (SIZE * SIZE * 3, 2)).astype("float32")
    images = generator.uniform(100, 150, (6, SIZE, SIZE, 3)).astype("float32")
    w = (weights[:, 1] - weights[:, 0]).astype("float64")
    rises = images.reshape(6, -1).astype("float64") @ w
    bias = np.array([rises.max() + 1.0, 0.0], "float32")
    margins = bias[0].astype("float64") - rises
    return linear(weights, bias), images, w, margins


# Agreement with other people's code and with closed forms


def art_attack(name, classifier, epsilon):
    evasion = pytest.importorskip("art.attacks.evasion")
    estimators = pytest.importorskip("art.estimators.classification")
    estimator = estimators.TensorFlowV2Classifier(
        model=classifier.network,
        nb_classes=CLASSES,
        input_shape=(SIZE, SIZE, 3),
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 255),
    )
    if name == "fgsm":
        return evasion.FastGradientMethod(estimator, eps=epsilon, batch_size=64)
    if name == "bim":
        return evasion.BasicIterativeMethod(
            estimator, eps=epsilon, eps_step=epsilon / 10, max_iter=10, batch_size=64, verbose=False
        )
    return evasion.ProjectedGradientDescent(
        estimator,
        norm={"pgd": np.inf, "pgd-l2": 2}[name],
        eps=epsilon,
        eps_step=2.5 * epsilon / 20,
        max_iter=20,
        num_random_init=0,
        batch_size=64,
        verbose=False,
    )


@pytest.mark.parametrize(("name", "epsilon"), [("fgsm", 4.0), ("bim", 4.0), ("pgd", 4.0), ("pgd-l2", 60.0)])
def test_agrees_with_art(classifier, images, labels, name, epsilon):
    """To 1e-4 of a pixel on 99.9 % of pixels; the sign of a gradient of about 0 is a matter of rounding."""
    if name == "pgd-l2":  # ART clips to [0, 255] before it projects, we after: keep off the limits
        images = np.clip(images, 60, 190)
    art = art_attack(name, classifier, epsilon).generate(images, labels)
    params = {"random_start": False} if name.startswith("pgd") else {}
    params |= {"norm": "l2"} if name == "pgd-l2" else {}
    ours = make_attack(name.removesuffix("-l2"), leave=False, **params)(classifier, images, labels, epsilon)
    assert np.abs(art - images).max() > epsilon / 50
    assert np.mean(np.abs(ours - art) <= 1e-4) >= 0.999


def test_mi_fgsm_is_dongs_algorithm(classifier, images, labels):
    """Algorithm 1 of Dong et al. written out in float64 around TensorFlow's gradient."""
    x, g = images.astype("float64"), 0.0
    for _ in range(10):
        with tf.GradientTape() as tape:
            pixels = tf.constant(x, tf.float32)
            tape.watch(pixels)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, classifier.network(pixels))
        gradient = tape.gradient(loss, pixels).numpy().astype("float64")
        g = 1.0 * g + gradient / np.abs(gradient).sum(axis=(1, 2, 3), keepdims=True)
        x = np.clip(x + 4.0 / 10 * np.sign(g), 0, 255)
    ours = make_attack("mi_fgsm", leave=False)(classifier, images, labels, 4.0)
    assert np.mean(np.abs(ours - x) <= 1e-4) >= 0.999


def apgd_by_hand(classifier, images, labels, epsilon, n):
    """The last iterates of algorithm 1 of Croce and Hein 2020a on the cross-entropy, L-inf, from the images, and how
    often a step size was halved, in the order of the authors' code."""

    def loss_and_gradient(x):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = classifier.network(x, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return loss.numpy(), tape.gradient(loss, x).numpy()

    def inside(x):
        return np.clip(np.clip(x, images - epsilon, images + epsilon), 0, 255)

    period, least, less = max(int(0.22 * n), 1), max(int(0.06 * n), 1), max(int(0.03 * n), 1)
    x = previous = best = images
    loss, gradient = loss_and_gradient(x)
    best_loss, best_gradient, losses = loss.copy(), gradient.copy(), [loss]
    size = np.full((len(x), 1, 1, 1), 2 * epsilon, "float32")
    checked_loss, halved, halvings, since = best_loss.copy(), np.ones(len(x), bool), 0, 0
    for i in range(n):
        momentum, previous = x - previous, x
        a = 0.75 if i else 1.0
        x = inside(x + a * (inside(x + size * np.sign(gradient)) - x) + (1 - a) * momentum)
        loss, gradient = loss_and_gradient(x)
        losses.append(loss)
        better = (loss > best_loss)[:, None, None, None]
        best_loss = np.maximum(loss, best_loss)
        best, best_gradient = np.where(better, x, best), np.where(better, gradient, best_gradient)
        since += 1
        if since == period and i + 1 < n:
            rises = np.sum([losses[-k] > losses[-k - 1] for k in range(1, period + 1)], axis=0)
            halve = (rises <= 0.75 * period) | (~halved & (checked_loss >= best_loss))
            checked_loss, halved, where = best_loss.copy(), halve, halve[:, None, None, None]
            size = np.where(where, size / 2, size)
            x, gradient = np.where(where, best, x), np.where(where, best_gradient, gradient)
            halvings += halve.sum()
            since, period = 0, max(period - less, least)
    return x, halvings


def test_apgd_is_algorithm_1_also_after_its_steps_were_halved(classifier, images, labels):
    n, epsilon = 30, 100.0
    attack = make_attack("apgd_ce", steps=n, leave=False)
    problem = checked_problem(classifier, images, labels, epsilon)
    ours = attack.attempt(classifier, problem, images, False, 0)
    by_hand, halvings = apgd_by_hand(classifier, images, labels, epsilon, n)
    assert halvings > 2 * len(images)
    agree = (np.abs(ours - by_hand) < 1e-2).mean(axis=(1, 2, 3))
    # A sign that flips where the gradient is all but 0 sends a pixel, and then its image, another way.
    assert np.median(agree) > 0.99
    assert agree.mean() > 0.9


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_linear_model_falls_at_its_margin(name, norm, dual):
    """On a linear model the smallest perturbation has size margin / dual norm of w."""
    model, images, w, margins = linear_problem()
    classifier, labels = Classifier(model), np.zeros(6, int)
    smallest = margins / np.linalg.norm(w, dual)
    attack = make_attack(name, norm=norm)
    assert (classifier.predict(attack(classifier, images, labels, smallest * 0.98)) == 0).all()
    assert (classifier.predict(attack(classifier, images, labels, smallest * 1.02)) == 1).all()


# The ensemble and the minimal attacks

STRONG = ("apgd_ce", "apgd_dlr", "autoattack")
QUICK = {
    "apgd_ce": {"steps": 30},
    "apgd_dlr": {"steps": 30},
    "apgd_t": {"steps": 30},
    "fab_t": {"steps": 30},
    "cw": {"steps": 60, "searches": 4},
    "autoattack": {"steps": 20, "queries": 50},
}


@pytest.mark.parametrize("name", ["apgd_ce", "apgd_t", "fab_t"])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_strong_attacks_find_the_margin_of_a_linear_model(name, norm, dual):
    """With two classes the DLR is the margin; just above it every attack succeeds, below it none can."""
    model, images, w, margins = linear_problem()
    classifier, labels = Classifier(model), np.zeros(6, int)
    smallest = margins / np.linalg.norm(w, dual)
    attack = make_attack(name, norm=norm, **QUICK[name])
    assert (classifier.predict(attack(classifier, images, labels, smallest * 0.99)) == 0).all()
    assert (classifier.predict(attack(classifier, images, labels, smallest * 1.01)) == 1).all()


@pytest.mark.parametrize(("name", "norm", "dual"), [("fab_t", "linf", 1), ("fab_t", "l2", 2), ("cw", "l2", 2)])
def test_minimal_attacks_find_the_smallest_perturbation(name, norm, dual):
    model, images, w, margins = linear_problem()
    smallest = margins / np.linalg.norm(w, dual)
    far = smallest > smallest.max() / 4  # CW's Adam moves in steps of about 1 pixel
    params = {"fab_t": {"leave": False}, "cw": {"steps": 150}}[name]
    attack = make_attack(name, norm=norm, **params)
    adversarial = attack(Classifier(model), images, np.zeros(6, int), 1e4)
    ratio = norms_of(norm, adversarial - images) / smallest
    assert (ratio > 0.9999).all()
    assert (ratio[far] < 1.02).all()


def test_projection_to_a_hyperplane_is_the_smallest_move():
    """Against SciPy's linear and quadratic programming, with pixels that meet the range."""
    optimize = pytest.importorskip("scipy.optimize")
    from lib.attacks.fab import to_hyperplane
    from lib.attacks.norms import NORMS

    generator = np.random.default_rng(7)
    x = generator.uniform(0, 255, 12)
    w = generator.normal(0, 1, 12)
    low, high = -x, 255 - x
    rise = 0.8 * np.sum(np.where(w > 0, w * high, w * low))  # most pixels must go to the limit
    shape = (1, 2, 2, 3)
    arguments = (x.reshape(shape).astype("float32"), w.reshape(shape).astype("float32"))
    ours = {
        name: np.asarray(to_hyperplane(norm, *arguments, np.array([rise], "float32"))).ravel()
        for name, norm in NORMS.items()
    }
    # min t subject to -t <= delta <= t, w delta = rise, low <= delta <= high
    identity, ones = np.eye(12), np.ones((12, 1))
    program = optimize.linprog(
        [0.0] * 12 + [1.0],
        A_ub=np.block([[identity, -ones], [-identity, -ones]]),
        b_ub=np.zeros(24),
        A_eq=[[*w, 0.0]],
        b_eq=[rise],
        bounds=[*zip(low, high, strict=True), (0, None)],
    )
    np.testing.assert_allclose(np.abs(ours["linf"]).max(), program.fun, rtol=1e-4)
    quadratic = optimize.minimize(
        lambda delta: delta @ delta,
        np.zeros(12),
        jac=lambda delta: 2 * delta,
        bounds=[*zip(low, high, strict=True)],
        constraints={"type": "eq", "fun": lambda delta: w @ delta - rise, "jac": lambda _: w},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    np.testing.assert_allclose(np.linalg.norm(ours["l2"]), np.sqrt(quadratic.fun), rtol=1e-4)
    for delta in ours.values():
        np.testing.assert_allclose(w @ delta, rise, rtol=1e-4)
        assert (delta >= low - 1e-3).all()
        assert (delta <= high + 1e-3).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_needs_no_gradient(classifier, images, labels, norm):
    """Square beats random starts by far, though it never sees a gradient."""
    epsilon = {"linf": 6.0, "l2": 100.0}[norm]
    square = make_attack("square", norm=norm, steps=600)(classifier, images, labels, epsilon)
    noise = make_attack("square", norm=norm, steps=1)(classifier, images, labels, epsilon)
    stands = (classifier.predict(square) == labels).mean()
    assert stands < (classifier.predict(noise) == labels).mean() - 0.3
    assert norms_of(norm, square - images).max() <= epsilon * (1 + 1e-5) + 2e-4


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_strong_attacks_keep_within_the_ball(classifier, images, labels, name, norm):
    epsilon = {"linf": 1.5, "l2": 25.0}[norm]
    attack = make_attack(name, norm=norm, **QUICK[name])
    adversarial = attack(classifier, images, labels, epsilon, seed=3)
    assert np.isfinite(adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 255
    assert norms_of(norm, adversarial - images.astype("float64")).max() <= epsilon * (1 + 1e-5) + 2e-4
    np.testing.assert_array_equal(adversarial, attack(classifier, images, labels, epsilon, seed=3))


def test_ensemble_is_at_least_as_strong_as_its_parts(classifier, images, labels):
    def stands(name, **params):
        return classifier.predict(make_attack(name, **params)(classifier, images, labels, 1.0)) == labels

    together = stands("autoattack", steps=30, queries=50)
    assert 0 < together.mean() < 1
    for name in ("apgd_ce", "apgd_t", "fab_t", "pgd"):
        assert not (together & ~stands(name, steps=30)).any()


def test_killed_ensemble_continues(classifier, images, labels, tmp_path, monkeypatch):
    """After a kill within FAB, APGD is not run again, and the result is that of an undisturbed run."""
    from lib.attacks import APGDCE, FABT

    attack = make_attack("autoattack", steps=10, queries=20)
    whole = attack(classifier, images, labels, 1.0)
    attack = attack.with_(state=str(tmp_path))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FABT, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            attack(classifier, images, labels, 1.0)
    monkeypatch.setattr(APGDCE, "__call__", killed)
    np.testing.assert_array_equal(attack(classifier, images, labels, 1.0), whole)
    with pytest.raises(KeyboardInterrupt):  # another budget is another run
        attack(classifier, images, labels, 1.1)


def test_dlr_does_not_depend_on_the_scale_of_logits(images):
    """APGD on the DLR breaks logits times 1e4, where the cross-entropy has no gradient left."""
    model = convolutional()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 1e4, bias * 1e4])
    masked = Classifier(model)
    labels = masked.predict(images)

    def stands(name):
        adversarial = make_attack(name, steps=30)(masked, images, labels, 6.0)
        return (masked.predict(adversarial) == labels).mean()

    assert stands("apgd_dlr") < 0.3 < 0.7 < stands("pgd")


def test_patch_fools_images_it_has_not_seen(classifier):
    """A patch learnt on some images carries others to its class; a patch of noise does not."""
    images = np.random.default_rng(8).integers(0, 256, (96, SIZE, SIZE, 3)).astype("float32")
    labels, target = classifier.predict(images), 1
    patch = make_patch(classifier, images[:64], labels[:64], target, share=0.25, steps=100)
    assert patch.shape == (SIZE // 2, SIZE // 2, 3)
    assert 0 <= patch.min() <= patch.max() <= 255
    noise = np.random.default_rng(0).uniform(0, 255, patch.shape)

    def reached(patch):
        return (classifier.predict(apply_patch(images[64:], patch)) == target).mean()

    assert reached(patch) > reached(noise) + 0.25
    outside = apply_patch(images, patch) == images
    assert outside.all(axis=-1).mean() >= 0.74


# What an attack sees


@pytest.mark.parametrize("ending", ["logits", "other_name", "activation", "bare"])
def test_logits_are_reached_whatever_the_ending(ending, images):
    generator = np.random.default_rng(3)
    weights = generator.normal(0, 0.01, (SIZE * SIZE * 3, 3)).astype("float32")
    bias = np.array([1, 2, 3], "float32")
    expected = images.reshape(len(images), -1) @ weights + bias
    np.testing.assert_allclose(Classifier(linear(weights, bias, ending)).logits(images), expected, rtol=1e-3)


def test_unreachable_logits_are_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="sigmoid")(keras.layers.Flatten()(inputs)))
    with pytest.raises(StudyError, match="2 separate sigmoids"):
        logits_of(model)


def test_softmax_hides_the_gradient_of_confident_images():
    """Keras' cross-entropy clips probabilities to 1 - 1e-7: a confident image gives no gradient."""
    model, images, w, margins = linear_problem(scale=0.03)
    assert 30 < margins.max() < 80
    confident = margins > 16.2  # log(1e7)
    labels, epsilon = np.zeros(6, int), margins / np.abs(w).sum() * 1.5
    attack = make_attack("pgd", random_start=False)
    right, hidden = Classifier(model), Classifier(model, through="softmax")
    assert (right.predict(attack(right, images, labels, epsilon)) == 1).all()
    adversarial = attack(hidden, images, labels, epsilon)
    np.testing.assert_array_equal(adversarial[confident], images[confident])
    assert (right.predict(adversarial[~confident]) == 1).all()


def test_odd_batch_sizes_are_not_traced_anew(images, labels, classifier):
    fresh, traces = Classifier(classifier.model), []
    network = fresh.computed
    fresh.computed = lambda x, training: (traces.append(1), network(x, training=training))[1]
    attack = make_attack("bim", leave=False)
    attack(fresh, images, labels, 1.0)
    first = len(traces)
    for n in (1, 5, 20):
        attack.with_(steps=n)(fresh, images[:n], labels[:n], 1.0)
    assert len(traces) == first > 0


# Invariants over random input


@settings(max_examples=12)
@given(
    name=st.sampled_from(GRADIENT_ATTACKS),
    norm=st.sampled_from(["linf", "l2"]),
    log_epsilon=st.floats(-3, 2),
    seed=st.integers(0, 2**31),
    leave=st.booleans(),
)
def test_invariants(classifier, images, labels, name, norm, log_epsilon, seed, leave):
    epsilon = float(np.float32(10**log_epsilon * (1 if norm == "linf" else 10)))
    attack = make_attack(name, norm=norm, leave=leave)
    adversarial = attack(classifier, images, labels, epsilon, seed=seed)
    assert adversarial.dtype == np.float32
    assert adversarial.shape == images.shape
    assert np.isfinite(adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 255
    rounding = norms_of(norm, np.full((1, SIZE, SIZE, 3), 8e-6))  # of float32 pixels near 255
    assert norms_of(norm, adversarial - images.astype("float64")).max() <= epsilon * (1 + 1e-5) + rounding
    assert np.abs(adversarial - images).max() > 0
    np.testing.assert_array_equal(adversarial, attack(classifier, images, labels, epsilon, seed=seed))


@pytest.mark.parametrize("name", ["pgd", "mi_fgsm"])
def test_others_in_the_batch_do_not_matter(classifier, images, labels, name):
    attack = make_attack(name, restarts=2, batch_size=4)
    together = attack(classifier, images, labels, 2.0, seed=5)
    some = np.array([17, 3, 8])
    alone = attack(classifier, images[some], labels[some], 2.0, seed=5, index=some)
    assert np.mean(np.abs(alone - together[some]) <= 1e-4) >= 0.999
    other_seed = attack(classifier, images, labels, 2.0, seed=6)
    assert np.abs(other_seed - together).max() > 0.1


def test_restarts_and_extra_starts_only_help(classifier, images, labels):
    def stands(attack, **extra):
        return classifier.predict(attack(classifier, images, labels, 0.7, seed=0, **extra)) == labels

    once = make_attack("pgd", steps=3)
    one, many = stands(once), stands(once.with_(restarts=8))
    assert 0 < many.mean() < 1
    assert not (many & ~one).any()
    strong = make_attack("pgd", steps=40, restarts=4)
    start = strong(classifier, images, labels, 0.7, seed=9)
    helped = stands(once, start=start)
    assert not (helped & (classifier.predict(start) != labels)).any()
    assert not (helped & ~one).any()


@pytest.mark.parametrize(
    ("name", "numbers"), [("apgd_t", {"steps": 6}), ("fab_t", {"steps": 4, "restarts": 2}), ("pgd", {"restarts": 5})]
)
def test_attempts_that_share_a_batch_find_what_they_find_one_after_the_other(images, labels, classifier, name, numbers):
    """Few images do not fill a batch; with batches of one, every attempt has its own."""
    shared, alone = (make_attack(name, **numbers, batch_size=size) for size in (64, 1))
    some = slice(0, 5)
    ran = []
    program = classifier.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "run", lambda *arrays: ran.append(arrays[0]) or program(*arrays))
        found = shared(classifier, images[some], labels[some], 0.7, start=images[some] + 0.1)
        calls = len(ran)
        np.testing.assert_allclose(
            found, alone(classifier, images[some], labels[some], 0.7, start=images[some] + 0.1), atol=1e-3
        )
    stands = classifier.predict(found) == labels[some]
    assert stands.any(), "else the later attempts were not needed"
    assert calls < (len(ran) - calls) / 5


def test_fallen_images_leave_where_they_fell(classifier, images, labels):
    """An image that is already wrong comes back as it was, and one that stands keeps its label."""
    wrong = labels.copy()
    wrong[:5] = (labels[:5] + 1) % CLASSES
    adversarial = make_attack("bim")(classifier, images, wrong, 0.05)
    np.testing.assert_array_equal(adversarial[:5], images[:5])
    assert np.abs(adversarial[5:] - images[5:]).max(axis=(1, 2, 3)).min() > 0
    assert (classifier.predict(adversarial)[5:] == labels[5:]).mean() > 0.8


def test_targets_are_reached(classifier, images, labels):
    targets = (labels + 1) % CLASSES
    adversarial = make_attack("pgd", steps=40)(classifier, images, labels, 16.0, targets=targets)
    assert (classifier.predict(adversarial) == targets).mean() > 0.9


# Bad input, in one sentence each


@pytest.mark.parametrize(
    ("name", "params", "sentence"),
    [
        ("pgdd", {}, "Unknown attack 'pgdd'; known are fgsm, bim"),
        ("pgd", {"eps": 1}, "has no parameter 'eps'; it has norm"),
        ("pgd", {"norm": "l1"}, "Unknown norm 'l1'"),
        ("pgd", {"steps": 0}, "steps of an attack must be a whole number"),
        ("pgd", {"restarts": 0}, "restarts of an attack must be a whole number"),
        ("pgd", {"path_length": -1.0}, "path_length"),
        ("pgd", {"loss": "hinge"}, "Unknown loss 'hinge'"),
    ],
)
def test_unknown_names_and_numbers_are_refused(name, params, sentence):
    with pytest.raises(StudyError, match=sentence):
        make_attack(name, **params)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": np.full((2, SIZE, SIZE, 3), 256.0)}, r"pixels in \[0, 255\]"),
        ({"images": np.zeros((2, 5, 5, 3))}, "The model takes images of shape"),
        ({"labels": np.array([0, CLASSES])}, "classes 0 to 3"),
        ({"labels": np.array([0.5, 1.0])}, "whole numbers, the classes of the images; found 0.5"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"index": [1, 1]}, "different whole numbers"),
        ({"start": np.zeros((1, SIZE, SIZE, 3))}, "start has shape"),
    ],
)
def test_bad_input_is_refused(classifier, change, sentence):
    arguments = {"images": np.zeros((2, SIZE, SIZE, 3)), "labels": np.array([0, 1]), "epsilon": 1.0} | change
    with pytest.raises(StudyError, match=sentence):
        make_attack("fgsm")(classifier, **arguments)


def test_attacks_are_named_as_in_profiles():
    assert all(make_attack(name).name == name for name in ATTACKS)
    with pytest.raises(StudyError, match="one of logits, softmax"):
        Classifier(convolutional(), through="probabilities")
