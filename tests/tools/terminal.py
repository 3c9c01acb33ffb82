"""Runs a command on a terminal of COLUMNS x LINES, resizes it, types q and prints what was on the screen at the end of
each size (ANSI: cursor home, erase; enough for skald top). Exit code: the command's; 9 if it did not end after q.

    terminal.py COLUMNS LINES COLUMNS2 LINES2 COMMAND...
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time


def size(fd, columns, lines):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def read_for(fd, seconds, until=None):
    text, end = b"", time.time() + seconds
    while time.time() < end and not (until and until in text):
        if select.select([fd], [], [], 0.05)[0]:
            try:
                text += os.read(fd, 65536)
            except OSError:  # the other end has closed
                break
    return text.decode("utf-8", "replace")


def screen(text):
    """The last full picture: what follows the last cursor home."""
    last = text.rsplit("\033[H", 1)[-1]
    return [line for line in re.sub(r"\033\[[0-9?;]*[A-Za-z]", "", last).split("\r\n")]


columns, lines, columns2, lines2 = map(int, sys.argv[1:5])
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.1)
    os.execvp(sys.argv[5], sys.argv[5:])
size(fd, columns, lines)
first = screen(read_for(fd, 15, b"\033[J") + read_for(fd, 1))
size(fd, columns2, lines2)
os.kill(pid, signal.SIGWINCH)
second = screen(read_for(fd, 1))
os.write(fd, b"q")
rest, done = "", 0
for _ in range(100):
    rest += read_for(fd, 0.1)
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
else:
    os.kill(pid, signal.SIGKILL)
    sys.exit(9)
print("\n".join(first))
print("=== widest %d of %d, %d lines of %d" % (max(map(len, first)), columns, len(first), lines))
print("\n".join(second))
print("=== widest %d of %d, %d lines of %d" % (max(map(len, second)), columns2, len(second), lines2))
print("screen given back" if "\033[?1049l" in rest else "screen kept")
fits = max(map(len, first)) <= columns and max(map(len, second)) <= columns2
fits = fits and len(first) <= lines and len(second) <= lines2
sys.exit(os.waitstatus_to_exitcode(status) if fits else 8)
