"""Signatures of DKIM, verified by more programs that are not ours: rspamd, opendkim-testmsg."""

import http.client
import json
import os
import subprocess

from harness import limit, need, wait_for
from reaper import reap
from test_dkim import MESSAGES, PYTHON, setting


def repeatable(message):
    """They fail whatever has To: or Cc: twice, so fields that may be repeated take their place."""
    if message == MESSAGES["folded and repeated"]:
        for name in (b"To", b"Cc", b"cc"):
            message = message.replace(b"\r\n" + name + b":", b"\r\nResent-" + name + b":")
    return message


# ── rspamd ──

# With its module for DKIM alone. Whatever takes long at its start is left out: models of languages,
# the world's domains, regular expressions to compile.
CONFIG = """
options {{
	dns {{ nameserver = ["127.0.0.1:{dns_port}"]; timeout = 5s; }}
	filters = "dkim";
	tempdir = "{folder}";
	hs_cache_dir = "{folder}";
	url_tld = "{folder}/domains";
	disable_hyperscan = true;
	local_addrs = [];
}}
lang_detection {{ languages = "{folder}"; }}
logging {{ type = "console"; level = "warning"; }}
dkim {{ check_local = true; check_authed = true; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
"""


class Rspamd:
    """An instance in `folder` that asks the name server at `dns_port`."""

    def __init__(self, folder, port, dns_port):
        program = need("rspamd", "rspamd")
        self.port = port
        os.makedirs(folder)
        with open(os.path.join(folder, "domains"), "w", encoding="ascii") as file:
            file.write("test\n")
        config = os.path.join(folder, "rspamd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(CONFIG.format(folder=folder, port=port, dns_port=dns_port))
        self.out = os.path.join(folder, "stderr")  # the runner shows it if the test fails
        with open(self.out, "ab") as out:
            self.process = subprocess.Popen(
                [program, "--no-fork", "--insecure", "--config", config],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for("rspamd to answer", self.ready, 30)

    def ready(self):
        assert self.process.poll() is None, f"rspamd ended, see {self.out}"
        try:
            return self.ask("GET", "/ping")[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def symbols(self, message):
        """What it found in the message: {symbol: options}."""
        status, answer = self.ask("POST", "/checkv2", message)
        assert status == 200, answer
        return {k: v.get("options", []) for k, v in json.loads(answer)["symbols"].items()}

    def stop(self):
        self.process.terminate()
        reap(self.process)


def rspamd(t):
    folder = os.path.join(t.folder, "rspamd")
    return t.keep(Rspamd(folder, t.port(), t.nameserver.port), Rspamd.stop)


def check_by_rspamd(t, **options):
    daemon, peer, _ = setting(t, **options)
    verifier = rspamd(t)
    for number, (name, message) in enumerate(MESSAGES.items(), 1):
        daemon.submit("s@sign.test", ["b@a.test"], repeatable(message))
        body = peer.wait(number, seconds=30)[-1].body
        found = verifier.symbols(body)
        assert sorted(found.pop("R_DKIM_ALLOW", [])) == ["sign.test:s=e1", "sign.test:s=r1"], name
        assert not any("R_DKIM" in symbol for symbol in found), (name, found)
    assert name == "big"
    changed = body.replace(b"many  words", b"many other words", 1)
    assert "R_DKIM_REJECT" in verifier.symbols(changed), "it does not look at the body"


@limit(90)
def test_rspamd_relaxed(t):
    """rspamd verifies both signatures of odd messages, relaxed and relaxed"""
    check_by_rspamd(t)


@limit(90)
def test_rspamd_simple(t):
    """rspamd verifies both signatures of odd messages, simple and simple"""
    check_by_rspamd(t, domain={"header": "simple", "body": "simple"})


# ── opendkim-testmsg ──

# It asks port 53 of whom resolv.conf names, so it runs in a network of its own: with the records
# of a file and a name server of ours. Prints NAME and exit status for each message.
TESTMSG = """
import fcntl, os, socket, struct, subprocess, sys
folder, program = sys.argv[1:3]
sys.path.insert(0, sys.argv[3])
from nameserver import Nameserver
with socket.socket() as any_socket:  # the loopback is up
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
with open(f"{folder}/resolv.conf", "w") as file:
    file.write("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", f"{folder}/resolv.conf", "/etc/resolv.conf"], check=True)
with open(f"{folder}/zone") as file:
    records = file.read().splitlines()
with Nameserver(folder, 53, records):
    for name in sorted(os.listdir(f"{folder}/messages")):
        with open(f"{folder}/messages/{name}", "rb") as message:
            done = subprocess.run([program, "-C"], stdin=message, capture_output=True, text=True)
        print(name, done.returncode, done.stdout.strip(), done.stderr.strip(), flush=True)
"""


def test_opendkim_testmsg(t):
    """opendkim-testmsg is content with odd messages, and not with one whose body was changed"""
    program = need("opendkim-testmsg", "opendkim-tools")
    daemon, peer, keys = setting(t)
    folder = os.path.join(t.folder, "testmsg")
    os.makedirs(os.path.join(folder, "messages"))
    with open(os.path.join(folder, "zone"), "w", encoding="ascii") as file:
        file.write("\n".join(keys.zone()))
    date = b"Date: Sat, 01 Aug 2026 10:00:00 +0000\r\n"  # without one it reads nothing
    for number, (name, message) in enumerate(MESSAGES.items(), 1):
        daemon.submit("s@sign.test", ["b@a.test"], date + repeatable(message))
        body = peer.wait(number, seconds=30)[-1].body
        with open(os.path.join(folder, "messages", name.replace(" ", "-")), "wb") as file:
            file.write(body)
    with open(os.path.join(folder, "messages", "changed"), "wb") as file:
        file.write(body.replace(b"many  words", b"many other words", 1))
    done = subprocess.run(
        ["unshare", "--net", "--mount", PYTHON, "-c", TESTMSG, folder, program,
         os.path.dirname(os.path.abspath(__file__))],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    good = {name: words[:1] == ["0"] for name, *words in map(str.split, done.stdout.splitlines())}
    expected = {name.replace(" ", "-"): True for name in MESSAGES} | {"changed": False}
    assert good == expected, done.stdout
