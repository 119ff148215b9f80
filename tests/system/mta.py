"""Other people's mail servers on loopback, each from configuration and queue folders of its own.

Postfix is an installed package. OpenSMTPD conflicts with it, so it is unpacked into the build
folder and runs in a mount namespace where its users and folders exist.
"""

import glob
import os
import shutil
import signal
import subprocess

from harness import BUILD, need, wait_for
from reaper import reap
from wire import Client, Closed

MASTER = """\
{listen} inet n - n - {smtpd_max} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - {smtp_max} smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def answers(host, port):
    def check():
        try:
            Client(port, host, timeout=10).close()
            return True
        except (OSError, Closed):
            return False

    return check


class Postfix:
    """An instance in `folder`, listening on host:port; `settings` go into its main.cf, `services`
    are more lines of its master.cf."""

    def __init__(
        self,
        folder,
        port,
        settings,
        host="127.0.0.4",
        smtpd_max="-",
        smtp_max="-",
        services="",
    ):
        self.command = need("postfix", "postfix")
        self.folder, self.host, self.port = folder, host, port
        self.config = os.path.join(folder, "config")
        self.queue = os.path.join(folder, "queue")
        self.log = os.path.join(folder, "maillog")
        data = os.path.join(folder, "data")
        for path in (self.config, self.queue, data):
            os.makedirs(path)
        # its processes run as another user and must reach their folders
        at = folder
        while at != "/":
            os.chmod(at, os.stat(at).st_mode | 0o111)
            at = os.path.dirname(at)
        shutil.chown(data, "postfix")
        main = {
            "compatibility_level": "3.6",
            "myhostname": "postfix.test",
            "mydestination": "",
            "queue_directory": self.queue,
            "data_directory": data,
            "maillog_file": self.log,
            "maillog_file_prefixes": folder,
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_tls_security_level": "none",
            "smtp_tls_security_level": "none",
            "biff": "no",
            "alias_maps": "",
            "alias_database": "",
            **settings,
        }
        with open(os.path.join(self.config, "main.cf"), "w") as file:
            file.writelines(f"{key} = {value}\n" for key, value in main.items())
        with open(os.path.join(self.config, "master.cf"), "w") as file:
            file.write(
                MASTER.format(listen=f"{host}:{port}", smtpd_max=smtpd_max, smtp_max=smtp_max)
                + services
            )
        self.process = None
        self.start()

    def run(self, *words):
        return subprocess.run(
            [*words[:1], "-c", self.config, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self):
        with open(os.path.join(self.folder, "out"), "ab") as out:
            self.process = subprocess.Popen(
                [self.command, "-c", self.config, "start-fg"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for("Postfix to listen", answers(self.host, self.port), 20)

    @property
    def master_pid(self):
        with open(os.path.join(self.queue, "pid", "master.pid")) as file:
            return int(file.read())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.run(self.command, "stop")
            reap(self.process)

    def queued(self):
        """How many messages wait."""
        done = self.run("postqueue", "-j")
        return len(done.stdout.splitlines())

    def logged(self):
        with open(self.log) as file:
            return file.read()


class OpenSmtpd:
    """Accepts everything on host:port and relays it to `onward` (host, port). With `config` it
    does what those lines say; whom it trusts is then in the file `authorities`."""

    USERS = ("opensmtpd", 64901), ("opensmtpq", 64902)
    AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # no option names another

    def __init__(self, folder, port, onward=None, host="127.0.0.5", config=None, authorities=None):
        self.folder, self.host, self.port = folder, host, port
        os.makedirs(folder)
        program = os.path.join(unpacked("opensmtpd"), "usr/sbin/smtpd")
        for name, line in (
            ("passwd", "{0}:x:{1}:{1}::/:/usr/sbin/nologin"),
            ("group", "{0}:x:{1}:"),
        ):
            with open(f"/etc/{name}") as source, open(os.path.join(folder, name), "w") as file:
                file.write(source.read())
                file.writelines(line.format(*user) + "\n" for user in self.USERS)
        with open(os.path.join(folder, "smtpd.conf"), "w") as file:
            file.write(
                config
                or f"listen on {host} port {port} hostname opensmtpd.test\n"
                f'action "on" relay host smtp://{onward[0]}:{onward[1]}\n'
                'match from any for any action "on"\n'
            )
        trust = f" mount --bind {authorities} {self.AUTHORITIES} &&" if authorities else ""
        script = (
            f"cd {folder} && mount --bind passwd /etc/passwd && mount --bind group /etc/group &&"
            + trust
            + " for d in /var/spool /var/lib /run; do"
            " mount -t tmpfs -o mode=755 none $d || exit 1; done;"
            " mkdir -p /var/lib/opensmtpd/empty; mkdir -m 711 /var/spool/smtpd;"
            f" exec {program} -d -f {folder}/smtpd.conf"
        )
        with open(os.path.join(folder, "out"), "ab") as out:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for("OpenSMTPD to listen", self.ready, 20)

    def logged(self):
        with open(os.path.join(self.folder, "out"), errors="replace") as file:
            return file.read()

    def ready(self):
        assert self.process.poll() is None, f"OpenSMTPD ended: {self.logged()}"
        return answers(self.host, self.port)()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            reap(self.process, 10)


def unpacked(package):
    """The folder of a package that is unpacked, not installed; fetched with apt if need be."""
    folder = os.path.join(BUILD, "packages", package)
    if os.path.isdir(folder):
        return folder
    place = os.path.dirname(folder)
    os.makedirs(place, exist_ok=True)
    fetch = ["apt-get", "download", package]
    done = subprocess.run(fetch, cwd=place, capture_output=True, text=True)
    if done.returncode != 0:  # perhaps only the lists are missing
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        done = subprocess.run(fetch, cwd=place, capture_output=True, text=True)
    files = glob.glob(os.path.join(place, f"{package}_*.deb"))
    assert done.returncode == 0 and files, f"{package} cannot be had: {done.stderr}"
    done = subprocess.run(["dpkg", "-x", files[0], folder + ".new"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    os.rename(folder + ".new", folder)
    return folder
