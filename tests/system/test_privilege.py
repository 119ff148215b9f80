"""Least privilege: what the daemon is after its start, and what it can no longer do."""

import os
import re
import shutil
import subprocess

from harness import (
    NOBODY,
    ROOT,
    STAFETTE,
    STAFETTED,
    free_port,
    need,
    sanitized,
    unsanitized,
    wait_for,
)
from wire import Client, letter

NET_BIND = 1 << 10  # CAP_NET_BIND_SERVICE
EX_NOUSER, EX_NOPERM = 67, 77


def states(daemon):
    """/proc/PID/status of every thread, as dictionaries."""
    found = []
    for thread in os.listdir(f"/proc/{daemon.pid}/task"):
        try:
            with open(f"/proc/{daemon.pid}/task/{thread}/status") as file:
                fields = [line.partition(":") for line in file]
        except OSError:  # it has ended
            continue
        found.append({name: value.strip() for name, _, value in fields})
    assert found
    return found


def open_folders(t, daemon):
    """So that nobody may reach what is below."""
    for folder in (os.path.dirname(t.folder), t.folder, daemon.folder):
        os.chmod(folder, 0o755)


def low_port():
    """A port of this scenario that only root, or who has the capability, may open."""
    return free_port(700, 1000)


def check_confined(daemon, uid, gid, by_unit=False):
    """`by_unit`: systemd filters its system calls, too."""
    calls = "0" if sanitized() and not by_unit else "2"
    for state in states(daemon):
        assert state["Uid"].split() == [str(uid)] * 4, state["Uid"]
        assert state["Gid"].split() == [str(gid)] * 4, state["Gid"]
        for name in ("CapPrm", "CapEff"):
            assert int(state[name], 16) & ~NET_BIND == 0, (name, state[name])
        allocator = state["Name"] == "jemalloc_bg_thd"  # is there before main(), and starts nothing
        for name in ("CapInh", "CapAmb"):
            assert int(state[name], 16) & ~(NET_BIND * allocator) == 0, (name, state[name])
        assert state["Seccomp"] == calls, state
        assert state["NoNewPrivs"] == "1" or allocator, state
    assert "Landlock" in daemon.errors(), daemon.errors()


def test_root_becomes_a_user(t):
    """Started as root it opens port 25 and the like, drops to its user, and a reload opens more"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = t.daemon(start=False, user="nobody", group="nogroup")
    open_folders(t, daemon)
    daemon.port = low_port()
    daemon.configure(listen=[f"127.0.0.1:{daemon.port}"])
    daemon.start()
    stat = os.stat(daemon.spool)
    assert stat.st_uid != 0
    check_confined(daemon, stat.st_uid, stat.st_gid)
    assert daemon.submit("s@sender.test", ["r@a.test"], letter()).code == 250
    peer.wait(1)
    other = low_port()
    daemon.configure(listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{other}"])
    daemon.tool("reload", "-c", daemon.config_path)
    with Client(other) as client:
        client.ehlo()
    daemon.restart()


@unsanitized("a leak checker is a debugger")
def test_no_core_and_no_debugger(t):
    """No core, and its memory is closed to its own user"""
    daemon = t.daemon(start=False, user="nobody", group="nogroup")
    open_folders(t, daemon)
    daemon.start()
    assert os.stat(f"/proc/{daemon.pid}/mem").st_uid == 0
    with open(f"/proc/{daemon.pid}/limits") as file:
        assert re.search(r"^Max core file size +0 +0", file.read(), re.M)


def test_ordinary_user(t):
    """Started by an ordinary user it stays that one, with no capability at all"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = t.daemon(start=False, user=None)
    open_folders(t, daemon)
    for path in (daemon.folder, daemon.config_path):
        shutil.chown(path, "nobody", "nogroup")
    with open(daemon.errors_path, "ab") as errors:
        daemon.process = subprocess.Popen(
            [STAFETTED, "-c", daemon.config_path],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=daemon.folder,
            **NOBODY,
        )
    wait_for("the daemon to be ready", daemon.ready)
    stat = os.stat(daemon.spool)
    check_confined(daemon, stat.st_uid, stat.st_gid)
    assert all(int(state["CapPrm"], 16) == 0 for state in states(daemon))
    assert daemon.submit("s@sender.test", ["r@a.test"], letter()).code == 250
    peer.wait(1)


