"""`craftastic settings`: each value, its variable, and where it came from."""

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from craftastic.cli.output import show_json, show_table
from craftastic.settings import Settings

MASK = "********"


def variables(name: str, field: FieldInfo) -> list[str]:
    """Return the variables that set a field, the first wins."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    prefix = Settings.model_config.get("env_prefix", "")
    return [alias if isinstance(alias, str) else f"{prefix}{name}".upper()]


def rows(settings: Settings) -> list[dict[str, Any]]:
    """Return one row a setting; secrets are masked, whatever their form."""
    from_environment = EnvSettingsSource(Settings).env_vars
    from_file = DotEnvSettingsSource(Settings).env_vars
    found: list[dict[str, Any]] = []
    for name, field in Settings.model_fields.items():
        names = variables(name, field)
        variable, source = _source(names, from_environment, from_file)
        value: object = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = MASK
        found.append({"name": name, "variable": variable, "value": value, "source": source})
    return found


def _source(
    names: list[str], environment: Mapping[str, str | None], file: Mapping[str, str | None]
) -> tuple[str, str]:
    """Return which variable set it, and where; names count in any letter case."""
    for where, values in (("environment", environment), (".env", file)):
        for name in names:
            if values.get(name.lower()) is not None:
                return name, where
    return names[0], "default"


def show(settings: Settings, *, as_json: bool) -> None:
    found = rows(settings)
    if as_json:
        show_json(found)
        return
    show_table(
        ("SETTING", "VARIABLE", "VALUE", "SOURCE"),
        [(row["name"], row["variable"], _text(row["value"]), row["source"]) for row in found],
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
