"""Starts a command that does not outlive who started it: `python -m pretrain_exp.executor.child FD FOLDER COMMAND...`.

    starter --pipe FD--> watcher --end of file--> SIGTERM, a moment, SIGKILL to the command's process group
        \\---------------> the command, in place of this very process: pid, signals and exit status are its own

The kernel closes the pipe when the starter ends, however it ends. <FOLDER>/process.json names the process before its
command begins, so that no other starter overlooks it. The caller makes the process the leader of its own group.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from pretrain_exp.store.process import describe_process
from pretrain_exp.store.states import write_json

GRACE_SECONDS = 20.0  # to save, when the starter is gone; well below the time after which its claim is taken over
PROCESS = "process.json"  # {pid, host, boot, started}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(arguments: list[str]) -> int:
    """Returns only where there is no such command."""
    lifeline, folder, command = int(arguments[0]), Path(arguments[1]), arguments[2:]
    write_json(folder / PROCESS, describe_process())
    ended, running = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(running)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # sent to the group, meant for the command
        if os.fork() == 0:
            _watch(lifeline, ended)
        os._exit(0)
    os.waitpid(first, 0)  # the watcher is the system's child now: the command has none that it does not know
    os.close(lifeline)
    os.close(ended)
    os.set_inheritable(running, True)  # held open by the command, so that the watcher sees its end
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
    return 127


def _watch(lifeline: int, ended: int) -> None:
    """Waits for the first of two ends of file; does not return."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    if ended not in select.select([lifeline, ended], [], [])[0]:
        os.killpg(0, signal.SIGTERM)
        select.select([ended], [], [], GRACE_SECONDS)
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
