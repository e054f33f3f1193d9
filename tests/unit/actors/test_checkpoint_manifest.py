"""What follows from what was written down about checkpoints."""

from __future__ import annotations

import json

import pytest

from raymaker.actors.checkpoints.manifest import (
    Claim,
    Manifest,
    ManifestError,
    StoredFile,
    Writer,
    files_of_others,
    next_claim,
    plan_restore,
)

JOB = "job-1"


def claim(generation: int, attempt: int = 1, start: int = 0, machine: int = 0, job: str = JOB) -> Claim:
    return Claim(generation, job, attempt, start, machine)


def plain(name: str, size: int = 1, crc: int = 7, *, inherited: bool = False) -> dict[str, StoredFile]:
    return {name: StoredFile(size, crc, name, inherited)}


STAGE = ".raymaker/staged/000001-00001-00000-000-job-1/ab"


def test_a_claim_survives_the_way_through_its_name() -> None:
    made = claim(3, 2, 1, 7, "odd-name-1-2")
    assert Claim.parse(made.manifest_name.rpartition("/")[2]) == made


@pytest.mark.parametrize("name", ["readme.txt", "1-2-3-4-job.json", "", "000001-00001-00000-job.json"])
def test_other_names_are_no_claims(name: str) -> None:
    assert Claim.parse(name) is None


def test_a_later_start_or_attempt_of_the_same_job_fences_all_machines_of_the_earlier() -> None:
    assert claim(2, 2).fences(claim(1, 1, machine=5))
    assert claim(2, 1, 2).fences(claim(1, 1, 1))
    assert not claim(2, 1, 1).fences(claim(1, 1, 2))


def test_another_job_never_fences_and_machines_of_one_start_live_side_by_side() -> None:
    assert not claim(9, 9, job="job-2").fences(claim(1))
    assert not claim(9, machine=1).fences(claim(1, machine=0))


def test_a_newer_process_of_the_same_machine_and_start_fences_the_older() -> None:
    assert claim(2).fences(claim(1))
    assert not claim(1).fences(claim(1))


def test_machines_of_one_start_join_its_generation_and_a_repeated_claim_begins_another() -> None:
    first = next_claim([], Writer(1, 0, 0, 2, JOB))
    second = next_claim([first], Writer(1, 0, 1, 2, JOB))
    again = next_claim([first, second], Writer(1, 0, 0, 2, JOB))
    other = next_claim([first, second, again], Writer(1, job="job-2"))
    assert [it.generation for it in (first, second, again, other)] == [1, 1, 2, 3]


