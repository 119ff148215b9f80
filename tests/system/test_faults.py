"""Faults around the daemon: peers that stop, too many clients, a dead DNS, a wrong clock, no memory."""

import os
import resource
import signal
import socket
import struct
import time

from harness import BUILD, alone, limit, sanitized, unsanitized, wait_for
from ledger import Ledger
from load import Load
from peer import Peer
from storm import LATER, duplicates, numbered
from wire import Client, Closed, letter

DAY, HOUR = 86400, 3600

# ── peers ──


class Stopped:
    """A peer in a process of its own, so that it can be stopped like one."""

    def __init__(self, host, port, path):
        self.path = path
        self.pid = os.fork()
        if self.pid == 0:
            peer = Peer(port, host, dot=self.note)
            peer.stopping.wait()
            os._exit(0)

    def note(self, session, message):
        with open(self.path, "a") as file:
            file.write("".join(f"{address}\n" for address in message.recipients))

    def recipients(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            return file.read().split()

    def signal(self, number):
        os.kill(self.pid, number)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@limit(90)
def test_stopped_peer(t):
    """A peer that SIGSTOP holds: its mail waits by the time-outs, other mail goes, and after
    SIGCONT all of it arrives, twice only where that is reported"""
    other = t.peer()
    stopped = t.keep(Stopped("127.0.0.3", other.port, os.path.join(t.folder, "taken")), Stopped.end)
    t.dns({"stopped.test": "127.0.0.3", "other.test": other.host})
    daemon = t.daemon(
        connect="1s",
        greeting_timeout="1s",
        hello_timeout="1s",
        mail_timeout="1s",
        rcpt_timeout="1s",
        data_timeout="1s",
        block_timeout="1s",
        final_timeout="1s",
    )
    daemon.submit("s@sender.test", ["first@stopped.test"], letter())
    wait_for("the first message", lambda: stopped.recipients() == ["first@stopped.test"])
    daemon.wait_empty()  # it has heard so
    stopped.signal(signal.SIGSTOP)
    started = time.monotonic()
    with daemon.client() as client:
        client.ehlo()
        for n in range(40):
            client.submit("s@sender.test", [f"r{n}@stopped.test", f"o{n}@other.test"], letter())
    other.wait(40)
    # one after the other they would have waited for its time-outs, 40 s
    assert time.monotonic() - started < 20, "other mail waited for the stopped peer"
    daemon.wait_log("deferred")
    time.sleep(2)
    waiting = {f"r{n}@stopped.test" for n in range(40)}
    daemon.wait_queued(*waiting)
    stopped.signal(signal.SIGCONT)
    daemon.wait_empty(30)
    taken = stopped.recipients()
    assert set(taken) == waiting | {"first@stopped.test"}
    twice = {address for address in taken if taken.count(address) > 1}
    told = {entry["recipient"] for entry in daemon.log("possible-duplicate")}
    assert twice <= told, twice - told


# ── clients ──


@alone
@limit(90)
def test_idle_and_slow_clients(t):
    """2,000 clients that idle, or send a byte now and then: little memory, others are served"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    daemon, peer = t.simple(sessions_per_address_max=5000)
    before = daemon.status("VmRSS")
    clients = [Client(daemon.port, greet=False) for _ in range(2000)]
    for client in clients:
        assert client.reply().code == 220
    for n, client in enumerate(clients):
        if n % 2:
            client.send(b"EHLO slow.test\r\nMAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\nDA")
    for byte in (b"T", b"A", b"\r", b"\n", b"x"):
        for client in clients[1::2]:
            client.send(byte)
        daemon.submit("s@sender.test", ["other@a.test"], letter(), timeout=5)
    peer.wait(5)
    grown = (daemon.status("VmRSS") - before) / 1024
    print(f"{grown:.1f} MiB for 2,000 sessions")
    assert grown < (1500 if sanitized() else 100), f"{grown:.0f} MiB"
    for client in clients:
        client.close()
    daemon.submit("s@sender.test", ["after@a.test"], letter(), timeout=5)
    peer.wait(6)


@limit(60)
def test_flood_of_connections(t):
    """Connections far beyond the limit get 421 or wait; when they are gone all is as before"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    daemon, peer = t.simple(sessions_max=100)
    clients, codes = [], []
    for _ in range(1500):
        client = Client(daemon.port, greet=False)
        clients.append(client)
    for client in clients:
        codes.append(client.reply().code)
    assert set(codes) == {220, 421} and codes.count(220) == 100, (codes.count(220), set(codes))
    with clients[codes.index(220)] as client:  # who is in is served
        client.ehlo()
        client.submit("s@sender.test", ["in@a.test"], letter())
    peer.wait(1)
    for client in clients:
        client.close()

    def taken():
        try:
            return daemon.submit("s@sender.test", ["after@a.test"], letter()).code == 250
        except (OSError, AssertionError, Closed):
            return False

    wait_for("the limit to be free again", taken)
    peer.wait(2)


# ── the name server ──


def bounced(daemon):
    return [entry for entry in daemon.log() if entry["event"] in ("bounced", "expired")]


@limit(150)
def test_dead_dns(t):
    """No name server answers: nothing bounces, the mail waits with 4.4.3, and it goes when the
    name server is back"""
    peer = t.peer()
    dns = t.dns({f"{name}.test": peer.host for name in "abc"})
    daemon = t.daemon(dns_timeout="300ms", dns_tries=1)
    dns.stop()
    for n in range(30):
        daemon.submit("s@sender.test", [f"r{n}@{'abc'[n % 3]}.test"], letter())
    daemon.wait_log("domain-deferred", 3, enhanced="4.4.3")
    time.sleep(3)
    assert len(daemon.queued()) == 30 and not bounced(daemon) and not peer.attempts
    dns.start()
    peer.wait(30, 90)  # it is asked again after a minute
    daemon.wait_empty()
    assert sorted(peer.recipients()) == sorted(f"r{n}@{'abc'[n % 3]}.test" for n in range(30))


@limit(60)
def test_silent_dns_does_not_hold_up_a_stop(t):
    """A name server says nothing, and mail waits for it: a stop does not"""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        daemon = t.daemon(dns_servers=[f"127.0.0.1:{silent.getsockname()[1]}"])
        for n in range(300):
            daemon.submit("s@sender.test", [f"r@{n}.test"], letter())
        assert silent.recv(512)
        started = time.monotonic()
        daemon.stop()
        assert time.monotonic() - started < 5  # a question alone takes 35 s
        daemon.start()
        assert len(daemon.queued()) == 300


# ── the clock ──


class Clock:
    """The wall clock of a daemon, and of nobody else: off by so many seconds."""

    def __init__(self, t, daemon):
        self.path = os.path.join(t.folder, "clock")
        self.set(0)
        daemon.environment = {
            "LD_PRELOAD": os.path.join(BUILD, "tests/system/wall_clock.so"),
            "WALL_CLOCK": self.path,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def set(self, seconds):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
            file.write(struct.pack("<q", seconds * 1000000))


def clocked(t):
    peer = t.peer(rcpt=LATER)
    t.dns({"a.test": peer.host})
    daemon = t.daemon(start=False, expire="5d", warn="0")
    clock = Clock(t, daemon)
    daemon.start()
    return daemon, peer, clock


def says(daemon, text, count=1):
    wait_for(f"{count} x {text!r}", lambda: daemon.errors().count(text) >= count, 10)
    assert daemon.errors().count(text) == count, daemon.errors()


@limit(90)
def test_clock_forward(t):
    """The wall clock jumps ahead by a month: nothing expires, one warning; when it is back mail
    goes on as before, and after a confirmation old mail expires"""
    daemon, peer, clock = clocked(t)
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    wait_for("attempts", lambda: all(e["attempts"] for e in daemon.queue()))
    clock.set(30 * DAY)
    says(daemon, "the wall clock has jumped")
    daemon.submit("s@sender.test", ["new@a.test"], letter())
    time.sleep(3)
    assert len(daemon.queued()) == 21 and not bounced(daemon)
    tries = len(peer.attempts)
    started = time.monotonic()
    time.sleep(2)
    wait_for("attempts", lambda: len(peer.attempts) > tries)
    most = 21 * (3 * (time.monotonic() - started) + 1)
    assert len(peer.attempts) < tries + most, "they are tried at the pace that is set"
    clock.set(0)
    says(daemon, "is believed again")
    assert len(daemon.queued()) == 21 and not bounced(daemon)
    clock.set(30 * DAY)
    says(daemon, "the wall clock has jumped", 2)
    daemon.tool("confirm-time", "-c", daemon.config_path)
    says(daemon, "is believed again", 2)
    daemon.wait_log("expired", 20)
    assert not os.path.exists(os.path.join(daemon.spool, "time-confirmed"))
    assert "new@a.test" not in {entry["recipient"] for entry in bounced(daemon)}


@limit(60)
def test_clock_backward(t):
    """The wall clock goes back an hour: nothing is lost or bounced, new mail goes at once, and
    what was due comes when the clock is right"""
    daemon, peer, clock = clocked(t)
    clock.set(-HOUR - 60)
    says(daemon, "the wall clock has jumped")
    peer.set(rcpt=None)
    daemon.submit("s@sender.test", ["new@a.test"], letter())
    peer.wait(1)
    peer.set(rcpt=LATER)
    daemon.submit("s@sender.test", ["waits@a.test"], letter())
    daemon.wait_log("deferred")
    clock.set(0)
    says(daemon, "is believed again")
    peer.set(rcpt=None)
    daemon.wait_empty()
    assert peer.recipients() == ["new@a.test", "waits@a.test"] and not bounced(daemon)


@limit(60)
def test_clock_at_start(t):
    """A start with a clock that is a month ahead: nothing expires before it is confirmed; one a
    few hours after the stop is as always"""
    daemon, peer, clock = clocked(t)
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    daemon.wait_log("deferred")
    daemon.stop()
    clock.set(5 * HOUR)
    daemon.start()
    time.sleep(1.5)
    assert "wall clock" not in daemon.errors()
    daemon.kill()
    clock.set(30 * DAY)
    daemon.start()
    says(daemon, "the wall clock has jumped")
    time.sleep(3)
    assert daemon.queued() == ["r@a.test"] and not bounced(daemon)
    daemon.tool("confirm-time", "-c", daemon.config_path)
    daemon.wait_log("expired", 1)


@limit(60)
def test_clock_doubt_outlives_the_daemon(t):
    """A month ahead, and the daemon starts anew before the clock is confirmed: it still doubts"""
    daemon, peer, clock = clocked(t)
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    daemon.wait_log("deferred")
    clock.set(30 * DAY)
    says(daemon, "the wall clock has jumped")
    daemon.submit("s@sender.test", ["s@a.test"], letter())
    for end in (daemon.stop, daemon.kill, daemon.kill):
        doubts = daemon.errors().count("the wall clock has jumped")
        end()
        daemon.start()
        says(daemon, "the wall clock has jumped", doubts + 1)
        time.sleep(1.5)
    assert set(daemon.queued()) == {"r@a.test", "s@a.test"} and not bounced(daemon)
    daemon.tool("confirm-time", "-c", daemon.config_path)
    daemon.wait_log("expired", 1, recipient="r@a.test")
    daemon.kill()
    daemon.start()
    time.sleep(1.5)
    assert daemon.errors().count("the wall clock has jumped") == doubts + 1, daemon.errors()


# ── memory ──


@alone
@limit(120)
def test_memory_limit(t):
    """The configured memory is full of mail in reception: 452, then normal again; nothing lost"""
    daemon, peer = t.simple(memory_bytes="16M", workers=1)
    ledger = Ledger()
    clients, codes = [], []
    body = letter(size=120000)
    for n in range(400):
        client = daemon.client()
        clients.append(client)
        client.ehlo()
        codes.append(client.command("MAIL FROM:<s@sender.test>").code)
        if codes[-1] != 250:
            break
        client.expect(f"RCPT TO:<r{n}@a.test>", 250)
        client.expect("DATA", 354)
        client.send(body)
    assert codes[-1] == 452 and len(codes) > 50, (codes[-1], len(codes))
    for n, client in enumerate(clients[:-1]):
        assert client.command(b".\r\n").code == 250
        ledger.promise(f"r{n}@a.test")
    peer.wait(len(ledger.promised), 30)
    daemon.wait_empty()
    wait_for(
        "room", lambda: clients[-1].command("MAIL FROM:<s@sender.test>").code == 250, every=0.5
    )
    ledger.check(daemon, [peer])
    for client in clients:
        client.close()


def greets(daemon):
    try:
        daemon.client(timeout=5).quit()
        return True
    except (OSError, Closed):
        return False


@alone
@limit(90)
@unsanitized("its allocator ends the process where malloc() would say no")
def test_no_memory(t):
    """The system gives no more memory (RLIMIT_DATA): clients are refused; a daemon that cannot go
    on ends, like one that is killed; nothing is lost, and all is normal when there is some again"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    daemon, peer = t.simple(peer={"dot": numbered}, sessions_per_address_max=5000)
    ledger = Ledger()
    load = Load(daemon, ledger, lambda part, n: [f"r{part}-{n}@a.test"], threads=2, pause=0.01)
    wait_for("load", lambda: len(ledger.promised) > 50)
    most = (daemon.status("VmData") << 10) + (4 << 20)
    resource.prlimit(daemon.pid, resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    crowd, refused = [], 0
    for _ in range(500):
        try:
            client = Client(daemon.port, timeout=5)
            crowd.append(client)
            client.send(
                b"EHLO c.test\r\nMAIL FROM:<s@sender.test>\r\nRCPT TO:<never@a.test>\r\nDATA\r\n"
            )
            codes = [client.reply().code for _ in range(4)]
            refused += codes != [250, 250, 250, 354]
            client.send(letter(size=120000))
        except (OSError, Closed, AssertionError):
            refused += 1
            if daemon.process.poll() is not None:
                break
    killed = time.monotonic()
    assert refused, "the limit was not reached"
    try:
        resource.prlimit(daemon.pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
    except ProcessLookupError:
        pass
    for client in crowd:
        client.close()
    wait_for("an end, or a session", lambda: daemon.process.poll() is not None or greets(daemon))
    ended = daemon.process.poll()
    print(f"{refused} refused, " + ("it went on" if ended is None else f"ended by {-ended}"))
    assert ended in (None, -signal.SIGABRT), daemon.errors()[-1000:]
    if ended is not None:
        daemon.kills += 1
        daemon.start()
    promised = len(ledger.promised)
    wait_for("mail to be taken again", lambda: len(ledger.promised) > promised + 20)
    load.stop()
    daemon.wait_empty()
    ledger.check(daemon, [peer], duplicates(daemon, peer, [killed]))
