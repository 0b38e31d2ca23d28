"""What the integration tests share: real daemons on loopback whose logs are awaited, tiny image folders, and readers of
what the server leaves on disk.

A test never sleeps to let something happen: it waits for an event of a daemon's log (--log-format json), and every wait
has a limit, after which the test fails and prints the logs. Standard library only.
"""
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib

from proxy import Proxy

BIN = os.environ.get("STARLING_BIN", "build/release/bin")
THREADS = os.environ.get("STARLING_THREADS", "1")  # of each client
WAIT_S = 120.0  # far above what anything takes, also under a sanitizer on a machine that is busy with other things

TINY_PLAN = {
    "rounds": 4,
    "min_clients": 3,
    "round_deadline": "5m",
    "local_steps": 1,
    "batch": 8,
    "bn_groups": 2,
    "queue": 64,
    "model.blocks": "1,1",
    "model.width": 8,
    "model.input": 16,
    "model.features": 16,
    "fusion.remote": 32,
    "fusion.upload": 16,
    "matching.start_round": 2,
    "matching.ramp_rounds": 2,
    "matching.neighbours": 3,
}


def write_png(path, side, pixels):
    """pixels: side * side * 3 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[y * side * 3 : (y + 1) * side * 3] for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def make_images(folder, count, seed, side=16):
    os.makedirs(folder)
    draw = random.Random(seed)
    for i in range(count):
        write_png(os.path.join(folder, f"{i:03}.png"), side, draw.randbytes(side * side * 3))


def model_floats(path):
    """The floats of a model file, as bytes; the byte table stands in common/vec/modelfile.c."""
    with open(path, "rb") as file:
        data = file.read()
    (head,) = struct.unpack_from("<I", data, 12)
    (total,) = struct.unpack_from("<Q", data, 112)
    assert data[:8] == b"STARLNGM" and len(data) == head + 4 * total + 16, path
    return data[head : head + 4 * total]


_LIBC = ctypes.CDLL(None)


def _die_with_parent():
    """A test that is killed (its limit of time) leaves no daemons behind."""
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Daemon:
    """A process whose standard error is a log of JSON objects, one a line."""

    def __init__(self, label, args):
        self.label = label
        self.args = args
        self.lines = []  # raw
        self.events = []  # parsed, in order
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_die_with_parent,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            with self.changed:
                self.lines.append(text)
                try:
                    self.events.append(json.loads(text))
                except ValueError:
                    pass
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(end of log)")
            self.changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    def _find(self, event, after, fields):
        """The place after the first such event from `after` on, or None: the log ended before there was one."""
        wanted = {key: str(value) for key, value in fields.items()}
        deadline = time.monotonic() + WAIT_S
        with self.changed:
            at = after
            while True:
                while at < len(self.events):
                    got = self.events[at]
                    at += 1
                    if got.get("event") == event and all(got.get(k) == v for k, v in wanted.items()):
                        return at
                if self.lines and self.lines[-1] == "(end of log)":
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"{self.label} said nothing of it for long while waiting for {event} {wanted}")
                self.changed.wait(left)

    def wait_for(self, event, after=0, **fields):
        """The place after the first event with this name and these fields (as texts) from `after` on."""
        at = self._find(event, after, fields)
        if at is None:
            raise AssertionError(f"{self.label} ended while waiting for {event} {fields}")
        return at

    def reached(self, event, **fields):
        """Waits for an event of a daemon that may die before: whether it came."""
        return self._find(event, 0, fields) is not None

    def count(self, event, **fields):
        wanted = {key: str(value) for key, value in fields.items()}
        with self.changed:
            return sum(
                1 for got in self.events if got.get("event") == event and all(got.get(k) == v for k, v in wanted.items())
            )

    def signal(self, number):
        os.kill(self.pid, number)

    def kill9(self):
        self.signal(signal.SIGKILL)
        self.process.wait(WAIT_S)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self):
        code = self.process.wait(WAIT_S)
        self.reader.join(WAIT_S)
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(WAIT_S)
        self.process.stderr.close()


class Federation(unittest.TestCase):
    """A folder for each test, daemons that end with it, and their logs on standard error when it fails."""

    reproducible = False  # True: clients without a secret, so that runs in other folders have the same bits

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="starling-it-")
        self.addCleanup(shutil.rmtree, self.folder)  # after tearDown, and after what a test adds (umount)
        self.daemons = []

    def tearDown(self):
        for daemon in self.daemons:
            daemon.end()
        result = self._outcome.result
        failed = any(test is self for test, _ in result.failures + result.errors)
        if failed:
            for daemon in self.daemons:
                print(f"---- {daemon.label}: {' '.join(daemon.args)}", file=sys.stderr)
                for line in daemon.lines[-60:]:
                    print(line, file=sys.stderr)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def images(self, name, count=24):
        folder = self.path("images-" + name)
        if not os.path.isdir(folder):
            make_images(folder, count, seed=name)
        return folder

    def server(self, **how):
        """Starts a server and waits until it listens; its address is .address."""
        daemon = self.start_server(**how)
        at = daemon.wait_for("listening")
        daemon.address = daemon.events[at - 1]["address"]
        return daemon

    def start_server(self, listen="127.0.0.1:0", state="server", plan=None, flags=(), under=(), **options):
        """under: the words of a command that runs it."""
        values = dict(TINY_PLAN)
        values.update(plan or {})
        args = [*under, os.path.join(BIN, "starling-server"), "--listen", listen, "--state", self.path(state)]
        args += ["--log-format", "json", *flags]
        for key, value in {"idle_timeout": "5s", **options}.items():
            args += ["--set", f"{key.replace('__', '.')}={value}"]
        for key, value in values.items():
            args += ["--set", f"plan.{key}={value}"]
        daemon = Daemon(f"server({state})", args)
        self.daemons.append(daemon)
        daemon.state = self.path(state)
        return daemon

    def client(self, name, address, images=None, state=None, flags=(), under=()):
        args = [*under, os.path.join(BIN, "starling-client"), "--server", address, "--name", name, "--threads", THREADS]
        args += ["--images", images or self.images(name), "--state", self.path(state or "client-" + name)]
        args += ["--reproducible"] * self.reproducible
        # Kernels that each client measures for itself may differ, on a busy machine above all, and with them the bits.
        args += ["--set", "compute.kernels=" + self.path("kernels"), "--log-format", "json", *flags]
        daemon = Daemon(f"client({name})", args)
        self.daemons.append(daemon)
        return daemon

    def starling(self, *args):
        """A running `starling` whose output, both streams, is to be read from its stdout as text."""
        process = subprocess.Popen(
            [os.path.join(BIN, "starling"), *args],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()

        self.addCleanup(end)
        return process

    def run_to_end(self, program, *args):
        """A program that is expected to end by itself."""
        return subprocess.run(
            [os.path.join(BIN, program), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
        )

    def status(self, server):
        done = self.run_to_end("starling", "status", "--server", server.address, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def wait_for_status(self, server, holds):
        """For what no event tells. Each look is a process, so that looking again takes its time by itself."""
        deadline = time.monotonic() + WAIT_S
        while not holds(self.status(server)):
            self.assertLess(time.monotonic(), deadline, "the status never said so")

    def history(self, server):
        """Rows (round, accepted, images), in order."""
        base = sqlite3.connect(f"file:{server.state}/history.db?mode=ro", uri=True)
        try:
            return base.execute("SELECT round, accepted, images FROM round ORDER BY rowid").fetchall()
        finally:
            base.close()

    def model(self, server, round):
        return model_floats(os.path.join(server.state, "models", f"round-{round:06}.starling"))

    def proxy(self, server, **how):
        proxy = Proxy(server.address, **how)
        self.addCleanup(proxy.close)
        return proxy

    def undisturbed(self, plan, rounds, names):
        """The final model of a run to which nothing happens."""
        server = self.server(state="undisturbed", plan=plan)
        clients = [self.client(name, server.address, state="undisturbed-" + name) for name in names]
        self.check_finished(server, clients, rounds, images=24)
        self.assertEqual(server.stop(), 0)
        return self.model(server, rounds)

    def check_finished(self, server, clients, rounds, images):
        """The run is done, every client ended with 0, every round stands once with all clients counted once."""
        server.wait_for("done")
        for client in clients:
            self.assertEqual(client.exit_code(), 0, client.label)
        got = self.history(server)
        self.assertEqual(got, [(r, len(clients), images * len(clients)) for r in range(1, rounds + 1)])
        self.assertEqual(self.status(server)["state"], "DONE")


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


_CRC_TABLE = []


def crc32c(data, crc=0):
    if not _CRC_TABLE:
        for n in range(256):
            for _ in range(8):
                n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
            _CRC_TABLE.append(n)
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frame(kind, proto=b"", raw=b"", version=1, flags=0, length=None, proto_length=None, crc=None):
    """A frame as proto/PROTOCOL.md has it; each field can be made wrong."""
    payload = proto + raw
    head = struct.pack(
        "<IBBHI",
        len(payload) if length is None else length,
        version,
        kind,
        flags,
        len(proto) if proto_length is None else proto_length,
    )
    if crc is None:
        crc = crc32c(head + payload)
    return head + struct.pack("<I", crc) + payload


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def hello(name=b"stranger", role=1, major=1, minor=(1, 1), instance=b"i" * 16, more=b""):
    proto = field(1, major) + field(2, minor[0]) + field(3, minor[1]) + field(4, 0) + field(5, role)
    proto += (field(6, name) if name is not None else b"") + field(7, instance)
    return frame(1, proto + more)
