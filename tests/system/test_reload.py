"""Reload: another configuration under load, with no connection dropped and no message lost."""

import os
import signal
import socket
import threading
import time

from harness import limit, wait_for
from ledger import Ledger
from load import Load
from peer import Slow
from wire import Client, Closed, letter


class Steady(Load):
    """Load whose sessions must never be cut: what ends one is kept."""

    def __init__(self, *arguments, **options):
        self.cuts = []
        super().__init__(*arguments, **options)

    def cut(self, error):
        self.cuts.append(repr(error))

    def end(self):
        self.stop()
        assert not self.cuts, self.cuts[:3]


def reload(daemon, status=0, **settings):
    """Changes settings and reloads; what `stafette reload` says."""
    daemon.configure(**settings)
    done = daemon.tool("reload", "-c", daemon.config_path, status=status)
    return done.stdout + done.stderr


def everyone(part, n):
    return [f"r{part}-{n}@a.test"]


def settled(daemon, peers, ledger):
    daemon.wait_empty(30)
    ledger.check(daemon, peers)


def greeting(port):
    with Client(port, greet=False) as client:
        return client.reply().text


@limit(90)
def test_settings_change_under_load(t):
    """Limits, names, timeouts, log, resolver and routes change under load; nothing is dropped"""
    daemon, peer = t.simple()
    ledger = Ledger()
    load = Steady(daemon, ledger, everyone, pause=0.002)
    other_log = os.path.join(daemon.folder, "other.log")
    for change in (
        {"hostname": "other.stafette.test"},
        {"sessions_max": 50, "session_messages_ahead": 5, "message_bytes_max": "1M"},
        {"memory_bytes": "64M", "outcome_sync": "20ms", "space_low_bytes": "8M"},
        {"connections_max": 3, "stream_depth": 1},
        {"chunking": False, "pipelining": False, "data_timeout": "30s"},
        {"dns_timeout": "2s", "dns_tries": 2},
        {"delivery_log": other_log},
        {"trusted": ["127.0.0.0/8"], "postmaster": "pm@a.test"},
    ):
        assert "reloaded" in reload(daemon, **change)
        time.sleep(0.3)
    assert "other.stafette.test" in greeting(daemon.port)
    wait_for("a load", lambda: len(ledger.promised) > 100)
    load.end()
    daemon.wait_empty(30)
    wait_for("lines in the new log", lambda: os.path.getsize(other_log) > 1000)
    daemon.log_path = other_log
    settled(daemon, [peer], ledger)


def test_session_keeps_its_snapshot(t):
    """A session goes on as it began; the next one has the new name and limits"""
    daemon, _ = t.simple(message_bytes_max="2M")
    with daemon.client() as client:
        client.ehlo()
        reload(daemon, hostname="new.stafette.test", message_bytes_max="1M")
        assert "SIZE 2097152" in "\n".join(client.ehlo().lines)
        with daemon.client() as after:
            lines = "\n".join(after.ehlo().lines)
            assert "SIZE 1048576" in lines and "new.stafette.test" in lines, lines
        assert client.submit("s@sender.test", ["r@a.test"], letter("old session")).code == 250
    daemon.wait_empty()


def test_broken_configuration(t):
    """A broken file leaves the old configuration running; file, line and reason are told"""
    daemon, peer = t.simple()
    good = open(daemon.config_path).read()
    for text, expected in (
        ("sessions_max = many\n", ":1: sessions_max"),
        ("delivery {\n", "is not closed"),
        ('listen = {"192.0.2.1:25"}\n', "cannot listen on 192.0.2.1:25"),
        ('delivery_log = "/nowhere/at/all/log"\n', "/nowhere/at/all/log"),
        ('certificate { chain = "/none/c.pem" key = "/none/k.pem" }\n', "/none/c.pem"),
    ):
        with open(daemon.config_path, "w") as file:
            file.write(text)
        done = daemon.tool("reload", "-S", daemon.spool, status=78)
        assert expected in done.stderr and "old configuration" in done.stderr, done.stderr
        assert expected in daemon.errors(), expected
    assert daemon.submit("s@sender.test", ["r@a.test"], letter("still here")).code == 250
    peer.wait(1)
    with open(daemon.config_path, "w") as file:
        file.write(good)
    assert "reloaded" in reload(daemon)