def test_both_backends(t):
    """Mail goes through the sandbox on io_uring and on epoll"""
    for io in ("io_uring", "epoll"):
        peer = t.peer(f"127.0.0.{2 if io == 'epoll' else 3}")
        t.dns({"a.test": peer.host})
        daemon = t.daemon(io=io, name=io)
        size = 300000  # goes to a file of its own
        assert daemon.submit("s@sender.test", ["r@a.test"], letter(size=size)).code == 250
        peer.wait(1)
        daemon.wait_empty()
        t.nameserver.stop()


def refused(daemon, status, text):
    daemon.start(ready=False)
    assert daemon.wait() == status, daemon.errors()
    assert text in daemon.errors(), daemon.errors()


def test_refuses_to_run_as_root(t):
    """As root without a user to become it does not start, and says what to do"""
    daemon = t.daemon(start=False, user="no-such-user-here")
    refused(daemon, EX_NOUSER, "there is no user no-such-user-here")
    passwd = open("/etc/passwd").read()
    if not re.search("^stafette:", passwd, re.M):
        daemon.configure(user=None)
        refused(daemon, EX_NOUSER, "not running as root")


def test_check_config_reads_as_the_daemon(t):
    """Run by root, check-config finds a file that the daemon's user cannot read, or no such user"""
    users = os.path.join(t.folder, "users")
    daemon = t.daemon(start=False, user="nobody", group="nogroup", auth={"users": users})
    open_folders(t, daemon)
    subprocess.run([STAFETTE, "passwd", "-f", users, "ann"], input=b"secret\n", check=True)
    config = daemon.config_path
    done = daemon.tool("check-config", config, status=78)
    assert users in done.stderr and "Permission denied" in done.stderr, done.stderr
    assert "the daemon's user, nobody" in done.stderr, done.stderr
    shutil.chown(users, group="nogroup")
    os.chmod(users, 0o640)
    daemon.tool("check-config", config)
    daemon.start()
    os.chmod(users, 0o600)
    said = daemon.tool("reload", "-c", config).stdout
    assert "nobody can log in" in said and users in said, said
    daemon.configure(user="no-such-user-here")
    done = daemon.tool("check-config", config, status=78)
    assert "there is no user no-such-user-here" in done.stderr, done.stderr


def test_spool_of_somebody_else(t):
    """A spool that is root's is not taken over in silence"""
    daemon = t.daemon(start=False, user="nobody", group="nogroup")
    open_folders(t, daemon)
    os.mkdir(daemon.spool)
    refused(daemon, EX_NOPERM, "chown -R nobody")


def test_other_folders_are_closed(t):
    """A log or a socket outside the folders named at the start: a clear error, the old goes on"""
    daemon, peer = t.simple()
    outside = os.path.join(t.folder, "outside")
    os.mkdir(outside, 0o777)
    for change in (
        {"delivery_log": os.path.join(outside, "log")},
        {"listen": [f"127.0.0.1:{daemon.port}", os.path.join(outside, "socket")]},
    ):
        before = dict(daemon.settings)
        daemon.configure(**change)
        done = daemon.tool("reload", "-c", daemon.config_path, status=78)
        assert "Permission denied" in done.stderr and "until a restart" in done.stderr, done.stderr
        daemon.configure(**before)
    assert not os.listdir(outside)
    assert daemon.submit("s@sender.test", ["r@a.test"], letter()).code == 250
    peer.wait(1)
    daemon.wait_log("delivered")


def test_without_sandbox(t):
    """sandbox = false leaves both out, and says so"""
    daemon = t.daemon(sandbox=False)
    assert all(state["Seccomp"] == "0" for state in states(daemon))
    assert "no sandbox, as configured" in daemon.errors()


def test_service_is_hardened(t):
    """systemd-analyze gives the unit an exposure of 2.0 at most"""
    program = need("systemd-analyze", "systemd")
    with open(os.path.join(ROOT, "dist", "stafetted.service")) as file:
        text = file.read().replace("@PREFIX@", "/usr")
    path = os.path.join(t.folder, "stafetted.service")
    with open(path, "w") as file:
        file.write(text)
    done = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout[-500:] + done.stderr
    assert float(found.group(1)) <= 2.0, done.stdout[-3000:]
