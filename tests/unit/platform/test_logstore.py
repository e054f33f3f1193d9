"""Log streams as files: what is appended, what is read, and what a crash or a hostile name leaves."""

import pytest

from raymaker.actors.runtime.base import LogLine
from raymaker.platform import logstore
from raymaker.platform.logstore import LogStore

GROUP, STREAM = "/aws/sagemaker/TrainingJobs", "digits-1/algo-1-1700000000"
MS = 1_000_000


def lines(*numbers: int) -> list[LogLine]:
    """Lines at so many milliseconds."""
    return [LogLine(number * MS, f"line {number}") for number in numbers]


def texts(page: logstore.LogPage) -> list[int]:
    """The numbers of a page's lines."""
    return [line.time_ns // MS for line in page.events]


@pytest.fixture
def store(tmp_path):
    return LogStore(tmp_path / "logs")


@pytest.fixture
def filled(store):
    store.append(GROUP, STREAM, lines(*range(1, 11)))
    return store


def test_a_stream_that_never_was_has_no_last_time_and_cannot_be_read(store):
    assert store.last_time(GROUP, STREAM) == 0
    assert store.groups() == []
    for ask in (lambda: store.read(GROUP, STREAM), lambda: store.streams(GROUP), lambda: store.describe(GROUP, STREAM)):
        with pytest.raises(FileNotFoundError):
            ask()


def test_lines_come_back_as_they_were_said(store):
    said = [
        LogLine(1, "plain"),
        LogLine(2, ""),
        LogLine(3, "größe \u2028 \r\n \0 \x1b[0m 🙂"),
        LogLine(4, "half \ud800"),
    ]
    store.append(GROUP, STREAM, said)
    assert store.read(GROUP, STREAM).events == [*said[:3], LogLine(4, "half ?")]


def test_repeating_lines_adds_nothing_and_later_ones_are_added(store):
    store.append(GROUP, STREAM, lines(1, 2))
    store.append(GROUP, STREAM, lines(1, 2, 3))
    store.append(GROUP, STREAM, lines(2))
    assert texts(store.read(GROUP, STREAM)) == [1, 2, 3]
    assert store.last_time(GROUP, STREAM) == 3 * MS


def test_lines_of_one_moment_are_kept_and_those_that_fall_back_in_time_are_not(store):
    store.append(GROUP, STREAM, lines(5, 5, 4, 6))
    assert texts(store.read(GROUP, STREAM)) == [5, 5, 6]


def test_half_a_line_that_a_crash_left_is_not_read_and_gives_way_to_the_next(filled, tmp_path):
    (file,) = (tmp_path / "logs").rglob("*.log")
    with file.open("ab") as handle:
        handle.write(b'11000000 "never fini')
    assert texts(filled.read(GROUP, STREAM)) == list(range(1, 11))
    assert filled.last_time(GROUP, STREAM) == 10 * MS
    filled.append(GROUP, STREAM, lines(11))
    assert texts(filled.read(GROUP, STREAM)) == list(range(1, 12))


def test_following_reads_each_line_once_and_its_token_stays_while_nothing_is_new(filled):
    first = filled.read(GROUP, STREAM, from_head=True, limit=7)
    second = filled.read(GROUP, STREAM, token=first.forward_token, limit=7)
    at_end = filled.read(GROUP, STREAM, token=second.forward_token)
    assert (texts(first), texts(second), texts(at_end)) == ([1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [])
    assert at_end.forward_token == second.forward_token
    filled.append(GROUP, STREAM, lines(11))
    assert texts(filled.read(GROUP, STREAM, token=at_end.forward_token)) == [11]


def test_reading_backwards_from_the_end_reads_each_line_once(filled):
    last = filled.read(GROUP, STREAM, limit=4)
    before = filled.read(GROUP, STREAM, token=last.backward_token, limit=4)
    rest = filled.read(GROUP, STREAM, token=before.backward_token, limit=4)
    at_start = filled.read(GROUP, STREAM, token=rest.backward_token)
    assert [texts(page) for page in (last, before, rest, at_start)] == [[7, 8, 9, 10], [3, 4, 5, 6], [1, 2], []]
    assert at_start.backward_token == rest.backward_token
    assert texts(filled.read(GROUP, STREAM, token=before.forward_token)) == [7, 8, 9, 10]


@pytest.mark.parametrize("from_head", [True, False])
@pytest.mark.parametrize("start", [None, 0, 1, 4, 10, 11])
@pytest.mark.parametrize("end", [None, 0, 1, 4, 10, 11])
def test_a_window_of_time_includes_its_start_and_not_its_end(filled, from_head, start, end):
    page = filled.read(GROUP, STREAM, start_ms=start, end_ms=end, from_head=from_head)
    wanted = [n for n in range(1, 11) if (start is None or n >= start) and (end is None or n < end)]
    assert texts(page) == wanted


def test_tokens_and_windows_go_together(filled):
    page = filled.read(GROUP, STREAM, from_head=True, start_ms=3, end_ms=8, limit=3)
    more = filled.read(GROUP, STREAM, token=page.forward_token, start_ms=3, end_ms=8)
    none = filled.read(GROUP, STREAM, token=more.forward_token, start_ms=3, end_ms=8)
    assert [texts(p) for p in (page, more, none)] == [[3, 4, 5], [6, 7], []]
    assert none.forward_token == more.forward_token


@pytest.mark.parametrize("token", ["", "x", "f/", "f/-1", "g/5", "f/1e3", "f/" + "9" * 40, "f/٣", "f/1\n"])
def test_what_is_no_token_is_refused(filled, token):
    with pytest.raises(ValueError, match="not a token"):
        filled.read(GROUP, STREAM, token=token)


@pytest.mark.parametrize("position", [0, 1, 7, 50, 10**6, 10**17])
@pytest.mark.parametrize("direction", ["f", "b"])
def test_a_made_up_token_gives_whole_lines_or_none(filled, direction, position):
    page = filled.read(GROUP, STREAM, token=f"{direction}/{position}")
    assert set(texts(page)) <= set(range(1, 11))


def test_a_page_has_at_most_a_megabyte_and_long_lines_are_cut(store):
    store.append(GROUP, STREAM, [LogLine(n, "\0" * 10**6) for n in range(1, 4)])
    store.append(GROUP, STREAM, [LogLine(n, "x" * 10**6) for n in range(4, 14)])
    pages = [store.read(GROUP, STREAM, from_head=True)]
    while pages[-1].events:
        pages.append(store.read(GROUP, STREAM, token=pages[-1].forward_token))
    assert [line.time_ns for page in pages for line in page.events] == list(range(1, 14))
    assert {len(line.text) for page in pages for line in page.events} == {logstore.LONGEST_LINE_BYTES}
    backwards = [store.read(GROUP, STREAM)]
    while backwards[-1].events:
        backwards.append(store.read(GROUP, STREAM, token=backwards[-1].backward_token))
    assert [line.time_ns for page in backwards[::-1] for line in page.events] == list(range(1, 14))


@pytest.mark.parametrize(
    "name", ["..", ".", "../../x", "/etc/passwd", "a\0b", "%2e%2e", "ä🙂", "\ud800", "a/b.log", "-rf", " "]
)
def test_hostile_names_stay_inside_the_folder_and_keep_apart(store, tmp_path, name):
    store.append(name, name, lines(1))
    assert texts(store.read(name, name)) == [1]
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent.parent == tmp_path / "logs"
    readable = name.replace("\ud800", "?")
    assert (store.groups(), store.streams(name)) == ([readable], [readable])


def test_names_too_long_for_a_file_are_refused_when_written_and_not_there_when_read(store):
    with pytest.raises(ValueError, match="too long"):
        store.append(GROUP, "x" * 300, lines(1))
    assert store.last_time(GROUP, "x" * 300) == 0


def test_streams_are_listed_by_prefix_and_described(filled):
    filled.append(GROUP, "digits-10/algo-1", lines(1))
    filled.append("/aws/sagemaker/Endpoints/e", "AllTraffic/1", lines(1))
    assert filled.groups("/aws/sagemaker/T") == [GROUP]
    assert filled.streams(GROUP) == [STREAM, "digits-10/algo-1"]
    assert filled.streams(GROUP, "digits-1/") == [STREAM]
    info = filled.describe(GROUP, STREAM)
    assert (info.name, info.first_ns, info.last_ns) == (STREAM, 1 * MS, 10 * MS)
    assert info.size_bytes > 0
