"""A ResNet by submanifold sparse convolution, site by site, in NumPy: what a masked network must compute at its visible positions.

A map is a dict from a site (image, row, column) to its channels; hidden sites are absent. The weights are those of a timm ResNet of
BasicBlocks. Nothing of pretrain/ is called."""

import numpy as np


def sites_of(images, visible, side):
    """The pixels in visible patches.  images: (B, C, H, W).  visible: (B, h, w) bool."""
    return {
        (b, y, x): images[b, :, y, x] for b, _, y, x in np.ndindex(len(images), 1, *images.shape[2:]) if visible[b, y // side, x // side]
    }


def conv(sites, layer, out_sites):
    """Each output site sums over the input sites that are there.  out_sites: those that exist in the output."""
    weight, stride, pad, gap = layer.weight.detach().numpy(), layer.stride[0], layer.padding[0], layer.dilation[0]
    out = {}
    for b, y, x in out_sites:
        total = np.zeros(len(weight))
        for dy, dx in np.ndindex(*weight.shape[2:]):
            there = sites.get((b, y * stride - pad + dy * gap, x * stride - pad + dx * gap))
            if there is not None:
                total += weight[:, :, dy, dx] @ there
        out[b, y, x] = total
    return out


def strided(sites, stride):
    """The sites of a map of `stride` times fewer rows and columns."""
    return [(b, y // stride, x // stride) for b, y, x in sites if y % stride == 0 and x % stride == 0]


def batchnorm(sites, layer, seen):
    """By the statistics of the sites; adds them to `seen`, the unbiased variance as BatchNorm tracks it."""
    values = np.array(list(sites.values()))
    mean, var = values.mean(0), values.var(0)
    seen[layer] = (mean, values.var(0, ddof=1), len(values))
    scale, shift = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return {site: (v - mean) / np.sqrt(var + layer.eps) * scale + shift for site, v in sites.items()}


def relu(sites):
    return {site: np.maximum(v, 0) for site, v in sites.items()}


def max_pool(sites):
    """Windows of 3 x 3 in steps of 2: the maximum of the sites that are there."""
    out = {}
    for b, y, x in strided(sites, 2):
        window = [sites.get((b, 2 * y + dy, 2 * x + dx)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        out[b, y, x] = np.max([v for v in window if v is not None], axis=0)
    return out


def basic_block(block, sites, seen):
    kept = strided(sites, block.conv1.stride[0])
    x = relu(batchnorm(conv(sites, block.conv1, kept), block.bn1, seen))
    x = batchnorm(conv(x, block.conv2, kept), block.bn2, seen)
    shortcut = sites
    if block.downsample is not None:
        shortcut = batchnorm(conv(sites, block.downsample[0], kept), block.downsample[1], seen)
    return relu({site: v + shortcut[site] for site, v in x.items()})


def stages(network, images, visible, side):
    """The sites after each of the four stages, and mean, unbiased variance and count of the input of each BatchNorm."""
    seen = {}
    sites = sites_of(images, visible, side)
    sites = max_pool(relu(batchnorm(conv(sites, network.conv1, strided(sites, 2)), network.bn1, seen)))
    found = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            sites = basic_block(block, sites, seen)
        found.append(sites)
    return found, seen
