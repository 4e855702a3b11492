"""Everything that can be set, read once from the environment and passed on frozen.

Each variable is `NOTICEBUS_` and the field's name, a nested one with its part in between:
`NOTICEBUS_DATABASE_URL`, `NOTICEBUS_RELAY_BATCH_MAX`. Secrets come from the environment or from a
file (`NOTICEBUS_DATABASE_URL_FILE`, `NOTICEBUS_REDIS_URL_FILE`), never from the command line, and
are left out of `repr`. A value out of its range raises `RejectedError` (NB-7010) that names the
variable and not the value.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from schemas.checkpoint import COSIGNATURE, Verifier
from schemas.errors import EvidenceError, RejectedError, UnavailableError

Agency = Literal["ice", "hhs"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

PREFIX = "NOTICEBUS_"
# Read by the command line and by tests, not by `Settings`.
OTHER_VARIABLES = frozenset({"NOTICEBUS_ACTOR", "NOTICEBUS_OUTPUT"})
SECRETS = ("database_url", "redis_url")
_FILE = "_FILE"


class RelaySettings(BaseModel, frozen=True, extra="forbid"):
    """How accepted messages go out, and when a missing answer is noticed."""

    # Large enough that a commit is shared, small enough for short locks.
    batch_max: int = Field(default=500, ge=1, le=2_000)
    window_max: int = Field(default=10_000, ge=1, le=100_000)
    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    answer_seconds: float = Field(default=300, gt=0, le=86_400)
    republish_after_seconds: float = Field(default=60, ge=0, le=86_400)


class DeliverySettings(BaseModel, frozen=True, extra="forbid"):
    """How entries are taken, tried again and set aside."""

    batch_max: int = Field(default=1_260, ge=1, le=2_000)
    attempts_max: int = Field(default=5, ge=1, le=100)
    backoff_seconds_min: float = Field(default=1.0, gt=0, le=3_600)
    backoff_seconds_max: float = Field(default=60.0, gt=0, le=86_400)
    gap_ask_seconds: float = Field(default=5.0, gt=0, le=3_600)
    lag_seconds_max: float = Field(default=300.0, gt=0, le=86_400)

    @model_validator(mode="after")
    def _backoff_is_a_range(self) -> Self:
        if self.backoff_seconds_min > self.backoff_seconds_max:
            raise ValueError("backoff_seconds_min is above backoff_seconds_max")
        return self


class SealerSettings(BaseModel, frozen=True, extra="forbid"):
    """How often the ledger is sealed when nobody waits for an answer, and how much at once."""

    interval_seconds: float = Field(default=0.9, gt=0, le=60)
    batch_max: int = Field(default=2_000, ge=1, le=10_000)


class BusSettings(BaseModel, frozen=True, extra="forbid"):
    """How patiently the bus is spoken to; every wait on it ends."""

    connect_seconds: float = Field(default=5.0, gt=0, le=120)
    answer_seconds: float = Field(default=10.0, gt=0, le=300)
    block_seconds: float = Field(default=1.0, gt=0, le=30)
    claim_idle_seconds: float = Field(default=30.0, gt=0, le=3_600)
    consumer_idle_seconds: float = Field(default=3_600.0, gt=0, le=2_592_000)
    outage_backoff_seconds_min: float = Field(default=0.1, gt=0, le=60)
    outage_backoff_seconds_max: float = Field(default=5.0, gt=0, le=600)


class StreamSettings(BaseModel, frozen=True, extra="forbid"):
    """Into how many streams a lane is split; told to the peer in our party file."""

    live: int = Field(default=1, ge=1, le=64)
    backlog: int = Field(default=1, ge=1, le=64)


class HttpSettings(BaseModel, frozen=True, extra="forbid"):
    """Where health and metrics are served; no port, no server. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65_535)


