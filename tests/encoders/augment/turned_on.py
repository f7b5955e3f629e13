"""Settings that turn on each operation of AUGMENTATIONS."""

# Some rows of a batch have the operation and others do not.
TURNED_ON = {
    "crop": {"crop": (0.1, 1.0)},
    "flip": {"flip": 0.5, "flip_vertical": 0.5, "turn": 0.75},
    "rotate": {"rotate": 40, "rotate_p": 0.7},
    "elastic": {"elastic": 0.7, "elastic_px": 8},
    "stain_mix": {"stain_mix": 0.7},
    "stain": {"stain": 0.7, "stain_sigma": 0.2},
    "brightness": {"jitter": 0.8, "brightness": 0.9},
    "contrast": {"jitter": 0.8, "contrast": 0.9},
    "saturation": {"jitter": 0.8, "saturation": 0.9},
    "hue": {"jitter": 0.8, "hue": 0.5},
    "window": {"window": 0.7},
    "gamma": {"gamma": 0.7},
    "clahe": {"clahe": 0.7, "clahe_limit": (1.5, 3.0)},
    "grayscale": {"grayscale": 0.5},
    "blur": {"blur": 0.7, "blur_sigma": (0.1, 2.5)},
    "solarise": {"solarise": 0.5},
    "noise": {"noise": 0.7},
    "cutout": {"cutout": 0.7},
}
