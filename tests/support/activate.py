"""How does a service manager start a program with sockets? They become descriptors 3, 4, …, then it runs under the pid that they are for.

python activate.py FD[,FD…] COMMAND …          Source: sd_listen_fds(3)
"""

from __future__ import annotations

import fcntl
import os
import sys


def main() -> None:
    fds = [int(fd) for fd in sys.argv[1].split(",")]
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    for number, fd in enumerate(aside):
        os.dup2(fd, 3 + number)
        os.close(fd)
    os.environ.setdefault("LISTEN_FDS", str(len(fds)))
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
