"""What a scenario needs: the real daemon in a folder of its own, free ports, and the tool.

A test is a function `test_...(t)` in a file test_*.py; its docstring names the fact. `t` makes
daemons, peers and name servers and takes them down when the test ends, however it ends.
"""

import fcntl
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

from nameserver import Nameserver, records_of
from peer import Peer
from wire import PATIENCE, Client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build")))
STAFETTED = os.path.join(BUILD, "stafetted")
STAFETTE = os.path.join(BUILD, "stafette")
CRASH_ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))
LIMIT_SECONDS = 60  # of a test that names none


def sanitized():
    """Whether a sanitizer is in the daemon, which then takes more memory."""
    with open(STAFETTED, "rb") as file:
        data = file.read()
    return b"__asan_init" in data or b"__tsan_init" in data


def unsanitized(why):
    """The test is left out where a sanitizer is in the daemon; the runner says so, and why."""

    def mark(function):
        function.unsanitized = why
        return function

    return mark


# How subprocess starts something for a user without any privilege.
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}

# Fast enough to see retries in a test; everything else stays as built in.
QUICK = {
    "workers": 2,
    "trusted": ["127.0.0.0/8", "::1/128"],
    "private_hosts": True,
    "retry_first": "1s",
    "retry_base": "1s",
    "retry_cap": "2s",
    "probe": "1s",
}


def limit(seconds):
    """How long the test may take on a machine with nothing else to do; see PATIENCE."""

    def mark(function):
        function.limit = seconds
        return function

    return mark


def alone(function):
    """Runs with no other test beside it: it measures, or needs the machine."""
    function.alone = True
    return function


