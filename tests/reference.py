"""Slow NumPy versions of the losses, each written from its paper as loops over samples. The fast ones are tested against them.

Shapes: B images, D width, K queue, N patches, p patch side.
"""

import numpy as np


def unit(x):
    """Rows of length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def info_nce(q, k, negatives, t, patients=None, negative_patients=None):
    """MoCo, equation 1, mean over queries, without negatives of the query's own patient.  q, k: (B, D), negatives: (K, D)."""
    losses = []
    for i, (a, b) in enumerate(zip(q, k, strict=True)):
        own = np.exp(a @ b / t)
        others = [n for j, n in enumerate(negatives) if patients is None or negative_patients[j] != patients[i]]
        losses.append(-np.log(own / (own + sum(np.exp(a @ n / t) for n in others))))
    return np.mean(losses)


def info_nce_gradient(q, k, negatives, t):
    """Its derivative by q, by hand: (softmax-weighted mean of all keys - own key) / (t * B)."""
    grad = np.zeros_like(q)
    for i, a in enumerate(q):
        keys = np.concatenate([k[i : i + 1], negatives])
        p = np.exp(keys @ a / t)
        p /= p.sum()
        grad[i] = (p @ keys - k[i]) / (t * len(q))
    return grad


def nt_xent(a, b, t, patients=None):
    """SimCLR, algorithm 1: the loss of (2k - 1, 2k) and back, mean over all 2N, without other images of the patient.  a, b: (B, D)."""
    z = [row for pair in zip(a, b, strict=True) for row in pair]
    s = [[u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) for v in z] for u in z]

    def pair_loss(i, j):
        others = [m for m in range(len(z)) if m != i and (m == j or patients is None or patients[m // 2] != patients[i // 2])]
        return -np.log(np.exp(s[i][j] / t) / sum(np.exp(s[i][m] / t) for m in others))

    return sum(pair_loss(2 * k, 2 * k + 1) + pair_loss(2 * k + 1, 2 * k) for k in range(len(a))) / (2 * len(a))


def supcon(a, b, t, classes=None, patients=None):
    """Khosla et al. 2020, equation 2 (L_out), mean over the 2N views of the batch; class -1 is unlabeled.  a, b: (B, D)."""
    z, n = unit(np.concatenate([a, b])), len(a)
    losses = []
    for i in range(2 * n):
        own = [p for p in range(2 * n) if p != i and (p % n == i % n or (classes is not None and classes[p % n] == classes[i % n] >= 0))]
        others = [k for k in range(2 * n) if k != i and (k in own or patients is None or patients[k % n] != patients[i % n])]
        total = sum(np.exp(z[i] @ z[k] / t) for k in others)
        losses.append(-sum(np.log(np.exp(z[i] @ z[p] / t) / total) for p in own) / len(own))
    return np.mean(losses)


def patches(image, p):
    """MAE: (C, H, W) -> (N, p * p * C), row by row, channel last."""
    c, h, w = image.shape
    out = []
    for y in range(0, h, p):
        for x in range(0, w, p):
            out.append([image[ch, y + dy, x + dx] for dy in range(p) for dx in range(p) for ch in range(c)])
    return np.array(out)


def mae(images, predicted, masked, p, norm_pix):
    """MAE, section 3: squared error in the hidden patches only.  predicted: (B, N, p * p * C), masked: (B, M)."""
    errors = []
    for image, guess, hidden in zip(images, predicted, masked, strict=True):
        target = patches(image, p)
        for j in hidden:
            want = target[j]
            if norm_pix:
                want = (want - want.mean()) / np.sqrt(want.var(ddof=1) + 1e-6)
            errors.append(np.mean((guess[j] - want) ** 2))
    return np.mean(errors)


def simmim(images, predicted, hidden, p):
    """SimMIM, section 3.4: absolute errors of the pixels of hidden patches, summed and divided by their number."""
    total = count = 0
    for image, guess, mask in zip(images, predicted, hidden, strict=True):
        for target, own, away in zip(patches(image, p), guess, mask, strict=True):
            if away:
                total, count = total + np.abs(own - target).sum(), count + target.size
    return total / count


def ijepa(predicted, target):
    """I-JEPA's loss as its authors compute it: smooth L1 of predictions (rows) and targets that are normalised token by token."""
    errors = []
    for guess, want in zip(predicted, target, strict=True):
        for d in np.abs(guess - (want - want.mean()) / np.sqrt(want.var() + 1e-5)):
            errors.append(d - 0.5 if d > 1 else d**2 / 2)
    return np.mean(errors)


def sincos(dim, rows, columns):
    """MAE's position table: for each patch, sines and cosines of its column, then of its row."""
    table = []
    for y in range(rows):
        for x in range(columns):
            line = []
            for place in (x, y):
                angles = [place / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
                line += [np.sin(v) for v in angles] + [np.cos(v) for v in angles]
            table.append(line)
    return np.array(table)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def byol(p, z):
    """BYOL, equation 2: 2 - 2 cosine, mean over rows."""
    return np.mean([2 - 2 * cosine(a, b) for a, b in zip(p, z, strict=True)])


def simsiam(p, z):
    """SimSiam, equation 1: negative cosine, mean over rows."""
    return np.mean([-cosine(a, b) for a, b in zip(p, z, strict=True)])


def barlow_twins(a, b, weight, eps):
    """Barlow Twins, algorithm 1, one matrix entry a time; `eps` as in the authors' BatchNorm."""
    n, d = a.shape
    a = (a - a.mean(0)) / np.sqrt(a.var(0) + eps)
    b = (b - b.mean(0)) / np.sqrt(b.var(0) + eps)
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[s, i] * b[s, j] for s in range(n)) / n
            loss += (1 - c) ** 2 if i == j else weight * c**2
    return loss


def vicreg(a, b):
    """VICReg, algorithm 1: invariance, variance (mean over views), covariance."""
    d = a.shape[1]
    invariance = np.mean((a - b) ** 2)
    variance = np.mean([max(0, 1 - np.sqrt(z[:, j].var(ddof=1) + 1e-4)) for z in (a, b) for j in range(d)])
    covariance = 0.0
    for z in (a, b):
        c = np.cov(z.T)
        covariance += sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return invariance, variance, covariance


def moco_v3(q, k, t, patients=None):
    """MoCo v3, algorithm 1, `ctr`: cross-entropy over the batch's keys, without others of the patient, times 2 T."""
    losses = []
    for i, a in enumerate(q):
        weights = {j: np.exp(a @ b / t) for j, b in enumerate(k) if j == i or patients is None or patients[j] != patients[i]}
        losses.append(-np.log(weights[i] / sum(weights.values())))
    return 2 * t * np.mean(losses)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def dino(student, teacher, centre, student_t, teacher_t):
    """DINO, equation 3: cross-entropy over all pairs of a teacher's view and another view of the student's."""
    total, terms = 0.0, 0
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            if i != j:
                rows = [-np.sum(softmax((a - centre) / teacher_t) * np.log(softmax(b / student_t))) for a, b in zip(t, s, strict=True)]
                total, terms = total + np.mean(rows), terms + 1
    return total / terms


def sinkhorn_knopp(logits, t, iterations):
    """SwAV, appendix A, as DINOv2 writes it: prototypes in rows, samples in columns, each normalised in turn.  logits: (B, K)."""
    q = np.exp(logits / t).T
    q /= q.sum()
    for _ in range(iterations):
        for k in range(q.shape[0]):
            q[k] /= q[k].sum() * q.shape[0]
        for b in range(q.shape[1]):
            q[:, b] /= q[:, b].sum() * q.shape[1]
    return (q * q.shape[1]).T


def cross_entropy(p, logits, t):
    """Of softmax(logits / t) under p, both (K,), in nats."""
    return -np.sum(p * np.log(softmax(logits / t)))


def dino_targets(student, targets, t):
    """DINO, equation 3, with the teacher's probabilities given: mean over all pairs of different views."""
    pairs = [(p, s) for i, p in enumerate(targets) for j, s in enumerate(student) if i != j]
    return np.mean([np.mean([cross_entropy(a, b, t) for a, b in zip(p, s, strict=True)]) for p, s in pairs])


def ibot(student, targets, hidden, t):
    """iBOT, equation 2, as DINOv2 weighs it: mean over the hidden patches of a crop, and over all crops.

    student: logits (crops, N, K).  targets: the rows of the hidden patches, in order.  hidden: (crops, N) bool."""
    rows, losses = iter(targets), []
    for logits, mask in zip(student, hidden, strict=True):
        own = [cross_entropy(next(rows), logits[n], t) for n in np.flatnonzero(mask)]
        losses.append(np.mean(own) if own else 0.0)
    return np.mean(losses)


def koleo(x):
    """KoLeo: minus the mean log distance to the nearest other row on the sphere, with the two 1e-8 of DINOv2's code.  x: (B, D)."""
    z, logs = unit(x), []
    for i, a in enumerate(z):
        nearest = min((b for j, b in enumerate(z) if j != i), key=lambda b, a=a: np.linalg.norm(a - b))
        logs.append(np.log(np.linalg.norm(a - nearest + 1e-8) + 1e-8))
    return -np.mean(logs)


def sigreg(x, directions, knots, t_max):
    """LeJEPA, equation 10 along each direction: Epps-Pulley by trapezoids over [-t_max, t_max], mean over directions."""
    n, distances = len(x), []
    grid = np.linspace(-t_max, t_max, 2 * knots - 1)
    for a in directions.T:
        values = []
        for t in grid:
            empirical = sum(np.exp(1j * t * (row @ a)) for row in x) / n
            values.append(abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2))
        distances.append(n * sum((values[i] + values[i + 1]) / 2 * (grid[i + 1] - grid[i]) for i in range(len(grid) - 1)))
    return np.mean(distances)


def lejepa(views, n_global, directions, weight, knots, t_max):
    """LeJEPA, algorithm 2: lambda SIGReg (mean over views) + (1 - lambda) squared distance from the global views' mean."""
    centre = sum(views[:n_global]) / n_global
    near = np.mean([(row - centre[i]) ** 2 for view in views for i, row in enumerate(view)])
    return weight * np.mean([sigreg(v, directions, knots, t_max) for v in views]) + (1 - weight) * near
