"""The course that every server runs: source -> server -> sink, the same messages each time.

    source --50 sessions--> server under test --20 connections--> sink

One Course is one fresh folder and one server; run() sends `count` messages and waits until the
sink has them all.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time

from meter import Meter
from rig import BUILD, Daemon, Program, Sink, free_port, wait_port
from certificates import Authority, section
from mta import Postfix

SIZE, SESSIONS, DOMAINS, CONNECTIONS = 4096, 50, 10, 20
SINK = "127.0.0.2"


class Course:
    """A server in a folder of its own under the build folder (on its disk), and its meter."""

    tls = False  # from the first byte on, on both sides

    def __init__(self, sessions=SESSIONS):
        os.makedirs(os.path.join(BUILD, "bench-spool"), exist_ok=True)
        self.folder = tempfile.mkdtemp(dir=os.path.join(BUILD, "bench-spool"))
        self.sessions = sessions
        self.sink_port = free_port()
        self.sink_address = f"{SINK}:{self.sink_port}"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.meter = Meter(self.folder)
        self.tls = self.tls and Authority(self.folder).make("bench.test")  # (chain, key)
        self.parts = []

    def __enter__(self):
        with self.meter.inside():
            self.begin()
        return self

    def __exit__(self, *_):
        self.finish()
        for part in reversed(self.parts):
            part.end()
        self.meter.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sink(self, mode, count, *arguments):
        hidden = ["--no-chunking"] if mode == "classic" else []
        if self.tls:
            hidden += ["--tls", ",".join(self.tls)]
        sink = Sink(self.sink_address, "--count", count, *hidden, *arguments)
        self.parts.append(sink)
        return sink

    def source(self, mode, count, *arguments):
        source = Program(
            "source",
            "--mode",
            mode,
            "--count",
            count,
            "--sessions",
            self.sessions,
            "--size",
            SIZE,
            "--domains",
            DOMAINS,
            *(["--tls"] if self.tls else []),
            *arguments,
            self.address,
        )
        self.parts.append(source)
        return source

    def run(self, mode, count):
        """Figures of one load, end to end."""
        sink = self.sink(mode, count)
        os.sync()
        self.meter.start()
        started = time.monotonic()
        source = self.source(mode, count)
        accepted = source.result(600)
        taken = sink.result(600)
        seconds = time.monotonic() - started
        time.sleep(0.3)  # the last outcomes reach the disk
        cost = self.meter.stop()
        assert accepted["accepted"] == count and taken["duplicates"] == 0, (accepted, taken)
        return {
            "messages": count,
            "accept_per_s": accepted["rate"],
            "end_to_end_per_s": count / seconds,
            "cpu_s_per_1000": cost["cpu_seconds"] * 1000 / count,
            "peak_mib": cost["peak_bytes"] / (1 << 20),
            "flushes_per_message": cost["flushes"] / count,
            "disk_bytes_per_message": cost["disk_bytes"] / count,
        }

    def fill(self, count, seconds=600):
        """Lets `count` messages wait: no sink listens. Returns the accept rate."""
        accepted = self.source("classic", count).result(seconds)
        assert accepted["accepted"] == count, accepted
        return accepted["rate"]

    def drain(self, count, mode="classic", seconds=600):
        """From the first message at the sink to the last; the queue is told as it can be."""
        ledger = os.path.join(self.folder, "drained")
        sink = self.sink(mode, count, "--ledger", ledger)
        deadline = time.monotonic() + seconds
        self.flush()
        while not (os.path.exists(ledger) and os.path.getsize(ledger)) and sink.running():
            assert time.monotonic() < deadline, "nothing drains"
            time.sleep(0.005)
        started = time.monotonic()
        sink.result(seconds)
        return count / (time.monotonic() - started)


class Stafette(Course):
    name = "stafette"

    def begin(self, **settings):
        self.daemon = Daemon(
            os.path.join(self.folder, "stafette"),
            self.port,
            {
                "hostname": "stafette.test",
                "private_hosts": True,
                "connections_max": CONNECTIONS,
                "retry_first": "2s",
                "retry_base": "2s",
                "retry_cap": "2s",
                "probe": "1s",
                **settings,
            },
            {"*": {"hosts": [self.sink_address]}},
        )
        self.daemon.start()
        self.meter.pid = self.daemon.pid

    def finish(self):
        try:
            self.daemon.stop()
        finally:
            self.daemon.end()

    def flush(self):
        """Nothing to do: the site is probed every second."""

    def list(self):
        return self.daemon.queue_text()

    def waiting(self):
        return self.daemon.count()


class StafetteTls(Stafette):
    """The same daemon; its certificate, as the sink's, is ECDSA on P-256."""

    name, tls = "stafette, TLS", True

    def begin(self, **settings):
        port = free_port()
        secured = {
            "certificate": section(*self.tls),
            f'listener "127.0.0.1:{port}"': {"tls": "implicit"},
            "tls": "encrypt",
            "tls_implicit": True,
        }
        super().begin(**secured, **settings)
        self.address = f"127.0.0.1:{port}"


