"""Dockerfile, packages and compose.yaml against the programs, without Docker: the runtime's packages are those whose
libraries the programs load, the health checks tell a healthy daemon from one that is not, and what the files say of each other holds.
tests/deep runs the Dockerfile's lines in a chroot and has docker-compose judge compose.yaml."""
import os
import re
import subprocess
import unittest

import harness
import yaml

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PROGRAMS = ("starling", "starling-server", "starling-client")
# Of every Debian, or of a build with sanitizers alone.
GIVEN = {"libc6", "libgcc-s1", "libasan8", "libubsan1", "libtsan2"}


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


def output(*args):
    return subprocess.run(args, capture_output=True, text=True).stdout


def packages(purpose):
    return set(re.findall(rf"^{purpose} (\S+)$", read("deploy", "packages.txt"), re.M))


def stages():
    """{stage: [(instruction, rest), ...]} of the Dockerfile."""
    out = {}
    for line in read("deploy", "Dockerfile").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            out[name] = [("FROM", base)]
        elif word and word != "#":
            out[name].append((word, rest))
    return out


class Images(harness.Federation):
    def test_runtime_packages(self):
        """The libraries that the programs name themselves; what those need is apt's business."""
        files = set()
        for program in PROGRAMS:
            path = os.path.join(harness.BIN, program)
            names = set(re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", path)))
            linked = output("ldd", path)
            for name, file in re.findall(r"^\s*(\S+) => (\S+) \(", linked, re.M):
                if name in names:
                    files.add(os.path.realpath(file))
        needed = self.packages_of(files)
        self.assertGreater(len(needed), 8)
        self.assertEqual(needed - GIVEN, packages("run"))
        self.assertNotEqual(needed - GIVEN, packages("run") - {"libdnnl2"})

    def packages_of(self, files):
        """dpkg knows a library by the name that its package has for it, in /usr/lib or in /lib."""
        names = sorted(files | {file.removeprefix("/usr") for file in files})
        found = re.findall(r"^(\S+?)(?::\w+)?: (\S+)$", output("dpkg-query", "-S", *names), re.M)
        self.assertEqual(files - {"/usr" + name.removeprefix("/usr") for _, name in found}, set(), "no package has them")
        return {package for package, _ in found}

    def test_dockerfile(self):
        found = stages()
        self.assertEqual(set(found), {"build", "runtime", "server", "client"})
        self.assertEqual({found[name][0][1] for name in ("build", "runtime")}, {"debian:12-slim"})
        self.assertEqual({found[name][0][1] for name in ("server", "client")}, {"runtime"})
        lines = {name: [rest for word, rest in found[name] if word == "RUN"] for name in found}
        # tests/deep/image.sh takes one line a RUN, and nothing of the last two stages but their programs.
        self.assertFalse([line for each in lines.values() for line in each if line.endswith("\\")])
        self.assertFalse(lines["server"] + lines["client"])
        self.assertIn("packages_need build", lines["build"][0])
        self.assertIn("packages_need run", lines["runtime"][0])
        self.assertIn(("USER", "starling"), found["runtime"])
        for name in ("server", "client"):
            self.assertFalse([rest for word, rest in found[name] if word == "USER"])
            self.assertIn(("COPY", f"--from=build /out/usr/local/bin/starling-{name} /usr/local/bin/"), found[name])
        context = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
        self.assertIn("\n*\n", read(".dockerignore"))
        self.assertTrue(all(os.path.exists(os.path.join(ROOT, name)) for name in context))

    def test_compose(self):
        compose = yaml.safe_load(read("deploy", "compose.yaml"))
        services = compose["services"]
        clients = [f"client-{i}" for i in range(1, 6)]
        self.assertEqual(sorted(services), ["ca"] + clients + ["server"])
        self.assertEqual(compose["networks"], {"federation": {"internal": True}})
        self.assertEqual(sorted(compose["volumes"]), clients + ["server", "tokens"])
        # What the authority does is tests/deep/play.py's to show; here, that it is there first, and alone with its tokens.
        authority = services.pop("ca")
        self.assertEqual((authority["restart"], authority["image"]), ("no", "starling-server"))
        self.assertEqual(authority["volumes"], ["server:/var/lib/starling", "tokens:/tokens"])
        self.assertEqual(services["server"]["depends_on"], {"ca": {"condition": "service_completed_successfully"}})
        self.assertEqual([name for name in services if "tokens:/tokens:ro" in services[name]["volumes"]], clients)
        trust = self.path("trust")
        self.assertEqual(self.run_to_end("starling", "ca", "init", trust, "--address", "server:7640").returncode, 0)
        for name, service in services.items():
            with self.subTest(name):
                self.assertEqual(service["build"]["target"], "server" if name == "server" else "client")
                self.assertEqual(service["build"]["context"], "..")
                self.assertEqual(service["build"]["dockerfile"], "deploy/Dockerfile")
                self.assertNotIn("ports", service)
                self.assertEqual(service["networks"], ["federation"])
                self.assertIn(f"{name}:/var/lib/starling", service["volumes"])
                binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
                self.assertTrue(binds and all(bind["read_only"] for bind in binds))
                self.assertEqual((service["restart"], service["stop_grace_period"]), ("unless-stopped", "90s"))
                if name != "server":
                    self.assertEqual(service["command"][:2], ["--join", "/tokens/" + name])
                    self.assertTrue(binds[0]["source"].endswith("/" + name))
                # The programs know these flags.
                entry = dict(stages()[service["build"]["target"]])["ENTRYPOINT"]
                program, *flags = yaml.safe_load(entry) + service["command"]
                line = " ".join(flags).replace("/etc/starling", os.path.join(ROOT, "deploy"))
                line = line.replace("--trust trust", "--trust " + trust)
                flags = line.replace("${STARLING_THREADS:-1}", "1").split()
                done = self.run_to_end(program, *flags, "--check-config")
                self.assertEqual(done.returncode, 0, done.stderr)

    def healthy(self, service, server):
        """The check's own line, in the working folder of the image; the server has another port here."""
        kind, line = yaml.safe_load(read("deploy", "compose.yaml"))["services"][service]["healthcheck"]["test"]
        self.assertEqual(kind, "CMD-SHELL")
        line = line.replace(f":{7640:04X} ", f":{int(server.address.split(':')[1]):04X} ").replace("$$", "$")
        path = os.path.abspath(harness.BIN) + ":" + os.environ["PATH"]
        code = subprocess.run(
            ["sh", "-c", line], cwd=server.state, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL, check=False
        ).returncode
        self.assertIn(code, (0, 1), line)  # Docker knows no other
        return code == 0

    def test_health_checks(self):
        trust = self.path("server", "trust")
        self.assertEqual(self.run_to_end("starling", "ca", "init", trust, "--address", "127.0.0.1:7640").returncode, 0)
        server = self.server(trust=trust)
        with open(os.path.join(trust, "address"), "w", encoding="utf-8") as file:
            file.write(server.address + "\n")
        self.assertTrue(self.healthy("server", server))
        self.assertFalse(self.healthy("client-1", server))
        token = self.run_to_end("starling", "ca", "token", "--trust", trust, "--name", "a").stdout.strip()
        client = self.client("a", server.address, flags=["--join", token])
        server.wait_for("client_joined")
        self.assertTrue(self.healthy("client-1", server))
        client.kill9()
        server.wait_for("client_left")
        self.assertFalse(self.healthy("client-1", server))
        server.kill9()
        self.assertFalse(self.healthy("server", server))
        self.assertFalse(self.healthy("client-1", server))


if __name__ == "__main__":
    unittest.main()
