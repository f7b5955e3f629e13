"""What `forward` must return as its loss: for each method, the loss of its paper for the outputs of the method's own modules.

The losses are those of tests/reference.py, in NumPy and float64. The outputs come from the declared members of a method (`encoder`,
`loss_embedding`, `slow_network`) and from its predictor or decoder; no loss, similarity or schedule of pretrain/ is called.

Shapes: B images, V views, D width.
"""

import numpy as np
import torch

from tests import reference

# Settings that enter the loss: the published ones ({}), then others.
SETTINGS = {
    "moco": [{}, {"temperature": 0.07, "queue": 16, "bn_group": 4}, {"temperature": 0.5, "exclude_same_patient": True}],
    "mae": [{}, {"norm_pix_loss": False, "mask_ratio": 0.5}],
    "simclr": [{}, {"temperature": 0.5}, {"temperature": 0.3, "exclude_same_patient": True}],
    "byol": [{}, {"momentum": 0.5}],
    "simsiam": [{}, {"dim": 24}],
    "barlowtwins": [{}, {"redundancy": 0.3}],
    "vicreg": [{}, {"invariance": 3.0, "variance": 2.0, "covariance": 5.0}],
    "mocov3": [{}, {"temperature": 0.3}, {"temperature": 0.5, "exclude_same_patient": True}],
    "dino": [
        {},
        {"student_temperature": 0.2, "teacher_temperature": 0.07, "warmup_temperature": 0.03, "n_local": 2, "local_size": 16},
        {"teacher_temperature": 0.06, "temperature_warmup": 0.05, "fixed_norm": False, "centre_momentum": 0.5},
    ],
    "dinov2": [
        {},
        {"balance": "centre", "separate_heads": False, "koleo": 0.0, "centre_momentum": 0.5},  # iBOT
        {"balance": "centre", "mask_probability": 0.9, "mask_ratio": (0.3, 0.6), "patch_weight": 0.7, "fixed_norm": True},
        {"sinkhorn_iterations": 5, "separate_heads": False, "student_temperature": 0.2, "warmup_temperature": 0.06, "koleo": 0.3},
        {"mask_probability": 0.0},
    ],
    "supcon": [{}, {"temperature": 0.3, "exclude_same_patient": True}],
    "lejepa": [{}, {"weight": 0.3, "knots": 9, "t_max": 5.0}, {"n_local": 2, "local_size": 16}],
    "spark": [{}, {"mask_ratio": 0.4, "decoder_width": 16}],
    "simmim": [{}, {"mask_size": 8, "mask_ratio": 0.3}],
    "ijepa": [{}, {"targets": 2, "target_scale": (0.3, 0.4), "momentum": 0.5}],
}


def numpy(x):
    return x.detach().numpy()


def embed(m, images):
    """What the loss compares of these images, (B, D)."""
    return m.loss_embedding(images, m.encoder()(images))


def embed_together(m, views):
    """(B, D) per view: views of one size share their BatchNorm statistics, global ones first."""
    parts = [embed(m, torch.cat(part)).chunk(len(part)) for part in (views[:2], views[2:]) if part]
    return [numpy(view) for part in parts for view in part]


