#!/usr/bin/python3
"""What a spy guesses of the images that the others' features show; run.py calls it for each cell, README.md explains it.

  tests/attack/guess.py CELL IMAGES PROGRAMS SIZES

CELL/lie is what the liars wrote down, CELL/work the demo's folder; IMAGES has train/ and others/; SIZES is JSON: pool,
views, known, batch. Candidates are linked into CELL. One JSON object goes to stdout.
"""
import json
import math
import os
import random
import subprocess
import sys

import numpy as np

SITES = [f"client-{i}" for i in range(1, 5)]  # who is spied upon


class Lab:
    def __init__(self, cell, images, programs, size):
        self.cell, self.images, self.programs, self.size = cell, images, programs, json.loads(size)
        self.out = os.path.join(cell, "lie")


def snapshots(lab):
    """For each round of which the spy kept what it received: how well it names the images that the features show."""
    found = []
    for number, remote in received(lab.out):
        shown = truth(lab.out, number, remote)
        pool = os.path.join(lab.cell, f"pool-{number}")
        make_pool(lab, pool, shown, lab.size["pool"])
        rows, paths = project(lab, key_of(lab.out, number), pool, ["--views", str(lab.size["views"])])
        found.append({"round": number, **guess(remote @ rows.T, shown, paths)})
    return found


def received(out):
    spy = os.path.join(out, "client-5")
    for file in sorted(f for f in os.listdir(spy) if f.startswith("remote-")):
        yield int(file[len("remote-") : -len(".npy")]), np.load(os.path.join(spy, file))


def key_of(out, number):
    return os.path.join(out, "client-5", f"key-{number:06}.starling")


def read_own(out, site, number):
    """A witness's features of a round, and the images that they show."""
    path = os.path.join(out, site, f"own-{number:06}")
    with open(path + ".txt", encoding="utf-8") as text:
        return np.load(path + ".npy"), text.read().split()


def truth(out, number, remote):
    """Which image each row shows, by the witnesses: rows travel as they were, but for rounding (f16, int8)."""
    rows, paths = [], []
    for site in SITES:
        for file in sorted(os.listdir(os.path.join(out, site))):
            if file.endswith(".npy") and int(file[len("own-") : -len(".npy")]) < number:
                own, shown = read_own(out, site, int(file[len("own-") : -len(".npy")]))
                rows.append(own)
                paths += shown
    near = remote @ np.concatenate(rows).T
    best = near.argmax(axis=1)
    if near[np.arange(len(best)), best].min() < 0.999:
        sys.exit(f"round {number}: the spy received a feature that no witness sent")
    return [paths[i] for i in best]


def make_pool(lab, pool, shown, each):
    """Candidates: in/ images that sites hold, those that are shown among them, and out/ as many that no site holds. Which
    is which only the scoring knows."""
    draw = random.Random(2)
    held, foreign = (
        sorted(os.path.join(name, file) for name in os.listdir(folder) for file in os.listdir(os.path.join(folder, name)))
        for folder in (os.path.join(lab.images, "train"), os.path.join(lab.images, "others"))
    )
    inside = sorted(set(shown))
    rest = sorted(set(held) - set(inside))
    inside += draw.sample(rest, max(0, min(len(rest), each - len(inside))))
    for part, source, chosen in (("in", "train", inside), ("out", "others", draw.sample(foreign, len(inside)))):
        for path in chosen:
            place = os.path.join(pool, part, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(os.path.realpath(os.path.join(lab.images, source, path)), place)


def project(lab, key, pool, how):
    command = [os.path.join(lab.programs, "attack_project"), "--model", key, "--images", pool, *how]
    subprocess.run([*command, "--out", pool + ".npy", "--paths", pool + ".txt"], check=True)
    with open(pool + ".txt", encoding="utf-8") as file:
        return np.load(pool + ".npy"), file.read().split()


def guess(near, shown, paths):
    """near: cosines [features, candidates]. A feature shows the candidate that it is nearest to; a candidate is a member
    if it is nearer to some feature than this feature is, on average, to its ten nearest candidates."""
    truth_at = {path[len("in/") :]: i for i, path in enumerate(paths) if path.startswith("in/")}
    right = np.array([truth_at[path] for path in shown])
    rank = (near > near[np.arange(len(right)), right][:, None]).sum(axis=1)
    score = (near - np.sort(near, axis=1)[:, -10:].mean(axis=1)[:, None]).max(axis=0)
    member = np.zeros(len(paths), bool)
    member[right] = True
    outside = np.array([path.startswith("out/") for path in paths])
    yes, no = score[member], np.sort(score[outside])
    below = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")
    return {
        "features": len(near), "images": int(member.sum()), "candidates": len(paths), "others": int(outside.sum()),
        "top1": float((rank == 0).mean()), "top10": float((rank < 10).mean()), "chance": 1 / len(paths),
        "auc": float(below.mean() / 2 / len(no)),
        "tpr_at_1": float((yes > no[math.ceil(0.99 * len(no)) - 1]).mean()),
    }  # fmt: skip


def known_views(lab):
    """The same by a spy that makes each candidate's views as the others made theirs, for the features of the newest round
    before the last snapshot. `mixed`: it does not know which view a feature is of, and tries all; `sorted`: it does."""
    number, _ = list(received(lab.out))[-1]
    batch, rows, shown, views = lab.size["batch"], [], [], []
    for site in SITES:
        own, images = read_own(lab.out, site, number - 1)
        rows.append(own)
        shown += images
    pool = os.path.join(lab.cell, "known")
    make_pool(lab, pool, shown, lab.size["known"])
    for site in SITES:
        count = sum(len(files) for _, _, files in os.walk(os.path.join(lab.cell, "work", "sites", site)))
        how = ["--site", site, "--count", str(count), "--seed", "1", "--round", str(number - 1), "--batch", str(batch)]
        made, paths = project(lab, key_of(lab.out, number), pool, how)
        views.append(made.reshape(batch, len(paths), -1)[::-1])  # features are the newest first
    rows, views = np.concatenate(rows), np.concatenate(views)
    sure = np.einsum("fd,fcd->fc", rows, views)
    mixed = np.max([rows @ view.T for view in views], axis=0)
    return {"mixed": guess(mixed, shown, paths), "sorted": guess(sure, shown, paths)}


if __name__ == "__main__":
    LAB = Lab(*sys.argv[1:])
    print(json.dumps({"snapshots": snapshots(LAB), "known": known_views(LAB)}))
