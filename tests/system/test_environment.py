"""The daemon in its surroundings: service manager, an ordinary user, io_uring forbidden."""

import ctypes
import errno
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time

from harness import NOBODY, STAFETTED, limit, wait_for
from storm import LATER
from wire import Closed, letter, stuff

SYS_IO_URING_SETUP = 425


def test_service_manager(t):
    """READY=1 is said when it takes mail, STOPPING=1 when it ends"""
    path = os.path.join(t.folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(60)
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


def start_without_io_uring(daemon):
    """What it says, and its process."""
    with open(daemon.errors_path, "ab") as errors:
        daemon.process = subprocess.Popen(
            [STAFETTED, "-c", daemon.config_path],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=daemon.folder,
            env={key: value for key, value in os.environ.items() if key != "STAFETTE_IO"},
            preexec_fn=forbid_io_uring,
        )


def io_lines(daemon):
    return [line for line in daemon.errors().splitlines() if "io_uring is" in line]


def test_io_uring_forbidden(t):
    """Where io_uring is refused, epoll takes over, and one line says what refused it and how to allow it"""
    daemon, peer = t.simple(start=False)
    start_without_io_uring(daemon)
    wait_for("the daemon to listen", daemon.ready)
    daemon.submit("s@sender.test", ["r@a.test"], letter(size=2 << 20))
    peer.wait(1)
    daemon.wait_empty()
    daemon.stop()
    lines = io_lines(daemon)
    assert len(lines) == 1 and "notice: epoll" in lines[0], daemon.errors()
    assert "seccomp" in lines[0] or "io_uring_disabled" in lines[0], daemon.errors()
    assert "allow" in lines[0]


def test_io_uring_required(t):
    """io = "io_uring" is not replaced by anything: where it is refused, nothing starts, and one line says why"""
    daemon = t.daemon(start=False, io="io_uring")
    start_without_io_uring(daemon)
    status = daemon.wait(20)
    lines = io_lines(daemon)
    assert status == os.EX_OSERR, status
    assert len(lines) == 1 and "error: io_uring" in lines[0], daemon.errors()
    assert "seccomp" in lines[0] or "io_uring_disabled" in lines[0], daemon.errors()
    assert not os.path.exists(daemon.spool)


def test_epoll_by_configuration(t):
    """io = "epoll" is enough for everything, and is said once"""
    daemon, peer = t.simple(io="epoll")
    daemon.submit("s@sender.test", ["r@a.test"], letter(size=2 << 20))
    peer.wait(1)
    daemon.wait_empty()
    daemon.stop()
    assert len([line for line in daemon.errors().splitlines() if "notice: epoll" in line]) == 1
    assert not io_lines(daemon)


def flood(daemon, count):
    """That many connections which say nothing; some may not get through."""
    sockets = []
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((daemon.host, daemon.port))
        sockets.append(one)
    return sockets


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(daemon, seconds=3):
    """The share of a CPU that the daemon takes for itself."""
    before = cpu_seconds(daemon.pid)
    time.sleep(seconds)
    return (cpu_seconds(daemon.pid) - before) / seconds


def still_works(daemon, peer):
    arrived = len(peer.messages)

    def submitted():
        try:
            daemon.submit("s@sender.test", ["r@a.test"], letter())
            return True
        except (OSError, Closed, AssertionError):  # 421 until the last of the flood is gone
            return False

    wait_for("mail to be taken", submitted)
    peer.wait(arrived + 1)
    daemon.wait_empty()


@limit(90)
def test_few_descriptors(t):
    """With 64 files and 200 connections it refuses some, burns no CPU, loses nothing, and takes mail again"""
    daemon, peer = t.simple(
        start=False, retry_first="1s", retry_base="1s", connection_idle="100ms"
    )
    with open(daemon.errors_path, "ab") as errors:
        daemon.process = subprocess.Popen(
            [STAFETTED, "-c", daemon.config_path],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=daemon.folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        )
    wait_for("the daemon to listen", daemon.ready)
    peer.set(rcpt=LATER)
    waiting = [f"w{n}@a.test" for n in range(20)]
    for address in waiting:
        daemon.submit("s@sender.test", [address], letter())
    sockets = flood(daemon, 200)
    time.sleep(1)
    assert idle_share(daemon) < 0.2
    for one in sockets:
        one.close()
    peer.set(rcpt=None)
    still_works(daemon, peer)
    assert set(waiting) <= set(peer.recipients())
    daemon.stop()
    told = [line for line in daemon.errors().splitlines() if "at most 32 sessions" in line]
    assert len(told) == 1 and "LimitNOFILE" in told[0], daemon.errors()


@limit(90)
def test_no_descriptors(t):
    """When descriptors run out it neither spins nor stops: nothing is lost, and the log says it once a minute"""
    daemon, peer = t.simple(segment_bytes="1M", journal_bytes="1M", dns_ttl_failed="1s")
    started = time.monotonic()
    still_works(daemon, peer)
    with daemon.client() as client:
        client.ehlo()
        used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 1, before[1]))
        sockets = flood(daemon, 200)
        time.sleep(1)
        assert idle_share(daemon) < 0.2
        # Segments of 1 MiB: new ones are needed, and can't be opened.
        accepted = 0
        for n in range(60):
            client.envelope("s@sender.test", [f"r{n}@a.test"])
            client.expect("DATA", 354)
            client.send(stuff(letter(size=100 << 10)) + b".\r\n")
            accepted += client.reply().code == 250
    for one in sockets:
        one.close()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    peer.wait(1 + accepted, 40)
    daemon.wait_empty()
    still_works(daemon, peer)
    daemon.stop()
    told = [line for line in daemon.errors().splitlines() if "LimitNOFILE" in line]
    minutes = 1 + int((time.monotonic() - started) / 60)
    assert 1 <= len(told) <= 2 * minutes, daemon.errors()  # a line for each worker
