#!/usr/bin/python3
"""Writes the golden files beside it: what PyTorch computes for small encoders, losses and training steps.

Needed only to change them: `tests/golden/make_golden.py` with Debian's python3-torch and python3-numpy. Everything is
computed in float64 from inputs that are exact in float32, so the files hold the truth and not PyTorch's rounding. A file
carries its inputs too; nothing is drawn again on the other side, except the shuffles and draws of a training step, whose
generator (common/base/rng.h) is written down here a second time.

A golden file, all numbers little-endian:

  offset  bytes  what
  0       8      "STGOLD01"
  8       4      number of arrays
  12      ...    arrays, one behind the other:
                   32  name, zero-padded
                   4   type: 0 float32, 1 uint32
                   4   number of elements
                   4 x number of elements
"""
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
HERE = os.path.dirname(os.path.abspath(__file__))
EPSILON = 1e-5


def write(name, arrays):
    out = b"STGOLD01" + struct.pack("<I", len(arrays))
    for key, value in arrays.items():
        value = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
        kind = 1 if value.dtype.kind in "iu" else 0
        data = value.astype("<u4" if kind else "<f4").tobytes()
        out += key.encode().ljust(32, b"\0") + struct.pack("<II", kind, len(data) // 4) + data
    assert len(out) < 500_000, (name, len(out))
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(out)
    print(f"{name}: {len(out)} bytes")


# The flat vector, as common/vec/layout.c orders it: all weights, then all that does not decay, then all statistics.
class Spec:
    def __init__(self, block, blocks, width, stem, side, features):
        self.block, self.blocks, self.width, self.stem, self.side, self.features = block, blocks, width, stem, side, features

    def numbers(self, batch):
        blocks = self.blocks + [0] * (4 - len(self.blocks))
        return np.array([self.block, len(self.blocks), *blocks, self.width, self.stem, self.side, self.features, batch], "u4")

    def convs(self):
        """(name, out, in, kernel), in network order."""
        yield "stem", self.width, 3, 7 if self.stem else 3
        cin = self.width
        for stage, count in enumerate(self.blocks):
            inner = self.width << stage
            cout = inner * (4 if self.block else 1)
            for i in range(count):
                name = f"stage{stage}.{i}"
                yield name + ".1", inner, cin, 1 if self.block else 3
                yield name + ".2", inner, inner, 3
                if self.block:
                    yield name + ".3", cout, inner, 1
                if (stage and i == 0) or cin != cout:
                    yield name + ".short", cout, cin, 1
                cin = cout
        self.backbone = cin

    def table(self):
        convs = list(self.convs())
        c, d = self.backbone, self.features
        decay = [(n + ".weight", (o, i, k, k)) for n, o, i, k in convs] + [("head.0.weight", (c, c)), ("head.1.weight", (d, c))]
        rest = [(n + leaf, (o,)) for n, o, _, _ in convs for leaf in (".scale", ".shift")]
        rest += [("head.0.bias", (c,)), ("head.1.bias", (d,))]
        stats = [(n + leaf, (o,)) for n, o, _, _ in convs for leaf in (".mean", ".square")]
        return decay, rest, stats

    def sizes(self):
        decay, rest, stats = (sum(int(np.prod(s)) for _, s in part) for part in self.table())
        return decay, decay + rest, decay + rest + stats

    def view(self, flat):
        out, at = {}, 0
        for part in self.table():
            for name, shape in part:
                n = int(np.prod(shape))
                out[name] = flat[at:at + n].reshape(shape)
                at += n
        assert at == flat.numel()
        return out


def bn(x, p, name, stats):
    """By the batch's statistics, which are left in `stats`; with stats None by those in p."""
    if stats is None:
        mean = p[name + ".mean"]
        var = (p[name + ".square"] - mean ** 2).clamp(min=0)
    else:
        mean = x.mean((0, 2, 3))
        var = x.var((0, 2, 3), unbiased=False)
        stats[name + ".mean"], stats[name + ".square"] = mean.detach(), (x ** 2).mean((0, 2, 3)).detach()
    return F.batch_norm(x, mean.detach(), var.detach(), p[name + ".scale"], p[name + ".shift"], stats is not None, 0.0, EPSILON)


def encode(spec, flat, x, stats):
    """Pooled backbone, unit features."""
    p = spec.view(flat)

    def conv(y, name, stride=1):
        w = p[name + ".weight"]
        return bn(F.conv2d(y, w, stride=stride, padding=(w.shape[2] - 1) // 2), p, name, stats)

    x = F.relu(conv(x, "stem", 2 if spec.stem else 1))
    if spec.stem:
        x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(spec.blocks):
        for i in range(count):
            name, stride = f"stage{stage}.{i}", 2 if stage and i == 0 else 1
            if spec.block:
                y = F.relu(conv(x, name + ".1"))
                y = conv(F.relu(conv(y, name + ".2", stride)), name + ".3")
            else:
                y = conv(F.relu(conv(x, name + ".1", stride)), name + ".2")
            short = name + ".short"
            x = F.relu(y + (conv(x, short, stride) if short + ".weight" in p else x))
    pooled = x.mean((2, 3))
    hidden = F.relu(F.linear(pooled, p["head.0.weight"], p["head.0.bias"]))
    return pooled, F.normalize(F.linear(hidden, p["head.1.weight"], p["head.1.bias"]), dim=1)


def flat_stats(spec, stats):
    return torch.cat([stats[name] for name, _ in spec.table()[2]])


def normal(generator, *shape):
    """Exact in float32."""
    return torch.tensor(generator.standard_normal(shape).astype("f4").astype("f8"))


def unit(generator, n, d):
    rows = F.normalize(normal(generator, n, d), dim=1)
    return rows.float().double()


def parameters(spec, generator):
    decay, trainable, total = spec.sizes()
    flat = normal(generator, total)
    for name, tensor in spec.view(flat).items():
        if name.endswith("weight"):
            tensor *= (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("mean"):
            tensor *= 0.1
        elif name.endswith("square"):
            tensor.mul_(0.1).abs_().add_(1)
        else:
            tensor.mul_(0.2).add_(1 if name.endswith("scale") else 0)
    return flat.float().double()


def golden_net(name, spec, batch, seed):
    g = np.random.default_rng(seed)
    flat = parameters(spec, g)
    images, dfeatures = normal(g, batch, 3, spec.side, spec.side), normal(g, batch, spec.features)
    trained = spec.sizes()[1]
    x = flat.clone().requires_grad_()
    stats = {}
    backbone, features = encode(spec, x, images, stats)
    (features * dfeatures).sum().backward()
    eval_backbone, eval_features = encode(spec, flat, images, None)
    write(name, {"spec": spec.numbers(batch), "params": flat, "images": images, "dfeatures": dfeatures,
                 "backbone": backbone, "features": features, "stats": flat_stats(spec, stats), "grad": x.grad[:trained],
                 "eval_backbone": eval_backbone, "eval_features": eval_features})


def contrast(q, k, negatives, t):
    """InfoNCE: cross entropy against column 0."""
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives.t()], 1) / t
    hits = (logits[:, 0] > logits[:, 1:].max(1).values).double().mean()
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long)), hits