def wait_for(what, condition, seconds=20, every=0.05):
    """Waits until condition() is true, and returns what it returned. `seconds` is for a machine
    with nothing else to do: that something comes in time is shown by the times in the log."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        late = time.monotonic() >= deadline
        result = condition()
        if result:
            return result
        assert not late, f"waited {seconds * PATIENCE} s for: {what}"
        time.sleep(every)


# Where a setting stands in the file; the others stand at the top.
DELIVERY = {
    "port",
    "families",
    "source4",
    "source6",
    "private_hosts",
    "tls",
    "tls_implicit",
    "tls_name",
    "pipelining",
    "chunking",
    "stream_depth",
    "connections_max",
    "connections_start",
    "connection_messages_max",
    "connection_idle",
    "connect",
    "retry_first",
    "retry_base",
    "retry_cap",
    "probe",
    "expire",
    "warn",
    "report_expire",
}


def place(settings):
    """Flat settings in their sections: dns_timeout is `timeout` in dns, rcpt_timeout is `rcpt`
    in the timeouts of delivery, tls_handshake is `handshake` in tls."""
    placed = {}
    for key, value in settings.items():
        if key.startswith("dns_"):
            placed.setdefault("dns", {})[key[4:]] = value
        elif key.endswith("_timeout"):
            placed.setdefault("delivery", {}).setdefault("timeouts", {})[key[:-8]] = value
        elif key in DELIVERY:
            placed.setdefault("delivery", {})[key] = value
        elif key.startswith("tls_"):
            placed.setdefault("tls", {})[key[4:]] = value
        else:
            placed[key] = value
    return placed


def render(settings, routes):
    """The configuration file of these settings; see stafette.conf(5)."""

    def value(v):
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, int):
            return str(v)
        if isinstance(v, (list, tuple)):
            return "{" + ", ".join(value(one) for one in v) + "}"
        return '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def section(entries, indent):
        lines = []
        for key, v in entries.items():
            if isinstance(v, list) and v and isinstance(v[0], dict):  # sections of one name
                lines += [line for one in v for line in section({key: one}, indent)]
            elif isinstance(v, dict):
                lines += [f"{indent}{key} {{", *section(v, indent + "\t"), f"{indent}}}"]
            else:
                lines.append(f"{indent}{key} = {value(v)}")
        return lines

    named = {f'route "{pattern}"': route for pattern, route in routes.items()}
    return "\n".join(section({**place(settings), **named}, "")) + "\n"


class Daemon:
    """stafetted in `folder`; start() returns when all of it is there."""

    def __init__(self, folder, port, settings, routes, host="127.0.0.1"):
        self.folder, self.port, self.host = folder, port, host
        os.makedirs(folder, exist_ok=True)
        self.spool = settings.get("spool", os.path.join(folder, "spool"))
        self.log_path = os.path.join(folder, "delivery.log")
        self.errors_path = os.path.join(folder, "stderr")
        self.config_path = os.path.join(folder, "stafette.conf")
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.settings = {
            **({"user": "root"} if os.geteuid() == 0 else {}),  # folders of a test are root's
            "hostname": "mx.stafette.test",
            "spool": self.spool,
            "listen": [listen],
            "delivery_log": self.log_path,
            **settings,
        }
        self.routes = routes
        self.process = None
        self.kills = 0  # with SIGKILL
        self.errors_before = 0  # where what the running process says begins
        self.environment = {}  # beside the test's own
        self.configure()

    def configure(self, **settings):
        """Changes settings (None removes one); the next start reads them."""
        self.settings.update(settings)
        self.settings = {k: v for k, v in self.settings.items() if v is not None}
        with open(self.config_path + ".new", "w") as file:
            file.write(render(self.settings, self.routes))
        os.replace(self.config_path + ".new", self.config_path)  # a reload finds it whole

    def start(self, seconds=20, ready=True):
        with open(self.errors_path, "ab") as errors:
            self.errors_before = errors.tell()
            self.process = subprocess.Popen(
                [STAFETTED, "-c", self.config_path],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=self.folder,
                env={**os.environ, **self.environment},
            )
        if ready:
            wait_for("the daemon to be ready", self.ready, seconds, every=0.02)
        return self

    def ready(self):
        """Whether every worker listens: with less a TERM ends the start. It says so itself: who
        asked with a session would leave it behind for a moment."""
        assert (
            self.process.poll() is None
        ), f"stafetted ended with {self.process.returncode}:\n{self.errors()[-2000:]}"
        with open(self.errors_path, "rb") as file:
            file.seek(self.errors_before)
            return re.search(rb"^stafetted: notice: stafetted \S+ is ready: ", file.read(), re.M)

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=30):
        """Its exit status."""
        return self.process.wait(seconds * PATIENCE)

    def stop(self, seconds=30):
        """TERM, and the exit status, which must come in time."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        status = self.wait(seconds)
        assert status == 0, f"stafetted ended with {status}:\n{self.errors()[-2000:]}"

    def stop_at_once(self):
        """TERM, and again if it takes its time: two may be one for a process that stalls."""
        for _ in range(150):
            if self.process.poll() is None:
                self.signal(signal.SIGTERM)
            try:
                return self.process.wait(0.3)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("stafetted does not stop")

    def kill(self):
        self.kills += 1
        self.process.kill()
        self.process.wait()

    def end(self):
        """At the end of a test, whatever state it is in."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        remove_index(self.spool)

    def restart(self):
        self.stop()
        return self.start()

    def errors(self):
        with open(self.errors_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def client(self, **options):
        return Client(self.port, self.host, **options)

    def submit(self, sender, recipients, message, **options):
        with self.client(**options) as client:
            client.ehlo()
            reply = client.submit(sender, recipients, message)
            client.quit()
            return reply

    # ── what it tells ──

    # A client or a peer may see a thing a moment before the daemon says it. So what must come is
    # waited for, with wait_log() or wait_complaint(); log() tells what has been said by now,
    # also if it was not on the disk yet. That nothing else came is asked after stop(), or after
    # something later in the same worker; lines of two workers stand in any order.

    def log(self, event=None, where=None, **fields):
        """The delivery log's events, in order: those with these fields for which `where` holds.
        Every line must be whole JSON but for those that a kill has cut short."""
        self.log_written()
        events, torn = [], 0
        paths = [p for p in (self.log_path + ".old", self.log_path) if os.path.exists(p)]
        for line in b"".join(whole_lines(path) for path in paths).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                torn += 1
                assert torn <= self.kills, f"not JSON: {line!r}"
                continue
            if event and entry.get("event") != event:
                continue
            if all(str(entry.get(k)) == str(v) for k, v in fields.items()):
                if where is None or where(entry):
                    events.append(entry)
        return events

    def log_written(self):
        """Until its log's writer has looked for lines several times, or sleeps for good."""
        state, first = self.log_writer()
        last, since = first, time.monotonic()
        while state and last - first < 6:
            time.sleep(0.005)
            state, naps = self.log_writer()
            if state != "S" or naps != last:
                last, since = naps, time.monotonic()
            elif time.monotonic() - since > 0.05:  # its naps take 5 ms
                return

    def log_writer(self):
        """Its state and how often it has waited, from /proc; no state: it does not run."""
        if self.process is None or self.process.poll() is not None:
            return None, 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/status"):
            try:
                with open(path) as file:
                    text = file.read()
            except OSError:  # a thread that has ended
                continue
            if text.startswith("Name:\tlog\n"):
                naps = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)
                return re.search(r"^State:\s+(\w)", text, re.M).group(1), int(naps.group(1))
        return None, 0

    def wait_log(self, event, count=1, seconds=20, where=None, **fields):
        """These events, as soon as there are `count` of them."""

        def there():
            events = self.log(event, where, **fields)
            return events if len(events) >= count else None

        return wait_for(f"{count} x {event} {fields} in the log", there, seconds)

    def wait_complaint(self, text, count=1, **fields):
        """The complaints with `text` in them, as soon as there are `count` of them."""
        return self.wait_log(
            "complaint", count, where=lambda entry: text in entry["text"], **fields
        )

    def wait_errors(self, pattern):
        """Until the daemon's own words match this regular expression; the match."""
        return wait_for(f"{pattern!r} on stderr", lambda: re.search(pattern, self.errors(), re.M))

    def wait_queued(self, *addresses):
        """Until exactly these recipients wait, in whatever order."""
        wait_for(f"{addresses} to wait", lambda: sorted(self.queued()) == sorted(addresses))

    def tool(self, *arguments, status=0, name=STAFETTE):
        done = subprocess.run(
            [name, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
        )
        assert status is None or done.returncode == status, (
            f"{' '.join(arguments)}: status {done.returncode}, expected {status}\n"
            f"{done.stdout[-500:]}\n{done.stderr[-1500:]}"
        )
        return done

    def queue_text(self, *arguments):
        return self.tool("queue", "-c", self.config_path, *arguments).stdout

    def queue(self, *arguments):
        """The queue as objects, as `stafette queue --json` prints them."""
        text = self.queue_text("--json", *arguments)
        return [json.loads(line) for line in text.splitlines()]

    def queued(self):
        """Every waiting recipient, with repetitions."""
        return [r["address"] for entry in self.queue() for r in entry["recipients"]]

    def count(self):
        """`stafette queue --count` as a number of jobs."""
        return int(re.search(r"\d+", self.queue_text("--count")).group())

    def wait_empty(self, seconds=20):
        """Until nothing waits. A listing is not of one moment: a report may take a slot that was
        already passed while its cause leaves one still to come, so one that is empty is not yet
        proof; but no report has a report."""
        wait_for("an empty queue", lambda: not self.queued() and not self.queued(), seconds, 0.2)

    def outcomes_written(self):
        """Until the journals have been left alone for a while: what the queue shows of outcomes is
        then in them, and outlives a kill."""

        def rest():
            folder = os.path.join(self.spool, "jnl")
            last = max(os.stat(os.path.join(folder, name)).st_mtime for name in os.listdir(folder))
            return time.time() - last > 0.5

        wait_for("the journals to rest", rest)

    def status(self, field):
        """A field of /proc/PID/status in KiB: VmRSS, VmHWM ..."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(rf"^{field}:\s+(\d+)", file.read(), re.M).group(1))


def remove_index(spool):
    """The index in shared memory, which only a killed daemon leaves behind."""
    try:
        with open(os.path.join(spool, "super"), "rb") as file:
            uuid = file.read(64)[48:64].hex()
    except OSError:
        return
    for path in glob.glob(f"/dev/shm/stafette-{uuid}-*") if len(uuid) == 32 else []:
        os.unlink(path)


def whole_lines(path):
    with open(path, "rb") as file:
        data = file.read()
    return data[: data.rfind(b"\n") + 1]


class Test:
    """Makes the parts of one test in one folder and ends them."""

    def __init__(self, folder):
        self.folder = folder
        self.parts = []
        self.peer_port = None
        self.nameserver = None

    def keep(self, part, end):
        self.parts.append((part, end))
        return part

    def end(self):
        for part, end in reversed(self.parts):
            try:
                end(part)
            except Exception as error:  # the others must still end
                print(f"at the end: {error!r}")

    def check(self):
        """What holds after every test: every daemon stops when it is told to and none crashed,
        and no peer was spoken to wrongly."""
        for part, _ in self.parts:
            if isinstance(part, Daemon) and part.process:
                status = part.stop_at_once()
                assert (
                    status >= 0 or status == -signal.SIGKILL
                ), f"stafetted died of signal {-status}"
                assert "Sanitizer" not in part.errors(), "a sanitizer has found something"
            if isinstance(part, Peer):
                assert not part.violations, f"to {part.host}: {part.violations[:5]}"

    def port(self):
        return free_port()

    def dns(self, records, broken=(), **options):
        """A name server; daemons made after it ask it."""
        if isinstance(records, dict):
            records = records_of(records)
        self.nameserver = Nameserver(self.folder, free_port(), records, broken, **options)
        return self.keep(self.nameserver, Nameserver.stop)

    def peer(self, host="127.0.0.2", port=None, **steps):
        """A scripted server. Without `port` all peers of a test share one port number, on
        different addresses: daemons made after the first deliver to that port."""
        if port is None:
            self.peer_port = self.peer_port or free_port()
            port = self.peer_port
        return self.keep(Peer(port, host, **steps), Peer.stop)

    def daemon(
        self, routes=None, start=True, name="daemon", quick=True, host="127.0.0.1", **settings
    ):
        base = dict(QUICK) if quick else {}
        if self.nameserver:
            base["dns_servers"] = [f"127.0.0.1:{self.nameserver.port}"]
        if self.peer_port:
            base["port"] = self.peer_port
        base.update(settings)
        base = {key: value for key, value in base.items() if value is not None}
        daemon = Daemon(os.path.join(self.folder, name), free_port(), base, routes or {}, host)
        self.keep(daemon, Daemon.end)
        return daemon.start() if start else daemon

    def simple(self, domains=("a.test",), peer=None, **settings):
        """One peer for all `domains`, its name server and a daemon: (daemon, peer)."""
        peer = self.peer(**(peer or {}))
        self.dns({domain: peer.host for domain in domains})
        return self.daemon(**settings), peer


PORT_LOCKS = f"/tmp/stafette-ports-{os.getuid()}"
held_ports = []  # open lock files: a port is this process's own until it ends


def free_port(first=10000, end=32000):
    """A port of this scenario alone, below the ephemeral range, so that no connection of ours takes it."""
    os.makedirs(PORT_LOCKS, exist_ok=True)
    while True:
        port = random.randrange(first, end)
        lock = open(os.path.join(PORT_LOCKS, str(port)), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(family, kind) as probe:
                        if family == socket.AF_INET6:
                            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        probe.bind((host, port))
        except OSError:
            lock.close()
            continue
        held_ports.append(lock)
        return port


def need(program, package):
    """The path of a program that this test cannot do without: no silent skips."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert path, f"{program} is missing: install the package {package} (make deps)"
    return path
