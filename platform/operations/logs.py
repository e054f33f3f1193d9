"""CloudWatch Logs' reading half, over the files of `logstore`: groups, streams and events.

Training jobs log to `/aws/sagemaker/TrainingJobs`, stream `<job>/…`; endpoints to `/aws/sagemaker/Endpoints/<name>`.
"""

from __future__ import annotations

from operator import attrgetter

from raymaker.actors.runtime.base import LogLine
from raymaker.platform.errors import InvalidParameterException, ResourceNotFoundException
from raymaker.platform.logstore import EVENTS_PER_PAGE, LogStore, LogStreamInfo
from raymaker.platform.operations.registry import Answer, Context, Request, operation

_DEFAULT_LIMIT = 50


@operation("DescribeLogGroups")
def describe_log_groups(context: Context, request: Request) -> Answer:
    """List the groups that have had a line, by name."""
    _refuse(request, "accountIdentifiers", "logGroupNamePattern", "logGroupIdentifiers", "logGroupClass")
    names = _store(context).groups(request.get("logGroupNamePrefix", ""))
    page, token = _page(names, request)
    return {"logGroups": [_describe_group(context, name) for name in page], "nextToken": token}


@operation("DescribeLogStreams")
def describe_log_streams(context: Context, request: Request) -> Answer:
    """List a group's streams, by name or by the time of their last line."""
    store, group = _store(context), _group(request)
    by_time = request.get("orderBy") == "LastEventTime"
    if by_time and "logStreamNamePrefix" in request:
        raise InvalidParameterException("Cannot order by LastEventTime with a logStreamNamePrefix.")
    try:
        names = store.streams(group, request.get("logStreamNamePrefix", ""))
    except FileNotFoundError:
        raise _no_group(group) from None
    if by_time:
        names = [info.name for info in sorted((store.describe(group, n) for n in names), key=attrgetter("last_ns"))]
    page, token = _page(names[::-1] if request.get("descending") else names, request)
    streams = [_describe_stream(context, group, store.describe(group, name)) for name in page]
    return {"logStreams": streams, "nextToken": token}


@operation("GetLogEvents")
def get_log_events(context: Context, request: Request) -> Answer:
    """Read a page of a stream; asking again with `nextForwardToken` follows it."""
    store, group, stream = _store(context), _group(request), request["logStreamName"]
    try:
        page = store.read(
            group,
            stream,
            token=request.get("nextToken"),
            limit=request.get("limit", EVENTS_PER_PAGE),
            start_ms=request.get("startTime"),
            end_ms=request.get("endTime"),
            from_head=request.get("startFromHead", False),
        )
    except FileNotFoundError:
        raise ResourceNotFoundException(
            f"The specified log stream does not exist: {stream} in {group}. A stream appears with its first line."
        ) from None
    except ValueError as error:
        raise InvalidParameterException(f"The specified nextToken is invalid: {error}.") from error
    return {
        "events": [_event(line) for line in page.events],
        "nextForwardToken": page.forward_token,
        "nextBackwardToken": page.backward_token,
    }


def _store(context: Context) -> LogStore:
    """The platform's log streams."""
    return LogStore(context.settings.home_path / "logs")


def _group(request: Request) -> str:
    """The group that a request names; an identifier is a name or an ARN that ends in one."""
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise InvalidParameterException("Give logGroupName or logGroupIdentifier, one of them.")
    return str(name) if identifier is None else str(identifier).rpartition(":")[2]


def _page(names: list[str], request: Request) -> tuple[list[str], str | None]:
    """Cut one page out of `names`; its token is the last name of it, which stays right while others come and go."""
    token, limit = request.get("nextToken"), request.get("limit", _DEFAULT_LIMIT)
    if token is not None and token not in names:
        raise InvalidParameterException("The specified nextToken is invalid: it is none that this operation gave.")
    begin = names.index(token) + 1 if token is not None else 0
    page = names[begin : begin + limit]
    return page, page[-1] if begin + limit < len(names) else None


def _describe_group(context: Context, group: str) -> Answer:
    """Say of a group what there is to say."""
    arn = f"arn:aws:logs:{context.region}:{context.account}:log-group:{group}"
    return {"logGroupName": group, "arn": f"{arn}:*", "logGroupArn": arn}


def _describe_stream(context: Context, group: str, info: LogStreamInfo) -> Answer:
    """Say of a stream what CloudWatch does."""
    first_ms, last_ms = info.first_ns // 1_000_000, info.last_ns // 1_000_000
    return {
        "logStreamName": info.name,
        "creationTime": first_ms,
        "firstEventTimestamp": first_ms,
        "lastEventTimestamp": last_ms,
        "lastIngestionTime": last_ms,
        "arn": f"arn:aws:logs:{context.region}:{context.account}:log-group:{group}:log-stream:{info.name}",
        "storedBytes": info.size_bytes,
    }


def _event(line: LogLine) -> Answer:
    """One event, in milliseconds."""
    time_ms = line.time_ns // 1_000_000
    return {"timestamp": time_ms, "message": line.text, "ingestionTime": time_ms}


def _refuse(request: Request, *names: str) -> None:
    """Refuse members that the model has and this platform does not honour."""
    for name in names:
        if name in request:
            raise InvalidParameterException(f"{name} is not supported here; leave it out.")


def _no_group(group: str) -> ResourceNotFoundException:
    """Say that a group is not there, and why that may be."""
    return ResourceNotFoundException(
        f"The specified log group does not exist: {group}. A group appears with the first line that is logged to it."
    )
