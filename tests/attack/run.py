#!/usr/bin/python3
"""What liars and curious sites achieve: real servers and clients, some of which are not honest (liar.c).

  tests/attack/run.py poison|bank|privacy [WORDS...] --images cifar/train --test cifar/test [--out DIR] [--jobs 2]
  tests/attack/run.py poison|bank|privacy --quick --out DIR

README.md says what is measured. WORDS choose the cells in whose names one of them stands ("two of ten", "; mean;"). Each
cell is one `starling demo`, whose scores, counts and figures go into OUT/NAME/cells/*.json; the same command goes on where it was interrupted. Writes OUT/NAME/table.md after each cell, and,
where OUT is the default, the tables of README.md. --quick draws images of its own and takes small sizes, to see that all
of it works; its figures mean nothing.
"""
import argparse
import array
import concurrent.futures
import json
import math
import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RESULTS = os.path.join(HERE, "results")

# ---- The cells ----

SMALL = {"local_steps": 1, "batch": 32, "bn_groups": 1, "queue": 1024, "model.blocks": "1,1,1,1", "model.width": 16}
ALONE = {"fusion.enabled": "false", "matching.enabled": "false"}
SHARED = {"fusion.remote": 1024, "fusion.share": 0.8}
TINY = {"local_steps": 1, "batch": 8, "bn_groups": 1, "queue": 64, "model.blocks": "1,1", "model.width": 8,
        "model.input": 16, "model.features": 16}  # fmt: skip
TINY_SHARED = {"fusion.remote": 64, "fusion.share": 0.5, "matching.neighbours": 3}

# `limit_s`: after that an attacked run that still has not ended is given up. `images`: of each class.
FULL = {"plan": SMALL, "shared": SHARED, "images": 1000, "images_seen": 60000, "limit_s": 600, "pool": 4000, "views": 8,
        "snapshots": 3, "known": 500}  # fmt: skip
QUICK = {"plan": TINY, "shared": TINY_SHARED, "images": 40, "images_seen": 5 * 8 * 30, "limit_s": 60, "pool": 40,
         "views": 2, "snapshots": 2, "known": 40}  # fmt: skip
QUICK_PRIVACY = {**QUICK, "plan": {**TINY, "batch": 32}, "images_seen": 5 * 32 * 300}  # an encoder that knows nothing betrays nothing

NO_LIMIT = {"aggregation.norm_limit": 0}
RULES = {
    "mean": NO_LIMIT,
    "mean, limit 10": {"aggregation.norm_limit": 10},
    "mean, clip 1.5": {**NO_LIMIT, "aggregation.clip": 1.5},
    "median": {**NO_LIMIT, "aggregation.rule": "median"},
    "trimmed": {**NO_LIMIT, "aggregation.rule": "trimmed", "aggregation.trim": 0.25},
    "krum": {**NO_LIMIT, "aggregation.rule": "krum"},
}
LIES = ["none", "scale:100", "flip:4", "noise:10", "stats:100", "nan"]
FEDERATIONS = {"one of five": (5, 1, "iid"), "two of ten": (10, 2, "iid"), "one of five, two classes": (5, 1, "classes:2")}


def liars(count):
    return " ".join(f"client-{i + 1}" for i in range(count))


def poison_cells(size, quick):
    """A refused contribution leaves its round to the others: beside liars min_clients is the number of the honest."""
    cells = {}
    for where, (clients, lying, split) in FEDERATIONS.items():
        for lie in LIES:
            for rule, keys in RULES.items():
                least = 2 * lying + 3 if rule == "krum" else 0
                enough = clients if lie == "none" else max(clients - lying, least)
                if lie == "nan" and (rule not in ("mean", "median", "krum") or clients - lying < least):
                    continue  # refused whatever the rule; Krum is not computed of fewer than 2 f + 3
                if "classes" in split and lie not in ("none", "flip:4"):
                    continue
                if quick and (clients > 5 or split != "iid" or rule not in ("mean", "median") or lie not in LIES[:2]):
                    continue
                cells[f"{where}; {lie}; {rule}"] = {
                    "where": where, "lie": lie, "rule": rule, "clients": clients, "split": split,
                    "lies": [] if lie == "none" else [f"{lie} {liars(lying)}"],
                    "told": 0 if lie == "none" else lying,
                    "set": {**size["plan"], **ALONE, **keys, "min_clients": enough,
                            **({"aggregation.byzantine": lying} if rule == "krum" else {})},
                }  # fmt: skip
    return cells


