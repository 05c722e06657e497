"""Runs a command that cannot outlive who started it: ``python -S tether.py PARENT COMMAND ARGUMENT...``

The kernel is asked (Linux, prctl(2) PR_SET_PDEATHSIG, kept across execve) to kill this process when its parent dies,
even by SIGKILL, when no handler of the parent can run.  Then this process *becomes* the command.  Elsewhere it only
becomes the command.  A file of its own, and not ``preexec_fn``, because forking a process with threads and running Python
in the child can deadlock.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(1)
    os.execv(command[0], command)