def entropy(q, remote, neighbours, t):
    logits = (q @ remote.t() / t).topk(neighbours, dim=1).values
    logp = F.log_softmax(logits, dim=1)
    return -(logp.exp() * logp).sum(1).mean()


def positives(q, k, remote, negatives, neighbours, t):
    nearest = (k @ remote.t()).topk(neighbours, dim=1).indices
    total = 0
    for i in range(len(q)):
        chosen = remote[nearest[i]]
        same = (negatives[:, None, :] == chosen[None]).all(2).any(1)
        rest = (negatives[~same] @ q[i]) / t
        for row in chosen:
            s = (row @ q[i] / t).reshape(1)
            total = total + torch.logsumexp(torch.cat([s, rest]), 0) - s[0]
    return total / (len(q) * neighbours)


def golden_losses():
    g = np.random.default_rng(5)
    B, d, m, t, neighbours, weight = 8, 16, 24, 0.2, 5, 0.7
    q, k, remote = unit(g, B, d), unit(g, B, d), unit(g, m, d)
    negatives = torch.cat([remote[3:15], unit(g, 28, d)])  # half of the remote features are negatives as well
    out = {"sizes": np.array([B, d, len(negatives), m, neighbours], "u4"), "temperature": np.array([t]),
           "weight": np.array([weight]), "q": q, "k": k, "remote": remote, "negatives": negatives}
    for name, function in (("contrast", lambda x: contrast(x, k, negatives, t)[0]),
                           ("entropy", lambda x: weight * entropy(x, remote, neighbours, t)),
                           ("positives", lambda x: weight * positives(x, k, remote, negatives, neighbours, t))):
        x = q.clone().requires_grad_()
        loss = function(x)
        loss.backward()
        out[name + "_loss"], out[name + "_dq"] = loss.reshape(1), x.grad
    out["accuracy"] = contrast(q, k, negatives, t)[1].reshape(1)
    write("losses.bin", out)