EXCHANGES = {"fusion": {"matching.enabled": "false"}, "fusion and matching": {}}
FEATURES = ["none", "constant", "copy"]


def bank_cells(size, quick):
    cells = {"averaging alone": {"lie": "none", "what": "averaging alone", "set": {**size["plan"], **ALONE}}}
    for what, keys in EXCHANGES.items():
        for lie in FEATURES:
            for screened in (True, False):
                cell = {"lie": lie, "what": what, "credulous": not screened,
                        "set": {**size["plan"], **size["shared"], **keys}}  # fmt: skip
                if lie != "none" or screened:
                    cells[f"{what}; {lie}; {'screened' if screened else 'credulous'}"] = cell
    for cell in cells.values():
        told = int(cell["lie"] != "none")
        cell.update(clients=5, split="classes:2", told=told, lies=[f"{cell['lie']} {liars(1)}"] if told else [])
        cell["set"]["min_clients"] = 5 - told
    return cells


SECRETIVE = "f32, each with a secret"
PRIVACY = {
    "f32": {"wire.features": "f32"},
    SECRETIVE: {"wire.features": "f32"},
    "f16": {"wire.features": "f16"},
    "int8": {"wire.features": "int8"},
    "noise 0.05": {"fusion.privacy.noise": 0.05},
    "noise 0.2": {"fusion.privacy.noise": 0.2},
    "noise 1": {"fusion.privacy.noise": 1},
}


def privacy_cells(size, quick):
    rounds = rounds_of(size, 5)
    every = rounds // size["snapshots"]
    lies = [f"spy:{every} client-5", f"witness {liars(4)}"]
    return {
        what: {"what": what, "clients": 5, "split": "iid", "lies": lies, "told": 5, "spies": True,
               **({"secretive": True} if what == SECRETIVE else {}),
               "set": {**size["plan"], **size["shared"], "matching.enabled": "false", **keys}}
        for what, keys in PRIVACY.items() if not quick or what in ("f32", SECRETIVE, "noise 1")
    }  # fmt: skip


def rounds_of(size, clients):
    plan = size["plan"]
    return size["images_seen"] // (clients * plan["local_steps"] * plan["batch"])


# ---- One federation ----


