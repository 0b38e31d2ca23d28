"""deploy/compose.yaml without a container engine, as root: play.py CONFIG IMAGES ROOT WORK-FOLDER

CONFIG is what docker-compose makes of the file. Each service is a process in a mount namespace of its own: ROOT, which has
what the images have, with the service's volumes and files laid over it, entered as the images' user. Service names lead to
loopback, and the plan is made tiny; commands, paths and health checks are the file's own. IMAGES has a folder for each
client. What must come out: tokens, certificates, rounds with all sites; the same services once more from what the volumes
hold; a site that lost its volume stays outside with its spent token, and comes in with a new one."""
import os
import shlex
import subprocess
import sys

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import harness  # noqa: E402

CONFIG, IMAGES, ROOT, WORK = (os.path.abspath(path) for path in sys.argv[1:])
ENTRYPOINTS = {  # of deploy/Dockerfile
    "starling-server": ["starling-server", "--state", "/var/lib/starling"],
    "starling-client": ["starling-client", "--state", "/var/lib/starling", "--images", "/images"],
}
with open(CONFIG, encoding="utf-8") as file:
    SERVICES = yaml.safe_load(file)["services"]
CLIENTS = sorted(name for name in SERVICES if name.startswith("client-"))
TINY = []
for key, value in {**harness.TINY_PLAN, "rounds": 2, "min_clients": len(CLIENTS)}.items():
    TINY += ["--set", f"plan.{key}={value}"]


def unescaped(text):
    return text.replace("$$", "$")  # as docker-compose hands it on


def source(volume):
    """Where a mount's files are here: volumes begin as the image's folder, empty and the user's."""
    if isinstance(volume, dict):
        name = os.path.basename(volume["source"])
        return os.path.join(IMAGES, name) if name in CLIENTS else volume["source"], volume["target"], volume.get("read_only")
    name, target, mode = volume.split(":")
    path = os.path.join(WORK, "volume-" + name)
    if not os.path.isdir(path):
        subprocess.run(["install", "-d", "-m", "0700", "-o", "7640", "-g", "7640", path], check=True)
    return path, target, mode == "ro"


def inside(service, words):
    """The words' process in what the service sees."""
    lines = [f"mount --bind /proc {shlex.quote(ROOT)}/proc"]
    for volume in SERVICES[service]["volumes"]:
        path, target, read_only = source(volume)
        at = ROOT + target
        if os.path.isdir(path):
            os.makedirs(at, exist_ok=True)
        elif not os.path.exists(at):
            os.makedirs(os.path.dirname(at), exist_ok=True)
            open(at, "w", encoding="utf-8").close()
        lines.append(f"mount --bind {shlex.quote(path)} {shlex.quote(at)}")
        if read_only:
            lines.append(f"mount -o remount,bind,ro {shlex.quote(at)}")
    run = ["chroot", "--userspec=starling:starling", ROOT, "sh", "-c", 'cd /var/lib/starling; exec "$@"', "sh", *words]
    return ["unshare", "--mount", "sh", "-euc", "\n".join([*lines, shlex.join(["exec", *run])])]


def words_of(service, more=()):
    given = SERVICES[service]
    entrypoint = given.get("entrypoint", ENTRYPOINTS.get(given["image"]))
    return [*map(unescaped, entrypoint), *map(unescaped, given.get("command", [])), *more]


def once(service, words):
    return subprocess.run(inside(service, words), capture_output=True, text=True, timeout=harness.WAIT_S, check=False)


def start(service, *more):
    daemon = harness.Daemon(service, inside(service, words_of(service, ["--log-format", "json", *more])))
    started.append(daemon)
    return daemon


def healthy(service):
    kind, line = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD-SHELL", kind
    return once(service, ["sh", "-c", unescaped(line)]).returncode == 0


def authority(*names):
    done = once("ca", words_of("ca", names))
    assert done.returncode == 0, done.stderr
    tokens = os.path.join(WORK, "volume-tokens")
    found = {}
    for name in os.listdir(tokens):
        assert os.stat(os.path.join(tokens, name)).st_mode & 0o777 == 0o600, name
        with open(os.path.join(tokens, name), encoding="utf-8") as file:
            found[name] = file.read()
    return found


def up():
    """All services, until every client is welcome and all is healthy."""
    server = start("server", *TINY)
    server.wait_for("listening")
    clients = [start(name) for name in CLIENTS]
    for client in clients:
        client.wait_for("welcomed")
    assert all(healthy(name) for name in ("server", *CLIENTS))
    return server, clients


def down():
    while started:
        started.pop().end()


def play():
    with open(os.path.join(ROOT, "etc", "hosts"), "w", encoding="utf-8") as file:
        file.write("127.0.0.1 localhost server\n")
    tokens = authority()
    assert sorted(tokens) == CLIENTS, tokens
    assert not any(healthy(name) for name in ("server", *CLIENTS))
    server, clients = up()
    server.wait_for("round_durable", round=2)
    assert server.count("certificate_issued") == len(CLIENTS)
    assert all(client.count("joined") == 1 for client in clients)
    down()

    assert authority() == tokens  # nothing was missing
    server, clients = up()
    assert server.count("certificate_issued") == 0
    assert all(client.count("joined_before") == 1 for client in clients)

    # A site that lost its volume: shut out with its spent token, and let in with one that was made for it.
    lost = CLIENTS[2]
    clients[2].kill9()
    os.rename(os.path.join(WORK, "volume-" + lost), os.path.join(WORK, "lost"))
    assert start(lost).exit_code() == 77
    again = authority(lost)
    assert {name for name in again if again[name] != tokens[name]} == {lost}
    start(lost).wait_for("joined")
    down()


started = []
try:
    play()
except AssertionError:
    for daemon in started:
        print(f"---- {daemon.label}", *daemon.lines[-30:], sep="\n", file=sys.stderr)
    raise
finally:
    down()
