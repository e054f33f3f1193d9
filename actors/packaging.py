"""Source code in any language made runnable: staged by content, then built into an image, or in place on this machine.

A staged folder holds the code and two small launchers, `bin/train` and `bin/serve`, so that it runs by the same
contract as an image does. What starts the result is the runtime's matter.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import docker
import docker.errors

from raymaker.actors.errors import ArchiveError, PackagingError
from raymaker.actors.extraction import UnpackLimits, extract_tar, extract_tar_gz, extract_zip, safe_path
from raymaker.actors.images import find_image
from raymaker.actors.launchers import write_launchers
from raymaker.actors.spec import SourceSpec
from raymaker.actors.storage import ObjectStore
from raymaker.actors.store_errors import explain

LIMITS = UnpackLimits(max_bytes=2 * 1024**3, max_entries=50_000)
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
NOT_CODE = frozenset({".git", "__pycache__"})
BUILD_TIMEOUT_S = 3600
LOG_TAIL_LINES = 40

DOCKERFILE = """\
FROM {base}
LABEL {label}
COPY code /opt/ml/code
COPY bin /usr/local/bin
WORKDIR /opt/ml/code
{build}
ENTRYPOINT []
CMD ["train"]
"""


@dataclass(frozen=True)
class StagedSource:
    """Source code on this machine, named by its content. `folder` has `code/`, `bin/train` and `bin/serve`."""

    sha256: str
    folder: Path
    entry_point: str
    has_build: bool


def stage_source(store: ObjectStore, source: SourceSpec, work_dir: Path) -> StagedSource:
    """Fetch a folder, a file or an archive of code to `<work_dir>/<sha256>`, once; several may do so at a time.

    Raises PackagingError, ArchiveError, StorageError.
    """
    entry_point = _checked_entry_point(source)
    work_dir.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".raymaker-", suffix=".part", dir=work_dir))
    try:
        made.chmod(0o755)
        code = made / "code"
        code.mkdir()
        _fetch(store, source.uri, code)
        has_build = (code / "build.sh").is_file()
        if not has_build:
            _check_entry_point(code, entry_point, source.uri)
        _mark_programs(code, entry_point)
        write_launchers(made, entry_point)
        sha256 = _hash(made)
        _publish(made, work_dir / sha256)
        return StagedSource(sha256, work_dir / sha256, entry_point, has_build)
    except OSError as error:
        raise explain(error, f"stage {source.uri} in", str(work_dir)) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def build_image(staged: StagedSource, base_image: str, client: docker.DockerClient, network: str | None = None) -> str:
    """Build `raymaker-source:<hash>` unless the engine has it, and return its id. `network` is that of `build.sh`.

    Raises PackagingError with the end of the build's log.
    """
    try:
        if (base := find_image(client, base_image)) is None:
            raise PackagingError(
                f"the engine has no base image {base_image}: `docker pull` or `docker load` it, or name another "
                "BaseImage"
            )
        base_id = str(base.id)
        tag = f"raymaker-source:{hashlib.sha256(f'{staged.sha256} {base_id}'.encode()).hexdigest()[:32]}"
        known = find_image(client, tag)
        return str(known.id) if known is not None else _build(client, tag, staged, base_id, network)
    except docker.errors.BuildError as error:
        lines = [str(chunk.get("stream") or chunk.get("error") or "") for chunk in error.build_log]
        raise PackagingError(_failed_build(f"on {base_image}", "".join(lines))) from error
    except (docker.errors.DockerException, OSError) as error:
        raise PackagingError(f"the engine could not build an image on {base_image}: {error}") from error


def build_here(staged: StagedSource) -> StagedSource:
    """Run the code's `build.sh` on this machine, once, in a copy; code without one is returned as it is.

    Raises PackagingError with the end of the build's output.
    """
    if not staged.has_build:
        return staged
    built = StagedSource(staged.sha256, staged.folder.with_name(f"{staged.sha256}-built"), staged.entry_point, True)
    if built.folder.is_dir():
        return built
    with tempfile.TemporaryDirectory(prefix=".raymaker-", suffix=".part", dir=staged.folder.parent) as scratch:
        made = Path(scratch) / "built"
        shutil.copytree(staged.folder, made, symlinks=True)
        _run_build(made / "code", staged.entry_point)
        _publish(made, built.folder)
    return built


def _checked_entry_point(source: SourceSpec) -> str:
    try:
        path = safe_path(source.entry_point, "the entry point")
    except ArchiveError as error:
        raise PackagingError(str(error)) from error
    if not path.parts or not source.entry_point.isprintable():
        raise PackagingError(f"{source.entry_point!r} names no file: EntryPoint is a path in {source.uri}")
    return str(path)


def _fetch(store: ObjectStore, uri: str, code: Path) -> None:
    if not store.exists(uri):
        _fetch_folder(store, uri, code)
    elif uri.endswith(ARCHIVE_SUFFIXES):
        _fetch_archive(store, uri, code)
    else:
        store.download(uri, code / store.list_objects(uri)[0].relative_name)


def _fetch_folder(store: ObjectStore, uri: str, code: Path) -> None:
    found = [(item, safe_path(item.relative_name, uri)) for item in store.list_objects(f"{uri.rstrip('/')}/")]
    objects = [(item, path) for item, path in found if NOT_CODE.isdisjoint(path.parts)]
    LIMITS.check(uri, len(objects), sum(item.size_bytes for item, _ in objects))
    for item, path in objects:
        store.download(item.uri, code / path)


def _fetch_archive(store: ObjectStore, uri: str, code: Path) -> None:
    if uri.endswith(".zip"):
        with tempfile.TemporaryDirectory(dir=code.parent) as scratch:
            packed = Path(scratch) / "code.zip"
            store.download(uri, packed)
            extract_zip(packed, code, LIMITS, uri)
        return
    with store.open_read(uri) as stream:
        if uri.endswith(".tar"):
            extract_tar(stream, code, LIMITS, uri)
        else:
            extract_tar_gz(stream, code, LIMITS, uri)


def _check_entry_point(code: Path, entry_point: str, uri: str) -> None:
    if (code / entry_point).is_file():
        return
    names = sorted(path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file())
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")  # noqa: PLR2004
    raise PackagingError(f"the entry point {entry_point} is not in {uri}, where there is: {shown or 'nothing'}")


def _mark_programs(code: Path, entry_point: str) -> None:
    """Make programs executable: object stores keep no such mark."""
    for path in code.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as content:
            is_program = content.read(4).startswith((b"#!", b"\x7fELF"))
        kept = bool(path.stat().st_mode & 0o100)
        named = path in {code / entry_point, code / "build.sh"}
        path.chmod(0o755 if is_program or kept or named else 0o644)


def _publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name; whoever was first has made the same."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _hash(folder: Path) -> str:
    """Hash the names, modes and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder).as_posix()!r} {path.lstat().st_mode:o} ".encode())
        if path.is_symlink():
            digest.update(f"{path.readlink()!s}".encode())
        elif path.is_file():
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _build(client: docker.DockerClient, tag: str, staged: StagedSource, base_id: str, network: str | None) -> str:
    with tempfile.TemporaryFile() as context:
        _write_context(staged, base_id, context)
        context.seek(0)
        try:
            image, _ = client.images.build(
                fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, network_mode=network
            )
        except docker.errors.BuildError:
            client.images.prune({"dangling": True, "label": _label(staged)})  # the steps before the one that failed
            raise
    return str(image.id)


