"""Certificates for a test, made when it runs: an authority, and what it signs."""

import ipaddress
import os
import ssl
import subprocess

from harness import need


class Authority:
    """Makes certificates in `folder`; `.path` is its own, for those who shall trust it."""

    def __init__(self, folder, name="authority"):
        self.openssl = need("openssl", "openssl")
        self.folder, self.name = folder, name
        self.path = os.path.join(folder, f"{name}.pem")
        self.key = os.path.join(folder, f"{name}.key")
        self.count = 0
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", self.key, "-out", self.path, "-days", "30", "-subj", f"/CN={name}")  # fmt: skip

    def run(self, *arguments):
        done = subprocess.run(
            [self.openssl, *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def make(self, *names, kind="ec", expired=False, signed=True):
        """(chain, key): files of a certificate for these DNS names and addresses."""
        self.count += 1
        first = names[0].replace("*", "any")
        base = os.path.join(self.folder, f"{self.name}-{self.count}-{first}-{kind}")
        chain, key, request, extensions = (base + end for end in (".pem", ".key", ".req", ".ext"))
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        self.run("genpkey", *(["-algorithm", "RSA"] if kind == "rsa" else curve), "-out", key)
        os.chmod(key, 0o600)
        with open(extensions, "w") as file:
            file.write("subjectAltName=" + ",".join(map(alternative, names)) + "\n")
        self.run("req", "-new", "-key", key, "-subj", f"/CN={names[0]}", "-out", request)
        sign = ["-CA", self.path, "-CAkey", self.key] if signed else ["-signkey", key]
        # yesterday is not to be had from `openssl x509` of 3.0 but by a negative count
        days = "-1" if expired else "30"
        self.run("x509", "-req", "-in", request, *sign, "-CAcreateserial", "-days", days,
                 "-extfile", extensions, "-out", chain)  # fmt: skip
        return chain, key

    def server(self, *names, **how):
        """An ssl.SSLContext of a server with such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.make(*names, **how))
        return context

    def client(self, verify=True):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.path)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def alternative(name):
    """As it stands in subjectAltName."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def section(chain, key):
    """A `certificate` of stafette.conf."""
    return {"chain": chain, "key": key}