# common/base/rng.h
M64, M32 = (1 << 64) - 1, (1 << 32) - 1
RNG_SHUFFLE, RNG_NEGATIVES = 5, 11


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & M64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


class Rng:
    def __init__(self, seed, purpose, a, b=0, c=0):
        key = mix(mix(seed) ^ purpose)
        name = mix(mix(mix(key ^ a) ^ b) ^ c)
        self.key = (key & M32, key >> 32)
        self.counter = [0, 0, name & M32, name >> 32]
        self.words = []

    def u32(self):
        if not self.words:
            c, (k0, k1) = list(self.counter), self.key
            for _ in range(10):
                p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [(p1 >> 32) ^ c[1] ^ k0, p1 & M32, (p0 >> 32) ^ c[3] ^ k1, p0 & M32]
                k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
            self.words = c
            self.counter[0] += 1
        return self.words.pop(0)

    def below(self, n):
        product, threshold = self.u32() * n, (1 << 32) % n
        while (product & M32) < threshold:
            product = self.u32() * n
        return product >> 32

    def permuted(self, n):
        items = list(range(n))
        for i in range(n, 1, -1):
            j = self.below(i)
            items[i - 1], items[j] = items[j], items[i - 1]
        return items

    def sample(self, n, count):
        items = list(range(n))
        if count < n:
            for i in range(count):
                j = i + self.below(n - i)
                items[i], items[j] = items[j], items[i]
        return items[:count]


def drawn(queue, remote, share, seed, step):
    wanted = round(share * len(queue))
    r = min(wanted, len(remote))
    local = len(queue) - r if share < 1 or not len(remote) else 0
    return torch.cat([remote[Rng(seed, RNG_NEGATIVES, step, 2).sample(len(remote), r)],
                      queue[Rng(seed, RNG_NEGATIVES, step, 1).sample(len(queue), local)]]), r


