"""What takes long to compute is not computed by the workers, who serve everybody."""

import os
import subprocess

from harness import limit, need
from test_auth import USERS, Site, plain, users_file
from test_dkim import setting
from wire import letter


def cpu_of_threads(daemon):
    """Seconds of CPU that its workers took, and all its other threads."""
    workers = others = 0.0
    for thread in os.listdir(f"/proc/{daemon.pid}/task"):
        try:
            with open(f"/proc/{daemon.pid}/task/{thread}/comm", encoding="ascii") as file:
                name = file.read().strip()
            with open(f"/proc/{daemon.pid}/task/{thread}/schedstat", encoding="ascii") as file:
                seconds = int(file.read().split()[0]) / 1e9
        except OSError:  # it has ended
            continue
        if name.startswith("worker"):
            workers += seconds
        else:
            others += seconds
    return workers, others


@limit(60)
def test_signatures_of_rsa(t):
    """Signing with a large RSA key is the work of other threads"""
    key = os.path.join(t.folder, "large.pem")
    subprocess.run(
        [need("openssl", "openssl"), "genpkey", "-algorithm", "RSA", "-out", key,
         "-pkeyopt", "rsa_keygen_bits:3072"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    os.chmod(key, 0o600)
    daemon, peer, _ = setting(t, dkim={'domain "large.test"': {'key "l"': {"file": key}}})
    workers, others = cpu_of_threads(daemon)
    with daemon.client() as client:
        client.ehlo()
        for n in range(60):
            message = letter(f"m{n}", sender="a@large.test")
            assert client.submit("a@large.test", ["b@a.test"], message).code == 250
        client.quit()
    assert peer.wait(60)[-1].body.startswith(b"DKIM-Signature:")
    workers_now, others_now = cpu_of_threads(daemon)
    assert others_now - others > 2 * (workers_now - workers)


def test_passwords(t):
    """Checking passwords is the work of other threads"""
    site = Site(
        t,
        auth={"users": users_file(t, "yescrypt"), "pause": "0", "failures_max": 1000},
        listener={"auth": "always"},
    )
    workers, others = cpu_of_threads(site.daemon)
    for n in range(10):
        with site.client(tls=False) as client:
            client.ehlo()
            client.expect("AUTH PLAIN " + plain("ann", USERS["ann"] + str(n % 2 or "")), (235, 535))
    workers_now, others_now = cpu_of_threads(site.daemon)
    assert others_now - others > 2 * (workers_now - workers)
