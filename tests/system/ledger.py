"""What was promised, and what became of it: every 250 ends delivered, bounced or queued."""

import re
import threading
from collections import Counter


class Ledger:
    """Recipients are its keys, so a test gives every message recipients of its own."""

    def __init__(self):
        self.lock = threading.Lock()
        self.promised = set()  # got their 250 after the data
        self.open = set()  # sent whole, the reply never came: either is right

    def promise(self, *recipients):
        """Their 250 is here. It counts also where a disk lost its power before it came, and the
        machine did not: the flush, which it waited for, was before that."""
        with self.lock:
            self.promised.update(recipients)

    def doubt(self, *recipients):
        with self.lock:
            self.open.update(recipients)

    def withdraw(self, *recipients):
        """Refused: no promise, and no copy may arrive."""
        with self.lock:
            self.open.difference_update(recipients)

    def check(self, daemon, peers, duplicates=(), reports=None):
        """Asserts that the sums are right. `duplicates`: recipients that may have arrived more
        than once, or arrived and be queued still; `reports`: the peer that got the bounces
        (the log's last lines die with a killed daemon). Returns (delivered, bounced, queued)."""
        delivered = Counter(address for peer in peers for address in peer.recipients())
        bounced = {
            entry["recipient"] for entry in daemon.log() if entry["event"] in ("bounced", "expired")
        }
        for message in reports.accepted if reports else ():
            found = re.findall(rb"^Final-Recipient: *rfc822; *(\S+)\r$", message.body, re.M | re.I)
            bounced.update(address.decode() for address in found)
        queued = Counter(daemon.queued())
        duplicates = set(duplicates)
        problems = []
        for recipient in self.promised | self.open:
            places = (delivered[recipient] > 0) + (recipient in bounced) + (queued[recipient] > 0)
            if places == 0 and recipient in self.promised:
                problems.append(f"{recipient}: lost")
            if places > 1 and recipient not in duplicates:
                problems.append(
                    f"{recipient}: delivered {delivered[recipient]}, bounced {recipient in bounced},"
                    f" queued {queued[recipient]}"
                )
            if delivered[recipient] > 1 and recipient not in duplicates:
                problems.append(f"{recipient}: delivered {delivered[recipient]} times")
            if queued[recipient] > 1:
                problems.append(f"{recipient}: queued {queued[recipient]} times")
        for recipient in set(delivered) - self.promised - self.open:
            problems.append(f"{recipient}: delivered, though never promised")
        assert not problems, f"{len(problems)} wrong entries:\n" + "\n".join(sorted(problems)[:20])
        return len(delivered), len(bounced), len(queued)
