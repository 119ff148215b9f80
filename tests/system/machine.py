"""A machine of its own for a scenario: a real systemd as process 1 in new namespaces.

Its root is a folder of the test, with the host's /usr (read only); the network is the host's, so
that peers and name servers of the test are reached. Of systemd's own units there are only plain
targets: nothing starts but what the test starts.
"""

import os
import shutil
import signal
import subprocess

from harness import need, wait_for
from reaper import reap

SYSTEMD = "/lib/systemd/systemd"
UNITS = "/usr/lib/systemd/system"
TARGETS = ("basic", "sysinit", "shutdown", "multi-user", "network-online", "nss-lookup")

# In a control group of its own (version 2, wherever the host has mounted which), then as the
# first process of new namespaces. What is left of the group is removed when that has ended.
OUTSIDE = """
mkdir "$1/groups" && mount -t cgroup2 none "$1/groups" || exit 1
group="$1/groups/stafette-test-$$"
mkdir "$group" && echo $$ >"$group/cgroup.procs" || exit 1
unshare --mount --pid --ipc --uts --cgroup --fork --kill-child sh -c "$2" inside "$1"
echo $$ >"$1/groups/cgroup.procs"
find "$group" -depth -type d -exec rmdir {} +
"""

INSIDE = """
set -e
cd "$1/root"
mount --bind . . && cd "$1/root"
mount --bind /usr usr && mount -o remount,bind,ro usr
mount --bind "$1/units" usr/lib/systemd/system
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup sys/fs/cgroup
for folder in dev run tmp; do mount -t tmpfs -o mode=755 none $folder; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
	: >dev/$device && mount --bind /dev/$device dev/$device
done
mkdir -m 1777 dev/shm && mount -t tmpfs none dev/shm
ln -s /proc/self/fd dev/fd && ln -s pts/ptmx dev/ptmx
mkdir before && pivot_root . before && umount -l before && rmdir before
exec /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin \
	/lib/systemd/systemd --system --show-status=no --unit=basic.target
"""


class Machine:
    """Boots in `folder`; its files are below `root`."""

    def __init__(self, folder):
        assert os.path.exists(SYSTEMD), f"{SYSTEMD} is missing: install the package systemd"
        self.folder, self.root = folder, os.path.join(folder, "root")
        self.errors_path = os.path.join(folder, "stderr")  # the runner shows it if the test fails
        for name in ("usr", "etc/systemd/system", "proc", "sys", "dev", "run", "tmp", "root",
                     "var/lib", "var/log", "var/spool", "var/tmp"):  # fmt: skip
            os.makedirs(os.path.join(self.root, name))
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.exists(f"/usr/{name}"):
                os.symlink(f"usr/{name}", os.path.join(self.root, name))
        for name in ("passwd", "group", "nsswitch.conf"):
            shutil.copy(f"/etc/{name}", self.path(f"/etc/{name}"))
        os.makedirs(os.path.join(folder, "units"))
        for name in TARGETS:
            shutil.copy(f"{UNITS}/{name}.target", os.path.join(folder, "units"))
        open(self.path("/etc/machine-id"), "w").close()
        self.process = self.boot()
        self.pid = wait_for("systemd to be process 1", self.first)
        wait_for("systemd to be up", lambda: self.is_active("basic.target"))

    def path(self, inside):
        """Where we see what the machine calls `inside`."""
        return self.root + inside

    def boot(self):
        with open(self.errors_path, "ab") as out:
            return subprocess.Popen(
                [need("unshare", "util-linux"), "--mount", "sh", "-c", OUTSIDE, "outside",
                 self.folder, INSIDE],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def first(self):
        """The process that is systemd, as we see it."""
        assert self.process.poll() is None, f"no systemd, see {self.errors_path}"
        for unshare in children(self.process.pid):
            for pid in children(unshare):
                if name_of(pid) == "systemd":
                    return pid
        return None

    def run(self, *command, status=0):
        """A command in the machine, as root; status None: it may fail."""
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc", "--uts", "--cgroup",
             *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd="/",
        )  # fmt: skip
        assert (
            status is None or done.returncode == status
        ), f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def outside(self, inside):
        """The process that the machine knows by the number `inside`, as we see it."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == space and numbers(name)[-1] == inside:
                    return int(name)
            except OSError:  # it has ended meanwhile
                continue
        raise AssertionError(f"the machine has no process {inside}")

    def is_active(self, unit):
        return self.run("systemctl", "is-active", unit, status=None).returncode == 0

    def show(self, unit, name):
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def stop(self):
        for pid in children(self.process.pid):
            for first in children(pid):
                os.kill(first, signal.SIGKILL)  # and with it all of its processes
        reap(self.process)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def numbers(pid):
    """Those of a process in all its namespaces, ours first."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("NSpid:"))
    return [int(word) for word in line.split()[1:]]
