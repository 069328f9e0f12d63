"""Start runs from a process that has the libraries loaded already, for runners that start many short ones.

Importing PyTorch takes longer than a short run works. A runner keeps one process that has imported the libraries and
none of this project's modules; a stage's command hands itself over to it, and what that forks does the work under the
command's name: its arguments, environment, folder, files and signals. Where no such process answers, the command works
itself; with ``EDC_WARM=`` (empty) in the environment none is kept. Linux alone: elsewhere libraries don't survive a
fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

ADDRESS = "EDC_WARM"
"""The environment variable that holds the socket's path."""

LIBRARIES = (
    "torch",
    "matplotlib.figure",
    "numpy",
    "PIL.Image",
    "pydantic",
    "safetensors.torch",
    "tqdm",
    "typer",
    "yaml",
)
"""What stages import from elsewhere."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy's own threads would be lost in a fork, and their number changes the last bits of a product."""

SOCKET, BEGUN, DONE, ENDED = "socket", "begun", "done", "ended"
STREAMS = (0, 1, 2)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 5.0
"""Seconds a process that nobody needs any more has to end before it is left to itself."""


@contextlib.contextmanager
def libraries(threads: int) -> Iterator[None]:
    """Keep a process with the libraries loaded for the commands that are started while the block runs.

    Args:
        threads: of the commands' work; what OpenMP's own threads are told.
    """
    with contextlib.ExitStack() as held:
        if sys.platform == "linux" and ADDRESS not in os.environ:
            with contextlib.suppress(OSError):  # no place for a socket, no process to be had: commands work themselves
                _start(threads, held)
        yield


def _start(threads: int, held: contextlib.ExitStack) -> None:
    """Start the process and say in the environment where it is; ``held`` ends it.

    Raises:
        OSError: it can't be started.
    """
    from edc.pipeline.devices import without_cache

    with contextlib.ExitStack() as made:
        folder = tempfile.mkdtemp(prefix="edc-")  # nobody else may enter it
        made.callback(shutil.rmtree, folder, ignore_errors=True)
        leash, end = os.pipe()
        made.callback(os.close, end)  # as happens when this process dies: the other one ends
        with os.fdopen(leash), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(folder, SOCKET))
            listener.listen(256)
            # Given away listening: what connects before the libraries are loaded waits.
            given = (listener.fileno(), leash)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edc.pipeline.warm", *map(str, given), folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=without_cache(os.environ) | {"OMP_NUM_THREADS": str(threads)} | ONE_THREAD,
                pass_fds=given,
                start_new_session=True,  # the terminal's signals are for the commands, which pass them on
            )
        os.environ[ADDRESS] = os.path.join(folder, SOCKET)
        held.callback(_reap, process)
        held.push(made.pop_all())
        held.callback(os.environ.pop, ADDRESS, None)


def _reap(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)


def hand_over(arguments: Sequence[str]) -> int | None:
    """Have a command done by a process with the libraries loaded, if there is one.

    Args:
        arguments: of the command, its name first.

    Returns:
        Its exit code; ``None`` if there is nobody to do it.
    """
    address = os.environ.get(ADDRESS)
    if not address:
        return None
    asked = {
        "arguments": list(arguments),
        "environment": {name: value for name, value in os.environ.items() if name != ADDRESS},
        "folder": os.getcwd(),
        "python": _installation(),
        "path": sys.path,
        "package": sys.modules["__main__"].__package__,
    }
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("r", encoding="ascii") as answers:
        if connection.fileno() in STREAMS:  # one of them is closed: the work would hold the wrong end of this
            return None
        heard = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, signal.SIG_DFL) for number in heard}
        try:
            connection.connect(address)
            socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], STREAMS)
            kind, _, pid = answers.readline().partition(" ")
        except OSError:
            kind = ""
        if kind != BEGUN:
            for number, handler in before.items():
                signal.signal(number, handler)
            return None
        _pass_on(int(pid), heard)
        said = dict(answer.split() for answer in answers)
    # If nobody is left to say how it ended, the work's own last word counts.
    done = int(said[DONE]) << 8 if DONE in said else signal.SIGKILL
    status = int(said.get(ENDED, done))
    if os.WIFSIGNALED(status):
        # Whoever waits for this command is to see how the work ended.
        end = os.WTERMSIG(status)
        if end != signal.SIGKILL:
            signal.signal(end, signal.SIG_DFL)
        os.kill(os.getpid(), end)
    return os.waitstatus_to_exitcode(status)


