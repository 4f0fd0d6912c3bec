"""Settings, read from `AUTUMN_*` variables and from `.env`."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import from_json
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import ConfigurationError

__all__ = ["API_VERSION", "LIVE_KEYS", "AutumnSettings", "Charging", "Mode", "OnUnavailable", "WhenCutOff"]

API_VERSION = "2.3.0"
"""The version of Autumn's API whose answers this package reads."""

Charging = Literal["deduct", "hold"]
WhenCutOff = Literal["hold", "deny"]
OnUnavailable = Literal["deny", "allow"]
Mode = Literal["enforce", "observe"]

LIVE_KEYS = "am_sk_live_"
"""How a key begins that moves real money."""

_SECRET_KEY = re.compile(r"am_sk_(test|live)_[A-Za-z0-9_-]{6,}")
_SIGNING_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]+={0,2}")
_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^/?#\s@:\[\]]+)(:(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65535
_KEYS = {"AUTUMN_SECRET_KEY", "AUTUMN_PROD_SECRET_KEY"}


class AutumnSettings(BaseSettings):
    """How this service talks to Autumn. Every field is an environment variable: `base_url` is `AUTUMN_BASE_URL`.

    Nothing here needs a key by itself; `require_backend` is what an application asks before it starts to serve.
    """

    model_config = SettingsConfigDict(
        env_prefix="AUTUMN_",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    secret_key: SecretStr | None = None
    """`am_sk_test_...` (sandbox) or `am_sk_live_...`."""
    base_url: str = "https://api.useautumn.com"
    """The origin, without `/v1`."""
    emulator: bool = False
    """Use an Autumn inside this process instead of the real one: no key, no network, no money."""
    emulator_path: Path = Path(".autumn/emulator.db")
    """The emulator's file; several workers on one machine share it."""
    transport: Literal["httptools", "httpx"] = "httptools"
    """What carries the calls. `httptools` is several times faster; an httpx client that you pass in is always used."""

    timeout: float = Field(default=5.0, gt=0, le=60)
    """Seconds for one call to Autumn as a whole."""
    connect_timeout: float = Field(default=2.0, gt=0, le=60)
    """Seconds to get a connection."""
    max_retries: int = Field(default=2, ge=0, le=10)
    """How often a call is repeated where repeating is safe."""
    max_concurrency: int = Field(default=256, ge=1)
    """Calls to Autumn at the same time; more than that wait, and no customer has more than a quarter of them."""
    max_waiting: int = Field(default=1024, ge=0)
    """Calls that may wait for their turn; one more is answered with 503."""

    paths: Annotated[tuple[str, ...], NoDecode] = ("/ai",)
    """Path prefixes that the middleware covers; in a variable separated by commas, `/ai,/v1`, or as a JSON list."""
    feature_id: str = Field(default="ai_usage", min_length=1)
    """The metered feature that a paid call uses."""
    prices: Path | None = None
    """A TOML price list, used when `Autumn` is given none."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=0)
    """Larger request bodies on the covered paths are answered with 413 before they are parsed; 0 is no limit."""
    idempotency_header: str = Field(default="Idempotency-Key", pattern=r"^[A-Za-z0-9-]*$")
    """The header under which callers send a key of their own, so that one answer has one price; empty is none."""
    ensure_ttl: float = Field(default=0.0, ge=0)
    """Seconds for which a customer once created is not confirmed again; 0 confirms on every request."""

    mode: Mode = "enforce"
    """`observe` looks everything up and counts it, refuses nobody and takes nothing: to see first what would happen."""
    charging: Charging = "deduct"
    """`deduct` takes the credits at once and gives them back on failure; `hold` reserves them until the call ends."""
    hold_ttl: float = Field(default=3600.0, ge=60, le=24 * 3600)
    """Seconds after which Autumn gives a hold back by itself; longer than the longest stream."""
    on_unavailable: OnUnavailable = "deny"
    """When Autumn gives neither a yes nor a no: `deny` answers 503, `allow` lets the call through unverified."""
    when_cut_off: WhenCutOff = "hold"
    """When the outbox could not be written for a lease: `hold` reserves instead of deducting, `deny` answers 503."""
    refund_on_disconnect: bool = False
    """Give the credits back when the client hangs up before the answer is complete."""

    event_delay: float = Field(default=120.0, ge=0, allow_inf_nan=False)
    """Seconds after which Autumn's event log is trusted to show what has happened; under load it is a minute behind."""

    webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The signing secret of the webhook's endpoint, `whsec_...`; while it is rotated both, separated by commas."""

    # Not in the repr: a PostgreSQL URL has a password in it.
    outbox_url: str = Field(default="sqlite+aiosqlite:///.autumn/outbox.db", repr=False)
    """Where refunds wait until Autumn has them: SQLite, or `postgresql://` when several machines share it."""
    outbox_lease: float = Field(default=30.0, ge=0.5, le=3600)
    """Seconds without a commit after which a worker opens no deductions, and for which its claim on a row holds."""
    shutdown_timeout: float = Field(default=10.0, ge=0)
    """Seconds for each of the four steps of a shutdown; what is not delivered by then stays for the next start."""

    @property
    def silence(self) -> float:
        """Seconds without a commit after which a worker is taken for dead.

        Up to the lease it may begin a deduction, which may take up to the time-out, and then the event log may be late.
        """
        return self.outbox_lease + self.timeout + self.event_delay

    @field_validator("secret_key")
    @classmethod
    def _looks_like_a_secret_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None or not key.get_secret_value():
            return None
        if key.get_secret_value().startswith("am_pk_"):
            raise ValueError("is a publishable key (am_pk_...); a server needs the secret key (am_sk_...)")
        if not _SECRET_KEY.fullmatch(key.get_secret_value()):
            if key.get_secret_value().startswith(("am_sk_test_", "am_sk_live_")):
                raise ValueError("begins like an Autumn secret key and is not one; copy it again as a whole")
            raise ValueError("is not an Autumn secret key; it has to look like am_sk_test_... or am_sk_live_...")
        return key

    @field_validator("transport", mode="before")
    @classmethod
    def _is_still_there(cls, transport: Any) -> Any:
        if transport == "reqwest":
            raise ValueError(
                "reqwest is gone; remove the variable (the default, httptools, is faster) or set it to httpx"
            )
        return transport

    @field_validator("base_url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        origin = _ORIGIN.fullmatch(url.rstrip("/"))
        if origin is None or int(origin["port"] or 0) > _LAST_PORT:
            raise ValueError("has to be an origin such as https://api.useautumn.com, without a path")
        return url.rstrip("/")

    @field_validator("webhook_secret", mode="before")
    @classmethod
    def _read_secrets(cls, secrets: Any) -> Any:
        if isinstance(secrets, SecretStr):
            secrets = secrets.get_secret_value()
        if not isinstance(secrets, str):
            return secrets
        return [secret.strip() for secret in secrets.split(",") if secret.strip()]

    @field_validator("webhook_secret")
    @classmethod
    def _look_like_signing_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            if not _SIGNING_SECRET.fullmatch(secret.get_secret_value()):
                raise ValueError("is not a signing secret; it has to look like whsec_...")
        return secrets

    @field_validator("paths", mode="before")
    @classmethod
    def _read_as_a_list(cls, paths: Any) -> Any:
        if not isinstance(paths, str):
            return paths
        if paths.lstrip().startswith("["):
            return from_json(paths)
        return [path.strip() for path in paths.split(",")]

    @field_validator("paths")
    @classmethod
    def _are_prefixes(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/"):
                raise ValueError("have to start with a slash, such as /ai")
        return paths

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment and `.env`.

        Raises:
            ConfigurationError: A variable has a value that cannot be used; the message names it, never its value. Or
                `.env` would send a key of the environment elsewhere.
        """
        try:
            settings = cls()
        except ValidationError as error:
            raise ConfigurationError(_in_one_sentence_each(error)) from None
        except UnicodeDecodeError:
            # Its own text would show what is in the file.
            raise ConfigurationError(".env is not UTF-8; save it in that encoding.") from None
        settings.require_one_source()
        return settings

    def require_one_source(self) -> None:
        """Refuse an address out of `.env` for a key out of the environment: the file may have come with other code.

        Raises:
            ConfigurationError: It is so, and the address is not on this machine.
        """
        exported = {name.upper() for name in os.environ}
        moved = self.base_url != type(self).model_fields["base_url"].default and "AUTUMN_BASE_URL" not in exported
        if moved and exported & _KEYS and not _is_this_machine(urlsplit(self.base_url).hostname or ""):
            raise ConfigurationError(
                "AUTUMN_BASE_URL stands in .env and the key in the environment. A .env that came with somebody else's "
                "code could send your key anywhere, so set both in the same place."
            )

    def require_backend(self) -> None:
        """Refuse settings with which no call to Autumn could work, or with which it is unclear which Autumn is meant.

        Raises:
            ConfigurationError: No key and no emulator, the emulator together with a live key, or a live key that would
                travel unencrypted.
        """
        if self.emulator:
            if self.is_live:
                raise ConfigurationError(
                    "AUTUMN_EMULATOR is on and AUTUMN_SECRET_KEY is a live key: unset one of them, "
                    "so that a production service never bills an emulator."
                )
        elif self.secret_key is None:
            raise ConfigurationError(
                "AUTUMN_SECRET_KEY is not set. Put your am_sk_test_... or am_sk_live_... key there "
                "(environment or .env), or set AUTUMN_EMULATOR=true to run against the emulator, with no key."
            )
        elif self.is_live:
            self.require_encryption()

    def require_encryption(self) -> None:
        """Refuse an address to which a live key would travel for everybody on the way to read.

        Raises:
            ConfigurationError: `base_url` is http, and not on this machine.
        """
        address = urlsplit(self.base_url)
        if address.scheme == "http" and not _is_this_machine(address.hostname or ""):
            raise ConfigurationError(
                "AUTUMN_BASE_URL is http and AUTUMN_SECRET_KEY is a live key: use https, or a proxy on this machine, "
                "so that nobody on the way can read the key."
            )

    @property
    def observes(self) -> bool:
        """Whether nobody is refused and nothing is taken."""
        return self.mode == "observe"

    @property
    def is_live(self) -> bool:
        """Whether the key moves real money."""
        return self.secret_key is not None and self.secret_key.get_secret_value().startswith(LIVE_KEYS)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_one_sentence_each(error: ValidationError) -> str:
    problems = (
        f"AUTUMN_{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_input=False, include_url=False)
    )
    return "; ".join(problems)