def test_a_manifest_survives_the_way_through_json() -> None:
    entries = {
        "d": {**plain("d/a ü\n", 5, 0xABC), "d/b": StoredFile(2**40, None, f"{STAGE}/d/b", inherited=True)},
        "lone": plain("lone"),
    }
    made = Manifest(claim(1), entries, frozenset({"d", "begun"}))
    assert Manifest.decode(made.claim, made.encode()) == made


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2, "entries": {}, "begun": []}',
        b'{"format": 1, "entries": {"a": 1}, "begun": []}',
        b'{"format": 1, "entries": {"a": {"a": {"bytes": "many"}}}, "begun": []}',
        b"[" * 100_000,
        *(
            json.dumps({"format": 1, "entries": {"a": {name: {"bytes": 1, "at": at}}}, "begun": []}).encode()
            for name, at in [
                ("../a", "a"),
                ("a/../../b", "a"),
                ("/a", "a"),
                ("b/c", "b/c"),
                ("a", "../a"),
                ("a", "b"),
                ("a", ".raymaker/staged/../a"),
            ]
        ),
    ],
)
def test_a_damaged_or_hostile_manifest_is_an_error(content: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.decode(claim(1), content)


def test_an_entry_is_restored_as_its_manifest_lists_it() -> None:
    manifest = Manifest(claim(1), {"a": plain("a", 3)}, frozenset({"a"}))
    plan = plan_restore([manifest], {"a": 3})
    assert plan.versions["a"][0].files == {"a": (StoredFile(3, 7, "a"),)}
    assert plan.versions["a"][0].size_bytes == 3
    assert plan.torn == {}


def test_an_entry_is_torn_where_a_file_is_gone_or_of_another_size() -> None:
    manifest = Manifest(claim(1), {"d": {**plain("d/1"), **plain("d/2")}, "f": plain("f", 5)})
    assert set(plan_restore([manifest], {"d/1": 1, "f": 4}).torn) == {"d", "f"}


def test_what_was_begun_and_never_stored_is_torn_but_says_nothing_where_nothing_lies() -> None:
    manifest = Manifest(claim(1), {}, frozenset({"half", "nothing"}))
    plan = plan_restore([manifest], {"half/1": 1})
    assert plan.versions == {}
    assert set(plan.torn) == {"half"}


def test_what_nobody_began_is_taken_as_it_lies() -> None:
    plan = plan_restore([Manifest(claim(1))], {"pre/1": 1, "pre/2": 2, "w": 3, ".raymaker/x": 1, "pre/.raymaker-1": 1})
    assert set(plan.versions) == {"pre", "w"}
    assert plan.versions["pre"][0].files == {
        "pre/1": (StoredFile(1, None, "pre/1"),),
        "pre/2": (StoredFile(2, None, "pre/2"),),
    }


@pytest.mark.parametrize(
    "names", [["../etc/x"], ["/etc/x"], ["a//b"], ["a/../../b"], ["a/"], ["a/b", "a/b/c"], ["a", "a/b"]]
)
def test_names_that_no_file_can_have_are_left_out(names: list[str]) -> None:
    plan = plan_restore([], dict.fromkeys(names, 1))
    assert plan.versions == {}
    assert len(plan.torn) == 1


def test_the_latest_start_counts_and_the_earlier_one_is_the_second_choice() -> None:
    older = Manifest(claim(1, 1), {"a": plain("a", crc=1)})
    newer = Manifest(claim(2, 2), {"a": plain("a", crc=2)})
    versions = plan_restore([older, newer], {"a": 1}).versions["a"]
    assert [version.files["a"][0].crc32 for version in versions] == [2, 1]


def test_an_entry_that_only_an_earlier_start_stored_is_restored_from_there() -> None:
    older = Manifest(claim(1, 1), {"a": plain("a")})
    assert set(plan_restore([older, Manifest(claim(2, 2))], {"a": 1}).versions) == {"a"}


def test_a_start_that_began_an_entry_again_falls_back_to_the_earlier_whole_version() -> None:
    older = Manifest(claim(1, 1), {"a": {"a": StoredFile(1, 7, f"{STAGE}/a")}})
    newer = Manifest(claim(2, 2), {}, frozenset({"a"}))
    assert plan_restore([older, newer], {"a": 9, f"{STAGE}/a": 1}).versions["a"][0].files["a"][0].at == f"{STAGE}/a"


def test_a_folder_is_the_union_of_what_the_machines_of_a_start_stored() -> None:
    manifests = [Manifest(claim(1, machine=m), {"d": plain(f"d/{m}")}, frozenset({"d"})) for m in (1, 0)]
    assert set(plan_restore(manifests, {"d/0": 1, "d/1": 1}).versions["d"][0].files) == {"d/0", "d/1"}


def test_a_folder_is_torn_while_a_machine_that_began_its_part_has_not_stored_it() -> None:
    done = Manifest(claim(1, machine=0), {"d": plain("d/0")}, frozenset({"d"}))
    begun = Manifest(claim(1, machine=1), {}, frozenset({"d"}))
    assert set(plan_restore([done, begun], {"d/0": 1, "d/1": 1}).torn) == {"d"}


def test_of_a_file_of_two_machines_the_lowest_index_is_likelier_and_what_is_inherited_least() -> None:
    manifests = [
        Manifest(claim(1, machine=0), {"d": plain("d/f", crc=0, inherited=True)}),
        Manifest(claim(1, machine=1), {"d": plain("d/f", crc=1)}),
        Manifest(claim(1, machine=2), {"d": plain("d/f", crc=2)}),
    ]
    files = plan_restore(manifests, {"d/f": 1}).versions["d"][0].files
    assert [stored.crc32 for stored in files["d/f"]] == [1, 2, 0]


def test_the_claims_of_one_machine_in_one_start_count_as_one_the_newest_first() -> None:
    before = Manifest(claim(1), {"a": plain("a", crc=1), "b": plain("b")}, frozenset({"c"}))
    again = Manifest(claim(2), {"a": plain("a", crc=2), "c": plain("c")})
    versions = plan_restore([again, before], {"a": 1, "b": 1, "c": 1}).versions
    assert set(versions) == {"a", "b", "c"}
    assert [version.files["a"][0].crc32 for version in versions["a"]] == [2]


def test_files_of_others_are_those_that_lower_machines_of_the_same_start_wrote_themselves() -> None:
    mine = claim(1, machine=1)
    manifests = [
        Manifest(claim(1, machine=0), {"d": {**plain("d/own"), **plain("d/kept", inherited=True)}}),
        Manifest(claim(1, machine=2), {"d": plain("d/higher")}),
        Manifest(claim(2, attempt=2, machine=0), {"d": plain("d/later")}),
    ]
    assert set(files_of_others(manifests, mine, "d")) == {"d/own"}
