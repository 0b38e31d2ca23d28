#!/usr/bin/python3
"""Product and peer in turns (A B A B ...), and the table of pairwise ratios.

  tests/bench/compare.py step  --peer torch_step.py  [--rounds 3] [--busy N]
  tests/bench/compare.py input --peer torch_input.py --images FOLDER [--rounds 3]

The peer is a script that prints one JSON line with images_per_second (step) or images_per_second_per_core (input).
Each round runs every candidate once, so a disturbance of the machine meets both sides; a ratio is taken within a round,
and the median of the ratios counts. Both sides run at their best setting, which a first round finds: the peer over its
threads and memory layouts, and in bf16 also over its types; the product over its number of BN groups.

--busy N: N other programs that never rest take their share of the processors meanwhile.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CASES = [  # name, width, batch, product's type, peer's types
    ("width 64, batch 64, f32", 64, 64, "f32", ["f32"]),
    ("width 16, batch 128, f32", 16, 128, "f32", ["f32"]),
    ("width 64, batch 64, bf16", 64, 64, "bf16", ["f32", "bf16"]),
    ("width 16, batch 128, bf16", 16, 128, "bf16", ["f32", "bf16"]),
]


def run(command):
    """The JSON line and the peak memory in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return json.loads(out.strip().splitlines()[-1]), usage.ru_maxrss * 1024


def peer_step(peer, width, batch, dtype, threads, layout, steps):
    return run(["/usr/bin/python3", peer, "--width", str(width), "--blocks", "2,2,2,2", "--batch", str(batch),
                "--threads", str(threads), "--layout", layout, "--dtype", dtype, "--steps", str(steps)])


def our_step(starling, width, batch, dtype, groups, threads, steps, *more):
    return run([starling, "bench", "step", "--width", str(width), "--blocks", "2,2,2,2", "--input", "32", "--batch",
                str(batch), "--queue", "4096", "--threads", str(threads), "--dtype", dtype, "--bn-groups", str(groups),
                "--steps", str(steps), *more])


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare_step(a):
    print("| case | product images/s | peer images/s | ratio, median (range) | fraction of sgemm | memory ratio |")
    print("|---|---|---|---|---|---|")
    for name, width, batch, dtype, peer_dtypes in CASES:
        if a.only and a.only not in name:
            continue
        steps = 6 if width == 64 else 12
        settings = [(d, t, l) for d in peer_dtypes for t in sorted({1, a.threads}) for l in ("channels_last", "contiguous")]
        best = max(settings, key=lambda s: peer_step(a.peer, width, batch, s[0], s[1], s[2], 3)[0]["images_per_second"])
        groups = max((g for g in (2, 4, 8) if g >= a.threads),
                     key=lambda g: our_step(a.starling, width, batch, dtype, g, a.threads, 3)[0]["images_per_second"])
        ours, peers, ratios, fractions, memory = [], [], [], [], []
        for _ in range(a.rounds):
            our, our_bytes = our_step(a.starling, width, batch, dtype, groups, a.threads, steps)
            peer, peer_bytes = peer_step(a.peer, width, batch, best[0], best[1], best[2], steps)
            ours.append(our["images_per_second"])
            peers.append(peer["images_per_second"])
            ratios.append(ours[-1] / peers[-1])
            fractions.append(our["fraction_of_peak"] or 0)
            memory.append(our["peak_rss_bytes"] / peer_bytes)
        print(f"| {name} ({groups} groups; peer: {best[0]}, {best[1]} threads, {best[2]}) | {statistics.median(ours):.1f} "
              f"| {statistics.median(peers):.1f} | {spread(ratios)} | {statistics.median(fractions):.2f} "
              f"| {statistics.median(memory):.2f} |", flush=True)


def compare_input(a):
    print("| case | product images/s and core | peer | ratio, median (range) |")
    print("|---|---|---|---|")
    pairs = {"from the cache": ("from_cache", ["--cached"]), "from files": ("from_files", [])}
    rows = {name: ([], []) for name in pairs}
    for _ in range(a.rounds):
        our, _ = run([a.starling, "bench", "input", "--images", a.images, "--size", str(a.size), "--threads", "1"])
        for name, (key, flags) in pairs.items():
            peer, _ = run(["/usr/bin/python3", a.peer, "--images", a.images, "--size", str(a.size), *flags])
            rows[name][0].append(our[key])
            rows[name][1].append(peer["images_per_second_per_core"])
    for name, (ours, peers) in rows.items():
        print(f"| {name}, {a.size} pixels | {statistics.median(ours):.0f} | {statistics.median(peers):.0f} "
              f"| {spread([x / y for x, y in zip(ours, peers)])} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "input"))
    parser.add_argument("--peer", required=True)
    parser.add_argument("--starling", default=os.path.join(ROOT, "build/release/bin/starling"))
    parser.add_argument("--images")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--only", help="cases whose name holds this")
    a = parser.parse_args()
    if a.what == "input" and not a.images:
        parser.error("input needs --images")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(a.busy)]
    try:
        (compare_step if a.what == "step" else compare_input)(a)
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