def moco(m, views, masks, progress, patient_ids):
    n, n_groups = len(views[0]), max(len(views[0]) // m.cfg.bn_group, 2)
    q = np.concatenate([numpy(embed(m, part)) for part in views[0].tensor_split(n_groups)])
    order = torch.randperm(n)
    k = np.empty_like(q)
    for part in order.tensor_split(n_groups):
        k[part.numpy()] = numpy(m.slow_network(views[1][part]))
    queue_patients = None if patient_ids is None else m.patient_ids.numpy()
    return reference.info_nce(reference.unit(q), reference.unit(k), m.queue.numpy(), m.cfg.temperature, patient_ids, queue_patients)


def mae(m, views, masks, progress, patient_ids):
    keep, masked = masks[0]
    predicted = m.decoder(m.encode(views[0], keep), keep)
    return reference.mae(views[0].numpy(), numpy(predicted), masked.numpy(), 8, m.cfg.norm_pix_loss)


def simclr(m, views, masks, progress, patient_ids):
    return reference.nt_xent(*embed_together(m, views), m.cfg.temperature, patient_ids)


def supcon(m, views, masks, progress, patient_ids):
    return reference.supcon(*embed_together(m, views), m.cfg.temperature, None, patient_ids)


def byol(m, views, masks, progress, patient_ids):
    prediction = [numpy(m.predictor(embed(m, view))) for view in views]
    target = [numpy(m.slow_network(view)) for view in views]
    return reference.byol(prediction[0], target[1]) + reference.byol(prediction[1], target[0])


def simsiam(m, views, masks, progress, patient_ids):
    projection = [embed(m, view) for view in views]
    prediction = [numpy(m.predictor(z)) for z in projection]
    z = [numpy(view) for view in projection]
    return reference.simsiam(prediction[0], z[1]) / 2 + reference.simsiam(prediction[1], z[0]) / 2


def barlowtwins(m, views, masks, progress, patient_ids):
    return reference.barlow_twins(*(numpy(embed(m, view)) for view in views), m.cfg.redundancy, 1e-5)


def vicreg(m, views, masks, progress, patient_ids):
    invariance, variance, covariance = reference.vicreg(*(numpy(embed(m, view)) for view in views))
    return m.cfg.invariance * invariance + m.cfg.variance * variance + m.cfg.covariance * covariance


def mocov3(m, views, masks, progress, patient_ids):
    q = [reference.unit(numpy(m.predictor(embed(m, view)))) for view in views]
    k = [reference.unit(numpy(m.slow_network(view))) for view in views]
    t = 1.0 if m.cfg.temperature is None else m.cfg.temperature  # of a CNN
    return reference.moco_v3(q[0], k[1], t, patient_ids) + reference.moco_v3(q[1], k[0], t, patient_ids)


def dino(m, views, masks, progress, patient_ids):
    cfg = m.cfg
    teacher = [numpy(view) for view in m.slow_network(torch.cat(views[:2])).chunk(2)]
    warm = np.clip(progress / cfg.temperature_warmup, 0, 1)
    teacher_t = (1 - warm) * cfg.warmup_temperature + warm * cfg.teacher_temperature
    return reference.dino(embed_together(m, views), teacher, m.centre.numpy(), cfg.student_temperature, teacher_t)


def lejepa(m, views, masks, progress, patient_ids):
    directions = m.directions(progress).double().numpy()
    return reference.lejepa(embed_together(m, views), 2, directions, m.cfg.weight, m.cfg.knots, m.cfg.t_max)


def spark(m, views, masks, progress, patient_ids):
    """Each map densified position by position, with BatchNorm written out; then the modules of the decoder."""
    seen = ~masks[0].hidden.view(-1, *m.grid).numpy()
    x = 0
    for i, block in enumerate(m.decoder):
        stride = m.patch_side // 2**i
        if str(stride) in m.densify:
            part, map_ = m.densify[str(stride)], numpy(m.masked.maps(views[0], masks[0])[m.masked.strides.index(stride)])
            at = [(b, r, c) for b, _, r, c in np.ndindex(len(map_), 1, *map_.shape[2:]) if seen[b, r // 2**i, c // 2**i]]
            values = np.array([map_[b, :, r, c] for b, r, c in at])
            dense = np.tile(numpy(part.mask_embedding), (len(map_), 1, *map_.shape[2:]))
            normed = (values - values.mean(0)) / np.sqrt(values.var(0) + part.norm.eps) * numpy(part.norm.weight) + numpy(part.norm.bias)
            for (b, r, c), value in zip(at, normed, strict=True):
                dense[b, :, r, c] = value
            x = x + part.project(torch.from_numpy(dense))
        x = block(x)
    pixels = numpy(m.pixels(x))
    predicted = [reference.patches(image, m.patch_side) for image in pixels]
    return reference.mae(views[0].numpy(), predicted, masks[0].masked.numpy(), m.patch_side, norm_pix=True)


def simmim(m, views, masks, progress, patient_ids):
    """The outputs by timm's own blocks, one image at a time, from a table of tokens in which hidden ones are replaced."""
    hidden, predicted = masks[0].hidden.numpy(), []
    for image, mask in zip(views[0], hidden, strict=True):
        tokens = m.vit.patch_embed(image[None])
        for i in np.flatnonzero(mask):
            tokens[0, i] = m.mask_token[0, 0]
        codes = m.vit.norm(m.vit.blocks(torch.cat([m.vit.cls_token, tokens], dim=1) + m.vit.pos_embed))
        predicted.append(numpy(codes[0, 1:] @ m.pixels.weight.T + m.pixels.bias))
    return reference.simmim(views[0].numpy(), predicted, hidden, 8)


def ijepa(m, views, masks, progress, patient_ids):
    """One image and one target block at a time; the context encoder gets the patches of the context alone."""
    predicted, wanted = [], []
    for image, context, targets in zip(views[0], *masks[0], strict=True):
        tokens = m.vit.patch_embed(image[None])
        seen = torch.cat([m.vit.cls_token + m.vit.pos_embed[:, :1], (tokens + m.vit.pos_embed[:, 1:])[:, context]], dim=1)
        codes = m.vit.norm(m.vit.blocks(seen))[:, 1:]
        everything = m.slow_network.forward_features(image[None])[0, 1:]
        for block in targets:
            known = m.predictor.embed(codes) + m.predictor.positions[:, context]
            asked = m.predictor.mask_token + m.predictor.positions[:, block]
            answer = m.predictor.norm(m.predictor.blocks(torch.cat([known, asked], dim=1)))[0, len(context) :]
            predicted += list(numpy(m.predictor.features(answer)))
            wanted += list(numpy(everything[block]))
    return reference.ijepa(predicted, wanted)


def dinov2(m, views, masks, progress, patient_ids):
    """The student's tokens by timm's own `forward_features`, with a hook that puts the mask token into the embedded patches."""
    cfg, hidden = m.cfg, torch.cat([view.hidden for view in masks[:2]])
    warm = np.clip(progress / cfg.temperature_warmup, 0, 1)
    teacher_t = (1 - warm) * cfg.warmup_temperature + warm * cfg.teacher_temperature
    handle = m.backbone.patch_embed.register_forward_hook(lambda _, given, out: replaced(out, hidden, m.mask_token))
    student = m.backbone.forward_features(torch.cat(views[:2]))
    handle.remove()
    teacher = m.slow_network[0].forward_features(torch.cat(views[:2]))
    patch_heads = (m.head, m.slow_network[1]) if m.patch_head is None else (m.patch_head, m.patch_teacher)
    of_teacher = numpy(m.slow_network(torch.cat(views[:2])))
    of_patches = np.concatenate([numpy(patch_heads[1](tokens[1:][mask])) for tokens, mask in zip(teacher, hidden, strict=True)])
    if cfg.balance == "sinkhorn":
        targets, patch_targets = (reference.sinkhorn_knopp(x, teacher_t, cfg.sinkhorn_iterations) for x in (of_teacher, of_patches))
    else:
        pairs = ((of_teacher, m.centre.numpy()), (of_patches, m.patch_centre.numpy()))
        targets, patch_targets = ([reference.softmax((row - centre) / teacher_t) for row in x] for x, centre in pairs)
    n, t = len(views[0]), cfg.student_temperature
    logits = numpy(m.head(student[:, 0]))
    loss = reference.dino_targets([logits[:n], logits[n:]], [targets[:n], targets[n:]], t)
    loss += cfg.patch_weight * reference.ibot([numpy(patch_heads[0](x[1:])) for x in student], patch_targets, hidden.numpy(), t)
    return loss + cfg.koleo * sum(reference.koleo(part) for part in np.split(numpy(student[:, 0]), 2))


def replaced(tokens, hidden, mask_token):
    """The embedded patches (B, N, D), one by one the mask token where `hidden`."""
    images = zip(tokens, hidden, strict=True)
    return torch.stack([torch.stack([mask_token if hides else own for own, hides in zip(*image, strict=True)]) for image in images])


FORWARD_LOSS = {
    "moco": moco,
    "mae": mae,
    "simclr": simclr,
    "byol": byol,
    "simsiam": simsiam,
    "barlowtwins": barlowtwins,
    "vicreg": vicreg,
    "mocov3": mocov3,
    "dino": dino,
    "dinov2": dinov2,
    "lejepa": lejepa,
    "supcon": supcon,
    "spark": spark,
    "simmim": simmim,
    "ijepa": ijepa,
}
