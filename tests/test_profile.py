from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib import ROOT, StudyError
from lib.attacks import ATTACKS, make_attack
from lib.evaluation import run_variant
from lib.evaluation.convergence import budgets_of
from lib.profile import Attack, check, departures, load_profile, profile_files
from lib.study import Study

QUICK = yaml.safe_load((ROOT / "profiles" / "quick.yaml").read_text())
for key in ("controls", "repeats"):  # what the tests below vary
    QUICK.pop(key, None)


def write(folder: Path, values) -> Path:
    path = folder / "quick.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_is_valid_and_its_attacks_exist(path):
    profile = load_profile(path)
    for attack in profile.evaluation.attacks:
        made = make_attack(attack.attack, norm=attack.norm, **attack.parameters)
        assert made.norm.name == attack.norm


def test_the_paper_profile_has_the_values_of_section_3_3():
    profile = load_profile("paper")
    training = profile.training
    assert (training.learning_rate, training.adam_epsilon) == (0.01, 0.1)
    assert (training.epochs, training.patience, training.min_delta) == (300, 40, 0.001)
    assert training.epoch_fraction == {"ham10000": 0.1}
    assert training.class_weights
    assert (profile.model.backbone, profile.model.weights) == ("resnet50", "imagenet")
    assert (profile.model.attention_maps, profile.model.gamma, profile.model.dropout) == (16, 0.01, 0.5)
    assert profile.preprocessing.image_size == 224
    assert profile.source == "original"


def test_departures_from_the_paper_are_named(tmp_path):
    assert departures(load_profile("paper")) == []
    assert "data" in departures(load_profile("quick"))
    paper = yaml.safe_load((ROOT / "profiles" / "paper.yaml").read_text()) | {"profile": "quick"}
    changed = paper | {
        "training": paper["training"] | {"learning_rate": 0.1},
        "preprocessing": {"image_size": 64},
    }
    assert departures(load_profile(write(tmp_path, changed))) == ["image size", "optimiser settings"]