def call(command, limit_s=None, **how):
    """Exit status (None: it took too long) and both streams."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit_s)
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        process.terminate()  # the demo stops its daemons
        out, err = process.communicate()
        return None, out, err


class Lab:
    def __init__(self, options, size):
        self.options, self.size = options, size
        self.build = os.path.abspath(options.build)
        self.out = os.path.join(os.path.abspath(options.out), options.what)
        os.makedirs(os.path.join(self.out, "cells"), exist_ok=True)
        self.scratch = tempfile.mkdtemp(prefix="starling-attack-", dir=options.memory)
        self.bin, self.credulous, self.secretive = (os.path.join(self.scratch, n) for n in ("bin", "credulous", "secretive"))
        self.images = os.path.join(self.scratch, "images")
        self.poison_programs()
        self.choose_images()

    def program(self, name):
        return os.path.join(self.bin, name)

    def poison_programs(self):
        """Folders in which the demo finds the liar where it looks for the client: beside its own file, so that is a copy."""
        honest, liar = "bin/starling-server", os.path.join(self.build, "tests", "attack_liar")
        for folder, server in ((self.bin, honest), (self.credulous, "tests/attack_credulous"), (self.secretive, honest)):
            os.makedirs(folder)
            shutil.copy2(os.path.join(self.build, "bin", "starling"), folder)
            os.symlink(os.path.join(self.build, server), os.path.join(folder, "starling-server"))
            if folder != self.secretive:
                os.symlink(liar, os.path.join(folder, "starling-client"))
        client = os.path.join(self.secretive, "starling-client")
        with open(client, "w", encoding="utf-8") as file:  # as the demo starts it, but for one word
            file.write('#!/bin/sh\nfor word; do shift; [ "$word" = --reproducible ] || set -- "$@" "$word"; done\n')
            file.write(f"exec '{liar}' \"$@\"\n")
        os.chmod(client, 0o700)

    def choose_images(self):
        """train/: what the sites hold; others/: images that nobody holds; test/: what is named in the end."""
        train, test, options = self.options.images, self.options.test, self.options
        if options.quick:
            train, test = os.path.join(self.scratch, "drawn"), os.path.join(self.scratch, "drawn-test")
            for folder, each, seed in ((train, 2 * self.size["images"], 1), (test, 10, 2)):
                code, _, err = call([self.program("starling"), "draw-images", "--out", folder, "--classes", "4",
                                     "--per-class", str(each), "--size", "16", "--seed", str(seed)])  # fmt: skip
                if code != 0:
                    sys.exit(f"starling draw-images: {err}")
        draw = random.Random(1)
        for name in sorted(os.listdir(train)):
            files = sorted(os.listdir(os.path.join(train, name)))
            draw.shuffle(files)
            cut = self.size["images"]
            for part, chosen in (("train", files[:cut]), ("others", files[cut : 2 * cut])):
                folder = os.path.join(self.images, part, name)
                os.makedirs(folder)
                for file in chosen:
                    os.symlink(os.path.abspath(os.path.join(train, name, file)), os.path.join(folder, file))
        os.symlink(os.path.abspath(test), os.path.join(self.images, "test"))

    def close(self):
        shutil.rmtree(self.scratch, ignore_errors=True)

    def federation(self, name, cell):
        """Runs a cell to its end, or as far as it goes, and returns what is known of it."""
        folder = os.path.join(self.scratch, re.sub(r"[^a-z0-9]+", "-", name))
        work, out = os.path.join(folder, "work"), os.path.join(folder, "lie")
        rounds = rounds_of(self.size, cell["clients"])
        programs = self.credulous if cell.get("credulous") else self.secretive if cell.get("secretive") else self.bin
        command = [os.path.join(programs, "starling"), "demo", "--images", os.path.join(self.images, "train"), "--workdir", work]
        command += ["--test", os.path.join(self.images, "test"), "--clients", str(cell["clients"]), "--json"]
        command += ["--split", cell["split"], "--rounds", str(rounds), "--seed", "1"]
        for key, value in {"round_deadline": "60s", **cell["set"]}.items():
            command += ["--set", f"{key}={value}"]
        os.makedirs(folder)
        begin = time.monotonic()
        lies = {"STARLING_LIE": "; ".join(cell["lies"]), "STARLING_LIE_OUT": out}
        code, text, err = call(command, self.size["limit_s"], env={**os.environ, **lies})
        if not os.path.exists(os.path.join(work, "server", "history.db")):
            sys.exit(f"{name}: no round closed; starling demo ended with {code}:\n{text[-2000:]}\n{err}")
        result = {"seconds": round(time.monotonic() - begin, 1), "rounds": rounds, **self.history(work)}
        if code == 0:
            last = json.loads(text.splitlines()[-1])
            result.update({key: last[key] for key in ("knn_top1", "linear_top1", "knn_top1_untrained",
                                                      "linear_top1_untrained", "knn_top1_pixels")})  # fmt: skip
        elif not cell["told"]:
            sys.exit(f"{name}: an honest run failed with {code}:\n{text[-2000:]}\n{err}")
        else:
            result["ended"] = self.last_words(code, text, err)
            result.update(self.judge_newest(work))
        result["length"] = self.length(work)
        result["dropped"] = self.dropped(work)
        self.check_told(name, cell, out, result)
        if cell.get("spies"):
            result.update(self.figures(work), **self.guesses(folder))
        shutil.rmtree(folder)
        return result

    def history(self, work):
        base = sqlite3.connect(f"file:{work}/server/history.db?mode=ro", uri=True)
        try:
            closed, accepted, declined = base.execute("SELECT count(*), sum(accepted), sum(declined) FROM round").fetchone()
        finally:
            base.close()
        return {"closed": closed, "accepted": accepted or 0, "declined": declined or 0}

    def dropped(self, work):
        """Contributions of whose features the server dropped some, or all."""
        with open(os.path.join(work, "logs", "server.log"), encoding="utf-8") as file:
            return sum(bool(re.search(r" features_(repeated|copied) ", line)) for line in file)

    def newest(self, work):
        folder = os.path.join(work, "server", "models")
        return os.path.join(folder, max(os.listdir(folder)))

    def judge_newest(self, work):
        code, out, _ = call([self.program("starling"), "eval", "--model", self.newest(work), "--json", "--knn", "--train",
                             os.path.join(self.images, "train"), "--test", os.path.join(self.images, "test")])  # fmt: skip
        return {"knn_top1": json.loads(out.splitlines()[-1])["knn_top1"] if code == 0 else None}

    def length(self, work):
        """Of the newest model, as a vector. The byte table stands in common/vec/modelfile.c."""
        with open(self.newest(work), "rb") as file:
            data = file.read()
        (head,) = struct.unpack_from("<I", data, 12)
        (total,) = struct.unpack_from("<Q", data, 112)
        numbers = array.array("f", data[head : head + 4 * total])
        return math.sqrt(math.fsum(float(x) * x for x in numbers))

    def last_words(self, code, text, err):
        lines = [line for line in (text + err).splitlines() if line.strip()]
        return f"{'given up' if code is None else f'exit {code}'}: {lines[-1].strip() if lines else ''}"

    def check_told(self, name, cell, out, result):
        """An attack that did not take place would look like a defence that holds."""
        told = {}
        if cell["told"]:
            os.makedirs(out, exist_ok=True)
            with open(os.path.join(out, "told"), "a+", encoding="utf-8") as file:
                file.seek(0)
                for line in file:
                    who, number, _ = line.split()
                    told.setdefault(who, set()).add(int(number))
        most = max((len(rounds) for rounds in told.values()), default=0)
        # Who is ready a moment later than the others misses the first rounds.
        if len(told) != cell["told"] or any(len(rounds) < result["closed"] / 2 for rounds in told.values()):
            sys.exit(f"{name}: lies were told by {len(told)} of {cell['told']} sites, in at most {most} rounds")
        result["told"] = sum(len(rounds) for rounds in told.values())

    def guesses(self, folder):
        """In a process of its own: numpy's threads and this one's do not go together with fork."""
        size = {**self.size, "batch": self.size["plan"]["batch"]}
        code, out, err = call([os.path.join(HERE, "guess.py"), folder, self.images, os.path.join(self.build, "tests"),
                               json.dumps(size)])  # fmt: skip
        if code != 0:
            sys.exit(f"guess.py: {err}")
        return json.loads(out)

    def figures(self, work):
        """What the spied-upon sites were told that their features had cost them: the last line of a client's log."""
        found = {}
        with open(os.path.join(work, "logs", "client-1.log"), encoding="utf-8") as file:
            for line in file:
                got = re.search(r" privacy .*?features_epsilon=(\S+) features_delta=(\S+)", line)
                if got:
                    found = {"epsilon": float(got[1]), "delta": float(got[2])}
        return found


