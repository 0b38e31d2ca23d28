"""Strangers at the door while a run goes on, and members that misbehave: whatever they send, they are shown out, or slowed,
within the time-outs, the server neither grows nor keeps a file descriptor for them, and every round closes.

What grows is measured as resident memory, with two of three clients waiting for the third. Under a sanitizer, which keeps
freed memory, the bound is looser; that the measure sees what it is about is shown by the same attack on a server whose
bounds are out of the way."""
import json
import os
import resource
import socket
import ssl
import struct
import threading
import time
import unittest

import harness
from harness import field, frame, hello, varint

RANDOM = bytes((i * 167 + 13) & 0xFF for i in range(4096))

# What a stranger sends, and whether it then closes its side.
STRANGERS = {
    "nothing, then the end": (b"", True),
    "random bytes": (RANDOM, False),
    "a TLS client hello": (bytes.fromhex("16030100c8010000c40303") + RANDOM[:200], False),
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.2\r\n", True),
    "a giant length": (struct.pack("<IBBHII", 0xFFFFFFFF, 1, 1, 0, 0xFFFFFFFF, 0), False),
    "a length just above the limit": (struct.pack("<IBBHII", 1 << 20, 1, 1, 0, 1 << 20, 0), False),
    "another major version": (hello()[:4] + b"\x09" + hello()[5:], False),
    "a type that does not exist": (frame(31), False),
    "a type that may be skipped, first of all": (frame(31, b"s" * 1000, flags=1) + hello(name=b"later"), False),
    "types that may be skipped, and no end of them": (frame(31, b"s" * 60000, flags=1) * 100, False),
    "a giant length, and a hundred megabytes": (struct.pack("<IBBHII", 100 << 20, 1, 1, 0, 100 << 20, 0) + bytes(100 << 20), False),
    "a HELLO, and a hundred megabytes": (hello(name=b"large") + bytes(100 << 20), False),
    "an offer before HELLO": (frame(10, field(1, 1)), False),
    "a READY before HELLO": (frame(4, field(1, b"L" * 16) + field(2, 10)), False),
    "a HELLO of a client that is connected": (hello(name=b"a"), False),
    "unknown fields, a kilobyte of them": (hello(name=b"../..", more=b"\x98\x06\x00" * 300), False),
    "type zero": (frame(0), False),
    "a message that only the server sends": (frame(2, b"\x08\x01"), False),
    "a chunk before anything else": (frame(7, field(1, 3) + field(2, 1) + field(3, 0), b"x" * 1000), False),
    "a wrong checksum": (frame(1, hello()[16:], crc=1), False),
    "more protobuf than payload": (frame(1, b"\x08\x01", proto_length=99), False),
    "raw bytes where none may be": (frame(1, hello()[16:], b"raw", proto_length=len(hello()) - 16), False),
    "a protobuf cut short": (frame(1, hello()[16:-5]), False),
    "a HELLO without its required fields": (frame(1, b""), False),
    "a name that is none": (hello(name=b"../../etc/passwd"), False),
    "a name with control characters": (hello(name=b"a\x1b[2Jb"), False),
    "a name that is too long": (hello(name=b"n" * 65), False),
    "an instance of the wrong length": (hello(instance=b"short"), False),
    "a role that does not exist": (hello(role=77), False),
    "versions the wrong way round": (hello(minor=(9, 3)), False),
    "versions of the future": (hello(minor=(7, 9)), False),
    "a bomb of unknown fields": (hello(more=b"\x98\x06\x00" * 20000), False),
    "half a frame, then the end": (hello()[:30], True),
    "half a header, then the end": (hello()[:7], True),
    "half a frame, then nothing": (hello()[:30], False),
    "a HELLO, then nothing": (hello(name=b"mute"), False),
    "a HELLO, then a second one": (hello(name=b"twice") + hello(name=b"twice"), False),
    "a HELLO, then an offer out of the blue": (hello(name=b"eager") + frame(10, field(1, 1)), False),
    "a HELLO, then READY with another layout": (
        hello(name=b"other") + frame(4, field(1, b"L" * 16) + field(2, 10)),
        False,
    ),
    "a question for the status with nonsense behind it": (
        hello(name=None, role=3) + frame(17, field(1, 5)) + RANDOM,
        False,
    ),
    "an enormous varint": (frame(1, b"\x08" + b"\xff" * 100), False),
    "deep nesting": (frame(1, field(9, field(9, field(9, varint(1) * 50)))), False),
}


