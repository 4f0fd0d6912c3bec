"""Settings: where each one comes from, which are refused, and that no refusal shows a secret."""

import re
import shutil
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from fastapi_autumn import Autumn, AutumnClient, AutumnSettings
from fastapi_autumn.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[1] / ".env.example"
TEST_KEY = "am_sk_test_abcDEF123"
LIVE_KEY = "am_sk_live_abcDEF123"

# One value per field that is not its default: as it is written in a variable, and as it is read.
WRITTEN: dict[str, tuple[str, Any]] = {
    "secret_key": (TEST_KEY, SecretStr(TEST_KEY)),
    "base_url": ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    "emulator": ("true", True),
    "emulator_path": ("/var/autumn.db", Path("/var/autumn.db")),
    "transport": ("httpx", "httpx"),
    "timeout": ("1.5", 1.5),
    "connect_timeout": ("0.25", 0.25),
    "max_retries": ("0", 0),
    "max_concurrency": ("8", 8),
    "max_waiting": ("0", 0),
    "paths": ("/ai,/v1", ("/ai", "/v1")),
    "feature_id": ("tokens", "tokens"),
    "prices": ("prices.toml", Path("prices.toml")),
    "max_body_bytes": ("0", 0),
    "idempotency_header": ("X-Request-Id", "X-Request-Id"),
    "ensure_ttl": ("30", 30.0),
    "when_cut_off": ("deny", "deny"),
    "mode": ("observe", "observe"),
    "charging": ("hold", "hold"),
    "hold_ttl": ("600", 600.0),
    "on_unavailable": ("allow", "allow"),
    "refund_on_disconnect": ("1", True),
    "event_delay": ("0", 0.0),
    "outbox_url": ("postgresql+asyncpg://db/autumn", "postgresql+asyncpg://db/autumn"),
    "webhook_secret": ("whsec_YQ==, whsec_Yg==", (SecretStr("whsec_YQ=="), SecretStr("whsec_Yg=="))),
    "outbox_lease": ("10", 10.0),
    "shutdown_timeout": ("3", 3.0),
}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the `.env` of whoever runs it."""
    monkeypatch.chdir(tmp_path)


def refusal(**values: Any) -> str:
    """What `load` says about these variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(f"AUTUMN_{name.upper()}", value)
        with pytest.raises(ConfigurationError) as refused:
            AutumnSettings.load()
    return str(refused.value)


def test_the_table_covers_every_field() -> None:
    """A new setting cannot go without the tests below."""
    assert set(WRITTEN) == set(AutumnSettings.model_fields)


@pytest.mark.parametrize("name", WRITTEN)
def test_reads_each_field_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field is the variable of its name with AUTUMN_ before it, and the value is not the default's."""
    written, expected = WRITTEN[name]
    assert getattr(AutumnSettings.load(), name) != expected
    monkeypatch.setenv(f"AUTUMN_{name.upper()}", written)
    assert getattr(AutumnSettings.load(), name) == expected


@pytest.mark.parametrize("name", WRITTEN)
def test_reads_each_field_from_dotenv(name: str) -> None:
    """The same lines work in a `.env` file, among variables that belong to others."""
    written, expected = WRITTEN[name]
    Path(".env").write_text(f"# billing\nDATABASE_URL=postgresql://db\nAUTUMN_{name.upper()}={written}\n")
    assert getattr(AutumnSettings.load(), name) == expected


def test_the_environment_wins_over_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment overrides what a developer's file says."""
    Path(".env").write_text("AUTUMN_FEATURE_ID=from_file\nAUTUMN_TIMEOUT=9\n")
    monkeypatch.setenv("AUTUMN_FEATURE_ID", "from_environment")
    settings = AutumnSettings.load()
    assert (settings.feature_id, settings.timeout) == ("from_environment", 9)