def test_a_profile_extends_another_section_by_section(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quick\nprofile: mine\ntraining: {adam_epsilon: 1e-6}\nseeds: [7]\n")
    mine, quick = load_profile(path), load_profile("quick")
    assert (mine.training.adam_epsilon, mine.seeds) == (1e-6, [7])
    assert mine.training.learning_rate == quick.training.learning_rate
    assert mine.evaluation == quick.evaluation
    assert profile_files(path) == [path, ROOT / "profiles" / "quick.yaml"]


@pytest.mark.parametrize("base", ["nothing", "{path}"])
def test_a_profile_that_extends_none_or_itself_is_refused(tmp_path, base):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {base.format(path=path)}\nprofile: mine\n")
    with pytest.raises(StudyError, match=r"mine.yaml: extends names .*, which is no other profile"):
        load_profile(path)


def test_controls_belong_to_the_first_seed(tmp_path):
    profile = load_profile(write(tmp_path, QUICK | {"seeds": [3, 5], "controls": ["pooling"]}))
    assert profile.variants_of(3) == ["baseline", "attention", "pooling"]
    assert profile.variants_of(5) == profile.variants_of(0) == ["baseline", "attention"]
    assert profile.whole_variants_of(3) == profile.variants_of(3)
    assert profile.attacks_of(5, "attention") == profile.evaluation.attacks


def test_repeats_of_the_claims_meet_the_headline_attack_alone(tmp_path):
    attacks = [
        {key: value for key, value in entry.items() if key != "every_run"} for entry in QUICK["evaluation"]["attacks"]
    ]
    values = QUICK | {"seeds": [3, 5], "controls": ["pooling"], "repeats": "claims"}
    values |= {"evaluation": QUICK["evaluation"] | {"attacks": attacks}}
    profile = load_profile(write(tmp_path, values))
    assert profile.whole_variants_of(3) == ["baseline", "attention"]
    assert profile.whole_variants_of(5) == []
    headline = [profile.evaluation.named(profile.evaluation.headline)]
    assert profile.attacks_of(3, "attention") == profile.evaluation.attacks
    assert profile.attacks_of(3, "pooling") == profile.attacks_of(5, "baseline") == headline
    profile = load_profile(write(tmp_path, values | {"closely": ["attention"]}))
    assert profile.whole_variants_of(3) == ["attention"]
    assert profile.attacks_of(3, "baseline") == headline
    profile = load_profile(write(tmp_path, values | {"closely": ["frozen"]}))  # such as a profile that this extends has
    assert profile.whole_variants_of(3) == ["baseline", "attention"]


def test_a_variant_may_have_fewer_runs_and_an_attack_meet_them_all(tmp_path):
    attacks = [entry | {"every_run": entry["attack"] == "fgsm"} for entry in QUICK["evaluation"]["attacks"]]
    values = {"seeds": [3, 5], "runs": {"attention": 1}, "repeats": "claims", "controls": []}
    profile = load_profile(write(tmp_path, QUICK | values | {"evaluation": QUICK["evaluation"] | {"attacks": attacks}}))
    assert profile.seeds_of("baseline") == [3, 5]
    assert profile.seeds_of("attention") == [3]
    fgsm = [entry.name for entry in profile.evaluation.attacks if entry.attack == "fgsm"]
    assert sorted(entry.name for entry in profile.attacks_of(5, "baseline")) == sorted(["autoattack-linf", *fgsm])


def test_what_is_planned_and_not_trained_yet_is_neither_run_nor_judged():
    profile = load_profile("ham10000").model_copy(update={"runs": {"uniform": 0, "attention-gamma1": 2}})
    assert all("uniform" not in profile.variants_of(seed) for seed in profile.seeds)
    assert "uniform" not in profile.whole_variants_of(0)
    assert "attention-gamma1" in profile.whole_variants_of(0)
    assert profile.judged == [["attention-reference", "baseline"]]


def test_the_published_attack_is_run_at_further_budgets_on_the_first_runs():
    found = load_profile("ham10000").planned.model_copy(
        update={"convergence": {"uniform": [0.15, 0.2]}, "convergence_runs": 3}
    )
    profile = load_profile("ham10000").model_copy(update={"planned": found})

    def budgets(variant, seed, profile=profile):
        study = SimpleNamespace(profile=profile, seed=seed, whole_variants=profile.whole_variants_of(seed))
        return budgets_of(study, variant)

    assert [budgets("uniform", seed) for seed in range(4)] == [[0.1, 0.15, 0.2], [0.15, 0.2], [0.15, 0.2], []]
    once = profile.model_copy(update={"planned": found.model_copy(update={"convergence_runs": 1})})
    assert [budgets("uniform", seed, once) for seed in range(3)] == [[0.1, 0.15, 0.2], [], []]
    assert [budgets("baseline", seed) for seed in range(2)] == [[0.1], []]
    brief = profile.evaluation.model_copy(update={"convergence_images": None})
    assert budgets("uniform", 0, profile.model_copy(update={"evaluation": brief})) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"planned": {"primary": ["uniform", "baseline"]}},
            "planned names uniform, which variants does not list",
        ),
        ({"planned": {"budgets": [0.7]}}, "budgets that planned names must be among evaluation.epsilons, got [0.7]"),
        ({"controls": ["adversarial"]}, "the variant adversarial and a tuning section"),
        ({"classes": {"one": ["nv"], "other": ["mel"]}}, "classes must share out those of ham10000 among two or more"),
        ({"trainin": {}}, "trainin is not a known key; did you mean training?"),
        ({"training": {"epoch": 3}}, "training.epoch is not a known key; did you mean epochs?"),
        ({"training": {"epochs": 0}}, "training.epochs: input should be greater than 0, got 0."),
        ({"training": {"epochs": "ten"}}, "training.epochs: input should be a valid integer, got 'ten'."),
        ({"training": {"epochs": True}}, "training.epochs: input should be a valid integer, got True."),
        ({"split": {"validation": 0.5, "test": 0.5}}, "must leave images for training"),
        ({"datasets": ["ham1000"]}, "datasets.0: input should be 'ham10000'"),
        ({"variants": ["attention", "attention-reference"]}, "variants needs baseline and an attention variant"),
        ({"controls": ["attention"]}, "controls lists an entry twice, or one of variants: attention"),
        ({"model": {"feature_layer": "pool"}}, "must be conv5_block3_out or conv5_block3_add, got 'pool'"),
        ({"seeds": [0, 0]}, "seeds lists an entry twice"),
        ({"phantom": None}, "a phantom section belongs to source: phantom"),
        ({"model": {"backbone": "resnet50", "width": 32}}, "width can be set for resnet14 only"),
        ({"model": {"backbone": "resnet14", "weights": "imagenet"}}, "no ImageNet weights for resnet14"),
        ({"evaluation": QUICK["evaluation"] | {"epsilons": [1, 0.5]}}, "epsilons must increase strictly"),
        ({"evaluation": QUICK["evaluation"] | {"headline": "patch"}}, "headline names 'patch'"),
        ({"evaluation": QUICK["evaluation"] | {"gradcam_attack": "patch"}}, "gradcam_attack names 'patch'"),
        ({"evaluation": QUICK["evaluation"] | {"trust_epsilon": 3}}, "trust_epsilon"),
        ({"evaluation": QUICK["evaluation"] | {"trust": {"query": 3}}}, "did you mean queries?"),
        ({"evaluation": QUICK["evaluation"] | {"attacks": [{"atack": "pgd"}]}}, "did you mean attack?"),
        ({"profile": "slow"}, "profile is 'slow' but must be the file's name"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, change, message):
    with pytest.raises(StudyError) as error:
        load_profile(write(tmp_path, QUICK | change))
    assert message in str(error.value)
    assert str(error.value).startswith("quick.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "a: b: c", "\x00", "1: 2", "!!python/object:os.system {}"])
def test_a_file_that_is_no_profile_is_refused(tmp_path, text):
    with pytest.raises(StudyError) as error:
        load_profile(write(tmp_path, text))
    assert "quick.yaml" in str(error.value)


@settings(max_examples=60)
@example("evaluation", {"\n": None})
@given(
    st.sampled_from(sorted(QUICK)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_value_gives_a_profile_or_a_sentence(tmp_path_factory, key, value):
    path = write(tmp_path_factory.mktemp("profile"), QUICK | {key: value})
    try:
        said = load_profile(path).profile
    except StudyError as error:
        said = str(error)
    assert said == "quick" or (said.startswith("quick.yaml") and "\n" not in said)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(StudyError, match=r"There is no profile 'quik'; the profiles are: .*quick"):
        check("quik")
    with pytest.raises(StudyError, match="Profile quick has no data set 'imagenet'"):
        check("quick", "imagenet")


def test_an_attack_that_does_not_exist_is_refused(tmp_path):
    evaluation = QUICK["evaluation"] | {"attacks": [{"attack": "bimm"}]}
    with pytest.raises(StudyError, match=r"evaluation.attacks.0.attack: .*'pgd'.*got 'bimm'"):
        load_profile(write(tmp_path, QUICK | {"evaluation": evaluation}))


def test_attacks_of_profiles_are_those_that_there_are():
    assert set(get_args(Attack.model_fields["attack"].annotation)) == set(ATTACKS)


def test_a_weights_file_that_is_not_there_is_said_before_anything_runs(tmp_path):
    path = write(tmp_path, QUICK | {"model": QUICK["model"] | {"weights": "nowhere.weights.h5"}})
    with pytest.raises(StudyError, match=r"names nowhere.weights.h5, which is not a file"):
        check(path)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("training", {"adversarial": {"method": "pgd-at"}}, "adversarial training"),
        ("training", {"precision": "mixed_bfloat16"}, "precision"),
        ("preprocessing", {"xray_contrast": "none"}, "contrast of x-rays"),
        ("model", {"feature_layer": "conv5_block3_add"}, "feature map"),
    ],
)
def test_what_goes_beyond_the_paper_is_a_departure(tmp_path, section, change, said):
    paper = yaml.safe_load((ROOT / "profiles" / "paper.yaml").read_text())
    changed = paper | {section: paper.get(section, {}) | change, "profile": "quick"}
    assert departures(load_profile(write(tmp_path, changed))) == [said]


def test_a_parameter_that_an_attack_does_not_have_is_said_before_training(tmp_path, monkeypatch):
    attacks = [{"attack": "pgd", "parameters": {"stepz": 10}}]
    path = write(tmp_path, QUICK | {"evaluation": {"attacks": attacks, "headline": "pgd-linf"}})
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    study = Study(path, "ham10000", 0)
    monkeypatch.setattr(study, "trained", lambda variant: pytest.fail("trained first"))
    with pytest.raises(StudyError, match="'pgd' has no parameter 'stepz'"):
        run_variant(study, "baseline")