MIB = 1 << 20
GROWTH_MAX = MIB  # of resident memory
GROWTH_MAX_SANITIZED = 160 * MIB  # freed memory is kept in quarantine


def is_sanitized():
    with open(os.path.join(harness.BIN, "starling-server"), "rb") as file:
        return b"__asan_init" in file.read()


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def rss(daemon):
    with open(f"/proc/{daemon.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def cpu_seconds(daemon):
    with open(f"/proc/{daemon.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def half_open(address, count, hosts=1, begin=lambda stream: None):
    """Connections that say nothing, or what `begin` says, from so many addresses of loopback."""
    host, port = address.rsplit(":", 1)
    out = []
    for i in range(count):
        stream = socket.socket()
        stream.settimeout(harness.WAIT_S)
        stream.bind((f"127.0.1.{1 + i % hosts}", 0))  # others than this test's own, which asks for the status
        stream.connect((host, int(port)))
        try:
            begin(stream)
        except OSError:
            pass  # it has been closed
        out.append(stream)
    return out


class Shaker:
    """TLS of a client without a certificate, as far as it goes."""

    def __init__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["starling/1"])
        self.heard, self.says = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.heard, self.says)

    def go_on(self, stream):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        stream.sendall(self.says.read())


def half_a_handshake(stream):
    Shaker().go_on(stream)


def a_handshake_and_silence(stream):
    shaker = Shaker()
    shaker.go_on(stream)
    stream.settimeout(0.05)  # who has to wait for its turn says no more
    shaker.heard.write(stream.recv(65536))
    shaker.go_on(stream)


class Door(harness.Federation):
    """Who measures what comes to a server's door."""

    status_flags = ()

    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def counts(self, server):
        """Asks until it is let in: while all places are taken a newcomer has to wait for idle_timeout / 60."""
        while True:
            done = self.run_to_end("starling", "status", "--server", server.address, "--json", *self.status_flags)
            if done.returncode == 0:
                return json.loads(done.stdout.splitlines()[-1])["strangers"]
            self.assertIn(done.returncode, (69, 75), done.stderr)

    def two_of_three(self, **how):
        """A server, two of the three clients that its run needs, and what it holds now."""
        server = self.server(**{"plan": {"rounds": 3}, **how})
        clients = [self.client(name, server.address) for name in ("a", "b")]
        for name in ("a", "b"):
            server.wait_for("client_joined", name=name)
        self.counts(server)
        return server, clients, descriptors(server), rss(server)

    def check_growth(self, server, before):
        grown = rss(server) - before
        self.assertLess(grown, GROWTH_MAX_SANITIZED if is_sanitized() else GROWTH_MAX)


