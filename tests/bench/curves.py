#!/usr/bin/python3
"""The same run by direct f32, by Winograd and by bf16: loss and kNN accuracy over rounds, side by side as a picture.

  tests/bench/curves.py --train FOLDER --test FOLDER --out FOLDER [--rounds 10] [--steps 40] [--width 64]

One server and one client for each way, real processes; every aggregate is scored by `starling eval --knn`. Writes
curves.json and curves.svg. A way that is already in curves.json is not run again.
"""
import argparse
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAYS = {
    "f32, direct": ["compute.precision=f32", "compute.winograd=off"],
    "f32, Winograd": ["compute.precision=f32", "compute.winograd=auto"],
    "bf16, Winograd": ["compute.precision=bf16", "compute.winograd=auto"],
    "bf16, direct": ["compute.precision=bf16", "compute.winograd=off"],
}
COLOURS = ["#000000", "#0072b2", "#d55e00", "#009e73"]


def run(a, name, settings):
    folder = os.path.join(a.out, name.replace(", ", "-"))
    os.makedirs(folder, exist_ok=True)
    bin_ = os.path.join(a.build, "bin")
    config = os.path.join(folder, "server.yaml")
    with open(config, "w") as file:
        file.write(f"""listen: 127.0.0.1:0
state: {folder}/server
keep_every: 1
plan:
  rounds: {a.rounds}
  min_clients: 1
  local_steps: {a.steps}
  batch: 64
  bn_groups: 4
  learning_rate: 0.06
  queue: 2048
  model: {{blocks: [1, 1, 1, 1], width: {a.width}, input: 32, features: 128}}
  fusion: {{enabled: false}}
  matching: {{enabled: false}}
""")
    log = open(os.path.join(folder, "client.log"), "w")
    server = subprocess.Popen([f"{bin_}/starling-server", "--config", config], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"listening.*?(127\.0\.0\.1:\d+)", line)
        if found:
            break
    else:
        sys.exit("the server did not start")
    command = [f"{bin_}/starling-client", "--server", found.group(1), "--images", a.train, "--name", "site", "--state",
               os.path.join(folder, "client"), "--reproducible"]  # all ways to compute see the same views
    for setting in settings:
        command += ["--set", setting]
    code = subprocess.run(command, stderr=log).returncode
    server.terminate()
    server.stderr.read()
    server.wait()
    if code != 0:
        sys.exit(f"{name}: the client ended with {code}; see {log.name}")
    with open(log.name) as file:
        text = file.read()
    losses = [float(x) for x in re.findall(r"training_finished .*? loss=([\d.]+)", text)]
    kernels = re.search(r'kernels="([^"]*)"', text).group(1)
    scores = []
    for number in range(a.rounds + 1):
        model = os.path.join(folder, "server", "models", f"round-{number:06}.starling")
        out = subprocess.run([f"{bin_}/starling", "eval", "--model", model, "--train", a.train, "--test", a.test, "--knn",
                              "--json"], stdout=subprocess.PIPE, check=True, text=True).stdout
        scores.append(json.loads(out.strip().splitlines()[-1])["knn_top1"])
    return {"loss": losses, "knn_top1": scores, "kernels": kernels}


def panel(results, key, title, left, first):
    width, height, top = 330, 220, 40
    values = [v for r in results.values() for v in r[key]]
    low, high = min(values), max(values)
    rounds = max(len(r[key]) for r in results.values()) - 1 + first
    x = lambda i: left + 45 + (width - 60) * (i + first) / max(rounds, 1)
    y = lambda v: top + height - 20 - (height - 40) * (v - low) / ((high - low) or 1)
    out = [f'<text x="{left + 45}" y="{top - 12}" font-weight="bold">{title}</text>',
           f'<path d="M{left + 45},{top} V{top + height - 10} H{left + width - 10}" fill="none" stroke="#888"/>',
           f'<text x="{left + 40}" y="{y(low) + 4}" text-anchor="end">{low:.3f}</text>',
           f'<text x="{left + 40}" y="{y(high) + 4}" text-anchor="end">{high:.3f}</text>',
           f'<text x="{left + width / 2}" y="{top + height + 8}">round {first} to {rounds}</text>']
    for (name, result), colour in zip(results.items(), COLOURS):
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(result[key]))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return out


def draw(results, path):
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="720" height="310" font-family="sans-serif" font-size="12">',
           '<rect width="720" height="310" fill="white"/>']
    out += panel(results, "loss", "loss of the round", 0, 1) + panel(results, "knn_top1", "kNN accuracy", 350, 0)
    for i, (name, colour) in enumerate(zip(results, COLOURS)):
        out.append(f'<path d="M{40 + 165 * i},292 h24" stroke="{colour}" stroke-width="2"/>'
                   f'<text x="{70 + 165 * i}" y="296">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--train", "--test", "--out"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=64)
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    path = os.path.join(a.out, "curves.json")
    results = json.load(open(path)) if os.path.exists(path) else {}
    for name, settings in WAYS.items():
        if name not in results:
            results[name] = run(a, name, settings)
            with open(path, "w") as file:
                json.dump(results, file, indent=1)
        print(f"{name}: {results[name]['kernels']}; loss {results[name]['loss'][-1]:.4f}, kNN "
              f"{results[name]['knn_top1'][0]:.4f} to {results[name]['knn_top1'][-1]:.4f}", flush=True)
    draw(results, os.path.join(a.out, "curves.svg"))


if __name__ == "__main__":
    main()