@pytest.mark.parametrize(
    "written", ["/ai,/v1", " /ai , /v1 ", '["/ai", "/v1"]', ' ["/ai","/v1"]'], ids=["plain", "spaces", "json", "json2"]
)
def test_paths_are_a_list_with_commas_or_json(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """People write `/ai,/v1`, machines write JSON, and both mean the same."""
    monkeypatch.setenv("AUTUMN_PATHS", written)
    assert AutumnSettings.load().paths == ("/ai", "/v1")


def test_paths_given_in_code_are_taken_as_they_are() -> None:
    """A tuple needs no reading, and a comma in code is a comma."""
    assert AutumnSettings(paths=("/a,b", "/c")).paths == ("/a,b", "/c")


@pytest.mark.parametrize("written", ["", "ai", "/ai,", "/ai,,/v1", '["/ai", ', '["ai"]', "[1]"])
def test_refuses_paths_that_match_nothing(written: str) -> None:
    """A prefix that no path can have would leave routes without a gate."""
    assert refusal(paths=written).startswith("AUTUMN_PATHS: ")


@pytest.mark.parametrize("key", [TEST_KEY, LIVE_KEY, "am_sk_test_with-dash_and_underscore"])
def test_takes_secret_keys(key: str) -> None:
    """Keys of both environments go under one name, and only a live one moves money."""
    settings = AutumnSettings(secret_key=SecretStr(key))
    settings.require_backend()
    assert settings.is_live is key.startswith("am_sk_live_")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("am_pk_test_abcDEF123", "publishable key"),
        ("am_pk_live_abcDEF123", "publishable key"),
        ("am_sk_prod_abcDEF123", "am_sk_test_... or am_sk_live_..."),
        ("am_sk_test_", "copy it again as a whole"),
        ("am_sk_test_abcDEF123 ", "copy it again as a whole"),
        ("am_sk_test_abcDEF123\n", "copy it again as a whole"),
        ("am_sk_test_abc DEF123", "copy it again as a whole"),
        ("Bearer am_sk_test_abcDEF123", "am_sk_test_... or am_sk_live_..."),
        ("sk_test_51abcDEF123", "am_sk_test_... or am_sk_live_..."),
        (" ", "am_sk_test_... or am_sk_live_..."),
    ],
)
def test_refuses_what_is_no_secret_key(key: str, said: str) -> None:
    """A key of another kind, another service or with a stray line end is refused before anything is sent with it."""
    message = refusal(secret_key=key)
    assert message.startswith("AUTUMN_SECRET_KEY: ")
    assert said in message


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`AUTUMN_SECRET_KEY=` in a file of examples is the same as no line, so the emulator works beside it."""
    monkeypatch.setenv("AUTUMN_SECRET_KEY", "")
    assert AutumnSettings.load().secret_key is None
    monkeypatch.setenv("AUTUMN_EMULATOR", "true")
    AutumnSettings.load().require_backend()


def test_no_key_and_no_emulator_says_what_to_set() -> None:
    """A start without any set-up ends in a sentence that names both ways out."""
    with pytest.raises(ConfigurationError, match=r"AUTUMN_SECRET_KEY is not set.*AUTUMN_EMULATOR=true"):
        Autumn(prices={"small": 1})


def test_the_emulator_refuses_a_live_key() -> None:
    """A production service must not bill an emulator; a test key beside one does no harm."""
    with pytest.raises(ConfigurationError, match=r"AUTUMN_EMULATOR is on and AUTUMN_SECRET_KEY is a live key"):
        AutumnSettings(emulator=True, secret_key=SecretStr(LIVE_KEY)).require_backend()
    AutumnSettings(emulator=True, secret_key=SecretStr(TEST_KEY)).require_backend()


@pytest.mark.parametrize(
    "url",
    [
        "api.useautumn.com",
        "ftp://api.useautumn.com",
        "https://",
        "https://api.useautumn.com/v1",
        "https://api.useautumn.com?env=live",
        "https://api.useautumn.com#top",
        "https://user:pass@api.useautumn.com",
        "https://api useautumn.com",
        "https://api.useautumn.com:",
        "https://api.useautumn.com:https",
        "https://api.useautumn.com:65536",
        "https://[::1",
    ],
)
def test_refuses_a_base_url_that_is_no_origin(url: str) -> None:
    """What is not scheme, host and port would fail, or go astray, at the first call of a customer."""
    assert refusal(base_url=url).startswith("AUTUMN_BASE_URL: has to be an origin")


@pytest.mark.parametrize(
    "url", ["https://api.useautumn.com", "http://localhost:65535", "http://[::1]:8080", "http://autumn"]
)
def test_takes_origins(url: str) -> None:
    """Names, addresses and ports, with or without a slash at the end."""
    assert AutumnSettings(base_url=url).base_url == url
    assert AutumnSettings(base_url=f"{url}/").base_url == url


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("timeout", "0"),
        ("timeout", "-1"),
        ("timeout", "61"),
        ("timeout", "nan"),
        ("timeout", "soon"),
        ("connect_timeout", "inf"),
        ("max_retries", "-1"),
        ("max_retries", "11"),
        ("max_concurrency", "0"),
        ("max_waiting", "-1"),
        ("feature_id", ""),
        ("max_body_bytes", "-1"),
        ("ensure_ttl", "-0.1"),
        ("charging", "later"),
        ("hold_ttl", "59"),
        ("hold_ttl", "86401"),
        ("on_unavailable", "maybe"),
        ("refund_on_disconnect", "perhaps"),
        ("event_delay", "inf"),
        ("shutdown_timeout", "-1"),
        ("transport", "curl"),
        ("emulator", ""),
    ],
)
def test_refuses_values_out_of_range(name: str, written: str) -> None:
    """A value that cannot work is refused at start-up, and the message names the variable."""
    assert refusal(**{name: written}).startswith(f"AUTUMN_{name.upper()}: ")


def test_names_every_wrong_variable_at_once() -> None:
    """Whoever sets up a service should not have to start it once per mistake."""
    message = refusal(timeout="soon", charging="later", secret_key="nonsense")
    assert re.findall(r"AUTUMN_\w+(?=:)", message) == ["AUTUMN_SECRET_KEY", "AUTUMN_TIMEOUT", "AUTUMN_CHARGING"]


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - {"emulator_path", "prices", "outbox_url", "feature_id"}))
def test_no_refusal_contains_the_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key pasted into the wrong variable reaches no log: not by `load`, nor by the class, nor in a traceback."""
    secret = f"oops:{LIVE_KEY}"
    monkeypatch.setenv(f"AUTUMN_{name.upper()}", secret)
    with pytest.raises(ConfigurationError) as refused:
        AutumnSettings.load()
    with pytest.raises(ValidationError) as direct:
        AutumnSettings()
    for error in (refused.value, direct.value):
        shown = f"{error} {error!r} {''.join(traceback.format_exception(error))}"
        assert LIVE_KEY not in shown