def _pass_on(pid: int, heard: Sequence[signal.Signals]) -> None:
    """Let signals for this process reach the one that works for it."""

    def tell(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def suspend(*_: object) -> None:
        tell(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        tell(signal.SIGCONT)  # here this process goes on again

    for number in heard:
        signal.signal(number, lambda number, _: tell(number))
    if signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, suspend)


def _installation() -> list[str]:
    """Which Python, with which packages."""
    return [sys.prefix, os.path.realpath(sys.executable)]


def serve(listener: socket.socket, leash: int) -> socket.socket | None:
    """Fork for each command that comes, until the other end of ``leash`` is closed and the last of them has ended.

    Returns:
        In a fork the connection to its command; in this process ``None``.
    """
    children: dict[int, socket.socket] = {}
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ended = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    sources = [listener.fileno(), leash, woken]
    while children or leash in sources:
        ready = select.select(sources, [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _collect(children)
        if leash in ready:  # nothing is ever written there
            sources = [woken]
            listener.close()
        elif listener.fileno() in ready:
            connection = listener.accept()[0]
            try:
                pid = os.fork()
            except OSError:  # the command works itself
                connection.close()
                continue
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, ended)
                for held in (listener, *children.values()):
                    held.close()
                for descriptor in (leash, woken, wake):
                    os.close(descriptor)
                return connection
            children[pid] = connection
    return None


def _collect(children: dict[int, socket.socket]) -> None:
    """Tell the commands whose work has ended how it did."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid) as connection, contextlib.suppress(OSError):
            connection.sendall(f"{ENDED} {status}\n".encode())


def take_over(connection: socket.socket) -> None:
    """Become the command at the other end: arguments, environment, folder, files, sources; die with it.

    Raises:
        SystemExit: the command has gone, or is of another installation.
    """
    asked, streams, _, _ = socket.recv_fds(connection, 65536, len(STREAMS))
    while asked and not asked.endswith(b"\n"):
        more = connection.recv(65536)
        asked = asked + more if more else b""
    if not asked:
        raise SystemExit(1)
    said = json.loads(asked)
    if said["python"] != _installation():
        raise SystemExit(1)
    try:
        os.chdir(said["folder"])
    except OSError:
        raise SystemExit(1) from None
    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    os.environ.clear()
    os.environ.update(said["environment"])
    sys.argv[:], sys.path[:] = said["arguments"], said["path"]
    sys.modules["__main__"].__package__ = said["package"]  # tells how the command was called
    for name in [name for name in sys.modules if name.partition(".")[0] == "edc"]:
        del sys.modules[name]  # its own may be others
    try:
        connection.sendall(f"{BEGUN} {os.getpid()}\n".encode())
    except OSError:
        raise SystemExit(1) from None

    def watch() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)  # nothing comes but its end
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Load the libraries and serve."""
    listener, leash, folder = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    for given in (listener.fileno(), leash):
        os.set_inheritable(given, False)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # what is loaded is not gone through again, and its pages stay shared
    connection = serve(listener, leash)
    if connection is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    take_over(connection)
    from edc.cli import main as command

    code = 1
    try:
        command()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        with contextlib.suppress(OSError):
            connection.sendall(f"{DONE} {code}\n".encode())


if __name__ == "__main__":
    main()