class WitnessSettings(BaseModel, frozen=True, extra="forbid"):
    """A third party that cosigns our checkpoints (C2SP tlog-witness); none without a key."""

    vkey: str | None = None
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/?#]+[^\s?#]*$", max_length=500)
    answer_seconds: float = Field(default=10.0, gt=0, le=60)
    every_seconds: float = Field(default=60.0, gt=0, le=86_400)

    @field_validator("vkey")
    @classmethod
    def _is_a_cosigner(cls, vkey: str | None) -> str | None:
        if vkey is not None:
            try:
                algorithm = Verifier.parse(vkey).algorithm
            except EvidenceError as error:
                raise ValueError(error.sentence) from None
            if algorithm != COSIGNATURE:
                raise ValueError("it is the key of a log, not of a witness (type 0x04)")
        return vkey

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.vkey is None) != (self.url is None):
            raise ValueError("vkey and url go together")
        return self

    @property
    def verifier(self) -> Verifier | None:
        """The key that its cosignatures verify with, None where no witness is configured."""
        return None if self.vkey is None else Verifier.parse(self.vkey)


class Settings(BaseSettings):
    """One agency's settings. `load` reads them; a process or command does so once."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
    )

    agency: Agency
    home: Path = Path(".noticebus")
    keys: Path | None = None
    anchor: Path | None = None
    database_url: str | None = Field(default=None, repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    log_level: LogLevel = "INFO"
    domain: str = Field(default="", pattern=r"^[a-z0-9][a-z0-9.-]*$|^$", max_length=120)
    relay: RelaySettings = RelaySettings()
    delivery: DeliverySettings = DeliverySettings()
    sealer: SealerSettings = SealerSettings()
    bus: BusSettings = BusSettings()
    streams: StreamSettings = StreamSettings()
    http: HttpSettings = HttpSettings()
    witness: WitnessSettings = WitnessSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        if not filled.get("domain"):
            filled["domain"] = f"{filled.get('agency', 'nobody')}.noticebus.example"
        for name in SECRETS:
            path = os.environ.get(f"{PREFIX}{name.upper()}{_FILE}")
            if path and not filled.get(name):
                filled[name] = Path(path).read_text(encoding="utf-8").strip()
        return filled

    @property
    def peer(self) -> Agency:
        """The other agency."""
        return "hhs" if self.agency == "ice" else "ice"

    @property
    def agency_home(self) -> Path:
        """Where this agency keeps what is its own: embedded database, keys, rejects."""
        return self.home / self.agency

    @property
    def keys_folder(self) -> Path:
        """The folder of this agency's keys."""
        return self.keys or self.agency_home / "keys"

    @property
    def anchor_file(self) -> Path:
        """Where our newest checkpoint stands outside the database, for every process of ours."""
        return (self.anchor or self.agency_home / "anchor") / f"{self.agency}.checkpoint"

    @property
    def partitions(self) -> dict[str, int]:
        """How many streams each lane has from us to the peer."""
        return self.streams.model_dump()

    @property
    def database_url_required(self) -> str:
        """Our database. Raises `UnavailableError` NB-7017 when no address is set."""
        return self._required("database_url")

    @property
    def redis_url_required(self) -> str:
        """The bus. Raises `UnavailableError` NB-7017 when no address is set."""
        return self._required("redis_url")

    def _required(self, name: str) -> str:
        url: str | None = getattr(self, name)
        if not url:
            raise UnavailableError("NB-7017", variable=f"{PREFIX}{name.upper()}")
        return url

    def shown(self) -> dict[str, str | int | float | None]:
        """Return every setting by its variable's name, passwords masked, for people to read."""
        rows: dict[str, str | int | float | None] = {}
        for name, value in self.model_dump(mode="json").items():
            if isinstance(value, dict):
                rows |= {f"{PREFIX}{name}_{part}".upper(): each for part, each in value.items()}
            else:
                rows[f"{PREFIX}{name}".upper()] = (
                    without_password(value) if name in SECRETS and value else value
                )
        return rows


def load(agency: str, *, home: Path | None = None) -> Settings:
    """Return the settings of `agency` from the environment.

    Raises `RejectedError` NB-7010 for a value out of its range, naming the variable alone.
    """
    try:
        return Settings(**_given(agency, home))
    except (ValidationError, SettingsError, OSError) as error:
        variable, rule = next(iter(_faults(error).items()))
        raise RejectedError("NB-7010", variable=variable, rule=rule) from None


