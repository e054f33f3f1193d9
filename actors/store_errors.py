"""What the errors of object stores mean: which of them pass by themselves, and how to tell the rest to people."""

from __future__ import annotations

import errno
import re

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError
from pyarrow.lib import ArrowException
from urllib3.exceptions import HTTPError

from raymaker.actors.errors import ObjectChanged, ObjectNotFound, StorageError

STORE_ERRORS = (OSError, ValueError, ArrowException, BotoCoreError, ClientError, HTTPError)
"""What Python, pyarrow, boto3 and what is below boto3 raise."""
PASSING = (HTTPClientError, BotoConnectionError, IncompleteReadError, HTTPError)
"""What says of a transfer, not of an object, that it failed."""
GONE = frozenset({"NoSuchKey", "404"})
CHANGED = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})

TRANSIENT = re.compile(
    r"NETWORK_CONNECTION|SLOW_?DOWN|SERVICE_?UNAVAILABLE|INTERNAL_?(FAILURE|ERROR)|REQUEST_?TIMEOUT|THROTTL"
    r"|HTTP status 5|^50\d$",
    re.IGNORECASE,
)
DENIED = re.compile(r"DENIED|FORBIDDEN|ACCESS_?KEY|TOKEN|UNRECOGNIZED_?CLIENT|SIGNATURE|403", re.IGNORECASE)


def is_transient(error: Exception) -> bool:
    """Tell whether the store is away or overloaded, so that trying again makes sense."""
    return isinstance(error, PASSING) or bool(TRANSIENT.search(_code(error)))


def explain(error: Exception, verb: str, place: str) -> StorageError:
    """Say in words what went wrong, where, and what to do."""
    if "bucket" in f"{_code(error)} {getattr(error, 'strerror', '')}".lower():
        return ObjectNotFound(f"could not {verb} {place}: there is no such bucket; create it, or correct the URI")
    if _code(error) in CHANGED:
        return changed(place)
    if isinstance(error, FileNotFoundError) or _code(error) in GONE:
        return ObjectNotFound(f"nothing lies at {place}: check the URI, or put the data there first")
    return StorageError(f"could not {verb} {place}: {_reason(error)}")


def changed(place: str) -> ObjectChanged:
    """Say that an object is another than when its reading began."""
    return ObjectChanged(f"{place} changed while it was read: write new data under new names while jobs read the old")


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied to the account that raymaker runs as; change the permissions, or the place"
    if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        return "a name in it is a file where a folder is needed, or a folder where a file is; rename one of them"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "no space is left on the disk; free some, or use a larger one"
    if DENIED.search(_code(error)):
        return f"access was denied ({_code(error)}); {_credentials_remedy()}"
    if is_transient(error):
        return (
            f"the object store is away or overloaded, and stayed so; check that its endpoint is right and up ({error})"
        )
    return str(error)


def _code(error: Exception) -> str:
    """The code of an error of S3: boto3 has it as a field, pyarrow only in its text."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    found = re.search(r"AWS Error (\w+(?: \(HTTP status \d+\))?)", str(error))
    return found.group(1) if found else ""


def _credentials_remedy() -> str:
    import boto3

    if boto3.Session().get_credentials() is None:
        return "no AWS credentials were found in this machine's surroundings, so set an access key and a secret key"
    return "check the access key, the secret key and what they permit"
