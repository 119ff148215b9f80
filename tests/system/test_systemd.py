"""The unit of dist/ under a real systemd: it starts, reloads, restarts, stops, and mail flows."""

import os
import shutil
import signal

from certificates import Authority, section
from harness import QUICK, ROOT, STAFETTE, STAFETTED, Daemon, limit, sanitized, wait_for
from machine import Machine
from test_privilege import check_confined, low_port
from wire import letter

PREFIX = "/opt/stafette"
UNIT = "stafetted.service"
CONFIG = "/etc/stafette/stafette.conf"


class Service(Daemon):
    """stafetted as a unit of the machine; what it writes is seen below the machine's root."""

    def __init__(self, machine, port, settings):
        self.machine = machine
        inside = {
            "spool": "/var/spool/stafette",
            "delivery_log": "/var/log/stafette/delivery.log",
            "user": None,  # the unit says so
            "io": os.environ.get("STAFETTE_IO") or None,  # no variable of ours gets there
        }
        super().__init__(machine.path("/etc/stafette"), port, {**settings, **inside}, {})
        self.log_path = machine.path(inside["delivery_log"])
        self.errors_path = machine.path("/var/log/stafetted.out")

    def control(self, verb, fails=False):
        done = self.machine.run("systemctl", verb, UNIT, status=None)
        if (done.returncode != 0) != fails:
            status = self.machine.run("systemctl", "--no-pager", "status", UNIT, status=None)
            raise AssertionError(f"systemctl {verb}: {done.stderr}{status.stdout}{self.errors()}")

    def show(self, name):
        return self.machine.show(UNIT, name)

    @property
    def pid(self):
        return self.machine.outside(int(self.show("MainPID")))

    def owner(self):
        """(user, group) that the installation made."""
        numbers = []
        for name, field in (("passwd", 2), ("group", 2)):
            with open(self.machine.path(f"/etc/{name}"), encoding="utf-8") as file:
                line = next(line for line in file if line.startswith("stafette:"))
            numbers.append(int(line.split(":")[field]))
        return tuple(numbers)


def install(machine):
    """As `make install` does, and what a package does after it."""
    for source, target, mode in (
        (STAFETTED, f"{PREFIX}/sbin/stafetted", 0o755),
        (STAFETTE, f"{PREFIX}/bin/stafette", 0o755),
        (f"{ROOT}/dist/stafetted.service", f"/etc/systemd/system/{UNIT}", 0o644),
        (f"{ROOT}/dist/stafette.sysusers", "/etc/sysusers.d/stafette.conf", 0o644),
        (f"{ROOT}/dist/stafette.tmpfiles", "/etc/tmpfiles.d/stafette.conf", 0o644),
    ):
        os.makedirs(os.path.dirname(machine.path(target)), exist_ok=True)
        shutil.copy(source, machine.path(target))
        os.chmod(machine.path(target), mode)
    with open(machine.path(f"/etc/systemd/system/{UNIT}"), "r+", encoding="utf-8") as file:
        text = file.read().replace("@PREFIX@", PREFIX)
        file.seek(0)
        file.write(text)
        file.truncate()
    drop_in = machine.path(f"/etc/systemd/system/{UNIT}.d")
    os.makedirs(drop_in)
    with open(os.path.join(drop_in, "test.conf"), "w", encoding="ascii") as file:
        file.write("[Service]\nStandardOutput=append:/var/log/stafetted.out\n")
        if sanitized():  # looks for leaks by a debugger's means
            file.write("Environment=ASAN_OPTIONS=detect_leaks=0\n")
    machine.run("systemd-sysusers", "/etc/sysusers.d/stafette.conf")
    machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/stafette.conf")
    machine.run("systemctl", "daemon-reload")


def private(service, path):
    """A key as tmpfiles.d/stafette.conf says: 0640 root:stafette."""
    os.chown(path, 0, service.owner()[1])
    os.chmod(path, 0o640)


def setting(t, **settings):
    """A machine with an installed service that is not started: (service, peer)."""
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": peer.host})
    machine = t.keep(Machine(os.path.join(t.folder, "machine")), Machine.stop)
    install(machine)
    base = {
        **QUICK,
        "port": t.peer_port,
        "dns_servers": [f"127.0.0.1:{t.nameserver.port}"],
        **settings,
    }
    return Service(machine, low_port(), base), peer


@limit(60)
def test_mail_through_the_unit(t):
    """As installed: a low port, TLS, keys of root, a big message; confined as promised"""
    service, peer = setting(t)
    authority = Authority(service.folder)
    chain, key = authority.make("mx.stafette.test")
    private(service, key)
    inside = section(*(path.replace(service.machine.root, "") for path in (chain, key)))
    dkim = os.path.join(service.folder, "dkim.pem")
    service.tool("dkim-key", "--domain", "sender.test", "--selector", "s", dkim)
    private(service, dkim)
    keys = {'key "s"': {"file": dkim.replace(service.machine.root, "")}}
    service.configure(certificate=inside, dkim={'domain "sender.test"': keys})
    service.control("start")
    assert service.show("ActiveState") == "active"
    assert f"notice: {service.settings.get('io', '')}" in service.errors()
    check_confined(service, *service.owner(), by_unit=True)
    with service.client() as client:
        client.ehlo()
        client.starttls(authority.client())
        client.ehlo()
        for size in (0, 300_000, 3_000_000):
            assert client.submit("s@sender.test", ["r@a.test"], letter(size=size)).code == 250
        client.quit()
    for message in peer.wait(3):
        assert message.body.startswith(b"DKIM-Signature:") and b"ESMTPS" in message.body
    service.control("stop")
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")


@limit(60)
def test_life_of_the_unit(t):
    """Reload fails with the configuration, kill -9 is mended, mail outlives it all"""
    service, peer = setting(t)
    service.control("start")
    peer.set(rcpt="451 4.3.0 later")
    service.submit("s@sender.test", ["r@a.test"], letter("waits"))
    service.wait_log("deferred")
    service.configure(hostname="new.stafette.test")
    service.control("reload")
    with service.client() as client:
        assert client.greeting.text.startswith("new.stafette.test")
    service.configure(workers="many")
    service.control("reload", fails=True)
    assert service.show("ActiveState") == "active"
    service.configure(workers=2)
    before = service.show("MainPID")
    os.kill(service.pid, signal.SIGKILL)
    wait_for(
        "the next one",
        lambda: service.show("NRestarts") != "0" and service.show("ActiveState") == "active",
    )
    assert service.show("MainPID") != before
    service.control("restart")
    peer.set(rcpt=None)
    assert b"Subject: waits" in peer.wait(1)[0].body
    service.submit("s@sender.test", ["r@a.test"], letter("again"))
    peer.wait(2)
    service.control("stop")
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