def examine(agency: str, *, home: Path | None = None) -> tuple[Settings, dict[str, str]]:
    """Return what `load` would, with defaults in place of what cannot be used, and why it cannot.

    The rules that are broken stand under their variables' names. Raises `RejectedError` NB-7010
    where no default can help: for the agency.
    """
    rules: dict[str, str] = {}

    class Lenient(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            assert isinstance(env_settings, EnvSettingsSource)
            env_settings.env_vars = {
                name: value
                for name, value in env_settings.env_vars.items()
                if name.upper() not in rules
            }
            return init_settings, env_settings

    given = _given(agency, home)
    while True:
        try:
            found = Lenient(**given)
        except (ValidationError, SettingsError, OSError) as error:
            faults = _faults(error)
            for variable, rule in faults.items():
                if variable in rules or variable == f"{PREFIX}AGENCY":
                    raise RejectedError("NB-7010", variable=variable, rule=rule) from None
                if variable.endswith(_FILE):
                    # Anything keeps the file from being read; it is taken out again below.
                    given[variable.removeprefix(PREFIX).removesuffix(_FILE).lower()] = "unknown"
            rules |= faults
        else:
            unread = [name for name in SECRETS if f"{PREFIX}{name.upper()}{_FILE}" in rules]
            return found.model_copy(update=dict.fromkeys(unread)), rules


def _given(agency: str, home: Path | None) -> dict[str, Any]:
    return {"agency": agency} if home is None else {"agency": agency, "home": home}


def _faults(error: ValidationError | SettingsError | OSError) -> dict[str, str]:
    """Return the rule that each unusable variable breaks; neither says its value."""
    match error:
        case ValidationError():
            return {
                variable: each["msg"]
                for each in error.errors(include_input=False, include_url=False)
                for variable in _variables(each["loc"], each["msg"])
            }
        case SettingsError():
            # A part's name alone holds JSON, which nobody is asked to write.
            parts = {f"{PREFIX}{name}".upper() for name in _parts()}
            given = sorted(name.upper() for name in os.environ if name.upper() in parts)
            return dict.fromkeys(given or [f"{PREFIX}*"], str(error))
        case OSError():
            rule = f"{error.strerror}: {error.filename}"
            files = [f"{PREFIX}{name.upper()}{_FILE}" for name in SECRETS]
            named = [file for file in files if os.environ.get(file) == str(error.filename)]
            return dict.fromkeys(named or [f"{PREFIX}*_URL{_FILE}"], rule)


def _variables(place: Sequence[int | str], rule: str) -> list[str]:
    """Return the variables that set a place; what is wrong between two of a part names both."""
    name = PREFIX + "_".join(str(part) for part in place).upper()
    part = _parts().get(str(place[0])) if len(place) == 1 else None
    fields = [] if part is None else [field for field in part.model_fields if field in rule]
    between = [f"{name}_{field}".upper() for field in fields]
    given = {variable.upper() for variable in os.environ}
    return [variable for variable in between if variable in given] or [name]


def _parts() -> dict[str, type[BaseModel]]:
    """Return the parts that settings are made of."""
    fields = Settings.model_fields.items()
    return {name: type(f.default) for name, f in fields if isinstance(f.default, BaseModel)}


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return variables with our prefix that nothing reads: most likely misspelt."""
    known = set(OTHER_VARIABLES)
    for name in Settings.model_fields:
        known.add(f"{PREFIX}{name}".upper())
        if name in SECRETS:
            known.add(f"{PREFIX}{name}{_FILE}".upper())
    for name, part in _parts().items():
        known |= {f"{PREFIX}{name}_{field}".upper() for field in part.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def without_password(url: str) -> str:
    """Return a URL with the password between user and host replaced by `***`."""
    return re.sub(r"(?<=://)([^:/@]*):[^@/]*@", r"\1:***@", url)