class Hostile(Door):
    def shown_out(self, address, sends, closes):
        """Sends, and reads until the server closes. The answer."""
        answer = b""
        with harness.connect(address) as stream:
            try:
                stream.sendall(sends)
                if closes:
                    stream.shutdown(socket.SHUT_WR)
                while True:
                    more = stream.recv(65536)
                    if not more:
                        break
                    answer += more
            except (ConnectionResetError, BrokenPipeError):
                pass
        return answer

    def test_strangers_while_a_run_goes_on(self):
        server, clients, files, held = self.two_of_three(idle_timeout="3s")
        for what, (sends, closes) in STRANGERS.items():
            with self.subTest(what):
                self.shown_out(server.address, sends, closes)
                self.assertIsNone(server.process.poll(), "the server is gone")
        self.check_growth(server, held)
        counts = self.counts(server)
        for what in ("silent", "rejected", "broken"):
            self.assertGreater(counts[what], 0, what)
        clients.append(self.client("c", server.address))
        self.check_finished(server, clients, rounds=3, images=24)
        self.assertLessEqual(descriptors(server), files)
        self.assertEqual(server.stop(), 0)

    def test_a_byte_at_a_time(self):
        """The clock for HELLO runs from the accept. A drip that keeps the idle time-out from ever coming does not hold it."""
        server = self.server(idle_timeout="6s")  # HELLO: 1 s
        with harness.connect(server.address) as stream:
            begin = time.monotonic()
            stream.settimeout(0.1)
            said = b""
            for byte in hello() * 10:
                try:
                    stream.send(bytes([byte]))
                    said += stream.recv(4096)
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    pass
                break
            self.assertLess(time.monotonic() - begin, 4)
            self.assertIn(b"no HELLO came", said)

    def test_half_open_connections(self):
        """A thousand from one address and a thousand from a hundred: no memory, no member's place, and the run goes on."""
        server, clients, files, held = self.two_of_three(idle_timeout="3m")
        for hosts in (1, 100):
            crowd = half_open(server.address, 1000, hosts)
            counts = self.counts(server)
            while counts["refused"] < (900 if hosts == 1 else 1700):
                counts = self.counts(server)
            self.assertLessEqual(counts["waiting"], 128)
            self.assertGreaterEqual(counts["refused_address"], 900)
            self.assertLessEqual(descriptors(server) - files, 128 + 16)
            if hosts == 1:
                self.check_growth(server, held)
                for stream in crowd:
                    stream.close()
        self.check_growth(server, held)
        clients.append(self.client("c", server.address))
        self.check_finished(server, clients, rounds=3, images=24)
        for stream in crowd:
            stream.close()
        self.assertLess(server.count("connection_refused"), 2000)
        self.assertGreater(self.counts(server)["lines_suppressed"], 0)

    def test_the_measure_sees_what_it_is_about(self):
        """The same attack, with the bounds out of the way."""
        server, _, files, held = self.two_of_three(idle_timeout="3m", strangers_max=4000, strangers_per_address=4000)
        crowd = half_open(server.address, 1000)
        self.wait_for_status(server, lambda status: status["strangers"]["waiting"] >= 1000)
        self.assertGreater(rss(server) - held, GROWTH_MAX)
        self.assertGreater(descriptors(server) - files, 900)
        for stream in crowd:
            stream.close()

    def test_floods_of_members(self):
        """A million messages by one that was welcomed: it is read as slowly as it deserves, and the run goes on."""
        server, clients, _, held = self.two_of_three(idle_timeout="30s")
        beat = frame(8, field(1, 0) + field(2, 0) + field(3, 0))
        stream = harness.connect(server.address)
        sent = [0]

        def flood():
            block = beat * 1000
            try:
                stream.sendall(hello(name=b"flood"))
                for _ in range(1000):
                    stream.sendall(block)
                    sent[0] += 1000
            except OSError:
                pass

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        server.wait_for("client_slowed", name="flood")
        used = cpu_seconds(server)
        time.sleep(1)  # which it would take to read them all
        self.assertLess(cpu_seconds(server) - used, 0.5)
        self.assertTrue(thread.is_alive(), f"all of {sent[0]} messages were read")
        self.check_growth(server, held)
        clients.append(self.client("c", server.address))
        server.wait_for("done")
        self.assertEqual([row[:2] for row in self.history(server)], [(1, 3), (2, 3), (3, 3)])
        self.assertGreater(self.counts(server)["slowed"], 0)
        stream.shutdown(socket.SHUT_RDWR)
        thread.join(harness.WAIT_S)
        stream.close()

    def test_members_out_of_turn(self):
        """Messages that are well made and mean nothing now: passed over or a fault, never a round disturbed."""
        server, clients, _, held = self.two_of_three(idle_timeout="6s")
        with open(os.path.join(server.state, "models", "round-000000.starling"), "rb") as file:
            layout = file.read(64)[48:64]
        ready = frame(4, field(1, layout) + field(2, 10))
        again = hello(name=b"again")  # which ends the connection
        fetch = lambda number: frame(6, field(1, 1) + field(2, number) + field(3, 0))
        chunk = frame(7, field(1, 3) + field(2, 1) + field(3, 0), b"x" * 65536)
        turns = {
            "a FETCH of rounds that are not": b"".join(fetch(number) for number in (0, 2, 7, 4294967295)) * 20,
            "chunks that nobody granted": chunk * 50,
            "a second READY": ready,
            "BYE, and more": frame(16, field(1, 0)) + fetch(1) * 10,
            "a PROGRESS beyond its end": frame(8, field(1, 1) + field(2, 9) + field(3, 3)),
            "types that may be skipped": frame(31, b"s" * 60000, flags=1) * 200,
        }
        for what, sends in turns.items():
            with self.subTest(what):
                # An observer's READY has no say in the round, so that this server still waits for its third client.
                self.shown_out(server.address, hello(name=b"odd", role=2) + ready + sends + again, False)
                self.assertIsNone(server.process.poll(), "the server is gone")
        self.check_growth(server, held)
        self.assertGreater(self.counts(server)["faults"], 0)
        clients.append(self.client("c", server.address))
        self.check_finished(server, clients, rounds=3, images=24)

    def test_many_at_once_that_say_nothing(self):
        """More than there is room for; they take no member's place, and those who belong here get in within a tenth of the
        minute after which the silent are shown out."""
        server = self.server(plan={"rounds": 2}, idle_timeout="6m", max_clients=8)
        crowd = [harness.connect(server.address) for _ in range(120)]
        clients = [self.client(name, server.address) for name in ("a", "b", "c")]
        self.check_finished(server, clients, rounds=2, images=24)
        for stream in crowd:
            stream.close()

    def cost(self, server, greeting, message, seconds):
        """The server's processor time in so many seconds of a stranger that asks without end and does not read."""
        with harness.connect(server.address) as stream:
            stream.sendall(greeting)
            stream.settimeout(0.1)
            end, before = time.monotonic() + seconds, cpu_seconds(server)
            while time.monotonic() < end:
                try:
                    stream.send(message * 1000)
                except TimeoutError:
                    pass
            return cpu_seconds(server) - before

    def test_questions_cost_no_more_than_heartbeats(self):
        server = self.server(idle_timeout="60s")
        beats = self.cost(server, hello(), frame(8, field(1, 0) + field(2, 0) + field(3, 0)), 2)
        questions = self.cost(server, hello(name=None, role=3), frame(17, field(1, 1)), 2)
        self.assertLess(beats, 1)
        self.assertLess(questions, 1)
        self.assertEqual(self.status(server)["state"], "WAITING")

    def test_foreign_protocols_are_named(self):
        server = self.server()
        answer = self.shown_out(server.address, STRANGERS["an HTTP request"][0], False)
        self.assertTrue(answer.startswith(b"HTTP/1.1 4"), answer[:100])
        answer = self.shown_out(server.address, STRANGERS["versions of the future"][0], False)
        self.assertEqual(answer[5], 3)  # REJECT
        self.assertIn(b"1.7", answer)
        self.assertIn(b"1.1", answer)


