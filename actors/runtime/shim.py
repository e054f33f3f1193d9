"""Stands beside one container of the process driver: starts it, keeps its log, and writes down how it ended.

It outlives whoever started it, as an engine's shim does, so anybody can find the container again by its folder. Run as
a program, `python -I -S shim.py FOLDER LOCK_FD REPORT_FD`; nothing of raymaker is imported, so that it starts in
milliseconds. The folder's lock, which it is handed, is let go once the folder tells that the container runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as in typing, whose import alone takes longer than all the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
READ_BYTES = 64 * 1024
LINE_LIMIT_BYTES = 256 * 1024
RETRY_S = 1.0

libc = ctypes.CDLL(None, use_errno=True)


def main(folder: str, lock: int, report: int) -> None:
    """Start the container, answer with one line of JSON on `report`, and stay until the container has ended."""
    if os.fork():
        os._exit(0)  # so that it is nobody's child, and nobody's end is its own
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (lock, report):
        os.set_inheritable(descriptor, False)
    refusal = leave_processes()
    init, output = 0, 0
    if refusal is None:
        init, output, refusal = start(folder)
    if refusal is not None:
        os.write(report, json.dumps(refusal).encode())
        os._exit(1)
    log = Log(f"{folder}/log")
    state = {"shim": identity(os.getpid()), "init": identity(init), "started_at": time.time()}
    write_whole(f"{folder}/state.json", state)
    os.close(lock)
    os.write(report, b"{}")
    os.close(report)
    watch(init, output, log)
    _, status = os.waitpid(init, 0)
    write_whole(f"{folder}/state.json", {**state, "code": exit_code(status), "finished_at": time.time()})


def leave_processes() -> dict[str, Any] | None:
    """Have the children in a process namespace of their own, which dies with its first. Returns why not.

    Without root this takes a user namespace, in which this account is root, as in rootless engines.
    """
    if libc.unshare(CLONE_NEWPID) == 0:
        return None
    user, group = os.getuid(), os.getgid()
    try:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))  # noqa: TRY301 - told as the others are
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        return {"message": f"the kernel did not let it have namespaces: {error.strerror}", "unsupported": True}
    return None


def start(folder: str) -> tuple[int, int, dict[str, Any] | None]:
    """Start the container's first process. Returns its id, where its output comes out, and why it does not run."""
    output, output_end = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        become_init(folder, output_end, say)
    os.close(output_end)
    os.close(say)
    with os.fdopen(said, "rb") as answer:
        text = answer.read()
    if not text:
        return pid, output, None
    os.waitpid(pid, 0)
    refusal: dict[str, Any] = json.loads(text.splitlines()[0])
    return pid, output, refusal


def become_init(folder: str, output: int, say: int) -> NoReturn:
    """Become `namespace.py`, with nothing open but the output and the way to say what went wrong."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.set_inheritable(say, True)
    program = os.path.join(os.path.dirname(__file__), "namespace.py")
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", program, folder, str(say)])  # noqa: S606 - no shell
    finally:
        os._exit(126)


class Log:
    """The log file: `<epoch nanoseconds> <line>`, times strictly increasing, whole lines only."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._last_ns = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take output as it comes; a line that is not yet complete is kept until it is, or is too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) >= LINE_LIMIT_BYTES:
            lines.append(self._rest[:LINE_LIMIT_BYTES])
            self._rest = self._rest[LINE_LIMIT_BYTES:]
        if lines:
            self._append(b"".join(self._stamp() + line + b"\n" for line in lines))

    def finish(self) -> None:
        """Write what came without a newline at the end."""
        if self._rest:
            self.feed(b"\n")

    def _stamp(self) -> bytes:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return b"%d " % self._last_ns

    def _append(self, data: bytes) -> None:
        """Write all or nothing: while the disk is full lines are lost, but none is torn, and the program goes on."""
        try:
            written = os.pwrite(self._file, data, self._size)
        except OSError:
            written = 0
        if written == len(data):
            self._size += written
        else:
            os.ftruncate(self._file, self._size)


def watch(init: int, output: int, log: Log) -> None:
    """Carry output to the log until the container has ended and all that it said is there."""
    ended = os.pidfd_open(init)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(ended, select.POLLIN)
    os.set_blocking(output, False)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if output in ready:
            data = read_now(output)
            log.feed(data)
            if data:
                continue
            poll.unregister(output)  # every process has closed it
        if ended in ready:
            break
    while data := read_now(output):
        log.feed(data)
    log.finish()


def read_now(descriptor: int) -> bytes:
    """What lies in the pipe; nothing at its end, and nothing where nothing lies there."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return b""


def exit_code(status: int) -> int:
    """An exit code as shells write it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def identity(pid: int) -> dict[str, int]:
    """A process for good: its id, and when it started in the kernel's ticks."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return {"pid": pid, "ticks": int(stat.read().rpartition(b")")[2].split()[19])}


def write_whole(path: str, content: dict[str, Any]) -> None:
    """Replace the file at once. While the disk is full it tries again: how a program ended must not be lost."""
    part = f"{path}.part"
    while os.path.isdir(os.path.dirname(path)):
        try:
            with open(part, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(part, path)
        except FileNotFoundError:
            return  # the container was removed
        except OSError:
            time.sleep(RETRY_S)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
