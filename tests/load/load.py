#!/usr/bin/python3
"""The coordinator under load: real `starling-server` processes, and `starling swarm` as their clients.

  tests/load/load.py [ROW ...] [--build build/release] [--out tests/load/results] [--memory /dev/shm] [--disk DIR]
  tests/load/load.py --quick --out DIR

Rows: wire tls null-2 null-16 null-256 memory idle tls-idle flood thousand strangers soak aggregate curves. README.md
says what they measure. Without names the rows that OUT/results.json does not hold yet are measured; those that are named
are measured again. Writes
OUT/results.json, OUT/table.md and OUT/curves.svg after each row, and, where OUT is the default, the table of README.md.

A figure counts only if the swarm has compared every model with what it must be. Run it alone: what else the machine
does is measured too. --quick takes small sizes, to see that all of it works; its figures mean nothing.
"""
import argparse
import ctypes
import json
import math
import os
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RESULTS = os.path.join(HERE, "results")
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import field, frame, hello  # noqa: E402
LIMIT_S = 900  # of one swarm
KIB, MB = 1024, 1e6

RESNET18 = {"model.blocks": "2,2,2,2", "round_deadline": "10m"}
TINY = {  # the least that a plan allows: 2 kB
    "model.blocks": "1", "model.width": 4, "model.input": 16, "model.features": 8, "batch": 8, "bn_groups": 2,
    "queue": 64, "fusion.remote": 32, "fusion.upload": 16, "matching.neighbours": 3, "round_deadline": "10m",
}  # fmt: skip
SMALL_BANK = {"bank.capacity": 1024}  # full soon, so that rounds and checkpoints are all alike
FORTY_SIX_MB = {**RESNET18, "model.width": 64}
THREE_MB = {**RESNET18, "model.width": 16}


def few_features(width):
    """A ResNet-18 with as few features as TINY, so that curves show the model alone."""
    return {**TINY, "model.blocks": "2,2,2,2", "model.width": width}


FULL = {
    "wire": {"plan": FORTY_SIX_MB, "clients": 5, "rounds": 5, "turns": 5},
    "tls": {"plan": FORTY_SIX_MB, "clients": 5, "rounds": 5, "turns": 5},
    "null-2": {"clients": 2, "rounds": 200, "block": 10, "most_ms": 2, "saves": 100},
    "null-16": {"clients": 16, "rounds": 200, "block": 10, "most_ms": 5, "saves": 100},
    "null-256": {"clients": 256, "rounds": 50, "block": 5, "most_ms": 50, "saves": 50},
    "memory": {"plan": FORTY_SIX_MB, "clients": [5, 50, 500], "rounds": 1},
    "idle": {"clients": 10000, "seconds": 60, "idle_timeout": "60s"},
    "tls-idle": {"clients": 10000, "seconds": 60, "idle_timeout": "60s"},
    "flood": {"plan": THREE_MB, "clients": 5, "rounds": 30, "turns": 3, "floods": 2},
    "thousand": {"plan": THREE_MB, "clients": 1000, "rounds": 20},
    "strangers": {"plan": THREE_MB, "clients": 20, "rounds": 40, "turns": 3, "half_open": 1000, "a_second": 200},
    "soak": {"clients": 3, "rounds": 2000, "after": 200},
    "aggregate": {"times": 5, "flags": []},
    "curves": {
        "clients": [5, 10, 20, 50, 100, 200, 500, 1000],
        "models": {"2 kB": TINY, "2.8 MB": few_features(16)},
        "sizes": [TINY, {**TINY, "model.width": 16}] + [few_features(w) for w in (4, 8, 16, 32, 64, 96, 134)],
        "size_clients": 5,
        "rounds": 4,
    },
}
QUICK = {
    "wire": {"plan": TINY, "clients": 2, "rounds": 3, "turns": 2},
    "tls": {"plan": TINY, "clients": 2, "rounds": 3, "turns": 2},
    "null-2": {"clients": 2, "rounds": 6, "block": 2, "most_ms": 2, "saves": 2},
    "null-16": {"clients": 4, "rounds": 4, "block": 2, "most_ms": 5, "saves": 2},
    "null-256": {"clients": 8, "rounds": 4, "block": 2, "most_ms": 50, "saves": 2},
    "memory": {"plan": TINY, "clients": [2, 4, 8], "rounds": 1},
    "idle": {"clients": 50, "seconds": 1, "idle_timeout": "3s"},
    "tls-idle": {"clients": 50, "seconds": 1, "idle_timeout": "30s"},  # a sixth and a sixtieth of it bound a handshake
    "flood": {"plan": TINY, "clients": 2, "rounds": 20, "turns": 1, "floods": 1},
    "thousand": {"plan": TINY, "clients": 20, "rounds": 3},
    "strangers": {"plan": TINY, "clients": 4, "rounds": 20, "turns": 2, "half_open": 100, "a_second": 50},
    "soak": {"clients": 3, "rounds": 30, "after": 10},
    "aggregate": {"times": 1, "flags": ["--width", "8", "--seconds", "1"]},
    "curves": {
        "clients": [2, 4],
        "models": {"2 kB": TINY, "5 kB": {**TINY, "model.width": 8}},
        "sizes": [TINY, {**TINY, "model.width": 8}],
        "size_clients": 2,
        "rounds": 2,
    },
}