def golden_steps(name, groups, m, share, form, seed, width=8):
    """Ten steps of MoCo, in the order of the reference: the key encoder follows, keys, features, gradient, SGD."""
    g = np.random.default_rng(seed)
    spec, batch, K, steps, site = Spec(0, [1, 1], width, 0, 8, 8), 8, 24, 10, 77
    rate, momentum, decay, keep, t, tm, weight, neighbours = 0.03, 0.9, 0.01, 0.8, 0.2, 0.15, 0.5, 3
    decay_end, trained, total = spec.sizes()
    query = parameters(spec, g)
    start, key, velocity = query.clone(), query.clone(), torch.zeros(trained)
    queue, remote = unit(g, K, spec.features), unit(g, m, spec.features) if m else torch.zeros(0, spec.features)
    first_queue, views = queue, normal(g, steps, 2, batch, 3, spec.side, spec.side)
    figures = []
    size = batch // groups

    def follow():
        key[:trained] = keep * key[:trained] + (1 - keep) * query[:trained]

    def fold(vector, parts):
        vector[trained:] = 0.9 * vector[trained:] + 0.1 * torch.stack(parts).mean(0)

    for step in range(steps):
        follow()
        order = Rng(site, RNG_SHUFFLE, step).permuted(batch)
        keys, key_stats, query_stats = torch.zeros(batch, spec.features), [], []
        for group in range(groups):
            chosen, stats = order[group * size:(group + 1) * size], {}
            keys[chosen] = encode(spec, key, views[step, 1][chosen], stats)[1]
            key_stats.append(flat_stats(spec, stats))
        negatives, r = drawn(queue, remote, share, site, step)
        x = query.clone().requires_grad_()
        rows = []
        for group in range(groups):
            stats = {}
            rows.append(encode(spec, x, views[step, 0][group * size:(group + 1) * size], stats)[1])
            query_stats.append(flat_stats(spec, stats))
        q = torch.cat(rows)
        loss_contrast, hits = contrast(q, keys, negatives, t)
        loss_matching = torch.zeros(())
        if form == 1:
            loss_matching = weight * entropy(q, remote, neighbours, tm)
        elif form == 2:
            loss_matching = weight * positives(q, keys, remote, negatives, neighbours, tm)
        (loss_contrast + loss_matching).backward()
        figures.append([loss_contrast.item(), loss_matching.item(), hits.item(), r / len(negatives)])
        grad = x.grad[:trained].clone()
        grad[:decay_end] += decay * query[:decay_end]
        velocity = momentum * velocity + grad
        query[:trained] -= rate * velocity
        fold(query, query_stats)
        fold(key, key_stats)
        queue = torch.cat([queue[batch:], keys])
    follow()  # the engine takes this step of the key encoder behind the optimiser's, not at the start of the next
    write(name, {"spec": spec.numbers(batch), "options": np.array([groups, K, m, form, neighbours, steps, site], "u4"),
                 "rates": np.array([rate, momentum, decay, keep, t, tm, weight, share]), "params": start,
                 "queue": first_queue, "remote": remote, "views": views, "figures": np.array(figures), "query": query,
                 "key": key, "last_queue": queue})


def measures(q, k):
    """Alignment and uniformity as Wang and Isola define them, the deviation of Chen and He, Roy and Vetterli's rank."""
    n, d = q.shape
    gaps = ((q[:, None] - q[None]) ** 2).sum(2)[np.triu_indices(n, 1)]
    centred = q - q.mean(0)
    shares = np.linalg.svd(centred, compute_uv=False) ** 2
    shares = shares[shares > 1e-14 * shares.sum()] / shares.sum()
    return [((q - k) ** 2).sum(1).mean(), np.log(np.exp(-2 * gaps).mean()), q.std(0).mean() * d ** 0.5,
            np.exp(-(shares * np.log(shares)).sum())]


def golden_watch():
    """Batches wider than long, longer than wide, spread unevenly, and longer than WATCH_ROWS."""
    g, arrays = np.random.default_rng(15), {}
    sizes = [(24, 32), (64, 16), (40, 40), (300, 8)]
    for i, (n, d) in enumerate(sizes):
        scales = np.exp(-np.arange(d) / (1 + 2 * i)) + 0.01
        q = g.standard_normal((n, d)) * scales + (i == 2) * np.eye(d)[0]
        k = q + 0.1 * g.standard_normal((n, d)) * scales
        q, k = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4") for x in (q, k))
        arrays |= {f"q{i}": q, f"k{i}": k, f"measures{i}": np.array(measures(q[:128].astype("f8"), k[:128].astype("f8")))}
    write("watch.bin", {"sizes": np.array(sizes, "u4"), **arrays})


golden_net("net_small.bin", Spec(0, [1, 1, 1], 8, 0, 16, 16), 6, 1)
golden_net("net_large.bin", Spec(0, [2, 1], 8, 1, 32, 16), 5, 2)
golden_net("net_bottleneck.bin", Spec(1, [1, 2], 4, 0, 12, 16), 6, 3)
golden_net("net_wide.bin", Spec(0, [1, 1], 16, 0, 16, 16), 12, 4)
golden_losses()
golden_steps("steps_local.bin", 1, 0, 0.5, 0, 11)
golden_steps("steps_entropy.bin", 2, 9, 0.5, 1, 12)
golden_steps("steps_positives.bin", 2, 20, 0.5, 2, 13)
golden_steps("steps_wide.bin", 1, 0, 0.5, 0, 14, 16)
golden_watch()
