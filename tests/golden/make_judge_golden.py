#!/usr/bin/python3
"""Writes judge.bin beside it: what scikit-learn answers where `starling eval` asks client/nn/judge.c.

Needed only to change it: `tests/golden/make_judge_golden.py` with Debian's python3-sklearn. The byte table of a golden file
is in make_golden.py. Features are drawn: seven classes of unequal size, each of two clusters that overlap others, so that
nearest neighbours and a linear model give different answers, and neither knows all.

Nearest neighbours: KNeighborsClassifier with cosine distance and votes exp(cos / t), in float64. Test rows whose answer
hangs on rounding are left out: the two heaviest classes are nearer than the last neighbour's vote or 1e-4 of their own.

Linear probe: LogisticRegression, which minimises |w|^2 / 2 + C * sum of losses, bias free. judge.c minimises mean loss +
1e-4 / 2 * |w|^2 on standardised features, bias free: the same for C = 1 / (1e-4 n). It descends by minibatches for a fixed
time where this one converges, so it may stop a little above.
"""
import os
import struct

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES, D, TRAIN, TEST = 7, 24, 1500, 500
DECAY = 1e-4
KNN = [(1, 0.1), (20, 0.1), (200, 0.1), (200, 0.02), (1500, 0.07)]


def write(name, arrays):
    out = b"STGOLD01" + struct.pack("<I", len(arrays))
    for key, value in arrays.items():
        value = np.asarray(value)
        kind = 1 if value.dtype.kind in "iu" else 0
        data = value.astype("<u4" if kind else "<f4").tobytes()
        out += key.encode().ljust(32, b"\0") + struct.pack("<II", kind, len(data) // 4) + data
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(out)
    print(f"{name}: {len(out)} bytes")


def draw(rng, n, centres):
    labels = rng.choice(CLASSES, n, p=np.arange(2, 2 + CLASSES) / sum(range(2, 2 + CLASSES)))
    rows = centres[labels, rng.integers(0, 2, n)] + rng.normal(size=(n, D))
    rows *= np.linspace(0.5, 2, D)  # features of different spread
    return (rows + 0.3).astype("f4"), labels


def unit(rows):
    rows = rows.astype("f8")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clear(train, labels, test, k, t):
    """Rows of `test` whose answer no rounding of cosines can change."""
    cosines = np.sort(unit(test) @ unit(train).T, axis=1)[:, ::-1]
    votes = knn(train, labels, k, t).predict_proba(test)
    weights = np.exp(cosines[:, :k] / t)
    votes = np.sort(votes * weights.sum(axis=1, keepdims=True), axis=1)
    margin = votes[:, -1] - votes[:, -2]
    good = margin > 1e-4 * votes[:, -1]
    if k < len(train):
        good &= (cosines[:, k - 1] - cosines[:, k] > 1e-5) | (margin > 2.1 * weights[:, -1])
    return good


def knn(train, labels, k, t):
    model = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / t)
    )
    return model.fit(train.astype("f8"), labels)


def objective(model, rows, labels):
    loss = log_loss(labels, model.predict_proba(rows), labels=range(CLASSES))
    return loss + DECAY / 2 * (model.coef_**2).sum()


def logistic(rows, labels, decay):
    model = LogisticRegression(C=1 / (decay * len(rows)), tol=1e-10, max_iter=100000)
    return model.fit(rows, labels)


def main():
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(CLASSES, 2, D)) * 0.75
    train, labels = draw(rng, TRAIN, centres)
    test, test_labels = draw(rng, 2 * TEST, centres)
    keep = np.all([clear(train, labels, test, k, t) for k, t in KNN], axis=0)
    print(f"{keep.sum()} of {2 * TEST} test rows are clear")
    assert keep.sum() >= TEST
    test, test_labels = test[keep][:TEST], test_labels[keep][:TEST]
    answers = [knn(train, labels, k, t).predict(test) for k, t in KNN]

    scaler = StandardScaler().fit(train.astype("f8"))
    rows, test_rows = scaler.transform(train.astype("f8")), scaler.transform(test.astype("f8"))
    probe, other = logistic(rows, labels, DECAY), logistic(rows, labels, 300 * DECAY)
    linear = probe.predict(test_rows)

    for (k, t), answer in zip(KNN, answers):
        print(f"kNN k={k} t={t}: {np.mean(answer == test_labels):.4f}")
    print(f"linear: {np.mean(linear == test_labels):.4f}, objective {objective(probe, rows, labels):.6f}")
    print(f"linear, 300 times the decay: {np.mean(other.predict(test_rows) == test_labels):.4f}, "
          f"objective {objective(other, rows, labels):.6f}")
    print(f"majority: {np.mean(test_labels == np.bincount(labels).argmax()):.4f}")
    write(
        "judge.bin",
        {
            "sizes": np.array([TRAIN, TEST, D, CLASSES, len(KNN)], "u4"),
            "train": train,
            "train_labels": labels,
            "test": test,
            "test_labels": test_labels,
            "k": np.array([k for k, _ in KNN], "u4"),
            "temperature": np.array([t for _, t in KNN]),
            "knn": np.array(answers),
            "linear": linear,
            "objective": np.array([objective(probe, rows, labels), objective(other, rows, labels)]),
        },
    )


main()
