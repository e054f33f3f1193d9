"""What of a standby is not the engine's: what it is labelled with in a file, and what it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from raymaker.actors.runtime import standby
from raymaker.actors.runtime.standby import LABEL_STANDBY, SCRIPT

TOKEN = "standby-0123456789abcdef"
BORN = {"raymaker.owner": TOKEN, LABEL_STANDBY: TOKEN}


def test_labels_that_came_later_stand_before_those_it_was_born_with(home: Path) -> None:
    assert not standby.has_standbys(home)
    assert standby.effective_labels(home, BORN) == BORN
    assert standby.begun_at(home, BORN, 5.0) is None
    standby.write_labels(home, TOKEN, {"raymaker.owner": "job", "raymaker.job": "one"})
    assert standby.has_standbys(home)
    assert standby.effective_labels(home, BORN) == {**BORN, "raymaker.owner": "job", "raymaker.job": "one"}
    assert standby.begun_at(home, BORN, 5.0) is None, "it was not told all yet"
    standby.write_labels(home, TOKEN, {"raymaker.owner": "job"}, 7.0)
    assert standby.begun_at(home, BORN, 5.0) == 7.0
    standby.forget_labels(home, TOKEN)
    standby.forget_labels(home, TOKEN)
    assert standby.effective_labels(home, BORN) == BORN


def test_a_container_that_was_none_has_its_own_labels_and_time(home: Path) -> None:
    assert standby.effective_labels(home, {"raymaker.owner": "job"}) == {"raymaker.owner": "job"}
    assert standby.begun_at(home, {"raymaker.owner": "job"}, 5.0) == 5.0


def test_a_label_leads_to_no_other_file(home: Path) -> None:
    with pytest.raises(ValueError, match="is no standby"):
        standby.effective_labels(home, {LABEL_STANDBY: "standby-../../etc/passwd"})


def run(*lines: str) -> tuple[int, str]:
    told = "".join(lines).encode()
    done = subprocess.run(["/bin/sh", "-c", SCRIPT, "sh", TOKEN], input=told, capture_output=True, check=False)
    return done.returncode, done.stdout.decode()


def test_the_script_becomes_what_it_was_told() -> None:
    assert run("export A='x\n y'\n", "exec sh -c 'echo \"$A\"; exit 3' </dev/null\n", f"{TOKEN}\n") == (3, "x\n y\n")


@pytest.mark.parametrize("cut", ["", "exec echo ran\n", "exec echo 'ran", f"exec echo ran\n{TOKEN[:-1]}\n"])
def test_the_script_does_nothing_before_it_was_told_all(cut: str) -> None:
    assert run(cut) == (125, "")
