"""Linux namespaces: the one home of setns(2) and unshare(2).

Python has ``os.setns`` and ``os.unshare`` from 3.12 on; ctypes serves 3.11 too. A namespace
without a name lives as long as a process is in it or a file descriptor refers to it, so a
process that holds its namespaces as descriptors only leaves nothing behind, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Generic, NoReturn, TypeVar, TypeVarTuple

from testbed.errors import LabError, TestbedError

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

PR_SET_PDEATHSIG = 1  # linux/prctl.h

_OWN_NETNS = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _check(result: int, call: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (``CLONE_NEW...``). Raises OSError."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, flags: int) -> None:
    """Move the calling thread into the namespace(s) of ``fd``: a namespace or a pidfd. Raises OSError."""
    _check(_libc.setns(fd, flags), f"setns({fd}, {flags:#x})")


def kill_with_parent() -> None:
    """Have the kernel kill the calling process when the thread that forked it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill the calling process when the thread that forked it ends.

    ``parent`` is the pid of the process that forked: if it is gone already, the caller ends here.
    """
    kill_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def netns_of(pid: int, pidfd: int | None = None) -> int:
    """A new descriptor of the network namespace of process ``pid`` (as seen in this /proc).

    With ``pidfd`` it is certain that the namespace is that process's and not its pid's next
    user's. Raises LabError when the process has ended.
    """
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise LabError(f"process {pid} has ended: its network namespace cannot be opened") from None
    if pidfd is not None and select.select([pidfd], [], [], 0)[0]:
        os.close(fd)
        raise LabError(f"process {pid} has ended: its network namespace cannot be opened")
    return fd


def _return_to(fd: int) -> None:
    """Go back to the thread's own network namespace, or end the process.

    Going on in a wrong namespace would create or delete links of another machine's network.
    """
    try:
        setns(fd, CLONE_NEWNET)
    except OSError as error:
        os.write(2, f"testbed: cannot return to the own network namespace: {error}\n".encode())
        os.abort()


@contextlib.contextmanager
def in_netns(fd: int) -> Iterator[None]:
    """The calling thread is in the network namespace of ``fd`` for the ``with`` block.

    Raises OSError when it cannot enter; ends the process when it cannot return.
    """
    own = os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            _return_to(own)
    finally:
        os.close(own)


def new_netns() -> int:
    """A descriptor of a new network namespace without a name; its ``lo`` is down.

    The calling thread's own namespace is unchanged. Raises OSError (EPERM: needs CAP_SYS_ADMIN).
    """
    own = os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            return os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _return_to(own)
    finally:
        os.close(own)


class NetnsCall(Generic[T]):
    """A function that runs in a child process inside a network namespace.

    The child is killed by :meth:`close`, at the end of a ``with`` block, at the deadline of
    :meth:`result`, and by the kernel when the thread that started it ends.
    """

    def __init__(self, name: str, pid: int, pipe: int) -> None:
        self.name = name
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._pipe = pipe
        os.set_blocking(pipe, False)

    def ended(self) -> bool:
        """Whether the child has ended (by itself or killed)."""
        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], 0)[0])

    def result(self, timeout: float) -> T:
        """What the function returned, waiting at most ``timeout`` seconds.

        A TestbedError of the function is raised again as it was; anything else that goes wrong
        (an exception, death by a signal, the deadline) is a LabError that tells it.
        """
        try:
            data = self._read(time.monotonic() + timeout)
            if data is None:
                raise LabError(f"{self.name}: no result within {timeout:g} s; it was stopped")
            if not data:
                raise LabError(f"{self.name}: {self._end()} without a result")
        finally:
            self.close()
        done, value = pickle.loads(data)  # noqa: S301 - written by our own fork
        if done:
            return value  # type: ignore[no-any-return]
        if isinstance(value, TestbedError):
            raise value
        raise LabError(f"{self.name}: {value}")

    def _read(self, deadline: float) -> bytes | None:
        """All that the child writes until it ends; None at the deadline."""
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        data = bytearray()
        while (left := deadline - time.monotonic()) > 0:
            if not poll.poll(left * 1000):
                continue
            ended = self.ended()  # asked before the read, so that nothing can follow what is read
            try:
                while chunk := os.read(self._pipe, 1 << 16):
                    data += chunk
                return bytes(data)
            except BlockingIOError:
                if ended:  # its own children may still hold the pipe open
                    return bytes(data)
        return None

    def _end(self) -> str:
        """How the child ended, for a message."""
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # reaped by another part of this process
            info = None
        if info is None:
            return "ended"
        if info.si_code == os.CLD_EXITED:
            return f"ended with exit code {info.si_status}"
        return f"killed by {signal.Signals(info.si_status).name}"

    def close(self) -> None:
        """Kill the child if it still runs, and reap it. May be called more than once."""
        if self._pidfd < 0:
            return
        # neither error: a process that reaps all its children, as an init does, may have been first
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        os.close(self._pipe)
        self._pidfd = self._pipe = -1

    def __enter__(self) -> NetnsCall[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _child(
    parent: int, netns: int, pipe: int, mask: set[int], function: Callable[[*Ts], T], args: tuple[*Ts]
) -> NoReturn:
    """The forked child: call ``function`` in the namespace, write (True, result) or (False, error), end.

    Nothing may leave this function: above it on the stack are the parent's own clean-ups.
    """
    code = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent decides, and kills the child
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            setns(netns, CLONE_NEWNET)
            data = pickle.dumps((True, function(*args)))
        except TestbedError as error:
            data = pickle.dumps((False, error))
        except BaseException as error:
            data = pickle.dumps((False, "".join(traceback.format_exception_only(error)).strip()))
        with open(pipe, "wb") as stream:
            stream.write(data)
        code = 0
    finally:
        os._exit(code)


def start_in_netns(
    netns: int, function: Callable[[*Ts], T], *args: *Ts, name: str | None = None
) -> NetnsCall[T]:
    """Start ``function(*args)`` in a forked child that has entered the network namespace ``netns``.

    The function's result must be picklable. ``name`` stands in front of error messages (default:
    the function's name). Close the returned call, or use it in a ``with`` block.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    # No Python signal handler may run in the child before it has put its own in place.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            _child(parent, netns, writer, {int(number) for number in mask}, function, args)
        call: NetnsCall[T] = NetnsCall(name or function.__name__, pid, reader)
    except BaseException:
        os.close(reader)
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return call


def run_in_netns(
    netns: int, function: Callable[[*Ts], T], *args: *Ts, timeout: float, name: str | None = None
) -> T:
    """The result of ``function(*args)`` in a forked child inside the network namespace ``netns``.

    Waits ``timeout`` seconds at most. Errors as of :meth:`NetnsCall.result`.
    """
    with start_in_netns(netns, function, *args, name=name) as call:
        return call.result(timeout)
