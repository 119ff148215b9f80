"""What a mail server costs while it works: CPU, memory, flushes and bytes to the disk.

CPU is that of all its processes, those that have ended included: from a cpuacct cgroup where
there is one, else summed over the process tree. Flushes and bytes are the block device's own
counts, so they tell the truth for every way to write, and only on an otherwise idle machine.
"""

import contextlib
import os
import threading
import time

CPUACCT = "/sys/fs/cgroup/cpuacct"


def descendants(pid):
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


class Meter:
    """Start the server inside `with meter.inside():`, then tell `pid`."""

    def __init__(self, folder):
        self.pid = None
        self.device = os.stat(folder).st_dev
        self.group = os.path.join(CPUACCT, f"stafette-bench-{os.getpid()}-{id(self) % 100000}")
        self.peak = 0
        self.sampling = None
        try:
            os.mkdir(self.group)
        except OSError:
            self.group = None

    @contextlib.contextmanager
    def inside(self):
        if self.group:
            self.move(self.group)
        try:
            yield
        finally:
            if self.group:
                self.move(CPUACCT)

    @staticmethod
    def move(group):
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))

    def processes(self):
        if self.group:
            with open(os.path.join(self.group, "cgroup.procs")) as file:
                return [int(line) for line in file]
        return descendants(self.pid)

    def cpu_seconds(self):
        if self.group:
            with open(os.path.join(self.group, "cpuacct.usage")) as file:
                return int(file.read()) / 1e9
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/stat") as file:
                    ticks += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self):
        """Proportional set size: pages that processes share count once."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    for line in file:
                        if line.startswith("Pss:"):
                            total += int(line.split()[1]) * 1024
        return total

    def disk(self):
        """(flushes, bytes written) of the device so far."""
        name = f"{os.major(self.device)} {os.minor(self.device)}"
        with open("/proc/diskstats") as file:
            for line in file:
                fields = line.split()
                if " ".join(fields[:2]) == name:
                    return int(fields[18]) if len(fields) > 18 else 0, int(fields[9]) * 512
        return 0, 0

    def start(self):
        self.at = (self.cpu_seconds(), self.disk())
        self.peak = self.memory_bytes()
        self.sampling = threading.Event()
        threading.Thread(target=self.sample, daemon=True).start()

    def sample(self):
        while not self.sampling.wait(0.5):
            self.peak = max(self.peak, self.memory_bytes())

    def stop(self):
        """Since start(): a dict of cpu_seconds, peak_bytes, flushes, disk_bytes."""
        self.sampling.set()
        cpu, (flushes, written) = self.cpu_seconds(), self.disk()
        return {
            "cpu_seconds": cpu - self.at[0],
            "peak_bytes": max(self.peak, self.memory_bytes()),
            "flushes": flushes - self.at[1][0],
            "disk_bytes": written - self.at[1][1],
        }

    def end(self):
        if self.group:
            for _ in range(50):
                try:
                    os.rmdir(self.group)
                    return
                except OSError:
                    time.sleep(0.1)
