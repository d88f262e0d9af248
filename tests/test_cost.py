"""The cost table against counted passes, closed forms and a made-up machine."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

from lib import StudyError
from lib.attacks import ATTACKS, Classifier, make_attack
from lib.profile import Adversarial, load_profile
from tools import cost

PAPER = load_profile("paper")


class Counting(Classifier):
    """A classifier of three classes that nothing moves, and that counts the steps taken with each image."""

    def __init__(self):
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, name="logits")])
        model.layers[-1].set_weights([np.zeros((192, 3), "float32"), np.array([9, 1, 0], "float32")])
        super().__init__(model)
        self.steps = {}

    def run(self, program, *arrays):
        if len(arrays) == 3:  # problem, state, numbers: the loop of an attack
            name = type(program).__name__
            self.steps[name] = self.steps.get(name, 0) + int(arrays[2]["steps"]) * len(arrays[0]["images"])
        return super().run(program, *arrays)


@pytest.mark.parametrize(
    ("name", "norm", "parameters"),
    [
        ("fgsm", "linf", {}),
        ("bim", "linf", {"steps": 4}),
        ("mi_fgsm", "linf", {}),
        ("pgd", "linf", {"steps": 3, "restarts": 2}),
        ("apgd_ce", "linf", {"steps": 6, "restarts": 2}),
        ("apgd_t", "linf", {"steps": 5, "target_classes": 9}),
        ("fab_t", "l2", {"steps": 5, "target_classes": 1}),
        ("square", "linf", {"steps": 7, "restarts": 2}),
        ("cw", "l2", {"steps": 4, "searches": 3}),
        ("autoattack", "linf", {"steps": 6, "queries": 11, "target_classes": 9}),
    ],
)
def test_an_attack_takes_the_passes_that_are_charged_for_it(name, norm, parameters):
    classifier, n = Counting(), 5
    make_attack(name, norm=norm, **parameters)(classifier, np.full((n, 8, 8, 3), 100.0), np.zeros(n, int), 2.0)
    queries = classifier.steps.pop("SquareSteps", 0)
    charged = n * cost.attack_work(name, 3, **parameters)
    assert charged["gradient"] == sum(classifier.steps.values())
    assert charged["forward"] == queries + classifier.steps.get("FABSteps", 0)
    assert charged["training"] == 0


def test_what_is_charged_without_parameters_are_the_attacks_own_numbers():
    for name, attack in ATTACKS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(attack)}
        pd.testing.assert_series_equal(cost.attack_work(name, 99, **defaults), cost.attack_work(name, 99))


def test_training_on_ham10000_as_the_paper_does_it():
    # 10,015 images: 2,003 test, 1,502 validation, 6,510 training, of which a tenth makes an epoch; 75 epochs of 300.
    work = cost.stage_work(PAPER, "variant", "ham10000")
    assert work["training"] == 75 * 651
    # FGSM twice; BIM, MI-FGSM and PGD twice; APGD; AutoAttack twice and in L2 on 200; PGD and CW in L2, on 200.
    autoattack = 100 + 6 * 100 + 6 * 100
    per_image = (
        2 * (1 + 8) + 2 * (20 + 8) + 2 * (20 + 8) + 2 * (3 * 40 + 8) + (100 + 8) + 2 * (autoattack + 8) + (40 + 8)
    )
    few = 200 * (autoattack + 8) + 200 * (600 + 8) + 200 * 8
    assert work["gradient"] == pytest.approx(1000 * per_image + few)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of two cores that does everything at rates a child can divide by."""
    row = {"backbone": "resnet50", "width": 64, "image_size": 224, "parameters": 1e6, "training": 4.0, "gradient": 10.0}
    row |= {"forward": 100.0, "memory_mb": 5000, "cores": 2, "processor": "abacus"}
    path = tmp_path / "throughput.csv"
    pd.DataFrame([row]).to_csv(path, index=False)
    monkeypatch.setattr(cost, "THROUGHPUT", path)
    cost.measured.cache_clear()
    yield
    cost.measured.cache_clear()


