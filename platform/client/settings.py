"""The settings as clients read them: only when they are needed, and with a wrong one told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymaker.platform.client.errors import WrongArgument

if TYPE_CHECKING:
    from raymaker.platform.settings import Settings


def read_settings(**overrides: Any) -> Settings:
    """Read this machine's settings, with those that are given and not None over them. Raises WrongArgument."""
    import pydantic

    from raymaker.platform.settings import Settings

    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except pydantic.ValidationError as error:
        wrong = [(".".join(map(str, item["loc"])), item) for item in error.errors()]
        told = "; ".join(f"{name} is {item['input']!r}: {item['msg']}" for name, item in wrong)
        variables = ", ".join(f"RAYMAKER_{name.upper()}" for name, _ in wrong)
        raise WrongArgument(
            f"the settings are wrong: {told}. Mend {variables}, the option, or raymaker.toml."
        ) from error
