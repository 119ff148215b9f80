"""What the scripts of this folder share: source and sink as processes, and tables.

The daemon, the name server and free ports come from tests/system.
"""

import json
import os
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
sys.dont_write_bytecode = True

from harness import BUILD, Daemon, free_port  # noqa: E402,F401
from nameserver import Nameserver, records_of  # noqa: E402,F401

BENCH = os.path.join(BUILD, "bench")


def need_programs(*paths):
    for path in paths:
        if not os.path.exists(path):
            sys.exit(f"{path} is missing: make && make bench-programs")


class Program:
    """A process of ours that ends with one line of JSON."""

    def __init__(self, name, *arguments):
        self.name = name
        self.process = subprocess.Popen(
            [os.path.join(BENCH, name), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def result(self, seconds=300):
        out, _ = self.process.communicate(timeout=seconds)
        if self.process.returncode != 0:
            sys.exit(f"{self.name} ended with {self.process.returncode}: {out}")
        return json.loads(out.splitlines()[-1])

    def stop(self):
        """TERM, then its result."""
        self.process.terminate()
        return self.result(30)

    def end(self):
        if self.running():
            self.process.kill()
            self.process.wait()


class Sink(Program):
    def __init__(self, address, *arguments):
        super().__init__("sink", "--listen", address, *arguments)
        wait_port(address)


def wait_port(address, seconds=10):
    """Until somebody listens there; asks the kernel, so that nobody sees a connection."""
    host, port = address.rsplit(":", 1)
    wanted = f"{socket.inet_aton(host)[::-1].hex().upper()}:{int(port):04X}"
    deadline = time.monotonic() + seconds
    while True:
        with open("/proc/net/tcp") as file:
            for line in file:
                fields = line.split()
                if fields[1] == wanted and fields[3] == "0A":
                    return
        assert time.monotonic() < deadline, f"nobody listens on {address}"
        time.sleep(0.01)


def table(rows, heads):
    """Prints rows of texts under their heads, numbers to the right."""
    widths = [max(len(str(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, ["-" * w for w in widths], *rows]:
        cells = [
            str(c).ljust(w) if i == 0 else str(c).rjust(w)
            for i, (c, w) in enumerate(zip(row, widths))
        ]
        print("  " + "  ".join(cells).rstrip(), flush=True)