def test_jobs_and_hours_on_a_machine_of_round_numbers(machine):
    table = cost.cost_table(PAPER, ["ham10000"]).set_index("stage")
    assert table["jobs"].to_dict() == {
        "prepare": 3, "variant": 2 * 3, "train": 3, "attack": 3, "gradcam": 3, "why": 3, "results": 1, "report": 1
    }  # fmt: skip
    assert table.loc["prepare", "cpu_hours"] * 3600 == pytest.approx(3 * (10015 / cost.READING + cost.START))
    work = cost.stage_work(PAPER, "variant", "ham10000")
    passes = work["training"] / 4 + work["gradient"] / 10 + work["forward"] / 100
    assert table.loc["variant", "cpu_hours"] * 3600 == pytest.approx(6 * (passes + cost.START))
    assert table.loc["variant", "gpu_hours"] * 3600 == pytest.approx(6 * (passes * 4 / cost.GPU_TRAINING + cost.START))
    # A network twice as wide in pixels passes a quarter of the images.
    larger = PAPER.model_copy(update={"preprocessing": PAPER.preprocessing.model_copy(update={"image_size": 448})})
    assert cost.rates(larger)["training"] == 1.0
    assert cost.rates(larger)["memory_mb"] == 20000


def test_disk_is_that_of_the_arrays_and_models(machine):
    said = (10015 * 224 * 224 * 3 + 6 * 3 * 4 * 1e6) / 1e9
    assert f"disk: {said:.1f} GB" in cost.text(PAPER, ["ham10000"])


def test_what_a_job_asks_a_cluster_for(machine):
    one, two = (cost.minutes(PAPER, "variant", "ham10000", threads) for threads in (1, 2))
    expected = cost.seconds(PAPER, "variant", "ham10000") / 60
    assert two == pytest.approx(cost.MARGIN * expected, abs=1)
    assert one == pytest.approx(2 * cost.MARGIN * expected, abs=1)
    assert cost.minutes(PAPER, "variant", "ham10000", 1, gpus=1) < two
    assert cost.minutes(PAPER, "report", None, 1) == 30
    assert cost.megabytes(PAPER, "variant") == 7500
    assert cost.megabytes(PAPER, "train") == 4000


def test_a_network_that_was_not_measured_is_named(machine):
    other = PAPER.model_copy(update={"model": PAPER.model.model_copy(update={"backbone": "mobilenet_v2"})})
    assert "mobilenet_v2 itself was not measured" in cost.text(other, ["ham10000"])
    assert "not measured" not in cost.text(PAPER, ["ham10000"])


def test_a_missing_measurement_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "ROOT", tmp_path)
    monkeypatch.setattr(cost, "THROUGHPUT", tmp_path / "throughput.csv")
    cost.measured.cache_clear()
    with pytest.raises(StudyError, match=r"throughput.csv is missing: run ./reproduce bench throughput"):
        cost.rates(PAPER)


def test_adversarial_training_and_controls_cost_what_they_take():
    mine = PAPER.model_copy(
        update={"training": PAPER.training.model_copy(update={"adversarial": Adversarial(method="pgd-at")})}
    )
    plain, hard = (cost.stage_work(profile, "variant", "ham10000") for profile in (PAPER, mine))
    assert hard["gradient"] - plain["gradient"] == 7 * 75 * 651  # seven steps for every image that is trained on
    more = PAPER.model_copy(update={"controls": ["pooling", "frozen"]})
    few, many = (cost.stage_work(profile, "gradcam", "ham10000") for profile in (PAPER, more))
    assert many["gradient"] == pytest.approx(few["gradient"] * 4 / 2)


def test_the_notebook_of_training_trains_nothing():
    """The networks are jobs of their own, which it waits for."""
    assert not cost.stage_work(PAPER, "train", "ham10000").any()


def test_a_frozen_stem_makes_training_cheaper_and_nothing_else():
    stem = PAPER.model_copy(update={"model": PAPER.model.model_copy(update={"frozen_up_to": "conv4_block6_out"})})
    whole, part = (cost.stage_work(profile, "variant", "ham10000") for profile in (PAPER, stem))
    assert (whole / part).to_list() == pytest.approx([cost.FROZEN, 1, 1])
