"""What is secret is told to nobody: not by a log, not by the spool, not by a tool."""

import glob
import os

from test_auth import NAME, USERS, Site, b64, login, passwd, plain, users_file
from wire import Closed, letter

OURS, THEIRS = "Kw3-of-a-user-of-ours", "Zx9-for-a-smarthost"


def key_lines(path):
    """What is in a key file, by lines."""
    with open(path, encoding="ascii") as file:
        return [line for line in file.read().split("\n") if line and not line.startswith("-----")]


def index_of(daemon):
    """Its files in shared memory, while it runs."""
    with open(os.path.join(daemon.spool, "super"), "rb") as file:
        return glob.glob(f"/dev/shm/stafette-{file.read(64)[48:64].hex()}-*")


def holders(needles, daemon, texts):
    """(where, what) of each needle in the files around a daemon, its index, and these texts."""
    found, paths = [], index_of(daemon)
    for folder, _, names in os.walk(daemon.folder):
        paths += [os.path.join(folder, name) for name in names]
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        found += [(path, needle) for needle in needles if needle.encode() in data]
    found += [(name, n) for name, text in texts.items() for n in needles if n in text]
    return found


def try_wrongly(site):
    """Sessions in which a password comes where it is not expected."""
    with site.client(tls=False) as client:
        for line in (f"AUTH PLAIN {plain('ann', OURS)}", plain("ann", OURS), b64(OURS)):
            assert client.command(line).code >= 500
    with site.client() as client:
        login(client, "ann", OURS + "!", 535)
        client.expect("AUTH LOGIN", 334)
        client.expect(b64(OURS), 334)  # where the name belongs
        client.expect(b64("ann"), 535)
        try:
            while client.command(plain("ann", OURS)).code != 421:
                pass
        except Closed:
            pass


def test_nobody_is_told(t):
    """Passwords and private keys are in no log, no file of the spool, no index and no output"""
    smarthosts, dkim = os.path.join(t.folder, "smarthosts"), os.path.join(t.folder, "dkim.pem")
    with open(smarthosts, "w", encoding="ascii") as file:
        file.write(f"127.0.0.1 us {THEIRS}\n")
    os.chmod(smarthosts, 0o600)
    maker = t.daemon(start=False, name="maker")
    maker.tool("dkim-key", "--domain", "a.test", "--selector", "s", dkim)
    site = Site(
        t,
        auth={"users": users_file(t), "pause": "10ms", "failures_max": 1000},
        credentials=smarthosts,
        segment_bytes="1M",  # little to read through
        journal_bytes="1M",
        dkim={'domain "a.test"': {'key "s"': {"file": dkim}}},
    )
    far_port = t.port()
    t.daemon(
        name="far",
        certificate=site.daemon.settings["certificate"],
        auth={"users": os.path.join(t.folder, "users")},  # who knows nobody of that name
        **{f'listener "127.0.0.1:{far_port}"': {"auth": "tls"}},
    )
    route = {"hosts": [f"127.0.0.1:{far_port}"], "auth_user": "us"}
    site.daemon.routes = {"ours.test": {"accept": True}, "far.test": route}
    site.daemon.configure()
    site.daemon.tool("reload", "-c", site.daemon.config_path)
    passwd(os.path.join(t.folder, "users"), "ann", OURS, "-m", "bcrypt")
    daemon = site.daemon
    with site.client() as client:
        login(client, "ann", OURS)
        message = letter(sender="ann@a.test")
        assert client.submit("ann@a.test", ["r@a.test"], message).code == 250
        assert client.submit("ann@a.test", ["r@far.test"], message).code == 250
    try_wrongly(site)
    refused = daemon.wait_log("deferred", recipient="r@far.test")[0]
    assert refused["enhanced"] == "4.7.8", refused  # so the password was sent
    identity = refused["id"]
    config = ("-c", daemon.config_path)
    outputs = {
        "show": daemon.tool("show", *config, identity, "--content"),
        "queue": daemon.tool("queue", *config, "--json"),
        "summary": daemon.tool("queue", *config, "--summary"),
        "check-config": daemon.tool("check-config", daemon.config_path),
        "reload": daemon.tool("reload", *config),
        "check-dkim": daemon.tool("check-dkim", *config, "a.test", status=None),
    }
    texts = {name: done.stdout + done.stderr for name, done in outputs.items()}
    needles = [OURS, THEIRS, b64(OURS), b64(THEIRS), plain("ann", OURS), plain("us", THEIRS)]
    keys = [name for name in os.listdir(t.folder) if name.endswith(".key") and NAME in name]
    needles += [line for name in keys for line in key_lines(os.path.join(t.folder, name))]
    needles += key_lines(dkim)
    with open(os.path.join(t.folder, "users"), encoding="utf-8") as file:
        needles += [line.split(":")[1] for line in file.read().splitlines()]
    assert len(needles) > 6 + len(USERS) and keys, needles
    assert index_of(daemon) and not holders(needles, daemon, texts)
    daemon.stop()
    assert not holders(needles, daemon, texts)
