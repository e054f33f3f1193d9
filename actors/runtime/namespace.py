"""The inside of a container of the process driver: private namespaces, mounts, and the first process in them.

Run by `shim.py` as a program of its own, already in a new process namespace: `python -I -S namespace.py FOLDER FD`.
Nothing of raymaker is imported, so that it starts in milliseconds. What goes wrong before the program runs is written
to FD as JSON; FD closed without a word means that the program runs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys

TYPE_CHECKING = False  # as in typing, whose import alone takes longer than all the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_UNBINDABLE, MS_SLAVE = 0x20, 0x1000, 0x4000, 0x20000, 0x80000
MNT_DETACH = 0x2
KEPT_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442  # on every machine; Linux 5.12
MOUNT_ATTR_RDONLY, AT_FDCWD, AT_RECURSIVE = 0x1, -100, 0x8000
STAYS_WRITABLE = {"/dev", "/proc"}  # what is in them decides for itself, as in engines
TMP = "/tmp"  # noqa: S108 - the place that programs expect to be writable
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
CODE = "/opt/ml/code"
LOWEST_PRIORITY = 19

libc = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """The program cannot run. `unsupported` marks what this machine's kernel refuses, not what the user asked for."""

    def __init__(self, message: str, *, unsupported: bool = False) -> None:
        super().__init__(message)
        self.unsupported = unsupported


def main(folder: str, report: int) -> NoReturn:
    """Go inside, start the program, and be its init: reap what it leaves, end when it ends."""
    with open(os.path.join(folder, "container.json"), encoding="utf-8") as file:
        container = json.load(file)
    os.set_inheritable(report, False)
    try:
        tie_to_shim(report)
        enter(container)
        make_root(os.path.join(folder, "root"), container)
        program = start(container["argv"], container["environment"], report)
    except (CannotStart, OSError) as error:
        tell(report, error)
        os._exit(1)
    os.close(report)
    for descriptor in (1, 2):  # the log ends when the program's processes have ended
        os.close(descriptor)
    be_init(program)


def tie_to_shim(report: int) -> None:
    """Die with the shim, also where it has just died: then nobody is there any more to be told."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "be tied to its shim")
    poll = select.poll()
    poll.register(report, 0)
    if poll.poll(0):
        os._exit(1)


def enter(container: dict[str, Any]) -> None:
    """Leave the machine's mounts, names and, where no network is wanted, its network; and fall back where it yields."""
    if container["yields_cpu"]:
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
    isolated = container["network"] == "none"
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (CLONE_NEWNET if isolated else 0)), "unshare")
    mount("none", "/", flags=MS_REC | MS_SLAVE)
    if container["hostname"]:
        name = container["hostname"].encode()
        check(libc.sethostname(name, len(name)), "set its host name")
    if isolated:
        bring_up_loopback()