def handshakes(course, how, seconds=5):
    """What `openssl s_time` says: connections with a handshake and nothing else, one after the
    other. TLS 1.2, since it does not wait for the tickets of 1.3."""
    course.meter.start()
    done = subprocess.run(
        ["openssl", "s_time", "-connect", course.address, f"-{how}", "-tls1_2",
         "-time", str(seconds)],
        capture_output=True, text=True, timeout=seconds * 6,
    )  # fmt: skip
    cost = course.meter.stop()
    count, real = re.search(r"(\d+) connections in (\d+) real seconds", done.stdout).groups()
    count = max(1, int(count))
    return {"per_s": count / int(real), "cpu_us": cost["cpu_seconds"] * 1e6 / count}


class OnEpoll(Stafette):
    """The same daemon as where io_uring is refused."""

    name = "stafette on epoll"

    def begin(self):
        super().begin(io="epoll")


class Tuned(Course):
    """Debian's Postfix, tuned for bulk."""

    name = "Postfix"

    def begin(self, services="", **settings):
        self.address = f"127.0.0.4:{self.port}"
        self.postfix = Postfix(
            os.path.join(self.folder, "postfix"),
            self.port,
            {
                "relayhost": f"[{SINK}]:{self.sink_port}",
                "default_process_limit": "200",
                "default_destination_concurrency_limit": str(CONNECTIONS),
                "initial_destination_concurrency": str(CONNECTIONS),
                "in_flow_delay": "0",
                "qmgr_message_active_limit": "100000",
                "qmgr_message_recipient_limit": "100000",
                "smtp_connection_cache_on_demand": "yes",
                "smtp_connection_cache_destinations": SINK,
                "receive_override_options": "no_address_mappings",
                "disable_dns_lookups": "yes",
                "smtp_host_lookup": "native",
                "smtpd_peername_lookup": "no",
                "smtpd_client_connection_count_limit": "0",
                "minimal_backoff_time": "2s",
                "queue_run_delay": "2s",
                **settings,
            },
            services=services,
            smtpd_max="200",
            smtp_max=str(CONNECTIONS),
        )
        self.meter.pid = self.postfix.process.pid

    def finish(self):
        self.postfix.stop()

    def flush(self):
        self.postfix.run("postqueue", "-f")

    def list(self):
        return self.postfix.run("postqueue", "-p").stdout

    def waiting(self):
        return self.postfix.queued()


class TunedTls(Tuned):
    """The same Postfix, with the same certificate; it keeps connections where it can (tlsproxy)."""

    name, tls = "Postfix, TLS", True

    def begin(self):
        port = free_port()
        super().begin(
            services=f"127.0.0.4:{port} inet n - n - 200 smtpd -o smtpd_tls_wrappermode=yes\n"
            "tlsproxy unix - - n - 0 tlsproxy\n",
            smtpd_tls_security_level="encrypt",
            smtpd_tls_chain_files=", ".join(reversed(self.tls)),
            smtp_tls_security_level="encrypt",
            smtp_tls_wrappermode="yes",
            smtp_tls_connection_reuse="yes",
        )
        self.address = f"127.0.0.4:{port}"


class Ceiling(Course):
    """The bare durable relay."""

    name = "ceiling"

    def begin(self):
        self.ceiling = Program(
            "ceiling",
            "--listen",
            self.address,
            "--log",
            os.path.join(self.folder, "log"),
            self.sink_address,
        )
        wait_port(self.address)
        self.meter.pid = self.ceiling.pid

    def finish(self):
        self.ceiling.end()


class Direct(Course):
    """The source straight into the sink: what the two can do."""

    name = "no server"

    def begin(self):
        self.address = self.sink_address
        self.meter.pid = os.getpid()

    def finish(self):
        pass