# ---- Processes ----

LIBC = ctypes.CDLL(None)


def start(command, **how):
    """A process that does not outlive this one, however this one ends."""
    die_with_parent = lambda: LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **how)


def run(command):
    """Its end, with both streams as text."""
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def run_json(command):
    code, out, err = run(command)
    if code != 0:
        sys.exit(f"{' '.join(command)}: exit status {code}: {err}")
    return json.loads(out.splitlines()[-1])


def read_proc(pid, key):
    """A line of /proc/PID/status, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * KIB
    sys.exit(f"/proc/{pid}/status has no {key}")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def socket_bytes():
    """What the kernel holds in the buffers of all TCP sockets of the machine."""
    with open("/proc/net/sockstat") as file:
        for line in file:
            if line.startswith("TCP:"):
                words = line.split()
                return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Server:
    """A server of its own for one measurement, with a log of JSON lines in a file in memory, which costs it least."""

    def __init__(self, load, parent, plan, clients, rounds, options=(), sample=False, tls=False):
        self.folders = [tempfile.mkdtemp(prefix="starling-load-", dir=folder) for folder in (parent, load.memory)]
        self.state = os.path.join(self.folders[0], "state")
        self.log = os.path.join(self.folders[1], "log")
        self.samples = []  # (round, resident bytes, the most ever), as rounds become durable
        plan = {**plan, "rounds": rounds, "min_clients": clients}
        options = {"max_clients": 16384, **dict(options)}
        self.trust = []  # flags of the swarm
        if tls:
            folder = os.path.join(self.folders[1], "trust")
            code, _, err = run([load.program("starling"), "ca", "init", folder, "--address", "127.0.0.1:7640"])
            if code != 0:
                sys.exit(f"starling ca init: exit status {code}: {err}")
            self.trust, options["trust"] = ["--trust", folder], folder
        command = [load.program("starling-server"), "--listen", "127.0.0.1:0", "--state", self.state]
        command += ["--log-format", "json"]
        for key, value in options.items():
            command += ["--set", f"{key}={value}"]
        for key, value in plan.items():
            command += ["--set", f"plan.{key}={value}"]
        with open(self.log, "wb") as log:
            self.process = start(command, stdout=subprocess.DEVNULL, stderr=log)
        self.pid = self.process.pid
        self.address = None
        while not self.address:
            self.address = next((e["address"] for e in self.events() if e["event"] == "listening"), None)
            if self.process.poll() is not None:
                self.fail("the server did not start")
            time.sleep(0.01)
        self.over = threading.Event()
        self.sampler = threading.Thread(target=self.follow, daemon=True)
        if sample:
            self.sampler.start()

    def follow(self):
        """The log's end tells which round became durable; a few may pass between two looks."""
        with open(self.log, "rb") as log:
            over = False
            while not over:
                over = self.over.wait(0.003)
                lines = [line for line in log.readlines() if b'"event":"round_durable"' in line and line.endswith(b"\n")]
                if lines:
                    number = int(json.loads(lines[-1])["round"])
                    self.samples.append((number, read_proc(self.pid, "VmRSS"), read_proc(self.pid, "VmHWM")))

    def events(self):
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("}\n")]

    def fail(self, why):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            sys.stderr.writelines(file.readlines()[-20:])
        self.close()
        sys.exit(why)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def stop_sampling(self):
        self.over.set()
        if self.sampler.is_alive():
            self.sampler.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_sampling()
        self.close()


def swarm(load, server, clients, rounds):
    """Runs all rounds. Every contribution counts and every model is compared, or there is no figure."""
    command = [load.program("starling"), "swarm", "--server", server.address, "--clients", str(clients), "--json"]
    code, out, err = run(command + server.trust)
    if code != 0:
        server.fail(f"the swarm ended with {code}: {err}")
    got = json.loads(out.splitlines()[-1])
    exact = got["models_compared"] == rounds + 1 and len(got["rounds"]) == rounds
    if not exact or any(r["accepted"] != clients or r["declined"] for r in got["rounds"]):
        server.fail(f"{clients} clients, {rounds} rounds: not every contribution was counted, or not every model compared")
    return got


def whole_run(load, parent, plan, clients, rounds, options=(), sample=False, tls=False):
    """What the swarm says, what the server logged, and the server's memory at the end."""
    with Server(load, parent, plan, clients, rounds, options, sample, tls) as server:
        got = swarm(load, server, clients, rounds)
        server.stop_sampling()
        got["hwm"] = read_proc(server.pid, "VmHWM")
        got["samples"] = server.samples
        got["times"] = round_times(server.events())
        got["files"] = saved_files(server.state)
    return got