# ---- Tables ----


def score(cell):
    if not cell:
        return ""
    if "ended" in cell:
        return f"- (stopped after {cell['closed']} rounds)" if cell["closed"] < cell["rounds"] else "-"
    return f"{cell['knn_top1']:.3f}"


def trivial(cells):
    done = next((cell for cell in cells.values() if "knn_top1_untrained" in cell), None)
    return f"\nUntrained encoder {done['knn_top1_untrained']:.3f}, raw pixels {done['knn_top1_pixels']:.3f}.\n" if done else ""


def poison_table(cells):
    text = ""
    for where in FEDERATIONS:
        here = {(c["lie"], c["rule"]): c for c in cells.values() if c["where"] == where}
        lies = [lie for lie in LIES if any(key[0] == lie for key in here)]
        if here:
            text += f"\n**{where.capitalize()}**\n\n| rule | {' | '.join('no liar' if l == 'none' else l for l in lies)} |\n"
            text += "|---|" + "---|" * len(lies) + "\n"
            for rule in RULES:
                if any(key[1] == rule for key in here):
                    text += f"| {rule} | {' | '.join(score(here.get((lie, rule))) for lie in lies)} |\n"
    return text + trivial(cells)


def bank_table(cells):
    alone = score(cells.get("averaging alone"))
    text = "| the liar's features | server | " + " | ".join(EXCHANGES) + " | contributions with features dropped |\n"
    text += "|---|---|" + "---|" * len(EXCHANGES) + "---|\n"
    for lie in FEATURES:
        for credulous in (False, True):
            here = {c["what"]: c for c in cells.values() if c["lie"] == lie and c.get("credulous") is credulous}
            if here:
                text += f"| {'no liar' if lie == 'none' else lie} | {'without screening' if credulous else 'as it is'} | "
                text += " | ".join(score(here.get(what)) for what in EXCHANGES) + " | "
                dropped = [f"{c['dropped']} of {c['accepted'] + c['declined']}" if "dropped" in c else "-" for c in here.values()]
                text += ", ".join(dropped) + " |\n"
    return text + f"\nAveraging alone, without features: {alone or '-'}.\n" + trivial(cells)


