"""Settings come from the environment, have ranges, and never show a secret."""

from pathlib import Path

import pytest

from schemas.errors import RejectedError, UnavailableError
from services.settings import load, unknown_variables, without_password


def test_defaults_need_nothing_but_the_agency() -> None:
    settings = load("ice")

    assert settings.peer == "hhs"
    assert settings.domain == "ice.noticebus.example"
    assert settings.relay.batch_max == 500
    assert settings.keys_folder == Path(".noticebus/ice/keys")


def test_nested_values_have_their_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTICEBUS_RELAY_BATCH_MAX", "7")
    monkeypatch.setenv("NOTICEBUS_DELIVERY_GAP_ASK_SECONDS", "0.5")
    monkeypatch.setenv("NOTICEBUS_HTTP_PORT", "8081")

    settings = load("hhs")

    assert settings.relay.batch_max == 7
    assert settings.delivery.gap_ask_seconds == 0.5
    assert settings.http.port == 8081


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NOTICEBUS_RELAY_BATCH_MAX", "0"),
        ("NOTICEBUS_RELAY_BATCH_MAX", "many"),
        ("NOTICEBUS_HTTP_PORT", "70000"),
        ("NOTICEBUS_DOMAIN", "spaces in it"),
    ],
)
def test_a_value_out_of_range_names_the_variable_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(RejectedError) as caught:
        load("ice")

    assert caught.value.code == "NB-7010"
    assert variable in caught.value.sentence


def test_an_unknown_agency_is_rejected() -> None:
    with pytest.raises(RejectedError, match="NOTICEBUS_AGENCY"):
        load("fbi")


def test_backoff_must_be_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTICEBUS_DELIVERY_BACKOFF_SECONDS_MIN", "90")

    with pytest.raises(RejectedError, match="backoff_seconds_min"):
        load("ice")


def test_urls_may_stand_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://ice:pw@db/ice\n")
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL_FILE", str(secret))

    assert load("ice").database_url == "postgresql://ice:pw@db/ice"


def test_a_secret_file_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTICEBUS_REDIS_URL_FILE", str(tmp_path / "nowhere"))

    with pytest.raises(RejectedError, match="nowhere"):
        load("ice")


def test_passwords_are_in_neither_repr_nor_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", "postgresql://ice:s3cret@db/ice")
    monkeypatch.setenv("NOTICEBUS_REDIS_URL", "redis://:s3cret@bus:6379/0")

    settings = load("ice")

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.shown())
    assert settings.shown()["NOTICEBUS_DATABASE_URL"] == "postgresql://ice:***@db/ice"


def test_passwords_with_odd_characters_are_masked() -> None:
    assert without_password("redis://u:a:b@h/0") == "redis://u:***@h/0"
    assert without_password("postgresql:///ice?host=/run") == "postgresql:///ice?host=/run"


def test_an_address_that_is_missing_says_which() -> None:
    with pytest.raises(UnavailableError, match="NB-7017 NOTICEBUS_REDIS_URL is not set") as bus:
        _ = load("ice").redis_url_required
    with pytest.raises(UnavailableError, match="NB-7017 NOTICEBUS_DATABASE_URL is not set"):
        _ = load("ice").database_url_required

    assert bus.value.fix.startswith("Set it; commands without it use embedded servers")


def test_misspelt_variables_are_found() -> None:
    environment = {"NOTICEBUS_RELAY_BATCHMAX": "1", "NOTICEBUS_HOME": "x", "PATH": "/bin"}

    assert unknown_variables(environment) == ["NOTICEBUS_RELAY_BATCHMAX"]