class HostileTls(Door):
    """The same port with TLS, whose handshake costs memory: half of one twenty times what silence does. 1,000 connections from
    a hundred addresses, of which the first still wait when the last has come."""

    def setUp(self):
        super().setUp()
        self.ca = self.path("trust")
        self.status_flags = ("--trust", self.ca)
        self.starling_ca("init", self.ca, "--address", "127.0.0.1:7640")

    def starling_ca(self, *args):
        done = self.run_to_end("starling", "ca", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def server(self, **how):
        return super().server(trust=self.ca, **how)

    def client(self, name, address):
        token = self.starling_ca("token", "--trust", self.ca, "--name", name)
        return super().client(name, address, flags=["--join", token])

    def status(self, server):
        done = self.run_to_end("starling", "status", "--server", server.address, "--json", *self.status_flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def check_crowd(self, begin):
        """Whoever belongs here comes in meanwhile."""
        server, clients, files, held = self.two_of_three(idle_timeout="3m")
        crowd = half_open(server.address, 1000, 100, begin)
        self.assertLessEqual(descriptors(server) - files, 128 + 16)
        self.assertLessEqual(self.counts(server)["waiting"], 128)
        self.check_growth(server, held)
        clients.append(self.client("c", server.address))
        server.wait_for("client_joined", name="c")
        self.check_growth(server, held)
        for stream in crowd:
            stream.close()
        self.check_finished(server, clients, rounds=3, images=24)

    def test_silence(self):
        self.check_crowd(lambda stream: None)

    def test_half_handshakes(self):
        self.check_crowd(half_a_handshake)

    def test_handshakes_without_a_certificate(self):
        self.check_crowd(a_handshake_and_silence)

    def test_the_measure_sees_what_it_is_about(self):
        """The same attack, with places for as many handshakes as there can ever be."""
        server, _, _, held = self.two_of_three(idle_timeout="3m", strangers_max=4000, strangers_per_address=4000)
        crowd = half_open(server.address, 1000, 100, half_a_handshake)
        self.wait_for_status(server, lambda status: status["strangers"]["waiting"] >= 900)
        self.assertGreater(rss(server) - held, 2 * GROWTH_MAX)
        for stream in crowd:
            stream.close()


if __name__ == "__main__":
    unittest.main()
