"""The daemon in its surroundings: service manager, an ordinary user, io_uring forbidden."""

import ctypes
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess

from harness import NOBODY, STAFETTED, wait_for
from wire import letter

SYS_IO_URING_SETUP = 425


def test_service_manager(t):
    """READY=1 is said when it takes mail, STOPPING=1 when it ends"""
    path = os.path.join(t.folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(10)
        daemon = t.daemon(start=False)
        os.environ["NOTIFY_SOCKET"] = path
        daemon.start(ready=False)
        said = b""
        while b"READY=1" not in said:
            said += listener.recv(4096) + b"\n"
        daemon.client().quit()
        daemon.signal(signal.SIGTERM)
        said = b""
        while b"STOPPING=1" not in said:
            said += listener.recv(4096) + b"\n"
        assert daemon.wait() == 0


def test_ordinary_user(t):
    """Everything works for a user without privileges, in a spool of his own"""
    daemon, peer = t.simple(start=False)
    for folder in (t.folder, os.path.dirname(t.folder)):
        os.chmod(folder, 0o755)
    shutil.chown(daemon.folder, "nobody")
    open(daemon.errors_path, "w").close()
    shutil.chown(daemon.errors_path, "nobody")
    with open(daemon.errors_path, "ab") as errors:
        daemon.process = subprocess.Popen(
            [STAFETTED, "-c", daemon.config_path],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=daemon.folder,
            **NOBODY,
        )
    wait_for("the daemon to listen", daemon.ready)
    daemon.submit("s@sender.test", ["r@a.test"], letter(size=2 << 20))
    peer.wait(1)
    daemon.wait_empty()
    daemon.stop()
    assert os.stat(daemon.spool).st_uid != 0


def forbid_io_uring():
    """A seccomp filter as containers have it: io_uring_setup() gives EPERM."""
    filters = b"".join(
        struct.pack("HBBI", *line)
        for line in (
            (0x20, 0, 0, 0),  # load the system call's number
            (0x15, 0, 1, SYS_IO_URING_SETUP),
            (0x06, 0, 0, 0x00050000 | errno.EPERM),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )
    buffer = ctypes.create_string_buffer(filters)
    program = struct.pack("HxxxxxxP", len(filters) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program)) == 0  # PR_SET_SECCOMP


def test_io_uring_forbidden(t):
    """Where io_uring is refused, one line says what refused it and how to allow it"""
    daemon = t.daemon(start=False)
    done = subprocess.run(
        [STAFETTED, "-c", daemon.config_path],
        capture_output=True,
        text=True,
        timeout=20,
        preexec_fn=forbid_io_uring,
    )
    lines = [line for line in done.stderr.splitlines() if "io_uring" in line]
    assert done.returncode not in (0, 64) and done.returncode > 0, done
    assert len(lines) == 1, done.stderr
    assert "seccomp" in lines[0] or "io_uring_disabled" in lines[0], done.stderr