def privacy_table(cells):
    text = ("| features | kNN | epsilon | image named | among ten | AUC | TPR | views known: image named | AUC | TPR |\n"
            "|---|---|---|---|---|---|---|---|---|---|\n")  # fmt: skip
    for what, cell in cells.items():
        last, known = cell["snapshots"][-1], cell["known"]
        epsilon = f"{cell['epsilon']:.4g}" if "epsilon" in cell else "-"
        text += (f"| {what} | {score(cell)} | {epsilon} | {percent(last['top1'])} | {percent(last['top10'])} | "
                 f"{last['auc']:.3f} | {percent(last['tpr_at_1'])} | {percent(known['mixed']['top1'])}, "
                 f"{percent(known['sorted']['top1'])} | {known['sorted']['auc']:.3f} | "
                 f"{percent(known['sorted']['tpr_at_1'])} |\n")  # fmt: skip
    if cells:
        text += (f"| chance | | | {percent(last['chance'])} | {percent(10 * last['chance'])} | 0.500 | 1.0 % | "
                 f"{percent(known['mixed']['chance'])} | 0.500 | 1.0 % |\n")  # fmt: skip
    return text + trivial(cells)


def percent(share):
    return f"{100 * share:.{1 if share >= 0.01 else 2}f} %"


ATTACKS = {
    "poison": (poison_cells, poison_table),
    "bank": (bank_cells, bank_table),
    "privacy": (privacy_cells, privacy_table),
}


# ---- Main ----


def write(lab, cells, results):
    what = lab.options.what
    text = ATTACKS[what][1]({name: {**cells[name], **results[name]} for name in cells if name in results})
    with open(os.path.join(lab.out, "table.md"), "w", encoding="utf-8") as file:
        file.write(text.lstrip("\n"))
    if os.path.abspath(lab.options.out) == RESULTS:
        path, begin, end = os.path.join(HERE, "README.md"), f"<!-- {what} -->\n", f"<!-- end of {what} -->\n"
        with open(path, encoding="utf-8") as file:
            before, _, rest = file.read().partition(begin)
        with open(path, "w", encoding="utf-8") as file:
            file.write(before + begin + text.lstrip("\n") + end + rest.partition(end)[2])


def cell_file(lab, name):
    return os.path.join(lab.out, "cells", re.sub(r"[^a-z0-9.]+", "-", name) + ".json")


def load(lab, name, cell):
    """A finished cell of the same plan and size, or None."""
    try:
        with open(cell_file(lab, name), encoding="utf-8") as file:
            found = json.load(file)
        return found["result"] if found["cell"] == cell and found["quick"] == lab.options.quick else None
    except FileNotFoundError:
        return None


def commit():
    code, out, _ = call(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
    return out.strip() if code == 0 else "unknown"


def measure(lab, cells):
    results = {name: result for name in cells if (result := load(lab, name, cells[name]))}
    words = lab.options.words or [""]
    left = [name for name in cells if name not in results and any(word in name + ";" for word in words)]
    print(f"{lab.options.what}: {len(cells)} cells, {len(results)} finished before, {len(left)} to do", flush=True)
    lock, by = threading.Lock(), commit()

    def one(name):
        result = lab.federation(name, cells[name])
        with lock:
            with open(cell_file(lab, name), "w", encoding="utf-8") as file:
                json.dump({"cell": cells[name], "quick": lab.options.quick, "commit": by, "result": result}, file, indent=1)
                file.write("\n")
            results[name] = result
            write(lab, cells, results)
            print(f"{name}: kNN {result['knn_top1']}, {result['seconds']} s {result.get('ended', '')}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(lab.options.jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(one, name) for name in left]):
            if done.exception():
                pool.shutdown(wait=True, cancel_futures=True)
            done.result()
    write(lab, cells, results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=ATTACKS)
    parser.add_argument("words", nargs="*", help="only cells in whose names one of these stands")
    parser.add_argument("--images", help="CIFAR-10's training images, a folder a class")
    parser.add_argument("--test", help="its test images")
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    parser.add_argument("--out", default=RESULTS, help="folder of the results (tests/attack/results)")
    parser.add_argument("--memory", default="/dev/shm", help="folder for what runs, gigabytes that no disk slows")
    parser.add_argument("--jobs", type=int, default=2, help="federations at a time (2)")
    parser.add_argument("--quick", action="store_true", help="small sizes and drawn images; needs --out")
    options = parser.parse_args()
    if not options.quick and not (options.images and options.test):
        parser.error("--images and --test: name CIFAR-10's folders (starling import-cifar makes them), or take --quick")
    if options.quick and os.path.abspath(options.out) == RESULTS:
        parser.error("--quick needs --out, so that it replaces no results")
    size = FULL if not options.quick else QUICK_PRIVACY if options.what == "privacy" else QUICK
    lab = Lab(options, size)
    try:
        measure(lab, ATTACKS[options.what][0](size, options.quick))
    finally:
        lab.close()


if __name__ == "__main__":
    main()
