"""Entry of the host process: fork the worker, then serve requests until told to end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import traceback
from pathlib import Path

from testbed import plants
from testbed.channel import Channel, Server, listen, pair
from testbed.host.agent import Agent
from testbed.host.worker import Worker
from testbed.processes import name_process


def run(directory: Path) -> int:
    """Serve ``directory``/control.sock. Returns the exit code: 0 after SIGTERM, 1 when the worker died."""
    plants.take(directory)
    control, worker = pair()
    gc.freeze()  # what is here now stays shared between the two processes
    pid = os.fork()
    if pid == 0:
        control.close()
        os._exit(_run_worker(worker))
    worker.close()
    name_process("tb-control")
    loop = asyncio.new_event_loop()
    agent = Agent(loop, control, pid)
    Server(loop, listen(directory / "control.sock"), agent.handle)
    code = 1

    def end() -> None:
        nonlocal code
        code = 0
        loop.stop()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.run_forever()
    agent.close()
    ending = asyncio.all_tasks(loop)  # what it has cancelled gets to its end
    loop.run_until_complete(asyncio.gather(*ending, return_exceptions=True))
    return code


def _run_worker(channel: Channel) -> int:
    name_process("tb-worker-0")
    channel.socket.settimeout(None)
    try:
        Worker(channel).run()
    except Exception:  # the one place where a worker's crash is seen: it must reach the log
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0
