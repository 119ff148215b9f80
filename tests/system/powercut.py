"""A disk that can lose its power or fail, under a real file system; see volatile_disk.c.

Everything is mounted in a mount namespace of the test's own: however the test ends, its mounts and
loop devices end with its last process.
"""

import ctypes
import os
import re
import subprocess
import time

from harness import BUILD, need, wait_for

VOLATILE_DISK = os.path.join(BUILD, "tests/system/volatile_disk")
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18

# As small as each file system can be made.
FILE_SYSTEMS = {
    "ext4": (64, ["mkfs.ext4", "-q", "-F", "-m", "0"], "e2fsprogs"),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"], "xfsprogs"),
    "btrfs": (320, ["mkfs.btrfs", "-q", "-f"], "btrfs-progs"),
}


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done


def own_mounts():
    """What this process mounts from now on is seen by it and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for result in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
    ):
        assert result == 0, f"this test needs root: {os.strerror(ctypes.get_errno())}"


class Disk:
    """A file system on a volatile disk, mounted at `path`."""

    def __init__(self, folder, kind="ext4"):
        mebibytes, make, package = FILE_SYSTEMS[kind]
        own_mounts()
        self.kind, self.device, self.mounted = kind, None, False
        self.path = os.path.join(folder, "mount")
        self.fuse = os.path.join(folder, "fuse")
        self.errors = os.path.join(folder, "volatile_disk.err")
        os.makedirs(self.path)
        os.makedirs(self.fuse)
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [VOLATILE_DISK, self.fuse, str(mebibytes)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # not killed with the test: it ends by itself
            )
        self.image = os.path.join(self.fuse, "disk")
        wait_for("the volatile disk", lambda: self.alive() and os.path.exists(self.image), 10)
        run(need(make[0], package), *make[1:], self.image)
        self.mount()

    def alive(self):
        assert self.process.poll() is None, open(self.errors).read()
        return True

    def tell(self, command):
        control = os.open(os.path.join(self.fuse, "control"), os.O_WRONLY)
        try:
            os.write(control, command.encode())
        finally:
            os.close(control)

    def counts(self):
        """Writes, flushes, sectors that wait for a flush (or did at the cut), failures, 1: off."""
        with open(os.path.join(self.fuse, "control"), "rb", buffering=0) as control:
            return [int(word) for word in control.read(200).split()]

    def mount(self):
        """Attaches and mounts it; the loop device goes with the mount. False: it can't be."""
        self.device = run("losetup", "--show", "-f", self.image).stdout.strip()
        done = run("mount", "-t", self.kind, self.device, self.path, check=False)
        run("losetup", "-d", self.device)
        self.mounted = done.returncode == 0
        if not self.mounted:
            print(f"mount: {done.stderr}")
        return self.mounted

    def writes_back(self):
        """Whether the kernel takes it for a disk with a write cache, and so flushes it."""
        name = os.path.basename(self.device)
        with open(f"/sys/block/{name}/queue/write_cache") as file:
            return file.read().strip() == "write back"

    def unmount(self):
        for _ in range(100):
            if not self.mounted or run("umount", self.path, check=False).returncode == 0:
                self.mounted = False
                return
            time.sleep(0.1)
        run("umount", "-l", self.path)
        raise AssertionError(f"{self.path} stays busy")

    def cut(self, seed, percent, writes=0):
        """The power fails after so many writes more; `percent` of the sectors that no flush
        covered survive. Returns how many those were."""
        self.tell(f"cut {seed} {percent} {writes}")
        return wait_for("the power cut", lambda: self.counts()[4] and self.counts(), 20, 0.01)[2]

    def again(self):
        """Power back, and what was kept is mounted. False: the file system can't be."""
        self.unmount()
        self.tell("on")
        return self.mount()

    def end(self):
        self.process.kill()  # so that nothing waits for it
        self.process.wait()
        run("umount", "-l", self.path, check=False)
        run("umount", "-l", self.fuse, check=False)


def bytes_of(path):
    """Where a file of ext4 or XFS lies on the disk: [(first byte, count)]."""
    text = run(need("filefrag", "e2fsprogs"), "-b4096", "-v", path).stdout
    found = re.findall(r"^ +\d+: +\d+\.\. +\d+: +(\d+)\.\. +(\d+):", text, re.M)
    assert found, text
    return [(int(a) * 4096, (int(b) - int(a) + 1) * 4096) for a, b in found]