def round_times(events):
    """For each round the seconds at which it opened, was closed, became durable, and what the server says of it."""
    rounds = {}
    for event in events:
        if event["event"] in ("round_opened", "round_closed", "round_durable"):
            at = datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()
            rounds.setdefault(int(event["round"]), {})[event["event"][6:]] = at
            if event["event"] == "round_durable":
                rounds[int(event["round"])]["figures"] = event
    return [rounds[number] for number in sorted(rounds)]


def saved_files(state):
    """The bytes of the newest model and of the newest checkpoint."""
    models = os.path.join(state, "models")
    newest = lambda folder, begin: max(n for n in os.listdir(folder) if n.startswith(begin) and not n.endswith(".tmp"))
    return [os.path.getsize(os.path.join(models, newest(models, "round-"))),
            os.path.getsize(os.path.join(state, newest(state, "checkpoint-")))]  # fmt: skip


def whole_rounds(times, block):
    """Seconds from one ROUND to the next, as medians of blocks: the log's clock has milliseconds."""
    at = [t["opened"] for t in times] + [times[-1]["durable"]]
    return statistics.median((at[i + block] - at[i]) / block for i in range(0, len(at) - block, block))


def slope(points):
    """Of the line of least squares."""
    mean_x, mean_y = (statistics.fmean(p[i] for p in points) for i in (0, 1))
    over = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / over if over else 0.0


# ---- Rows. Each returns checks (what, value, unit, limit, "most" or "least") and figures. ----


def check(what, value, unit, limit, sense="most"):
    ok = value <= limit if sense == "most" else value >= limit
    return {"what": what, "value": value, "unit": unit, "required": limit, "sense": sense, "ok": bool(ok)}


def measure_wire(load, size):
    ours, peers, ratios, saves = [], [], [], []
    for _ in range(size["turns"]):
        got = whole_run(load, load.memory, size["plan"], size["clients"], size["rounds"])
        last = got["rounds"][-1]
        down, up = last["bytes_down"] // size["clients"], last["bytes_up"] // size["clients"]
        ours.append(statistics.median(r["seconds"] for r in got["rounds"][1:]))  # the first has no features of others
        saves.append(statistics.median(t["durable"] - t["closed"] for t in got["times"][1:]))
        command = [load.peer, *(str(n) for n in (size["clients"], down, up, size["rounds"]))]
        peers.append(statistics.median(run_json(command)["seconds"][1:]))
        ratios.append(ours[-1] / peers[-1])
    figures = {"seconds": ours, "peer_seconds": peers, "ratios": ratios, "bytes_down": down, "bytes_up": up,
               "model_bytes": got["model_bytes"], "after_last_accepted_seconds": saves}  # fmt: skip
    note = (f"{size['clients']} x {got['model_bytes'] / MB:.1f} MB: {statistics.median(ours):.3f} s, peer "
            f"{statistics.median(peers):.3f} s, ratios {min(ratios):.2f} to {max(ratios):.2f}; then "
            f"{statistics.median(saves):.3f} s of aggregation and checkpoint")  # fmt: skip
    return [check("a round's bytes over the bare peer's", statistics.median(ratios), "x", 2.5)], figures, note


