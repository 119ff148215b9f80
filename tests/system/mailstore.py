"""A Dovecot with mailboxes: LMTP on a UNIX socket and on a port, each mailbox a Maildir."""

import glob
import os
import shutil
import subprocess

from harness import need, wait_for
from reaper import reap
from wire import Client, Closed

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
ssl = no
protocols = lmtp
mail_location = maildir:~/Maildir
first_valid_uid = 1
first_valid_gid = 1
mail_plugins = quota
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = {host}
    port = {port}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@store.test
}}
"""


class MailStore:
    """`users` have mailboxes; one may be (address, quota in bytes)."""

    def __init__(self, folder, port, users, host="127.0.0.9"):
        self.command = need("dovecot", "dovecot-lmtpd")
        self.folder, self.port, self.host = folder, port, host
        self.process = None
        self.socket = os.path.join(folder, "run", "lmtp")
        os.makedirs(os.path.join(folder, "mail"))
        shutil.chown(os.path.join(folder, "mail"), "mail", "mail")
        at = folder
        while at != "/":  # its processes run as another user
            os.chmod(at, os.stat(at).st_mode | 0o111)
            at = os.path.dirname(at)
        with open(os.path.join(folder, "users"), "w") as file:
            file.writelines(self.user(one) for one in users)
        with open(os.path.join(folder, "dovecot.conf"), "w") as file:
            file.write(CONFIG.format(folder=folder, host=host, port=port))
        self.start()

    def user(self, who):
        address, quota = who if isinstance(who, tuple) else (who, None)
        rule = f"userdb_quota_rule=*:bytes={quota}" if quota else ""
        return f"{address}:{{PLAIN}}secret:8:8::{self.folder}/mail/{address}::{rule}\n"

    def start(self):
        with open(os.path.join(self.folder, "out"), "ab") as out:
            self.process = subprocess.Popen(
                [self.command, "-c", os.path.join(self.folder, "dovecot.conf"), "-F"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for("Dovecot to listen", self.ready)

    def ready(self):
        assert self.process.poll() is None, f"Dovecot ended: {self.logged()}"
        try:
            Client(self.port, self.host, timeout=10).close()
            return os.path.exists(self.socket)
        except (OSError, Closed):
            return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            reap(self.process)

    def mail(self, address):
        """The messages in a mailbox, as bytes with CRLF."""
        found = []
        for path in glob.glob(f"{self.folder}/mail/{address}/Maildir/new/*"):
            with open(path, "rb") as file:
                data = file.read()
            found.append(data if b"\r\n" in data else data.replace(b"\n", b"\r\n"))
        return found

    def logged(self):
        texts = []
        for name in ("out", "log"):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    texts.append(file.read())
        return "\n".join(texts)