def test_nothing_shown_contains_a_secret() -> None:
    """Neither the key nor a database password is in what a log line or a debugger prints of the settings."""
    settings = AutumnSettings(
        secret_key=SecretStr(LIVE_KEY), outbox_url="postgresql+asyncpg://autumn:hunter2@db.internal/autumn"
    )
    shown = f"{settings!r} {settings}"
    assert LIVE_KEY not in shown
    assert "hunter2" not in shown
    assert LIVE_KEY not in f"{settings.model_dump()} {settings.model_dump_json()}"


def test_is_frozen() -> None:
    """Whoever holds the settings can rely on them."""
    settings = AutumnSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.timeout = 1  # type: ignore[misc] # the point of the test


def test_the_example_file_is_safe_to_copy() -> None:
    """`.env.example`, copied to production as it is, serves nobody: it has neither a key nor an emulator."""
    shutil.copy(EXAMPLE, ".env")
    settings = AutumnSettings.load()
    assert not settings.emulator
    with pytest.raises(ConfigurationError, match="AUTUMN_SECRET_KEY is not set"):
        settings.require_backend()


@pytest.mark.parametrize("name", ["AUTUMN_SECRET_KEY", "autumn_secret_key", "AUTUMN_PROD_SECRET_KEY"])
def test_a_file_does_not_send_an_exported_key_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` in somebody else's code must not decide where the key of the shell goes."""
    Path(".env").write_text("AUTUMN_BASE_URL=https://autumn.attacker.example\n")
    monkeypatch.setenv(name, TEST_KEY)
    with pytest.raises(ConfigurationError, match="set both in the same place"):
        AutumnSettings.load()

    Path(".env").write_text("AUTUMN_BASE_URL=http://localhost:8080\n")
    assert AutumnSettings.load().base_url == "http://localhost:8080"

    Path(".env").write_text("AUTUMN_BASE_URL=https://autumn.attacker.example\n")
    monkeypatch.setenv("AUTUMN_BASE_URL", "https://autumn.example")
    assert AutumnSettings.load().base_url == "https://autumn.example"


def test_key_and_address_may_stand_in_one_file() -> None:
    """Who writes both into `.env` means both."""
    Path(".env").write_text(f"AUTUMN_BASE_URL=https://autumn.example\nAUTUMN_SECRET_KEY={TEST_KEY}\n")
    assert AutumnSettings.load().base_url == "https://autumn.example"


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://api.useautumn.com", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080", True),
        ("http://127.1.2.3", True),
        ("http://[::1]:8080", True),
        ("http://api.useautumn.com", False),
        ("http://10.0.0.5:8080", False),
        ("http://autumn", False),
        ("http://localhost.example.com", False),
    ],
)
def test_a_live_key_travels_encrypted(url: str, safe: bool) -> None:
    """Over http it goes to this machine only, whether an application, the command or a client of its own sends it."""
    settings = AutumnSettings(_env_file=None, secret_key=SecretStr(LIVE_KEY), base_url=url)
    sandbox = settings.model_copy(update={"secret_key": SecretStr(TEST_KEY)})
    sandbox.require_backend()
    if safe:
        settings.require_backend()
        AutumnClient(settings)
        return
    for refused in (
        settings.require_backend,
        lambda: AutumnClient(settings),
        lambda: AutumnClient(sandbox, secret_key=LIVE_KEY),
    ):
        with pytest.raises(ConfigurationError, match="AUTUMN_BASE_URL is http") as error:
            refused()
        assert LIVE_KEY not in str(error.value)


def test_the_example_file_offers_what_there_is() -> None:
    """Each line that it offers is a setting, and works once the key is filled in and the comment sign is gone."""
    example = EXAMPLE.read_text().replace("am_sk_test_...", TEST_KEY)
    offered = re.findall(r"^# (AUTUMN_\w+)=", example, re.MULTILINE)
    assert {name.removeprefix("AUTUMN_").lower() for name in offered} <= set(AutumnSettings.model_fields)
    assert "AUTUMN_SECRET_KEY" in offered
    Path(".env").write_text(re.sub(r"^# (?=AUTUMN_\w+=)", "", example, flags=re.MULTILINE))
    settings = AutumnSettings.load()
    settings.require_backend()
    assert settings.secret_key == SecretStr(TEST_KEY)
