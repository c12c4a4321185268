"""Settings: bounds, presets, overrides, and what counts as identity."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pydantic
import pytest

from blora import errors
from blora.checks.limits import training_identity
from blora.settings.presets import PRESETS, Settings
from blora.settings.resolve import resolve
from blora.settings.training import TrainSettings


def test_paper_preset_is_the_published_recipe() -> None:
    train, sample = PRESETS["paper"].train, PRESETS["paper"].sample
    assert (train.resolution_px, train.rank, train.scale, train.learning_rate) == (1024, 64, 1.0, 5e-5)
    assert (train.steps, train.batch_size, train.max_grad_norm, train.prompt) == (1000, 1, 1.0, "A [v]")
    assert (train.beta1, train.beta2, train.weight_decay, train.epsilon) == (0.9, 0.999, 1e-4, 1e-8)
    assert (sample.steps, sample.guidance_scale, sample.scheduler) == (50, 5.0, "base")
    assert train.size_conditioning == "published"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_share_one_base_between_training_and_sampling(preset: str) -> None:
    settings = resolve(preset)
    assert settings == PRESETS[preset]
    assert settings.train.precision == settings.sample.precision
    assert settings.train.resolution_px == settings.sample.width_px == settings.sample.height_px


def test_overrides_are_nested_or_dotted_and_leave_the_rest() -> None:
    settings = resolve("demo", {"train": {"steps": 7}, "sample.guidance_scale": 2.5, "pack_size": 3})
    assert (settings.train.steps, settings.sample.guidance_scale, settings.pack_size) == (7, 2.5, 3)
    assert settings.train.rank == PRESETS["demo"].train.rank
    assert settings.score == PRESETS["demo"].score


def test_all_faults_are_reported_at_once_with_paths_and_guesses() -> None:
    overrides = {
        "train": {"stepps": 3, "steps": 0, "rank": "x"},
        "train.learning_rat": 2,
        "sample": 4,
        "score": {"clip_model": "ViT-L-14-quickgelu"},
        "pack_size": 65,
    }
    with pytest.raises(errors.SettingsError) as caught:
        resolve("demo", overrides)
    faults = {fault.field: fault for fault in caught.value.faults}
    assert set(faults) == {
        "train.stepps",
        "train.steps",
        "train.rank",
        "train.learning_rat",
        "sample",
        "score",
        "pack_size",
    }
    assert "train.steps" in faults["train.stepps"].hint
    assert "train.learning_rate" in faults["train.learning_rat"].hint
    assert "greater than or equal to 1" in faults["train.steps"].accepted
    assert faults["pack_size"].received == "65"
    assert "tag or file" in faults["score"].accepted
    assert all(field in str(caught.value) for field in faults)


def test_a_misplaced_setting_is_found_by_its_last_name() -> None:
    with pytest.raises(errors.SettingsError) as caught:
        resolve("demo", {"guidance_scale": 3})
    assert "sample.guidance_scale" in caught.value.faults[0].hint


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(errors.SettingsError, match="did you mean paper"):
        resolve("papr")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_must_be_finite_and_in_bounds(value: float) -> None:
    with pytest.raises(errors.SettingsError):
        resolve("demo", {"train.learning_rate": value})


def test_a_check_that_only_tells_is_no_part_of_an_adapters_identity() -> None:
    plain = resolve("demo")
    looser = resolve("demo", {"check.steps": 3, "check.split_image": 0.9, "check.attempts": 0})
    revision = "0" * 40
    assert training_identity(plain, revision) == training_identity(looser, revision) == plain.train.identity()
    limited = {"check.attempts": 2, "check.split_image": 0.9}
    several = training_identity(resolve("demo", limited), revision)
    assert several["check"]["limits"] == {"split_image": 0.9}
    other = training_identity(resolve("demo", limited | {"sample.guidance_scale": 3.0}), revision)
    assert other != several, "how the image is drawn for its check may change which attempt is kept"
    with pytest.raises(errors.SettingsError, match="nothing to judge by"):
        training_identity(resolve("demo", {"check.attempts": 2, "check.style_copy": 0.1}), revision)


def test_settings_are_frozen_and_known() -> None:
    settings = Settings()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.train.steps = 3  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError):
        TrainSettings(momentum=0.9)  # type: ignore[call-arg]


def test_identity_has_what_changes_the_weights_and_nothing_else() -> None:
    plain = TrainSettings()
    same = TrainSettings(alpha=64, checkpointing="on", checkpoint_every_seconds=7, execution="graph")
    assert plain.identity() == same.identity()
    assert plain.identity() != TrainSettings(seed=1).identity()
    assert TrainSettings(layers="crossattn_kv").identity() == plain.identity() | {"layers": "crossattn_kv"}
    falling = {"learning_rate_schedule": "cosine"}
    assert TrainSettings(**falling).identity() == plain.identity() | falling
    assert json.loads(json.dumps(plain.identity())) == plain.identity()
    sample = Settings().sample
    assert sample.identity() == sample.model_copy(update={"batch_size": 3}).identity()
    assert sample.identity() != sample.model_copy(update={"steps": 3}).identity()


IDENTITIES = {
    "train": {
        "resolution_px": 1024,
        "crop": "center",
        "prompt": "A [v]",
        "rank": 64,
        "alpha": 64.0,
        "learning_rate": 5e-05,
        "steps": 1000,
        "batch_size": 1,
        "timestep_power": 1.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.0001,
        "epsilon": 1e-08,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "seed": 0,
        "skips_before_reseed": 5,
        "reseeds_before_lower_rate": 1,
        "lower_rate_factor": 0.1,
        "max_lower_rates": 2,
    },
    "sample": {
        "steps": 50,
        "guidance_scale": 5.0,
        "guidance_from": "adapted",
        "scheduler": "base",
        "width_px": 1024,
        "height_px": 1024,
        "precision": "fp32",
        "negative_prompt": "",
    },
    "score": {
        "clip_model": "embedded",
        "clip_pretrained": "",
        "features": "efficientnet-lite0",
        "colour": True,
        "leakage": True,
    },
}
"""What the defaults are named by in ids that lie in stores. A new setting must not appear here: `identity` leaves it
out while it has its default, or every adapter, picture and run would be made again under another id."""


@pytest.mark.parametrize("group", IDENTITIES)
def test_a_new_setting_with_its_default_changes_no_id(group: str) -> None:
    assert getattr(Settings(), group).identity() == IDENTITIES[group]


def test_a_later_setting_is_named_where_it_differs() -> None:
    plain = TrainSettings().identity()
    assert TrainSettings(size_conditioning="published").identity() == plain | {"size_conditioning": "published"}
    assert TrainSettings(deterministic=True).identity() == plain | {"deterministic": True}
    assert resolve("paper", {"train.size_conditioning": True}).train.size_conditioning == "true", "as YAML reads it"


def test_a_graph_of_pictures_of_many_shapes_is_refused() -> None:
    with pytest.raises(errors.SettingsError, match="a captured graph has one shape"):
        resolve("draft", {"train.crop": "none", "train.execution": "compiled_graph"})


def test_scores_without_the_measure_of_structure_are_others() -> None:
    assert resolve("demo", {"score.structure": False}).score.identity() == IDENTITIES["score"] | {"structure": False}


def test_every_setting_is_documented() -> None:
    for group in (Settings, *(type(value) for _, value in Settings() if isinstance(value, pydantic.BaseModel))):
        for name, info in group.model_fields.items():
            assert info.description, f"{group.__name__}.{name}"


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_survive_pickling(name: str) -> None:
    kind = getattr(errors, name)
    fault = errors.SettingFault("train.steps", "not accepted", "0", "1 or more", "raise it")
    if name == "SettingFault":
        assert pickle.loads(pickle.dumps(fault)) == fault
        return
    error = kind([fault]) if name == "SettingsError" else kind("what", "this", "that", "there", "something")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) and again.__dict__ == error.__dict__
    assert again.transient is (name == "BaseUnreachableError")


def test_planning_needs_no_torch() -> None:
    code = "import sys, blora, blora.errors, blora.models.model; blora.resolve('demo'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_lazy_exports_all_exist_and_unknown_names_do_not() -> None:
    import blora

    assert all(getattr(blora, name) is not None for name in blora.__all__)
    assert set(blora.__all__) == set(dir(blora))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = blora.nonsense


@pytest.mark.parametrize(
    ("trained", "drawn"),
    [("A [v]", "A [v] in [v] style"), ("A [v30] dog", "A [v30] in [v30] style"), ("x", "A x in x style")],
)
def test_a_prompt_says_what_was_trained_on(trained: str, drawn: str) -> None:
    assert resolve("paper", {"train.prompt": trained}).train.with_tokens("A [c] in [s] style") == drawn
