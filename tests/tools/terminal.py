"""Runs a command on a terminal of COLUMNS x LINES, resizes it, types q and prints what was on the screen at the end of
each size, and after each --keys (ANSI: cursor home, erase; enough for skald top). Exit code: the command's; 9 if it did
not end after q, 8 if something did not fit.

    terminal.py COLUMNS LINES COLUMNS2 LINES2 [--keys=KEYS]... COMMAND...
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
    """The last full picture: from cursor home to the erasing of what is below; one that is not ended does not count."""
    last = ([p for p in text.split("\033[H")[1:] if "\033[J" in p] or [text])[-1]
    return [line for line in re.sub(r"\033\[[0-9?;]*[A-Za-z]", "", last).split("\r\n")]


columns, lines, columns2, lines2 = map(int, sys.argv[1:5])
command = sys.argv[5:]
keys = []
while command[0].startswith("--keys="):
    keys.append(command.pop(0)[7:].encode().decode("unicode_escape"))
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.1)
    os.execvp(command[0], command)
size(fd, columns, lines)
first = screen(read_for(fd, 60, b"\033[J") + read_for(fd, 1))
size(fd, columns2, lines2)
os.kill(pid, signal.SIGWINCH)
second = screen(read_for(fd, 1))
pressed = []
for sequence in keys:
    os.write(fd, sequence.encode())
    pressed.append(screen(read_for(fd, 1.5)))
os.write(fd, b"q")
rest, done = "", 0
for _ in range(400):
    rest += read_for(fd, 0.1)
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)  # the terminal is closed before the process can be waited for, and then there is nothing to read
else:
    os.kill(pid, signal.SIGKILL)
    sys.exit(9)
print("\n".join(first))
print("=== widest %d of %d, %d lines of %d" % (max(map(len, first)), columns, len(first), lines))
print("\n".join(second))
print("=== widest %d of %d, %d lines of %d" % (max(map(len, second)), columns2, len(second), lines2))
for sequence, seen in zip(keys, pressed):
    print("=== after %r" % sequence)
    print("\n".join(seen))
print("screen given back" if "\033[?1049l" in rest else "screen kept")
fits = max(map(len, first)) <= columns and max(map(len, second)) <= columns2
fits = fits and all(max(map(len, seen)) <= columns2 and len(seen) <= lines2 for seen in pressed)
fits = fits and len(first) <= lines and len(second) <= lines2
sys.exit(os.waitstatus_to_exitcode(status) if fits else 8)