def measure_tls(load, size):
    seconds = {False: [], True: []}
    for _ in range(size["turns"]):
        for tls in (False, True):
            got = whole_run(load, load.memory, size["plan"], size["clients"], size["rounds"], tls=tls)
            seconds[tls].append(statistics.median(r["seconds"] for r in got["rounds"][1:]))
    ratios = [b / a for a, b in zip(seconds[False], seconds[True])]
    figures = {"plain_seconds": seconds[False], "tls_seconds": seconds[True], "ratios": ratios}
    note = (f"{size['clients']} x {got['model_bytes'] / MB:.1f} MB: {statistics.median(seconds[True]):.3f} s, plain "
            f"{statistics.median(seconds[False]):.3f} s, ratios {min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip
    return [check("a round with TLS over a plain one", statistics.median(ratios), "x", 2)], figures, note


FLOOD = """
import os, signal, socket, ssl, sys
host, port = sys.argv[1].rsplit(":", 1)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["starling/1"])
done = refused = 0
def end(*_):
    os.write(1, f"{done} {refused}".encode())
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("begins", flush=True)
while True:
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)))):
            done += 1
    except OSError:
        refused += 1
"""


def flood_of(address, count):
    """Processes that shake hands without a certificate, and leave, as fast as they can."""
    attackers = [start([sys.executable, "-c", FLOOD, address], stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for attacker in attackers:
        attacker.stdout.readline()
    return attackers


def end_flood(attackers):
    """Handshakes that were done, and connections that were refused or broken."""
    for attacker in attackers:
        attacker.send_signal(signal.SIGTERM)
    counts = [[int(n) for n in attacker.communicate(timeout=60)[0].split()] for attacker in attackers]
    return [sum(count[i] for count in counts) for i in (0, 1)]


def measure_flood(load, size):
    """Rounds with and without a flood of handshakes, in turns: rounds of the same server, some before, some under it."""
    quiet, flooded, rates, refused = [], [], [], []
    for _ in range(size["turns"]):
        for floods in (0, size["floods"]):
            with Server(load, load.memory, size["plan"], size["clients"], size["rounds"], tls=True) as server:
                attackers, begin = flood_of(server.address, floods), time.monotonic()
                got = swarm(load, server, size["clients"], size["rounds"])
                done, failed = end_flood(attackers)
                rates.append(done / (time.monotonic() - begin))
                refused.append(failed)
            (flooded if floods else quiet).append(statistics.median(r["seconds"] for r in got["rounds"][1:]))
    ratios = [b / a for a, b in zip(quiet, flooded)]
    figures = {"quiet_seconds": quiet, "flooded_seconds": flooded, "ratios": ratios,
               "handshakes_per_second": rates[1::2], "refused": refused[1::2]}  # fmt: skip
    note = (f"{size['clients']} x {got['model_bytes'] / MB:.1f} MB while {size['floods']} processes on the same machine "
            f"shake hands without end: {statistics.median(flooded):.3f} s a round, quiet {statistics.median(quiet):.3f} s; "
            f"{statistics.median(rates[1::2]):.0f} handshakes a second were taken")  # fmt: skip
    closed = check("rounds that closed under the flood, the model exact", len(got["rounds"]), "", size["rounds"], "least")
    return [closed], figures, note


def durable_save(folder, sizes, count):
    """Seconds for each of `count` saves as server/store does them: model, then checkpoint, then the old ones go."""
    models = os.path.join(folder, "models")
    os.makedirs(models)
    data = [os.urandom(size) for size in sizes]
    seconds = []
    for number in range(count):
        begin = time.perf_counter()
        for place, content in zip((models, folder), data):
            path = os.path.join(place, f"file-{number}")
            file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(file, content)
            os.fsync(file)
            os.close(file)
            os.rename(path + ".tmp", path)
            place = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(place)
            os.close(place)
        for place in (models, folder):
            if number > 1:
                os.unlink(os.path.join(place, f"file-{number - 2}"))
        seconds.append(time.perf_counter() - begin)
    shutil.rmtree(folder)
    return seconds


def file_system(folder):
    """The type of the file system that a folder lies on."""
    folder, found = os.path.realpath(folder), ("", "unknown")
    with open("/proc/mounts", encoding="utf-8") as file:
        for place, kind in (line.split()[1:3] for line in file):
            if os.path.commonpath([place, folder]) == place and len(place) >= len(found[0]):
                found = (place, kind)  # the innermost, and of several on one place the last
    return found[1]


def measure_null(load, size):
    clients, rounds, most_ms = size["clients"], size["rounds"], size["most_ms"]
    fast = whole_run(load, load.memory, TINY, clients, rounds, SMALL_BANK)
    with tempfile.TemporaryDirectory(prefix="starling-load-", dir=load.disk) as folder:
        saves = durable_save(os.path.join(folder, "before"), fast["files"], size["saves"])
        slow = whole_run(load, load.disk, TINY, clients, rounds, SMALL_BANK)
        saves += durable_save(os.path.join(folder, "after"), fast["files"], size["saves"])
    in_memory, on_disk = (1000 * whole_rounds(got["times"], size["block"]) for got in (fast, slow))
    save = 1000 * statistics.median(saves)
    figures = {"clients": clients, "rounds": rounds, "disk": file_system(load.disk), "memory_ms": in_memory,
               "disk_ms": on_disk, "save_ms": save, "saves_ms_range": [1000 * min(saves), 1000 * max(saves)],
               "exchange_ms": 1000 * fast["seconds_median"], "file_bytes": fast["files"],
               "model_bytes": fast["model_bytes"]}  # fmt: skip
    note = (f"{clients} clients, {rounds} rounds of a {fast['model_bytes']:,} byte model; from ROUND to the last ACCEPTED "
            f"{1000 * fast['seconds_median']:.2f} ms; a durable save on {figures['disk']} {save:.2f} ms")  # fmt: skip
    return [check("a round, state in memory", in_memory, "ms", most_ms),
            check(f"a round, state on disk; {most_ms} ms and 1.5 saves", on_disk, "ms", most_ms + 1.5 * save)], figures, note


def measure_memory(load, size):
    hwm = []
    for clients in size["clients"]:
        got = whole_run(load, load.memory, size["plan"], clients, size["rounds"], {"upload_slots": 2})
        hwm.append(got["hwm"])
    per_client = slope(list(zip(size["clients"], hwm))) / KIB
    figures = {"clients": size["clients"], "hwm_bytes": hwm, "model_bytes": got["model_bytes"]}
    note = (f"models of {got['model_bytes'] / MB:.1f} MB, two slots; VmHWM "
            + ", ".join(f"{h / MB:.0f} MB with {n}" for n, h in zip(size["clients"], hwm)))  # fmt: skip
    return [check("server memory for a further client", per_client, "KiB", 64)], figures, note


def measure_idle(load, size, tls=False):
    clients, seconds = size["clients"], size["seconds"]
    options = {"max_clients": clients, "idle_timeout": size["idle_timeout"]}
    with Server(load, load.memory, TINY, 2, 1, options, tls=tls) as server:
        before, sockets = read_proc(server.pid, "VmRSS"), socket_bytes()
        command = [load.program("starling"), "swarm", "--server", server.address, "--clients", str(clients)]
        command += ["--idle", str(seconds + 4), *server.trust]
        begin = time.monotonic()
        process = start(command, stdout=subprocess.PIPE, text=True)
        welcomed = next((line for line in process.stdout if "they answer heartbeats" in line), None)
        if not welcomed:
            server.fail("the swarm was not welcomed")
        welcome_s, cpu = time.monotonic() - begin, cpu_seconds(server.pid)
        time.sleep(seconds)
        cpu = cpu_seconds(server.pid) - cpu
        rss, sockets = read_proc(server.pid, "VmRSS") - before, max(0, socket_bytes() - sockets)
        rest = process.communicate(timeout=LIMIT_S)[0]
        if process.returncode != 0:
            server.fail(f"the swarm ended with {process.returncode}")
        left = sum(e["event"] == "client_left" for e in server.events())
        if left != clients:
            server.fail(f"{left} of {clients} clients were there to the end")
    beats = int(next(line for line in rest.splitlines() if "heartbeats of the server came" in line).split()[0].replace(",", ""))
    figures = {"clients": clients, "seconds": seconds, "rss_bytes": rss, "rss_before_bytes": before, "cpu_seconds": cpu,
               "kernel_socket_bytes": sockets, "welcome_seconds": welcome_s, "heartbeats": beats}  # fmt: skip
    note = (f"{clients:,} connections, welcomed in {welcome_s:.1f} s, {beats:,} heartbeats of the server answered; "
            f"{cpu:.2f} s of processor time in {seconds} s; both ends' kernel buffers {sockets / clients / KIB:.1f} KiB each")  # fmt: skip
    return [check("server memory for an idle connection", rss / clients / KIB, "KiB", 64 if tls else 32),
            check("of one core", 100 * cpu / seconds, "%", 2)], figures, note  # fmt: skip


def measure_tls_idle(load, size):
    return measure_idle(load, size, tls=True)


def measure_thousand(load, size):
    clients, rounds = size["clients"], size["rounds"]
    got = whole_run(load, load.memory, size["plan"], clients, rounds, sample=True)
    # The most that it ever held: how much it holds just now depends on how far the next round is when it is looked at.
    # It settles in the first rounds, as the allocator's pieces find their places; what grows after that would go on.
    growth = (got["hwm"] - next(hwm for number, _, hwm in got["samples"] if number >= rounds // 2)) / KIB
    parts = {"exchange": [t["closed"] - t["opened"] for t in got["times"]],
             "aggregation": [float(t["figures"]["aggregation_seconds"]) for t in got["times"]],
             "checkpoint": [float(t["figures"]["save_seconds"]) for t in got["times"]]}  # fmt: skip
    middle = {part: statistics.median(values) for part, values in parts.items()}
    last = got["rounds"][-1]
    figures = {"clients": clients, "rounds": rounds, "model_bytes": got["model_bytes"], "rss_and_hwm_bytes": got["samples"],
               "hwm_bytes": got["hwm"], "bytes_down": last["bytes_down"], "bytes_up": last["bytes_up"], **parts}  # fmt: skip
    note = (f"{clients:,} x {got['model_bytes'] / MB:.1f} MB; a round: exchange {middle['exchange']:.2f} s "
            f"({last['bytes_down'] / MB:,.0f} MB down, {last['bytes_up'] / MB:,.0f} MB up), aggregation "
            f"{middle['aggregation']:.3f} s, checkpoint {middle['checkpoint']:.3f} s; VmHWM {got['hwm'] / MB:.0f} MB")  # fmt: skip
    return [check("rounds closed with everybody, the model exact", len(got["rounds"]), "", rounds, "least"),
            check(f"server memory, most ever less most until round {rounds // 2}", growth, "KiB", 512)], figures, note


class Attack:
    """What strangers do to a server, from a hundred loopback addresses, until it is ended: connections that say nothing,
    opened again when they are closed; first messages of every bad kind; and one that is welcomed and never stops talking."""

    FIRST = [b"GET / HTTP/1.1\r\n\r\n", bytes.fromhex("16030100c8010000c40303"), bytes(64),
             struct.pack("<IBBHII", 100 << 20, 1, 1, 0, 100 << 20, 0) + bytes(1 << 20), frame(31, b"s" * 1000, flags=1),
             frame(10, field(1, 1)), frame(1, hello()[16:], crc=1), hello(name=b"a\x1bb"), hello(minor=(7, 9)), hello()[:30]]  # fmt: skip

    def __init__(self, address, half_open, a_second):
        host, port = address.rsplit(":", 1)
        self.to, self.over = (host, int(port)), threading.Event()
        self.half_open, self.pause, self.done = half_open, 1 / a_second, 0
        self.threads = [threading.Thread(target=what, daemon=True) for what in (self.hold, self.knock, self.flood)]
        for thread in self.threads:
            thread.start()

    def connect(self, number):
        stream = socket.socket()
        stream.settimeout(5)
        try:
            stream.bind((f"127.0.1.{1 + number % 100}", 0))
            stream.connect(self.to)
        except OSError:
            pass
        return stream

    def hold(self):
        held = [self.connect(i) for i in range(self.half_open)]
        while not self.over.wait(1):
            for i, stream in enumerate(held):
                try:
                    stream.setblocking(False)
                    gone = not stream.recv(4096)
                except BlockingIOError:
                    gone = False
                except OSError:
                    gone = True
                if gone:
                    stream.close()
                    held[i] = self.connect(i)
        for stream in held:
            stream.close()

    def knock(self):
        open_ones = []
        while not self.over.wait(self.pause):
            stream = self.connect(self.done)
            try:
                stream.setblocking(False)
                stream.send(self.FIRST[self.done % len(self.FIRST)])
            except OSError:
                pass
            self.done += 1
            open_ones.append(stream)
            if len(open_ones) > 100:
                open_ones.pop(0).close()

    def flood(self):
        beat = frame(8, field(1, 0) + field(2, 0) + field(3, 0)) * 1000
        while not self.over.is_set():
            with self.connect(99) as stream:
                try:
                    stream.sendall(hello(name=b"flood"))
                    rest = beat
                    while not self.over.is_set():
                        try:
                            rest = rest[stream.send(rest) :] or beat
                        except TimeoutError:
                            pass
                except OSError:
                    pass
            self.over.wait(0.1)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def measure_strangers(load, size):
    clients, rounds = size["clients"], size["rounds"]

    def turn(attacked):
        """The median of a round's seconds, and what the server says of strangers. The first rounds are not counted."""
        with Server(load, load.memory, size["plan"], clients, rounds) as server:
            attack = []

            def begin():
                while not server.over.wait(0.01):
                    if any(e["event"] == "round_opened" for e in server.events()):
                        attack.append(Attack(server.address, size["half_open"], size["a_second"]))
                        return

            beginner = threading.Thread(target=begin, daemon=True)
            if attacked:
                beginner.start()
            begun = time.monotonic()
            swarm(load, server, clients, rounds)
            took, strangers = time.monotonic() - begun, {}
            hwm = read_proc(server.pid, "VmHWM")
            if attacked:
                beginner.join()
                attack[0].end()
                code, out = 1, ""
                while code != 0:  # as soon as there is a place for it
                    code, out, _ = run([load.program("starling"), "status", "--server", server.address, "--json"])
                strangers = json.loads(out.splitlines()[-1])["strangers"]
            times = round_times(server.events())[rounds // 4 :]
            return statistics.median(t["durable"] - t["opened"] for t in times), took, hwm, strangers

    turns = [(turn(False), turn(True)) for _ in range(size["turns"])]
    ratios = [attacked[0] / calm[0] for calm, attacked in turns]
    calm, attacked = (statistics.median(pair[i][0] for pair in turns) for i in (0, 1))
    more = statistics.median(pair[1][2] - pair[0][2] for pair in turns) / KIB
    last = turns[-1][1][3]
    told = ", ".join(f"{last[what]:,} {what.replace('_', ' ')}" for what in ("refused", "made_way", "rejected", "broken", "slowed", "lines_suppressed"))  # fmt: skip
    note = (f"{size['turns']} turns, {clients} x {rounds} rounds: {1e3 * calm:.0f} ms a round, attacked {1e3 * attacked:.0f} ms, "
            f"ratios {min(ratios):.2f} to {max(ratios):.2f}; {size['half_open']:,} half-open connections from 100 addresses, "
            f"{size['a_second']} bad greetings a second and a flood by a member: {told}")  # fmt: skip
    return [check("a round's time under attack over that in peace", statistics.median(ratios), "x", 1.1),
            check("server memory, most ever, more than in peace", more, "KiB", KIB)], {"turns": turns}, note  # fmt: skip


def measure_soak(load, size):
    got = whole_run(load, load.memory, TINY, size["clients"], size["rounds"], SMALL_BANK, sample=True)
    points = [(number, rss) for number, rss, _ in got["samples"] if number >= size["after"]]
    figures = {"clients": size["clients"], "rounds": size["rounds"], "after": size["after"], "samples": len(points),
               "rss_bytes": points[:: max(1, len(points) // 50)]}  # fmt: skip
    note = (f"{size['clients']} clients; {len(points)} samples from round {points[0][0]} ({points[0][1] / MB:.2f} MB) to "
            f"{points[-1][0]} ({points[-1][1] / MB:.2f} MB)")  # fmt: skip
    return [check("server memory for a further round", slope(points), "bytes", 64)], figures, note


def measure_aggregate(load, size):
    values = []
    for _ in range(size["times"]):
        command = [load.program("starling"), "bench", "aggregate", "--json", *size["flags"]]
        values.append(run_json(command))
    fractions = [value["fraction_of_memcpy"] for value in values]
    last = values[-1]
    note = (f"{last['update_bytes'] / MB:.1f} MB an update, {last['updates_per_second']:.0f} updates/s, memcpy "
            f"{last['memcpy_bytes_per_second'] / 1e9:.1f} GB/s; {min(fractions):.2f} to {max(fractions):.2f}")  # fmt: skip
    return [check("an update's sum over memcpy", statistics.median(fractions), "x", 0.4, "least")], {"runs": values}, note


def measure_curves(load, size):
    def point(plan, clients):
        got = whole_run(load, load.memory, plan, clients, size["rounds"])
        seconds = statistics.median(t["durable"] - t["opened"] for t in got["times"])
        # Short rounds are divided out of the whole, long ones stand for themselves.
        whole = (got["times"][-1]["durable"] - got["times"][0]["opened"]) / len(got["times"])
        return {"clients": clients, "model_bytes": got["model_bytes"], "hwm_bytes": got["hwm"],
                "seconds": seconds if seconds > 0.1 else whole}  # fmt: skip

    figures = {
        "by_clients": {name: [point(plan, n) for n in size["clients"]] for name, plan in size["models"].items()},
        "by_size": [point(plan, size["size_clients"]) for plan in size["sizes"]],
    }
    figures["size_clients"] = size["size_clients"]
    points = sum((len(p) for p in figures["by_clients"].values()), len(figures["by_size"]))
    return [], figures, f"{points} servers; the picture is below"


MEASURES = {"wire": measure_wire, "tls": measure_tls, "memory": measure_memory, "idle": measure_idle,
            "tls-idle": measure_tls_idle, "flood": measure_flood, "thousand": measure_thousand,
            "strangers": measure_strangers,
            "soak": measure_soak, "aggregate": measure_aggregate, "curves": measure_curves}  # fmt: skip
MEASURES.update({name: measure_null for name in FULL if name.startswith("null-")})


# ---- The picture ----

COLOURS = ["#0072b2", "#d55e00", "#009e73"]


def human(value, unit):
    if unit == "s":
        return f"{value:g} s" if value >= 1 else f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} us"
    if unit == "B":
        for step, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= step:
                return f"{value / step:g} {name}"
    return f"{value:g}"


def panel(left, top, title, x_unit, y_unit, lines):
    """Log-log axes with a tick at each power of ten (and at 2 and 5 where there are few)."""
    width, height = 330, 220

    def axis(values, pixels):
        low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
        place = lambda v: pixels * (math.log10(v) - low) / (high - low)
        factors = (1, 2, 5) if high - low < 2.2 else (1,)
        ticks = [f * 10**e for e in range(math.floor(low), math.ceil(high) + 1) for f in factors]
        return place, [t for t in ticks if low <= math.log10(t) <= high]

    points = [p for _, line in lines for p in line]
    (place_x, ticks_x), (place_y, ticks_y) = axis([p[0] for p in points], width), axis([p[1] for p in points], height)
    x, y = (lambda v: left + place_x(v)), (lambda v: top + height - place_y(v))
    out = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{title}</text>',
           f'<text x="{left + width}" y="{top - 10}" text-anchor="end">'
           + ", ".join(f'<tspan fill="{c}">{name}</tspan>' for (name, _), c in zip(lines, COLOURS)) + "</text>",
           f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>']  # fmt: skip
    for t in ticks_x:
        out.append(f'<path d="M{x(t):.1f},{top} v{height}" stroke="#ddd"/><text x="{x(t):.1f}" y="{top + height + 15}" '
                   f'text-anchor="middle">{human(t, x_unit)}</text>')  # fmt: skip
    for t in ticks_y:
        out.append(f'<path d="M{left},{y(t):.1f} h{width}" stroke="#ddd"/><text x="{left - 5}" y="{y(t) + 4:.1f}" '
                   f'text-anchor="end">{human(t, y_unit)}</text>')  # fmt: skip
    for (_, line), colour in zip(lines, COLOURS):
        out.append('<polyline points="' + " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
                   + f'" fill="none" stroke="{colour}" stroke-width="1.5"/>')  # fmt: skip
        out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5" fill="{colour}"/>' for a, b in line]
    return out


def draw(curves, path):
    by_clients, by_size = curves["by_clients"], curves["by_size"]
    over = lambda points, x, y: [(p[x], p[y]) for p in points]
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="860" height="600" font-family="sans-serif" font-size="12">',
           '<rect width="860" height="600" fill="white"/>']  # fmt: skip
    for row, (key, what, unit) in enumerate((("seconds", "seconds a round", "s"), ("hwm_bytes", "server memory", "B"))):
        top = 40 + 290 * row
        lines = [(name, over(points, "clients", key)) for name, points in by_clients.items()]
        out += panel(70, top, f"{what}, by clients", "", unit, lines)
        lines = [(f"{curves['size_clients']} clients", over(by_size, "model_bytes", key))]
        out += panel(500, top, f"{what}, by model", "B", unit, lines)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n</svg>\n")


# ---- The table ----


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine():
    name = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores, Linux {os.uname().release.split('-')[0]}"


def table(results):
    out = ["| row | figure | measured | required | | how it came |", "|---|---|---|---|---|---|"]
    for name in FULL:
        row = results["rows"].get(name)
        if not row:
            continue
        for i, c in enumerate(row["checks"] or [None]):
            cells = ["", "", "", ""] if c is None else [
                c["what"], f"{number(c['value'])} {c['unit']}".strip(),
                f"at {c['sense']} {number(c['required'])} {c['unit']}".strip(), "ok" if c["ok"] else "**over**"]  # fmt: skip
            out.append(f"| {name if i == 0 else ''} | {' | '.join(cells)} | {row['note'] if i == 0 else ''} |")
    made = sorted({(row["machine"], row["commit"]) for row in results["rows"].values()})
    out += ["", "Measured on: " + "; ".join(f"{where}, commit {commit}" for where, commit in made) + "."]
    return "\n".join(out) + "\n"


def write(load, results):
    with open(os.path.join(load.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    text = table(results)
    with open(os.path.join(load.out, "table.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if "curves" in results["rows"]:
        draw(results["rows"]["curves"]["figures"], os.path.join(load.out, "curves.svg"))
    if os.path.abspath(load.out) == RESULTS:
        path, begin, end = os.path.join(HERE, "README.md"), "<!-- results -->\n", "<!-- end of results -->\n"
        with open(path, encoding="utf-8") as file:
            readme = file.read()
        before, _, rest = readme.partition(begin)
        with open(path, "w", encoding="utf-8") as file:
            file.write(before + begin + text + end + rest.partition(end)[2])


# ---- Main ----


class Load:
    def __init__(self, options):
        self.build = options.build
        self.memory, self.disk, self.out = options.memory, options.disk, options.out
        self.peer = os.path.join(self.build, "tests", "load_peer")

    def program(self, name):
        return os.path.join(self.build, "bin", name)


def commit():
    code, out, _ = run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
    return out.strip() if code == 0 else "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(FULL))
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    parser.add_argument("--out", help="folder of the results (tests/load/results)")
    parser.add_argument("--memory", default="/dev/shm", help="folder in memory, for states that no disk slows")
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder on a disk")
    parser.add_argument("--quick", action="store_true", help="small sizes; needs --out")
    options = parser.parse_args()
    unknown = [row for row in options.rows if row not in FULL]
    if unknown or (options.quick and not options.out):
        parser.error(f"no row {unknown[0]}" if unknown else "--quick needs --out, so that it replaces no results")
    if not options.quick and file_system(options.disk) == "tmpfs":
        parser.error(f"--disk: {options.disk} is in memory; name a folder on a disk")
    options.out = options.out or RESULTS
    os.makedirs(options.out, exist_ok=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load, sizes = Load(options), QUICK if options.quick else FULL
    results = {"quick": options.quick, "rows": {}}
    path = os.path.join(options.out, "results.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
        if results["quick"] != options.quick:
            sys.exit(f"{path} is of another size; choose another --out")
    over = False
    for row in [r for r in FULL if r in options.rows or not (options.rows or r in results["rows"])]:
        begin = time.monotonic()
        checks, figures, note = MEASURES[row](load, sizes[row])
        results["rows"][row] = {"checks": checks, "note": note, "figures": figures, "machine": machine(),
                                "commit": commit(), "seconds": round(time.monotonic() - begin, 1)}  # fmt: skip
        write(load, results)
        for c in checks:
            print(f"{row:10} {c['what']}: {number(c['value'])} {c['unit']}, required at {c['sense']} "
                  f"{number(c['required'])}: {'ok' if c['ok'] else 'over'}", flush=True)  # fmt: skip
            over |= not c["ok"]
        print(f"{row:10} {note} ({time.monotonic() - begin:.0f} s)", flush=True)
    return 1 if over and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
