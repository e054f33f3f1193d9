"""Notices to webhooks: one HTTP POST of a JSON document, which counts as heard once it is answered with a success."""

from __future__ import annotations

MOST_NOTICES = 8
"""How often a notice is tried: for about two minutes."""
NOTICE_TIMEOUT_S = 10.0


def is_webhook(topic: str) -> bool:
    """Tell whether this names a webhook."""
    return topic.startswith(("http://", "https://"))


async def post_notice(url: str, content: bytes) -> None:
    """Post a notice to a webhook. Raises OSError where it does not say that it has it."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(NOTICE_TIMEOUT_S)) as session,
            session.post(url, data=content, headers={"content-type": "application/json"}) as answer,
        ):
            if answer.status >= 300:  # noqa: PLR2004 - HTTP's successes end there
                raise OSError(f"it answered with status {answer.status}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OSError(str(error) or repr(error)) from error
