"""What a person sees while something is waited for."""

from __future__ import annotations

import io

from raymaker.platform.client.progress import progress_display


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_for_every_change() -> None:
    stream = io.StringIO()
    with progress_display("job", stream=stream) as show:
        for phase, message in [("Pending", "no room"), ("Pending", "no room"), ("Training", "")]:
            show(phase, message)
    lines = stream.getvalue().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["Pending: no room", "Training"]
    assert all(line.startswith("job ") for line in lines)


def test_a_terminal_keeps_the_phases_that_are_over_and_takes_text_as_it_is() -> None:
    stream = Terminal()
    with progress_display("job", stream=stream) as show:
        show("Pending", "waits for [bold]room[/]")
        show("Training", "")
    told = stream.getvalue()
    assert "waits for [bold]room[/]" in told
    assert told.rindex("Training") > told.index("Pending")


def test_nothing_is_shown_where_it_is_not_wanted() -> None:
    stream = Terminal()
    with progress_display("job", shown=False, stream=stream) as show:
        show("Training", "")
    assert stream.getvalue() == ""
