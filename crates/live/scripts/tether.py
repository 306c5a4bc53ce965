"""Runs a command for as long as standard input is open: `tether.py COMMAND ARGUMENT...`.

Whoever started it holds the other end. When that process is gone, however it went, the whole
process group is killed, so no server outlives the run it belongs to.
"""

import os
import signal
import subprocess
import sys
import threading


def watch():
    sys.stdin.buffer.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


# A request to end goes to the group: the command obeys it, and this process waits for that.
signal.signal(signal.SIGTERM, lambda *_: None)
command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=watch, daemon=True).start()
sys.exit(command.wait())
