"""The paper's names of networks (column `student` of the reported figures), by which accuracies are compared.

One name may stand for several networks: the tables of CIFAR and Tiny-ImageNet say MobileNet-V2 for the half-width
network of 32 px images, those of ImageNet for torchvision's. ShuffleNet-V2 is the x0.5 of the paper's observers.
"""

from __future__ import annotations

# Paper's name -> networks of this package, of torchvision and of timm (there without the tag of the weights).
_NETWORKS = {
    "alexnet": ("torchvision:alexnet",),
    "convnext_tiny": ("torchvision:convnext_tiny", "timm:convnext_tiny"),
    "deit_tiny": ("timm:deit_tiny_patch16_224",),
    "densenet121": ("torchvision:densenet121", "timm:densenet121"),
    "efficientnet_b0": ("torchvision:efficientnet_b0", "timm:efficientnet_b0"),
    "mobilenet_v2": ("mobilenet_v2_half", "torchvision:mobilenet_v2", "timm:mobilenetv2_100"),
    "resnet101": ("resnet101", "torchvision:resnet101", "timm:resnet101"),
    "resnet18": ("resnet18", "torchvision:resnet18", "timm:resnet18"),
    "resnet50": ("resnet50", "torchvision:resnet50", "timm:resnet50"),
    "shufflenet_v2": ("shufflenet_v2_05", "torchvision:shufflenet_v2_x0_5"),
    "swin_tiny": ("torchvision:swin_t", "timm:swin_tiny_patch4_window7_224"),
    "vgg11_bn": ("vgg11_bn", "torchvision:vgg11_bn", "timm:vgg11_bn"),
}
_NAMES = {network: name for name, networks in _NETWORKS.items() for network in networks}


def paper_name(network: str) -> str | None:
    """The paper's name of a network, or None for one the paper has no figures of. Imports no library."""
    return _NAMES.get(network.split(".")[0] if network.startswith("timm:") else network)