def test_what_needs_a_restart(t):
    """Spool, node, workers and file sizes stay, and are named"""
    daemon, peer = t.simple()
    daemon.configure(spool=os.path.join(t.folder, "elsewhere"), node=9, workers=1)
    daemon.configure(segment_bytes="4M", hostname="new.stafette.test")
    said = daemon.tool("reload", "-S", daemon.spool).stdout
    for name in ("spool", "node", "workers", "segment_bytes"):
        assert name in said, said
    assert "journal_bytes" not in said and "hostname" not in said, said
    assert "new.stafette.test" in greeting(daemon.port)
    assert not os.path.exists(os.path.join(t.folder, "elsewhere"))
    assert daemon.submit("s@sender.test", ["r@a.test"], letter()).code == 250
    peer.wait(1)


@limit(60)
def test_listeners(t):
    """A new address is listened on, a removed one no longer, while its sessions go on"""
    daemon, peer = t.simple()
    old, new = daemon.port, t.port()
    path = os.path.join(daemon.folder, "socket")
    ledger = Ledger()
    load = Steady(daemon, ledger, everyone, pause=0.005)
    both = [f"127.0.0.1:{old}", f"127.0.0.1:{new}", path]
    reload(daemon, listen=both)
    for _ in range(8):  # every worker has its socket
        with Client(new) as client:
            client.ehlo()
    session = daemon.client()
    load.end()
    daemon.port = new
    reload(daemon, listen=[f"127.0.0.1:{new}"])
    wait_for("the old address to be closed", lambda: refused(old))
    session.ehlo()
    assert session.submit("s@sender.test", ["late@a.test"], letter("late")).code == 250
    ledger.promise("late@a.test")
    session.close()
    assert daemon.submit("s@sender.test", ["new@a.test"], letter("new")).code == 250
    ledger.promise("new@a.test")
    daemon.wait_errors("no longer listening on")
    settled(daemon, [peer], ledger)


def test_port_of_another_daemon(t):
    """A new address on which another daemon listens is refused at once, and all stays as it was"""
    other = t.daemon(name="other")
    daemon, peer = t.simple()
    own, taken = f"127.0.0.1:{daemon.port}", f"127.0.0.1:{other.port}"
    for listen in ([own, taken], [f"0.0.0.0:{other.port}"]):
        said = reload(daemon, status=78, listen=listen, hostname="new.stafette.test")
        assert f": cannot listen on {listen[-1]}: Address already in use" in said, said
        assert "ss -ltnp" in said and "old configuration" in said, said
    assert all("new.stafette.test" not in greeting(daemon.port) for _ in range(8))
    assert all("new.stafette.test" not in greeting(other.port) for _ in range(8))
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)
    other.stop()
    assert "reloaded" in reload(daemon, listen=[own, taken])
    assert "new.stafette.test" in greeting(other.port)


def test_own_port_is_no_obstacle(t):
    """From one address to all, and back, and away, and back at once: the daemon is not in its own way"""
    daemon, _ = t.simple()
    own, extra = f"127.0.0.1:{daemon.port}", f"127.0.0.1:{t.port()}"
    for listen in ([f"0.0.0.0:{daemon.port}"], [own], [own, f"0.0.0.0:{daemon.port}"], [own]):
        assert "reloaded" in reload(daemon, listen=listen)
        greeting(daemon.port)
    for n in range(100):
        daemon.configure(listen=[own] if n % 2 else [own, extra])
        daemon.signal(signal.SIGHUP)
        time.sleep(0.005)
    assert "reloaded" in reload(daemon, listen=[own])
    assert refused(int(extra.split(":")[1]))
    assert "cannot listen" not in daemon.errors()


def refused(port):
    try:
        with Client(port):
            return False
    except ConnectionRefusedError:
        return True
    except (OSError, Closed):  # it came while the listener was being closed
        return False


def test_route_changes_while_mail_waits(t):
    """Mail whose route was down goes to the route's new host"""
    peer = t.peer("127.0.0.2")
    daemon = t.daemon(routes={"a.test": {"hosts": ["127.0.0.9"]}})
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter(str(n)))
    wait_for("mail that waits", lambda: daemon.count() == 20)
    daemon.routes = {"a.test": {"hosts": ["127.0.0.2"]}}
    reload(daemon)
    peer.wait(20)
    daemon.wait_empty()
    assert len(peer.accepted) == 20


