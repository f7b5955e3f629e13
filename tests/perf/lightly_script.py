"""What a user of lightly writes by hand: MoCo v2, ResNet-18 of timm, a folder of PNG files. The peer of `pretrain run` in `make bench`.

    python -m tests.perf.lightly_script FOLDER OUT.pt [--steps 10] [--batch 32] [--size 128]

Data loader without processes, one thread, lightly's transforms, heads, memory bank and loss, SGD with a cosine schedule; the weights are
saved at the end. It has no log, no resumption, no check of its images and no export.
"""

import argparse
import copy
from itertools import cycle
from pathlib import Path

import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Folder(Dataset):
    """Two views of each image of a folder."""

    def __init__(self, folder: Path, size: int):
        self.files = sorted(folder.glob("*.png"))
        self.transform = MoCoV2Transform(input_size=size, normalize={"mean": [0.5], "std": [0.25]})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        return self.transform(Image.open(self.files[i]).convert("L"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    for name, default in {"steps": 10, "batch": 32, "size": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=0, in_chans=1)
    head = MoCoProjectionHead(512, 512, 128)
    slow = copy.deepcopy(torch.nn.Sequential(backbone, head))
    deactivate_requires_grad(slow)
    model, loss_of = torch.nn.Sequential(backbone, head), NTXentLoss(temperature=0.2, memory_bank_size=(256, 128))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    loader = DataLoader(Folder(args.folder, args.size), args.batch, shuffle=True, drop_last=True)
    for _, (a, b) in zip(range(args.steps), cycle(loader), strict=False):
        update_momentum(model, slow, 0.99)
        with torch.no_grad():
            keys = slow(b)
        loss = loss_of(model(a), keys)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    torch.save(backbone.state_dict(), args.out)


if __name__ == "__main__":
    main()
