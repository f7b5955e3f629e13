"""What the numbers in MedMNIST's label arrays mean, and what kind of images each set has.

Source: medmnist 2.1, medmnist/info.py (Yang et al., Sci Data 2023).  A set that is not here keeps its class codes.
"""

from encoders.ingest.source import Value

ORGANS = [
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

# Classes that exclude each other: the label column `label` holds the name.
CLASSES = {
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
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
}

# Yes or no: the column has this name, and is 1 where the array holds this code.
BINARY = {"pneumoniamnist": ("pneumonia", 1), "breastmnist": ("malignant", 0)}

# Several at once: one column each.
FINDINGS = {
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

MODALITIES = {
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


def named(dataset: str, codes: list[int]) -> dict[str, Value]:
    """The label columns of one image: names where they are known, otherwise `label` (or `label_0`, `label_1`, ...) with the codes."""
    if dataset in BINARY and len(codes) == 1:
        name, code = BINARY[dataset]
        return {name: float(codes[0] == code)}
    if dataset in CLASSES and len(codes) == 1 and 0 <= codes[0] < len(CLASSES[dataset]):
        return {"label": CLASSES[dataset][codes[0]]}
    if dataset in FINDINGS and len(codes) == len(FINDINGS[dataset]):
        return dict(zip(FINDINGS[dataset], map(float, codes), strict=True))
    if len(codes) == 1:
        return {"label": float(codes[0])}
    return {f"label_{k}": float(code) for k, code in enumerate(codes)}
