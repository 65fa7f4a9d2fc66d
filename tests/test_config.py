import pytest

from jaxvid import config as config_lib
from jaxvid.names import nearest


def test_json_and_back_keeps_every_field_and_makes_tuples() -> None:
    config = config_lib.base()
    config.model = {"downsample": (4, 4, 4), "quantizer": {"name": "fsq", "levels": (8, 5)}}
    again = config_lib.from_dict(config_lib.to_dict(config))
    assert again.to_dict() == config.to_dict()
    assert again.model.quantizer.levels == (8, 5)


def test_differences_name_each_field_that_may_not_change() -> None:
    saved, present = (config_lib.to_dict(config_lib.base()) for _ in range(2))
    present["train"] |= {"steps": 7, "log_every": 3, "parallel": "pmap", "seed": 5}
    present["eval"]["every"] = 9
    present["data"]["frames"] = 32
    del present["data"]["fps"]
    lines = config_lib.differences(saved, present)
    assert [line.split(":")[0].strip() for line in lines] == ["data.fps", "data.frames", "train.seed"]
    assert "16" in lines[1] and "32" in lines[1]


def test_a_run_from_before_a_field_has_its_default() -> None:
    saved, present = (config_lib.to_dict(config_lib.base()) for _ in range(2))
    del saved["data"]["direction"]
    assert config_lib.differences(saved, present) == []
    present["data"]["direction"] = "BtoA"
    assert [line.strip() for line in config_lib.differences(saved, present)] == [
        "data.direction: the run has 'AtoB', the config now says 'BtoA'"
    ]


def test_a_run_from_before_a_field_of_its_condition_has_its_default() -> None:
    config = config_lib.base()
    config.condition = config_lib.condition(("label",))
    saved, present = (config_lib.to_dict(config) for _ in range(2))
    del saved["condition"]["attributes"]
    assert config_lib.differences(saved, present) == []
    assert len(config_lib.differences(config_lib.to_dict(config_lib.base()), present)) > 1  # none is not a default one


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("train.steps", 0, "train.steps is 0"),
        ("train.batch_size", 12, "12 is not divisible by the 8 devices; 16"),
        ("train.steps", 2**31, "train.steps is 2147483648, expected at least 1 and below"),
        ("train.workers", -1, "train.workers is -1"),
        ("train.workers", 10**5, r"train.workers is 100000, expected 0 \(threads alone\) to \d+ here"),
        ("data.holdout", 1.0, "data.holdout is 1.0"),
        ("data.fps", -1.0, "data.fps is -1.0"),
        ("eval.examples", 0, "eval.examples is 0"),
    ],
)
def test_sizes_that_cannot_work_are_said(field: str, value: float, sentence: str) -> None:
    config = config_lib.base()
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(ValueError, match=sentence):
        config_lib.check(config, devices=8)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("method", None, "method is None in the config, expected a text such as 'vqvae'"),
        (
            "train.steps",
            None,
            "train.steps is None in the config, expected a whole number such as 1000: begin a recipe",
        ),
        ("train.steps", 2.5, "train.steps is 2.5 in"),
        ("train.steps", True, "train.steps is True in"),
        ("data.frames", "16", "data.frames is '16' in"),
        ("eval.metrics", "fvd", r"eval.metrics is 'fvd' in the config, expected a tuple such as \(\)"),
        ("data", "videos", "data.attributes is missing in the config"),
    ],
)
def test_a_shared_field_that_is_missing_or_of_another_type_is_said(field: str, value: object, sentence: str) -> None:
    config = config_lib.base()
    config.method, config.data.fps = "vqvae", 8
    config_lib.check_fields(config)
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=sentence):
        config_lib.check_fields(config)


def test_what_is_no_config_is_said() -> None:
    for what, sentence in (
        ("vqvae:tiny", "config is a str"),
        ({"method": "vqvae"}, "config is a dict"),
        (None, "None"),
    ):
        with pytest.raises(ValueError, match=f'{sentence}.*, expected what jaxvid.config.recipe."vqvae"'):
            config_lib.check_fields(what)


def test_the_nearest_field_shares_its_last_name_first() -> None:
    names = ["train.steps", "train.seed", "eval.every"]
    assert nearest("config.step", names) == "train.steps"
    assert nearest("model.seed", names) == "train.seed"
