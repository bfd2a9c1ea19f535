"""Many small frames with one system call: recvmmsg(2) and sendmmsg(2).

Each frame is copied once more, which is cheap at 1500 bytes and would not be at 64 KB. So this is for
NICs that do not coalesce, where frames come one by one.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

FRAMES = 32  # the datapath takes as many per wake-up, so that none is left over
_IOVEC, _MESSAGE = struct.Struct("=QQ"), struct.Struct("=QQQQQQQII")  # struct iovec, struct mmsghdr
_RECEIVED_AT, _LENGTH_AT = 56, 8  # of a message in the latter, of a piece in the former
_received = struct.Struct("=I").unpack_from
_set_length = struct.Struct("=Q").pack_into
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class _Slots:
    """Room for a batch, and the structures by which the kernel finds it. ``size``: bytes of one."""

    def __init__(self, size: int) -> None:
        self._data = bytearray(FRAMES * size)
        view = memoryview(self._data)
        self.views = [view[slot * size : (slot + 1) * size] for slot in range(FRAMES)]
        self.iovecs = bytearray(FRAMES * _IOVEC.size)
        self.messages = bytearray(FRAMES * _MESSAGE.size)
        base, iovecs = _address(self._data), _address(self.iovecs)
        for slot in range(FRAMES):
            _IOVEC.pack_into(self.iovecs, slot * _IOVEC.size, base + slot * size, size)
            vector = iovecs + slot * _IOVEC.size
            _MESSAGE.pack_into(self.messages, slot * _MESSAGE.size, 0, 0, vector, 1, 0, 0, 0, 0, 0)
        self.address = _address(self.messages)


class BatchReader:
    """Reads a packet socket; hands out frames one at a time, as ``socket.recv_into`` does."""

    def __init__(self, sock: socket.socket, longest: int) -> None:
        """``longest``: bytes of a frame with its vnet header; of a longer one the rest is lost."""
        self._descriptor = sock.fileno()
        self._slots = _Slots(longest)
        self._views, self._messages = self._slots.views, self._slots.messages
        self._recvmmsg = ctypes.CDLL(None).recvmmsg
        number, pointer = ctypes.c_int, ctypes.c_void_p
        self._recvmmsg.argtypes = [number, pointer, ctypes.c_uint, number, pointer]
        self._next = self._count = 0

    def receive_into(self, view: memoryview) -> int:
        """The next frame's length, its bytes in ``view``. Raises BlockingIOError once there is none."""
        slot = self._next
        if slot == self._count:
            slot = self._fill()
        self._next = slot + 1
        length: int = _received(self._messages, slot * _MESSAGE.size + _RECEIVED_AT)[0]
        view[:length] = self._views[slot][:length]
        return length

    def _fill(self) -> int:
        """Take a batch. One that was not full has emptied the queue: that is said without asking again."""
        emptied = 0 < self._count < FRAMES
        self._next = self._count = 0
        if not emptied:
            self._count = max(0, self._recvmmsg(self._descriptor, self._slots.address, FRAMES, 0, None))
        if not self._count:
            raise BlockingIOError
        return 0


class BatchWriter:
    """Keeps small frames for a packet socket until there are enough, or it is told to send them."""

    def __init__(self, sock: socket.socket, longest: int) -> None:
        """``longest``: bytes of a frame with its vnet header; a longer one is sent by itself."""
        self._socket = sock
        self._longest = longest
        self._slots = _Slots(longest)
        self._views, self._iovecs = self._slots.views, self._slots.iovecs
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._count = 0
        self.refused = 0  # frames that were accepted here, and that the NIC did not take

    def send(self, frame: memoryview) -> int:
        """As ``socket.send``; what becomes of a frame that is kept shows in ``refused``."""
        length = len(frame)
        if length > self._longest:
            self.flush()
            return self._socket.send(frame)
        slot = self._count
        self._views[slot][:length] = frame
        _set_length(self._iovecs, slot * _IOVEC.size + _LENGTH_AT, length)
        self._count = slot + 1
        if self._count == FRAMES:
            self.flush()
        return length

    def flush(self) -> None:
        """Send what is kept. A frame that is refused by itself does not hold up the next ones."""
        at, left = self._slots.address, self._count
        self._count = 0
        while left:
            done = self._sendmmsg(self._socket.fileno(), at, left, 0)
            if done <= 0:
                done = left if ctypes.get_errno() in _FULL else 1
                self.refused += done
            at += done * _MESSAGE.size
            left -= done


def _address(data: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
