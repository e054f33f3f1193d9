"""Checkpoint sync on local folders: what is stored when, what is restored, and what a death at any point leaves."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raymaker.actors.checkpoints.manifest import Manifest
from raymaker.actors.checkpoints.sync import CheckpointSync, Writer
from raymaker.actors.errors import Fenced, StorageError
from raymaker.actors.storage import ObjectStore, StoreConfig


class Killed(BaseException):
    """The process died here."""


class FaultyStore(ObjectStore):
    """A store that is away, or whose user dies, when told to."""

    def __init__(self) -> None:
        super().__init__(StoreConfig(retry_s=0))
        self.is_away = False
        self.writes: list[str] = []
        self._die_at: int | None = None
        self._die_after = False
        self._before_write: Callable[[], None] | None = None

    def kill_at_write(self, number: int, *, after: bool) -> None:
        """Die at the write of that number, before or after it has come through; all later writes fail too."""
        self._die_at, self._die_after = number, after

    def before_next_write(self, action: Callable[[], None]) -> None:
        """Do something in the moment between the check and the write."""
        self._before_write = action

    def upload(self, path: Path, uri: str, before: Callable[[], None] = lambda: None) -> None:
        self._write("upload", uri, before, lambda: super(FaultyStore, self).upload(path, uri))

    def copy(self, source_uri: str, target_uri: str, before: Callable[[], None] = lambda: None) -> None:
        self._write("copy", target_uri, before, lambda: super(FaultyStore, self).copy(source_uri, target_uri))

    def delete_prefix(self, uri: str) -> None:
        self._write("delete", uri, lambda: None, lambda: super(FaultyStore, self).delete_prefix(uri))

    def _write(self, verb: str, uri: str, before: Callable[[], None], write: Callable[[], None]) -> None:
        before()
        number = len(self.writes)
        dies = self._die_at is not None and number >= self._die_at
        if self.is_away:
            raise StorageError(f"could not {verb} {uri}: the object store is away")
        if dies and not (self._die_after and number == self._die_at):
            raise Killed
        if self._before_write is not None:
            action, self._before_write = self._before_write, None
            action()
        self.writes.append(f"{verb} {uri}")
        write()
        if dies:
            raise Killed


class Machine:
    """One start of one machine: its folder, what was told, and a clock that only `rest` moves."""

    def __init__(self, tmp_path: Path, writer: Writer, store: ObjectStore | None = None, name: str = "") -> None:
        self.folder = tmp_path / (name or f"machine-{writer.attempt}-{writer.start}-{writer.machine_index}")
        self.location = tmp_path / "store"
        self.told: list[tuple[str, str]] = []
        self.now = 0.0
        self.sync = CheckpointSync(
            store or ObjectStore(StoreConfig(retry_s=0)),
            self.location.as_uri(),
            self.folder,
            writer,
            lambda kind, message: self.told.append((kind, message)),
            settle_s=1,
            clock=lambda: self.now,
            sleep=self.rest,
        )

    def rest(self, seconds: float) -> None:
        self.now += seconds

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def look(self, count: int = 2) -> None:
        for _ in range(count):
            self.now += 1
            self.sync.look()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def files(self) -> dict[str, str]:
        return files_in(self.folder)


def files_in(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".raymaker" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path, Writer(1, job="job"))
    made.sync.restore()
    return made


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[], Machine]:
    """What a later attempt finds."""

    def restore() -> Machine:
        later = Machine(tmp_path, Writer(9, job="job"))
        later.sync.restore()
        return later

    return restore


def test_files_and_folders_are_stored_as_plain_files_under_their_names(machine: Machine) -> None:
    machine.write("epoch-1.pt", "one")
    machine.write("step-2/model.pt", "two")
    machine.write("step-2/.metadata", "hidden, and part of it")
    machine.look()
    assert files_in(machine.location) == machine.files()
    assert machine.kinds() == ["CheckpointStored", "CheckpointStored"]


def test_what_changes_between_two_looks_is_not_stored_yet(machine: Machine) -> None:
    machine.write("epoch-1.pt", "o")
    machine.look(1)
    machine.write("epoch-1.pt", "one")
    machine.look(1)
    assert files_in(machine.location) == {}
    machine.look(1)
    assert files_in(machine.location) == {"epoch-1.pt": "one"}


def test_a_file_whose_time_is_set_back_is_seen_to_have_changed(machine: Machine) -> None:
    machine.write("epoch-1.pt", "one")
    os.utime(machine.folder / "epoch-1.pt", (1, 1))
    machine.look()
    machine.write("epoch-1.pt", "two")
    os.utime(machine.folder / "epoch-1.pt", (1, 1))
    machine.look()
    assert files_in(machine.location) == {"epoch-1.pt": "two"}


@pytest.mark.parametrize("name", [".hidden", "a.tmp", "a.part", "a.incomplete", "dir.tmp/file"])
def test_unfinished_and_hidden_names_wait_until_they_are_renamed(machine: Machine, name: str) -> None:
    machine.write(name, "content")
    machine.look(3)
    assert files_in(machine.location) == {}
    (machine.folder / name.partition("/")[0]).rename(machine.folder / "done")
    machine.look()
    assert list(files_in(machine.location).values()) == ["content"]


def test_a_folder_waits_for_an_unfinished_file_in_it(machine: Machine) -> None:
    machine.write("step-1/model.pt.tmp", "content")
    machine.look(3)
    assert files_in(machine.location) == {}
    (machine.folder / "step-1/model.pt.tmp").rename(machine.folder / "step-1/model.pt")
    machine.look()
    assert files_in(machine.location) == {"step-1/model.pt": "content"}


def test_what_is_deleted_here_is_kept_in_the_store_and_restored(
    machine: Machine, restored: Callable[[], Machine]
) -> None:
    machine.write("epoch-1.pt", "one")
    machine.look()
    (machine.folder / "epoch-1.pt").unlink()
    machine.look()
    machine.sync.stop()
    assert restored().files() == {"epoch-1.pt": "one"}


def test_a_file_that_leaves_a_folder_leaves_the_stored_folder_too(
    machine: Machine, restored: Callable[[], Machine]
) -> None:
    machine.write("last/a", "1")
    machine.write("last/b", "1")
    machine.look()
    (machine.folder / "last/b").unlink()
    machine.look()
    assert files_in(machine.location) == {"last/a": "1"}
    assert restored().files() == {"last/a": "1"}


def test_nothing_is_uploaded_again_that_did_not_change(tmp_path: Path) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    machine.write("last/big", "unchanged")
    machine.write("last/small", "1")
    machine.look()
    store.writes.clear()
    machine.look(5)
    (machine.folder / "last/big").touch()
    machine.look(2)
    assert store.writes == []
    machine.write("last/small", "2")
    machine.look(2)
    assert not any("big" in write for write in store.writes)


def test_a_later_attempt_gets_all_back_open_to_any_user_and_stores_none_of_it_again(
    machine: Machine, tmp_path: Path
) -> None:
    machine.write("epoch-1.pt", "one")
    machine.write("step-2/sub/model.pt", "two")
    machine.look()
    store = FaultyStore()
    later = Machine(tmp_path, Writer(2, job="job"), store)
    heard: list[tuple[int, int]] = []
    report = later.sync.restore(lambda done, total: heard.append((done, total)))
    assert later.files() == machine.files()
    assert report.restored == ("epoch-1.pt", "step-2")
    assert report.size_bytes == 6
    assert heard[-1] == (6, 6)
    assert later.kinds() == ["CheckpointRestored"]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [later.folder, *later.folder.rglob("*")]}
    assert all(mode == (0o777 if path.is_dir() else 0o666) for path, mode in modes.items())
    store.writes.clear()
    later.look(3)
    assert store.writes == []


def test_a_location_without_manifests_is_restored_as_it_lies(tmp_path: Path) -> None:
    for name in ("pre.pt", "sub/a", ".hidden/b"):
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_text(name)
    machine = Machine(tmp_path, Writer(1, job="job"))
    machine.sync.restore()
    assert machine.files() == {name: name for name in ("pre.pt", "sub/a", ".hidden/b")}


def test_an_entry_that_does_not_fit_its_manifest_is_absent_and_told(
    machine: Machine, restored: Callable[[], Machine]
) -> None:
    machine.write("good", "1")
    machine.write("same-size/a", "1")
    machine.write("gone/a", "1")
    machine.look()
    (machine.location / "same-size/a").write_text("2")
    (machine.location / "gone/a").unlink()
    later = restored()
    assert later.files() == {"good": "1"}
    kind, message = later.told[-1]
    assert kind == "CheckpointIncomplete"
    assert "same-size" in message
    assert "gone" in message


def test_a_damaged_manifest_is_told_and_does_not_stop_the_restore(
    machine: Machine, restored: Callable[[], Machine]
) -> None:
    machine.write("good", "1")
    machine.look()
    (machine.location / ".raymaker/manifests/000001-00000-00000-000-job.json").write_text("{")
    later = restored()
    assert later.files() == {"good": "1"}
    assert "CheckpointIncomplete" in later.kinds()


def test_a_restore_replaces_what_lay_in_the_folder_and_follows_no_link_there(machine: Machine, tmp_path: Path) -> None:
    machine.write("a", "stored")
    machine.write("d/x", "stored")
    machine.look()
    outside = tmp_path / "outside"
    outside.mkdir()
    later = Machine(tmp_path, Writer(2, job="job"))
    later.write("a/old", "old")
    (later.folder / "d").symlink_to(outside)
    (later.folder / ".raymaker-restore-old").mkdir()
    later.sync.restore()
    assert later.files() == {"a": "stored", "d/x": "stored"}
    assert list(outside.iterdir()) == []
    assert not (later.folder / ".raymaker-restore-old").exists()


def test_links_and_pipes_are_not_stored_and_told_once(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    (machine.folder / "latest").symlink_to(tmp_path / "secret")
    (machine.folder / "folder").symlink_to(tmp_path)
    os.mkfifo(machine.folder / "pipe")
    machine.write("step/real", "1")
    (machine.folder / "step/link").symlink_to(tmp_path / "secret")
    (machine.folder / os.fsdecode(b"odd\xff")).write_text("")
    machine.look(4)
    assert files_in(machine.location) == {"step/real": "1"}
    assert machine.kinds().count("CheckpointLeftOut") == 5


def test_a_file_that_becomes_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    (tmp_path / "host").mkdir()
    (tmp_path / "host/model").write_text("secret")
    machine.write("step/model", "public")
    machine.look(1)

    def swap() -> None:
        (machine.folder / "step").rename(machine.folder / ".aside")
        (machine.folder / "step").symlink_to(tmp_path / "host")

    store.before_next_write(swap)
    machine.look(1)
    assert all("secret" not in path.read_text() for path in machine.location.rglob("*") if path.is_file())


def test_a_later_attempt_fences_the_earlier_one_which_is_told_and_writes_no_more(
    machine: Machine, restored: Callable[[], Machine]
) -> None:
    machine.write("epoch-1.pt", "one")
    machine.look()
    later = restored()
    before = files_in(machine.location)
    machine.write("epoch-1.pt", "late")
    machine.write("epoch-2.pt", "late")
    machine.look(4)
    assert files_in(machine.location) == before
    assert machine.kinds().count("CheckpointFenced") == 1
    with pytest.raises(Fenced):
        machine.sync.stop()
    later.write("epoch-2.pt", "two")
    later.look()
    assert files_in(machine.location) == {"epoch-1.pt": "one", "epoch-2.pt": "two"}


def test_an_earlier_attempt_that_comes_late_may_not_even_claim(restored: Callable[[], Machine], tmp_path: Path) -> None:
    restored()
    with pytest.raises(Fenced, match="attempt 9"):
        Machine(tmp_path, Writer(1, job="job")).sync.restore()


def test_another_job_takes_up_what_a_job_left_whatever_its_attempt(tmp_path: Path) -> None:
    first = Machine(tmp_path, Writer(7, job="first"))
    first.sync.restore()
    first.write("last/a", "7")
    first.look()
    second = Machine(tmp_path, Writer(1, job="second"))
    second.sync.restore()
    assert second.files() == {"last/a": "7"}
    second.write("last/a", "8")
    second.look()
    third = Machine(tmp_path, Writer(1, job="third"))
    third.sync.restore()
    assert third.files() == {"last/a": "8"}


def test_a_version_that_was_written_down_in_the_moment_of_fencing_is_whole_and_stays(tmp_path: Path) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    machine.write("last/a", "1")
    machine.look()
    machine.write("last/a", "2")
    machine.look(1)
    second = Machine(tmp_path, Writer(2, job="job"))

    def claim_before_the_commit() -> None:
        store.before_next_write(lambda: second.sync.restore() and None)

    store.before_next_write(claim_before_the_commit)  # the upload to the stage; then comes the commit
    machine.look(1)
    assert machine.kinds()[-1] == "CheckpointFenced"
    assert second.files() == {"last/a": "1"}
    second.sync.stop()
    third = Machine(tmp_path, Writer(3, job="job"))
    third.sync.restore()
    assert third.files() == {"last/a": "2"}


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_write_leaves_whole_checkpoints_and_none_that_was_stored_is_lost(
    tmp_path: Path, *, after: bool
) -> None:
    """Two folders and a file, made and changed in place; the process dies at its n-th write, for every n."""
    number = 0
    while True:
        place = tmp_path / str(number)
        store = FaultyStore()
        store.kill_at_write(number, after=after)
        stored, ended = _write_until_death(Machine(place, Writer(1, job="job"), store))
        later = Machine(place, Writer(2, job="job"))
        later.sync.restore()
        versions: dict[str, set[int]] = {}
        for name, content in later.files().items():
            versions.setdefault(name.partition("/")[0], set()).add(int(content))
        assert all(len(found) == 1 for found in versions.values()), (number, versions)
        assert all(versions[name] >= {version} or min(versions[name]) > version for name, version in stored.items())
        assert all(len([n for n in later.files() if n.startswith(f"{name}/")]) in {0, 3} for name in ("a", "b"))
        later.look()
        later.sync.stop()
        last = Machine(place, Writer(3, job="job"))
        last.sync.restore()
        assert last.files() == later.files()
        if ended:
            break
        number += 1
    assert number > 20


def _write_until_death(machine: Machine) -> tuple[dict[str, int], bool]:
    """Returns which version of each entry was stored, and whether the process came to its end."""
    stored: dict[str, int] = {}
    try:
        machine.sync.restore()
        for version in (1, 2):
            for name in ("a", "b"):
                for part in range(3):
                    machine.write(f"{name}/{part}", str(version))
                machine.write("lone", str(version))
                machine.look()
                stored |= {name: version, "lone": version}
        machine.sync.stop()
    except Killed:
        return stored, False
    return stored, True


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_a_process_that_takes_up_where_another_died_loses_nothing(tmp_path: Path, number: int) -> None:
    store = FaultyStore()
    first = Machine(tmp_path, Writer(1, job="job"), store)
    first.sync.restore()
    store.writes.clear()
    store.kill_at_write(number, after=bool(number % 2))
    for version in ("1", "2", "3"):
        for name in ("a/x", "a/y", "b"):
            first.write(name, version)
        try:
            first.look()
        except Killed:
            break
    second = Machine(tmp_path, Writer(1, job="job"))
    second.sync.resume()
    second.look()
    second.sync.stop()
    assert files_in(second.location) == first.files()
    later = Machine(tmp_path, Writer(2, job="job"))
    later.sync.restore()
    assert later.files() == first.files()
    assert not list((second.location / ".raymaker/staged").rglob("*.*"))


def test_a_store_that_is_away_is_told_once_and_its_return_too(tmp_path: Path) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    store.is_away = True
    machine.write("epoch-1.pt", "one")
    machine.look(5)
    assert machine.kinds() == ["CheckpointSyncFailed"]
    store.is_away = False
    machine.look(1)
    assert machine.kinds() == ["CheckpointSyncFailed", "CheckpointStored", "CheckpointSyncRecovered"]
    assert files_in(machine.location) == {"epoch-1.pt": "one"}


@pytest.mark.parametrize("name", ["lone", "folder/a"])
def test_what_changes_while_it_is_uploaded_does_not_count(tmp_path: Path, name: str) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    machine.write(name, "1")
    machine.look()
    machine.write(name, "2")
    machine.look(1)
    store.before_next_write(lambda: machine.write(name, "half of 3"))
    machine.look(1)
    later = Machine(tmp_path, Writer(2, job="job"))
    later.sync.restore()
    assert later.files() == {name: "1"}
    assert files_in(machine.location) == {name: "1"}


def test_an_entry_that_cannot_be_stored_does_not_keep_the_others_back(machine: Machine) -> None:
    machine.write("bad", "a file")
    machine.look()
    (machine.folder / "bad").unlink()
    machine.write("bad/x", "a folder where the store has a file")
    machine.write("good", "1")
    machine.look(3)
    assert files_in(machine.location)["good"] == "1"
    assert machine.kinds().count("CheckpointSyncFailed") == 1


def test_the_end_stores_everything_that_lies_there_settled_or_not(machine: Machine) -> None:
    machine.write("epoch-9.pt", "just written")
    machine.sync.stop()
    assert files_in(machine.location) == {"epoch-9.pt": "just written"}


def test_what_a_killed_program_was_writing_is_left_out_and_told(machine: Machine) -> None:
    machine.write("last", "whole")
    machine.write("step/model.tmp", "half")
    machine.look()
    for name in ("last", "step/model.tmp", "old"):
        machine.write(name, "half of it")
    long_ago = time.time() - 100
    os.utime(machine.folder / "old", (long_ago, long_ago))
    os.utime(machine.folder / "step/model.tmp", (long_ago, long_ago))
    machine.sync.stop(killed_at=time.time())
    assert files_in(machine.location) == {"last": "whole", "old": "half of it"}
    assert machine.kinds().count("CheckpointIncomplete") == 2


def test_what_was_being_written_is_not_stored_once_the_kill_is_known(machine: Machine) -> None:
    machine.write("epoch-1.pt", "half of it")
    machine.look(1)
    machine.sync.note_kill(time.time() + 0.5)
    machine.look(5)
    machine.sync.stop()
    assert files_in(machine.location) == {}
    assert machine.kinds() == ["CheckpointIncomplete"]


def test_the_end_tries_again_and_then_says_that_it_gave_up(tmp_path: Path) -> None:
    store = FaultyStore()
    machine = Machine(tmp_path, Writer(1, job="job"), store)
    machine.sync.restore()
    machine.write("epoch-1.pt", "one")
    store.is_away = True
    with pytest.raises(StorageError, match="CheckpointConfig.S3Uri .*the object store is away"):
        machine.sync.stop(timeout_s=20)
    assert 10 < machine.now <= 20
    assert machine.kinds() == ["CheckpointSyncFailed", "CheckpointSyncFailed"]


def test_an_entry_that_never_rests_is_told_of_once(machine: Machine) -> None:
    for number in range(310):
        machine.write("log.txt", "x" * number)
        machine.look(1)
    assert machine.kinds() == ["CheckpointIncomplete"]


def test_a_mistake_in_a_look_does_not_end_the_sync_unheard(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bytes:
        raise RuntimeError("a mistake")

    machine.write("epoch-1.pt", "one")
    with monkeypatch.context() as broken:
        broken.setattr(Manifest, "encode", fail)
        machine.look()
    machine.look()
    assert machine.kinds() == ["CheckpointSyncFailed", "CheckpointStored", "CheckpointSyncRecovered"]


def test_a_listener_that_fails_does_not_end_the_sync(tmp_path: Path) -> None:
    def listen(kind: str, message: str) -> None:
        raise RuntimeError("nobody listens")

    sync = CheckpointSync(ObjectStore(), str(tmp_path / "store"), tmp_path / "folder", Writer(1, job="job"), listen)
    sync.restore()
    (tmp_path / "folder/a").write_text("1")
    sync.stop()
    assert files_in(tmp_path / "store") == {"a": "1"}


@pytest.mark.parametrize("uri", ["{}/file", "{}/file/below", "nonsense", "s3://"])
def test_a_location_that_cannot_be_used_is_told_with_its_field_before_training(tmp_path: Path, uri: str) -> None:
    (tmp_path / "file").write_text("")
    sync = CheckpointSync(
        ObjectStore(StoreConfig(retry_s=0)), uri.format(tmp_path), tmp_path / "f", Writer(1, job="j"), lambda *_: None
    )
    with pytest.raises(StorageError, match="CheckpointConfig.S3Uri .*correct it"):
        sync.restore()


def test_a_restore_that_fails_leaves_nothing_half_made(machine: Machine, tmp_path: Path) -> None:
    machine.write("a/x", "1")
    machine.look()
    later = Machine(tmp_path, Writer(2, job="job"))
    later.folder.write_text("a file where the folder belongs")
    with pytest.raises(StorageError, match="restore checkpoints from .*machine-2.*rename one"):
        later.sync.restore()
    later.folder.unlink()
    later.sync.restore()
    assert later.files() == {"a/x": "1"}


class TestSeveralMachines:
    """Machines of one start share the location."""

    @pytest.fixture
    def machines(self, tmp_path: Path) -> list[Machine]:
        made = [Machine(tmp_path, Writer(1, 1, index, 2, "job")) for index in range(2)]
        for machine in made:
            machine.sync.restore()
        return made

    def test_a_folder_is_all_machines_files_together(
        self, machines: list[Machine], restored: Callable[[], Machine]
    ) -> None:
        for index, machine in enumerate(machines):
            machine.write(f"step-1/shard-{index}", str(index))
            machine.look()
        assert restored().files() == {"step-1/shard-0": "0", "step-1/shard-1": "1"}

    def test_a_folder_is_absent_while_one_machine_has_only_begun_its_part(
        self, machines: list[Machine], restored: Callable[[], Machine]
    ) -> None:
        machines[0].write("step-1/shard-0", "0")
        machines[1].write("step-1/shard-1", "1")
        machines[1].look(1)
        machines[0].look()
        later = restored()
        assert later.files() == {}
        assert later.kinds() == ["CheckpointIncomplete"]

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_of_a_file_that_both_wrote_the_first_machines_counts(
        self, machines: list[Machine], restored: Callable[[], Machine], order: tuple[int, int]
    ) -> None:
        for index in order:
            machines[index].write("epoch-1/model.pt", f"by {index}")
            machines[index].write("lone", f"by {index}")
            machines[index].look()
        assert restored().files() == {"epoch-1/model.pt": "by 0", "lone": "by 0"}
        assert machines[1].kinds().count("CheckpointConflict") == (2 if order == (0, 1) else 0)

    def test_what_each_changes_after_a_restore_comes_together_with_what_nobody_changed(
        self, machines: list[Machine], tmp_path: Path, restored: Callable[[], Machine]
    ) -> None:
        for index, machine in enumerate(machines):
            machine.write(f"last/shard-{index}", "1")
            machine.write("last/config", "same")
            machine.look()
        second = [Machine(tmp_path, Writer(1, 2, index, 2, "job")) for index in range(2)]
        for machine in second:
            machine.sync.restore()
        for index, machine in enumerate(second):
            machine.write(f"last/shard-{index}", "2")
            machine.look()
        assert restored().files() == {"last/shard-0": "2", "last/shard-1": "2", "last/config": "same"}

    def test_one_machine_that_begins_again_stays_with_the_others(
        self, machines: list[Machine], tmp_path: Path, restored: Callable[[], Machine]
    ) -> None:
        machines[1].write("step-1/shard-1", "1")
        machines[1].look()
        again = Machine(tmp_path, Writer(1, 1, 0, 2, "job"), name="again")
        again.sync.restore()
        again.write("step-1/shard-0", "0")
        again.look()
        machines[1].write("step-2/shard-1", "1")
        machines[1].look()
        assert machines[1].kinds() == ["CheckpointStored", "CheckpointStored"]
        machines[0].look()
        assert machines[0].kinds() == []  # nothing to write, so it need not know yet
        machines[0].write("late", "1")
        machines[0].look()
        assert machines[0].kinds() == ["CheckpointFenced"]
        assert set(restored().files()) == {"step-1/shard-0", "step-1/shard-1", "step-2/shard-1"}
