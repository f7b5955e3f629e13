"""Meaning of the label arrays of MedMNIST, and the modality of each set.

Source: medmnist 2.1, medmnist/info.py (Yang et al., Sci Data 2023).  Sets that are not listed keep their class codes.
"""

from encoders.ingest.source import Unreadable, Value

ORGAN_NAMES = [
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
]

# Mutually exclusive classes: the label column `label` holds the name.
CLASS_NAMES = {
    "pathmnist": [
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ],
    "dermamnist": [
        "actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ],
    "octmnist": ["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"],
    "bloodmnist": [
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ],
    "tissuemnist": [
        "collecting duct, connecting tubule",
        "distal convoluted tubule",
        "glomerular endothelial cells",
        "interstitial endothelial cells",
        "leukocytes",
        "podocytes",
        "proximal tubule segments",
        "thick ascending limb",
    ],
    "organamnist": ORGAN_NAMES,
    "organcmnist": ORGAN_NAMES,
    "organsmnist": ORGAN_NAMES,
}

# Binary labels: the column has this name, and is 1 where the array has this code.
BINARY_LABELS = {"pneumoniamnist": ("pneumonia", 1), "breastmnist": ("malignant", 0)}

# Multi-label sets: one column per finding.
FINDING_NAMES = {
    "chestmnist": [
        "atelectasis",
        "cardiomegaly",
        "effusion",
        "infiltration",
        "mass",
        "nodule",
        "pneumonia",
        "pneumothorax",
        "consolidation",
        "edema",
        "emphysema",
        "fibrosis",
        "pleural",
        "hernia",
    ],
}

MODALITY_OF_DATASET = {
    "pneumoniamnist": "cxr",
    "chestmnist": "cxr",
    "pathmnist": "histology",
    "dermamnist": "dermatoscopy",
    "octmnist": "oct",
    "retinamnist": "fundus",
    "breastmnist": "ultrasound",
    "bloodmnist": "microscopy",
    "tissuemnist": "microscopy",
    "organamnist": "ct",
    "organcmnist": "ct",
    "organsmnist": "ct",
}


def name_labels(dataset: str, codes: list[int]) -> dict[str, Value]:
    """Label columns of one image: names if they are known, otherwise `label` (or `label_0`, `label_1`, ...) with the codes.

    Raises Unreadable for a code that a data set with known names does not have."""
    if dataset in BINARY_LABELS and len(codes) == 1:
        name, code = BINARY_LABELS[dataset]
        require_code(codes[0], 2, dataset)
        return {name: float(codes[0] == code)}
    if dataset in CLASS_NAMES and len(codes) == 1:
        require_code(codes[0], len(CLASS_NAMES[dataset]), dataset)
        return {"label": CLASS_NAMES[dataset][codes[0]]}
    if dataset in FINDING_NAMES and len(codes) == len(FINDING_NAMES[dataset]):
        for code in codes:
            require_code(code, 2, dataset)
        return dict(zip(FINDING_NAMES[dataset], map(float, codes), strict=True))
    if len(codes) == 1:
        return {"label": float(codes[0])}
    return {f"label_{k}": float(code) for k, code in enumerate(codes)}


def require_code(code: int, classes: int, dataset: str) -> None:
    """Raises Unreadable for a code beyond the classes of a data set."""
    if not 0 <= code < classes:
        raise Unreadable(f"its label is {code}, and {dataset} has the classes 0 to {classes - 1}")
