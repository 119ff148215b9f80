"""Clients that keep sending, whatever happens to the daemon, and note what they were promised."""

import threading
import time

from wire import Client, Closed, letter, stuff


class Load:
    """`threads` sessions; recipients are <name><n>-<m>@<domain>, each used once."""

    def __init__(self, daemon, ledger, recipients, threads=4, sizes=(0,), pause=0):
        self.daemon, self.ledger = daemon, ledger
        self.recipients = recipients  # (thread, n) -> list of recipients of that message
        self.sizes, self.pause = sizes, pause
        self.stopping = threading.Event()
        self.replies = {}
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)  # each waits for one reply at most
            assert not thread.is_alive(), "a client of the load hangs"

    def cut(self, error):
        """A connection ended before its time, as it does when daemons are killed."""

    def run(self, part):
        n = 0
        while not self.stopping.is_set():
            try:
                with Client(self.daemon.port, self.daemon.host, timeout=10) as client:
                    client.ehlo()
                    while not self.stopping.is_set():
                        self.one(client, self.recipients(part, n), self.sizes[n % len(self.sizes)])
                        n += 1
                        if self.pause:
                            time.sleep(self.pause)
            except (Closed, OSError, AssertionError) as error:
                self.cut(error)
                n += 1
                time.sleep(0.05)

    def count(self, reply):
        self.replies[reply.code] = self.replies.get(reply.code, 0) + 1
        return reply

    def one(self, client, recipients, size):
        if self.count(client.command("MAIL FROM:<s@sender.test>")).code != 250:
            time.sleep(0.02)
            return
        for recipient in recipients:
            client.expect(f"RCPT TO:<{recipient}>", 250)
        client.expect("DATA", 354)
        message = stuff(letter(recipients[0], size=size)) + b".\r\n"
        self.ledger.doubt(*recipients)  # until the reply tells
        client.send(message)
        reply = self.count(client.reply())
        if reply.code == 250:
            self.ledger.promise(*recipients)
        else:
            self.ledger.withdraw(*recipients)
