"""Names of networks and the functions that build them, imported when first used."""

from __future__ import annotations

NETWORKS: dict[str, str] = {
    "convnet_d1": "edc.nets.convnet:convnet_d1",
    "convnet_d2": "edc.nets.convnet:convnet_d2",
    "convnet_w128": "edc.nets.convnet:convnet_w128",
    "convnet_w32": "edc.nets.convnet:convnet_w32",
    "mobilenet_v2_half": "edc.nets.mobilenet:mobilenet_v2_half",
    "resnet101": "edc.nets.resnet:resnet101",
    "resnet18": "edc.nets.resnet:resnet18",
    "resnet50": "edc.nets.resnet:resnet50",
    "shufflenet_v2_05": "edc.nets.shufflenet:shufflenet_v2_05",
    "vgg11_bn": "edc.nets.vgg:VGG",
    "wrn_16_2": "edc.nets.wrn:wrn_16_2",
}
"""The small-image zoo: functions of classes, image size and channels."""

PRUNABLE = ("vgg11_bn",)
"""Networks whose channels can be removed: plain sequences, where nothing but the next layer reads a layer."""