def _label(staged: StagedSource) -> str:
    return f"raymaker.source={staged.sha256}"


def _write_context(staged: StagedSource, base_id: str, target: IO[bytes]) -> None:
    build = ""
    if staged.has_build:
        build = (
            f"RUN ./build.sh && {{ test -f {shlex.quote(staged.entry_point)} || {{ {_no_entry(staged)}; exit 1; }}; }}"
        )
    dockerfile = DOCKERFILE.format(base=base_id, label=_label(staged), build=build)
    with tempfile.NamedTemporaryFile("w") as text, tarfile.open(mode="w", fileobj=target) as context:
        text.write(dockerfile)
        text.flush()
        context.add(text.name, "Dockerfile")
        context.add(staged.folder / "code", "code", filter=_owned_by_root)
        context.add(staged.folder / "bin", "bin", filter=_owned_by_root)


def _no_entry(staged: StagedSource) -> str:
    return "echo " + shlex.quote(f"build.sh made no entry point {staged.entry_point}")


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _run_build(code: Path, entry_point: str) -> None:
    try:
        done = subprocess.run(
            ["sh", "-c", "./build.sh"],
            cwd=code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackagingError(f"build.sh took more than {BUILD_TIMEOUT_S} s on this machine and was ended") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise PackagingError(_failed_build("on this machine", f"{output.rstrip()}\nexit code {done.returncode}"))
    if not (code / entry_point).is_file():
        raise PackagingError(
            _failed_build("on this machine", f"{output.rstrip()}\nit made no entry point {entry_point}")
        )


def _failed_build(place: str, log: str) -> str:
    tail = "\n".join(log.strip().splitlines()[-LOG_TAIL_LINES:])
    return f"the source code could not be built {place}; the end of the build's log:\n{tail}"
