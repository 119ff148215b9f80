"""A real name server (NSD) on loopback that is authoritative for the whole world.

Its root zone is made from a table of records; a domain in `broken` has a zone that cannot
be loaded, so it answers SERVFAIL. Everything that is not in the table is NXDOMAIN.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import time

from reaper import reap
from wire import PATIENCE

NSD = shutil.which("nsd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Nameserver:
    def __init__(self, folder, port, records, broken=(), ttl=300, negative_ttl=300):
        assert NSD, "nsd is not installed: make deps"
        self.folder = os.path.join(folder, "nsd")
        self.port = port
        self.broken = broken
        self.ttl, self.negative_ttl = ttl, negative_ttl
        self.process = None
        self.serial = 0
        os.makedirs(self.folder, exist_ok=True)
        self.write(records)
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def write(self, records):
        """`records`: lines of a zone file ("a.test. MX 10 mx.a.test.")."""
        self.serial += 1
        zone = [
            f". {self.ttl} SOA ns.test. root.test. {self.serial} 3600 600 86400 {self.negative_ttl}",
            f". {self.ttl} NS ns.test.",
            f"ns.test. {self.ttl} A 127.0.0.1",
        ]
        for record in records:
            name, rest = record.split(None, 1)
            zone.append(
                f"{name} {rest}" if rest.split()[0].isdigit() else f"{name} {self.ttl} {rest}"
            )
        with open(os.path.join(self.folder, "root.zone"), "w") as file:
            file.write("\n".join(zone) + "\n")
        with open(os.path.join(self.folder, "nsd.conf"), "w") as file:
            file.write(
                f'server:\n ip-address: 127.0.0.1\n port: {self.port}\n username: ""\n'
                f' chroot: ""\n zonesdir: "{self.folder}"\n database: ""\n'
                f' pidfile: "{self.folder}/nsd.pid"\n zonelistfile: "{self.folder}/zone.list"\n'
                f' xfrdfile: "{self.folder}/xfrd.state"\n xfrdir: "{self.folder}"\n'
                f' logfile: "{self.folder}/nsd.log"\n server-count: 1\n'
                " rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n"
                "remote-control:\n control-enable: no\n"
                'zone:\n name: "."\n zonefile: "root.zone"\n'
            )
            for name in self.broken:
                file.write(f'zone:\n name: "{name}"\n zonefile: "missing-{name}.zone"\n')

    def start(self):
        """Another process, or what is left of the last one, may sit on the port for a moment:
        tried again until it answers with what was written last."""
        self.process = None
        deadline = time.monotonic() + 10 * PATIENCE
        while not (self.process and self.answers()):
            assert time.monotonic() < deadline, (
                "nsd did not start:\n" + open(os.path.join(self.folder, "nsd.log")).read()
            )
            if not self.process or self.process.poll() is not None:
                self.process = subprocess.Popen(
                    [NSD, "-d", "-c", os.path.join(self.folder, "nsd.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=open(os.path.join(self.folder, "out"), "ab"),
                    stderr=subprocess.STDOUT,
                )

    def answers(self):
        soa = struct.pack(">5I", self.serial, 3600, 600, 86400, self.negative_ttl)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)
            try:
                probe.connect(("127.0.0.1", self.port))  # to be told that nobody listens
                probe.send(struct.pack(">6H", 7, 0, 1, 0, 0, 0) + b"\0" + b"\0\6\0\1")
                if soa in probe.recv(512):
                    return True
            except OSError:
                pass
            time.sleep(0.02)
            return False

    def replace(self, records):
        """From now on these records are the world."""
        self.write(records)
        self.stop()
        self.start()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            reap(self.process, 20)


def records_of(domains, hosts=None):
    """Zone lines for {domain: address or [address]}: one MX each, mx.<domain>."""
    lines = []
    for domain, addresses in domains.items():
        lines.append(f"{domain}. MX 10 mx.{domain}.")
        for address in [addresses] if isinstance(addresses, str) else addresses:
            lines.append(f"mx.{domain}. {'AAAA' if ':' in address else 'A'} {address}")
    return lines + list(hosts or [])
