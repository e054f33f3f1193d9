"""Who gets SIGTERM when a container is to stop."""

from __future__ import annotations

import os

from raymaker.actors.runtime.termination import Process, chosen, started_ticks

INIT = 100


def _process(pid: int, parent: int, *, listens: bool = False, is_shell: bool = False) -> Process:
    return Process(pid, parent, started_ticks=pid, listens=listens, is_shell=is_shell)


def _chosen(*processes: Process) -> set[int]:
    outside = [_process(1, 0, listens=True), _process(INIT, 1), _process(7, 1, listens=True)]
    return {process.pid for process in chosen([*outside, *processes], INIT)}


def test_only_what_is_below_init_and_not_init_itself() -> None:
    assert _chosen(_process(101, INIT)) == {101}


def test_a_shell_that_only_waits_for_a_listening_program_is_spared() -> None:
    assert _chosen(_process(101, INIT, is_shell=True), _process(102, 101, listens=True)) == {102}


def test_where_nobody_listens_all_get_it() -> None:
    assert _chosen(_process(101, INIT, is_shell=True), _process(102, 101)) == {101, 102}


def test_a_listening_program_answers_for_its_workers() -> None:
    workers = (_process(102, 101), _process(103, 101, listens=True), _process(104, 103))
    assert _chosen(_process(101, INIT, listens=True), *workers) == {101}


def test_a_listening_shell_is_freed_from_what_it_waits_for() -> None:
    assert _chosen(_process(101, INIT, listens=True, is_shell=True), _process(102, 101)) == {101, 102}


def test_what_was_left_to_init_is_reached_too() -> None:
    assert _chosen(_process(101, INIT, listens=True), _process(105, INIT)) == {101, 105}


def test_an_empty_container_has_nobody() -> None:
    assert _chosen() == set()


def test_a_process_is_known_by_when_it_started() -> None:
    assert (started_ticks(os.getpid()) or 0) > 0
    assert started_ticks(2**22 + 1) is None
