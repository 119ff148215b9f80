"""A Dovecot of a test's own that only checks logins: what its auth socket says is the truth."""

import os
import signal
import socket
import subprocess

from harness import need, wait_for

CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols =
ssl = no
auth_mechanisms = plain login
auth_failure_delay = 0 secs
disable_plaintext_auth = yes
first_valid_uid = 0
default_internal_user = root
default_login_user = root
default_internal_group = root
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=0 gid=0 home=/nowhere
}}
service auth {{
  user = root
  unix_listener {folder}/auth-client {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """`users` is a dict of passwords; `.socket` is where logins are asked for."""

    def __init__(self, folder, users):
        self.folder = folder
        self.program = need("dovecot", "dovecot-core")
        self.socket = f"{folder}/auth-client"
        os.makedirs(f"{folder}/run", exist_ok=True)
        with open(f"{folder}/users", "w") as file:
            file.writelines(f"{name}:{{PLAIN}}{word}\n" for name, word in users.items())
        with open(f"{folder}/dovecot.conf", "w") as file:
            file.write(CONFIG.format(folder=folder))
        self.process = None
        self.start()

    def start(self):
        command = [self.program, "-F", "-c", f"{self.folder}/dovecot.conf"]
        with open(f"{self.folder}/output", "ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )
        wait_for("Dovecot's auth socket", self.listens)

    def listens(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def stop(self):
        """Its processes go at once: one that still serves a client would answer for another while."""
        if self.process:
            group = self.process.pid
            self.process.terminate()
            self.process.wait(60)
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process = None
