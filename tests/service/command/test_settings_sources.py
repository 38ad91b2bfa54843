"""Settings of several sources: which one counts, and the words for one that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.__main__ import main
from service.command import sources
from service.command.sources import WrongSettingError, read_settings, unknown_names
from service.process.supervisor import settings_as_json
from service.settings import Settings

PLACES = ["flag", "environment", "env file", "secret", "toml"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YOLOX_PORT", raising=False)
    (tmp_path / "secrets").mkdir()
    monkeypatch.setitem(Settings.model_config, "secrets_dir", tmp_path / "secrets")
    return tmp_path


def set_port(place: str, port: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the port in a place; gives the flags."""
    match place:
        case "flag":
            return {"port": str(port)}
        case "environment":
            monkeypatch.setenv("YOLOX_PORT", str(port))
        case "env file":
            Path(".env").write_text(f"YOLOX_PORT={port}\nGRAFANA_ADMIN_PASSWORD=x\n")
        case "secret":
            Path("secrets/yolox_port").write_text(str(port))
        case "toml":
            Path("yolox.toml").write_text(f"port = {port}\n")
    return {}


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_of_two_places_the_first_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    Path("yolox.toml").touch()
    flags: dict[str, str] = {}
    for rank in range(first, len(PLACES)):
        flags |= set_port(PLACES[rank], 1000 + rank, monkeypatch)
    assert read_settings(flags, Path("yolox.toml")).port == 1000 + first


def test_settings_that_no_place_sets_are_the_defaults(folder: Path) -> None:
    assert read_settings({}) == Settings()


def test_a_toml_file_writes_names_either_way_and_lists_as_arrays(folder: Path) -> None:
    Path("yolox.toml").write_text(
        "max-body-bytes = 7\nmax_queue_images = 40\npage = false\nconfidence = 0.4\n"
        'cors_origins = ["https://a.example", "https://b.example"]\n'
    )
    settings = read_settings({}, Path("yolox.toml"))
    assert (settings.max_body_bytes, settings.max_queue_images) == (7, 40)
    assert (settings.page, settings.confidence) == (False, 0.4)
    assert settings.cors_origins == "https://a.example,https://b.example"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1", "yolox.toml: there is no setting prot; did you mean port?"),
        ("zzz = 1", "yolox.toml: there is no setting zzz; docs/settings.md lists the settings"),
        ("[server]\nport = 1", "yolox.toml: there is no setting server"),
        ("port = ", "cannot read yolox.toml: Invalid value"),
        ("port = 'x'", "port in yolox.toml: Input should be a valid integer"),
        ("api_key = 'two words'", "api_key in yolox.toml: keys must not be empty"),
    ],
)
def test_a_wrong_toml_file_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    Path("yolox.toml").write_text(text)
    assert main(["--config", "yolox.toml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {complaint}")
    assert told.count("\n") == 1


def test_a_toml_file_that_is_not_there_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", "none.toml"]) == 2
    assert capsys.readouterr().err == "error: cannot read none.toml: No such file or directory\n"


def test_the_environment_may_name_the_toml_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("yolox.toml").write_text("prot = 1")
    monkeypatch.setenv("YOLOX_CONFIG", "yolox.toml")
    assert main([]) == 2
    assert "there is no setting prot" in capsys.readouterr().err
    assert unknown_names() == {}


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("flag", "--port: "),
        ("environment", "YOLOX_PORT: "),
        ("env file", "YOLOX_PORT in .env: "),
        ("secret", "the secret YOLOX_PORT: "),
        ("toml", "port in yolox.toml: "),
    ],
)
def test_a_wrong_value_is_told_with_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, named: str
) -> None:
    Path("yolox.toml").touch()
    flags = set_port(place, 99999, monkeypatch)
    with pytest.raises(WrongSettingError, match="less than or equal to 65535") as error:
        read_settings(flags, Path("yolox.toml"))
    assert str(error.value).startswith(named)


def test_a_mistaken_variable_of_the_env_file_is_told_and_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in unknown_names() if name.startswith("YOLOX_")]:
        monkeypatch.delenv(name)
    Path(".env").write_text("YOLOX_PROT=1\nYOLOX_CPUS=2\nPATH_TO=x\n")
    assert read_settings({}).port == 8000
    assert {name.upper(): meant for name, meant in unknown_names().items()} == {
        "YOLOX_PROT": "YOLOX_PORT"
    }


def test_workers_are_given_every_setting_with_its_secrets(folder: Path) -> None:
    flags = {"api_key": "one,two", "model": folder / "m.onnx", "iou": "0.3", "page": False}
    settings = read_settings(flags)
    assert Settings(**json.loads(settings_as_json(settings))) == settings


@pytest.mark.parametrize(
    ("arguments", "page"),
    [(["--no-page"], False), (["--page", "false"], False), (["--page=false"], False),
     (["--page"], True), (["--page", "true"], True), (["--no-page", "--page"], True)],
)  # fmt: skip
def test_a_switch_is_on_or_off_in_words_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], page: bool
) -> None:
    assert given_settings(arguments, monkeypatch).page is page


def test_an_empty_model_is_none_and_of_a_flag_given_twice_the_last_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = given_settings(["--model", "", "--port", "1", "--port=2"], monkeypatch)
    assert (settings.model, settings.port) == (None, 2)


def given_settings(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server with these arguments starts with."""
    found: list[Settings] = []

    def seen(read: Callable[..., Settings]) -> Callable[..., Settings]:
        def note(*given: object) -> Settings:
            found.append(read(*given))
            raise WrongSettingError("seen")

        return note

    monkeypatch.setattr("service.command.serve.read_settings", seen(sources.read_settings))
    assert main(arguments) == 2
    return found[0]