def make_root(root: str, container: dict[str, Any]) -> None:
    """Make a root that looks like this machine's, with the container's mounts in it, and move there."""
    mounts = sorted((os.path.realpath(m["target"]), m["source"], m["read_only"]) for m in container["mounts"])
    fixed = container["read_only_root"]
    mount("tmpfs", root, "tmpfs", data="mode=755")
    mount("none", root, flags=MS_UNBINDABLE)  # so that it is not found in itself
    mirror("/", root, rebuilt([target for target, _, _ in mounts]), fixed=fixed)
    mount("proc", f"{root}/proc", "proc", KEPT_FLAGS)
    shared_memory = f"{root}/dev/shm"  # noqa: S108 - the place, not a file in it
    if os.path.isdir(shared_memory):
        size = f"size={container['shm_bytes']},mode=1777"
        mount("tmpfs", shared_memory, "tmpfs", MS_NOSUID | MS_NODEV, size)
    if fixed:
        mount("tmpfs", root + TMP, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for target, source, read_only in mounts:
        show(source, root + target, read_only=read_only)
    if fixed:
        mount("none", root, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    move_to(root)


def rebuilt(targets: list[str]) -> set[str]:
    """Name the folders that must be made anew, since a mount point is missing in them: on the host nothing is made."""
    folders = {"/"}
    for target in targets:
        place = target
        if not os.path.lexists(place):
            while not os.path.isdir(place):
                place = os.path.dirname(place)
            while place != "/":
                folders.add(place)
                place = os.path.dirname(place)
    return folders


def mirror(old: str, new: str, folders: set[str], *, fixed: bool) -> None:
    """Show all that is in `old` in `new`; the named folders become real ones, in which mount points can be made.

    With `fixed` nothing of it can be written, and /tmp is left empty.
    """
    for entry in os.scandir(old):
        target = os.path.join(new, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.path == "/proc" or (fixed and entry.path == TMP):
            os.mkdir(target)
        elif entry.path in folders:
            os.mkdir(target)
            mirror(entry.path, target, folders, fixed=fixed)
            os.chmod(target, entry.stat().st_mode & 0o7777)
        else:
            show(entry.path, target)
            if fixed and entry.path not in STAYS_WRITABLE:
                fix(target)


def fix(target: str) -> None:
    """Make a mount and all that is mounted in it read-only."""
    attributes = struct.pack("4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    arguments = (ctypes.c_int(AT_FDCWD), os.fsencode(target), ctypes.c_uint(AT_RECURSIVE), attributes)
    result = libc.syscall(SYS_MOUNT_SETATTR, *arguments, ctypes.c_size_t(len(attributes)))
    check(result, f"make {target} read-only")


def show(source: str, target: str, *, read_only: bool = False) -> None:
    """Bind `source` to `target`, which is made where it is missing."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(source):
        raise CannotStart(f"{source}, which is to be mounted, does not exist on this machine")
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        kept = os.statvfs(target).f_flag & KEPT_FLAGS  # without root, what the machine forbids must stay forbidden
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def move_to(root: str) -> None:
    """Make `root` the root, and let go of the old one."""
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise CannotStart(f"the process driver does not know {os.uname().machine} machines", unsupported=True)
    os.chdir(root)
    check(libc.syscall(number, b".", b"."), "change its root")
    check(libc.umount2(b".", MNT_DETACH), "let go of the old root")
    os.chdir("/")


def start(argv: list[str], environment: dict[str, str], report: int) -> int:
    """Start the program in a session of its own. Returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up new privileges")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(CODE if os.path.isdir(CODE) else "/")
        try:
            os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is wanted
        except OSError as error:
            raise CannotStart(why_not_run(argv[0], environment["PATH"], error)) from error
    except (CannotStart, OSError) as error:
        tell(report, error)
    os._exit(127)


def why_not_run(program: str, path: str, error: OSError) -> str:
    """Say in words why there is nothing to run."""
    places = [program] if "/" in program else [os.path.join(folder, program) for folder in path.split(":")]
    there = next((place for place in places if os.path.isfile(place)), None)
    if there is None:
        where = "does not exist" if "/" in program else f"is not on PATH ({path})"
        return f"there is no program {program!r} to run: it {where}; put an executable of that name there"
    if error.errno == errno.EACCES:
        return f"{there} is not executable: chmod +x it"
    if error.errno == errno.ENOEXEC:
        return f"{there} is not made for this machine's processor, or its first line is no #! line"
    if error.errno == errno.ENOENT:
        return f"{there} cannot run: the interpreter that its first line or its linker names does not exist here"
    return f"{there} cannot run: {error.strerror}"


def be_init(program: int) -> NoReturn:
    """Reap every process that ends, until the program does; with this process the kernel ends all others."""
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def bring_up_loopback() -> None:
    """Give it the one interface that every program expects."""
    import socket

    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount `source` at `target`."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    result = libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode())
    check(result, f"mount {source} at {target}")


def check(result: int, what: str) -> None:
    """Turn a refusal of the kernel into words."""
    if result:
        number = ctypes.get_errno()
        refused = number in {errno.EPERM, errno.EACCES, errno.ENOSYS}
        raise CannotStart(f"the kernel did not let it {what}: {os.strerror(number)}", unsupported=refused)


def tell(report: int, error: Exception) -> None:
    """Say why nothing runs."""
    unsupported = isinstance(error, CannotStart) and error.unsupported
    os.write(report, json.dumps({"message": str(error), "unsupported": unsupported}).encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