@limit(60)
def test_route_changes_in_flight(t):
    """Under load the route moves to other hosts: each message is delivered once, to one of them"""
    peers = [t.peer("127.0.0.2"), t.peer("127.0.0.3")]
    for peer in peers:
        peer.set(data=Slow(0.02))
    daemon = t.daemon(routes={"a.test": {"hosts": [peers[0].host]}})
    ledger = Ledger()
    load = Steady(daemon, ledger, everyone, pause=0.005)
    for turn in range(6):
        peer, other = peers[turn % 2], peers[(turn + 1) % 2]
        enough = len(peer.messages) + 10
        wait_for("mail to come this way", lambda: len(peer.messages) > enough)
        daemon.routes = {"a.test": {"hosts": [other.host], "connections_max": 5}}
        reload(daemon)
    load.end()
    settled(daemon, peers, ledger)


def test_route_becomes_a_failure(t):
    """Mail that waits for a host fails when its route says so"""
    sender = t.peer("127.0.0.2")
    routes = {"a.test": {"hosts": ["127.0.0.9"]}, "sender.test": {"hosts": [sender.host]}}
    daemon = t.daemon(routes=routes)
    daemon.submit("s@sender.test", ["r@a.test"], letter("to fail"))
    wait_for("mail that waits", lambda: daemon.count() == 1)
    daemon.routes["a.test"] = {"fail": "5.1.1 nobody here"}
    reload(daemon)
    wait_for("the report", lambda: [m for m in sender.accepted if b"5.1.1" in m.body])


def test_other_name_server(t):
    """After dns { servers } has changed, questions go to the new one, also those under way"""
    peer = t.peer("127.0.0.2")
    silent = t.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket.close)
    silent.bind(("127.0.0.1", 0))
    servers = [f"127.0.0.1:{silent.getsockname()[1]}"]
    daemon = t.daemon(dns_servers=servers, dns_timeout="60s")
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    silent.settimeout(60)
    silent.recv(512)  # the question is under way
    t.dns({"a.test": peer.host})
    reload(daemon, dns_servers=[f"127.0.0.1:{t.nameserver.port}"])
    peer.wait(1, 15)  # before the old server's time is over


@limit(90)
def test_tight_loop(t):
    """HUP after HUP under load: nothing is dropped or lost"""
    daemon, peer = t.simple()
    ledger = Ledger()
    load = Steady(daemon, ledger, everyone, pause=0.002)
    stop = threading.Event()

    def hammer():
        n = 0
        while not stop.is_set():
            n += 1
            daemon.configure(hostname=f"n{n % 7}.stafette.test", connections_max=2 + n % 5)
            daemon.signal(signal.SIGHUP)
            time.sleep(0.01)

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        time.sleep(3)
        wait_for("many reloads", lambda: daemon.errors().count("reloaded: ") > 40)
        wait_for("a load", lambda: len(ledger.promised) > 100)
    finally:
        stop.set()
        thread.join()
    load.end()
    reload(daemon)
    settled(daemon, [peer], ledger)


def test_hup_while_stopping(t):
    """HUP and TERM in any order: the daemon stops, and with status 0"""
    daemon, peer = t.simple(peer={"data": Slow(1)})
    for n in range(10):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter(str(n)))
    daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGTERM)
    for _ in range(20):
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGHUP)
        time.sleep(0.02)
    assert daemon.wait() == 0
    done = daemon.tool("reload", "-S", daemon.spool, status=69)
    assert "no daemon runs" in done.stderr, done.stderr


def test_log_is_opened_again(t):
    """HUP still opens the delivery log by its name again, also with a broken configuration"""
    daemon, peer = t.simple()
    os.rename(daemon.log_path, daemon.log_path + ".old")
    with open(daemon.config_path, "a") as file:
        file.write("nonsense = 1\n")
    daemon.signal(signal.SIGHUP)
    wait_for("the new log", lambda: os.path.exists(daemon.log_path))
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)
    daemon.wait_log("delivered")
