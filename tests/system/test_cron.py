"""Debian's cron sends what a job prints."""

import email
import os
import signal
import subprocess

from harness import STAFETTE, need

# Everything that cron looks at is the test's own: what is to be run, who may, what it remembers.
INSIDE = """
cd "$1" || exit 1
for name in etc/crontab etc/pam.d/cron usr/sbin/sendmail; do
	mount --bind "$(basename $name)" /$name || exit 1
done
for folder in run etc/cron.d var/spool/cron; do mount -t tmpfs -o mode=755 none /$folder; done
mkdir /var/spool/cron/crontabs
exec "$2" -f
"""


def test_output_of_a_job(t):
    """What a job prints goes by sendmail to MAILTO, from root and marked as cron's"""
    program = need("cron", "cron")
    need("sendmail", "postfix")  # a name to stand in for
    daemon, peer = t.simple()
    for name, text in (
        ("crontab", "MAILTO=box@a.test\n@reboot root printf 'one\\n.\\ntwo\\n'\n"),
        (
            "cron",
            "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session")),
        ),
        (
            "sendmail",
            f'#!/bin/sh\nSTAFETTE_CONFIG={daemon.config_path} exec {STAFETTE} sendmail "$@"\n',
        ),
    ):
        with open(os.path.join(t.folder, name), "w", encoding="ascii") as file:
            file.write(text)
    os.chmod(os.path.join(t.folder, "sendmail"), 0o755)
    with open(os.path.join(t.folder, "cron.out"), "wb") as out:
        cron = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", INSIDE, "inside", t.folder, program],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    t.keep(cron, lambda part: (part.send_signal(signal.SIGTERM), part.wait(15)))
    taken = peer.wait(1)[0]
    message = email.message_from_bytes(taken.body)
    assert taken.recipients == ["box@a.test"] and taken.sender.startswith("root@"), taken.sender
    assert message["From"].startswith("root") and message["Subject"].startswith("Cron <root@")
    assert message.get_payload() == "one\r\n.\r\ntwo\r\n", taken.body
