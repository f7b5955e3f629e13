"""A run that continues from an encoder of the zoo: the encoder, and the shortest recipe for it."""

import torch

from encoders.zoo import backbone, zoo
from encoders.zoo.card import Card

SIZE = 32
SIMCLR = [
    "cxr_simclr_tiny", "arch=null", "init=start", "method.hidden=16", "method.dim=8", f"size={SIZE}", "batch=8", "steps=6", "epochs=null",
    "warmup_steps=2", "log_every=1", "save_every=2", "threads=1", "precision=fp32", "pictures=none", "watch.images=16",
    "watch.max_share=1",
    "optim={kind: adamw, lr: 1.0e-3, lr_rule: none, weight_decay: 0.05}",
]  # fmt: skip
VIT = {"depth": 2, "patch_size": 8, "embed_dim": 24, "num_heads": 2}


def publish(name="start", arch="test_resnet", seed=3, **model_args):
    """Publishes an encoder with statistics as if it had been trained, and returns its tensors."""
    network = backbone.build_backbone(arch, model_args, 1, SIZE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for key, buffer in network.named_buffers():
        if key.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif key.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    preprocess = {"size": SIZE, "channels": 1, "mean": (0.5,), "std": (0.25,)}
    card = Card(name=name, arch=arch, model_args=model_args, dim=backbone.feature_dim(network), preprocess=preprocess)
    zoo.publish_encoder(name, network, card)
    return {key: value.clone() for key, value in network.state_dict().items()}
