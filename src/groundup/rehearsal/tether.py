"""Runs a command that cannot outlive who started it: ``python -S tether.py PARENT COMMAND ARGUMENT...``

On Linux the kernel is asked (prctl(2) PR_SET_PDEATHSIG, kept across execve) to kill this process when its parent dies,
even by SIGKILL, when no handler of the parent can run.  Elsewhere a watcher is left behind in this process group: the
parent holds the other end of standard input, and when that end closes, for whatever reason, the watcher kills the group.
Then this process *becomes* the command, with nothing on its standard input.

A file of its own, and not ``preexec_fn``, because forking a process with threads and running Python in the child can deadlock.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def ask_the_kernel(parent: int) -> None:
    """Die when ``parent`` does."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)


def leave_a_watcher() -> None:
    """A grandchild, which the command therefore never has to wait for, reads standard input to its end and kills the group."""
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            while os.read(0, 1):
                pass
            os.killpg(0, signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    command = sys.argv[2:]
    if sys.platform == "linux":
        ask_the_kernel(int(sys.argv[1]))
    else:
        leave_a_watcher()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(command[0], command)
