"""Reference networks of the pruning literature, by name.

They stand beside the library: nothing in it knows them, and any other `nn.Module` is treated alike.
"""

from __future__ import annotations

from compressor.models.backbones import classifier_of, replace_classifier_
from compressor.models.checkpoints import load_akamaster_checkpoint, load_swinir_checkpoint
from compressor.models.clutter_discriminator import ClutterDiscriminator
from compressor.models.clutter_filter import ClutterFilter
from compressor.models.ecg import EcgCnn1d, EcgCnn2d, EcgCnnLstm
from compressor.models.espcn import ESPCN, espcn, espcn_pytorch_examples
from compressor.models.hdit import HDiT, hdit_imagenet256_sp4, hdit_small, hdit_xl2
from compressor.models.mobilenet_v2 import MobileNetV2, mobilenet_v2, mobilenet_v2_cifar
from compressor.models.pmrf import PosteriorMean, Restorer
from compressor.models.pmrf_sources import (
    FromObservation,
    FromPosteriorMean,
    GivenObservation,
    GivenPosteriorMean,
    Source,
)
from compressor.models.registry import create, model, names
from compressor.models.resnet import ResNet
from compressor.models.resnet_cifar import ResNetCifar, ZeroPadShortcut
from compressor.models.restoration_unet import RestorationUNet
from compressor.models.swinir import SwinIR
from compressor.models.token_attention import Everywhere, Neighborhood, ShiftedWindow
from compressor.models.vgg import VGG, vgg16_bn, vgg16_bn_cifar

__all__ = [
    "ESPCN",
    "VGG",
    "ClutterDiscriminator",
    "ClutterFilter",
    "EcgCnn1d",
    "EcgCnn2d",
    "EcgCnnLstm",
    "Everywhere",
    "FromObservation",
    "FromPosteriorMean",
    "GivenObservation",
    "GivenPosteriorMean",
    "HDiT",
    "MobileNetV2",
    "Neighborhood",
    "PosteriorMean",
    "ResNet",
    "ResNetCifar",
    "RestorationUNet",
    "Restorer",
    "ShiftedWindow",
    "Source",
    "SwinIR",
    "ZeroPadShortcut",
    "classifier_of",
    "create",
    "espcn",
    "espcn_pytorch_examples",
    "hdit_imagenet256_sp4",
    "hdit_small",
    "hdit_xl2",
    "load_akamaster_checkpoint",
    "load_swinir_checkpoint",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "model",
    "names",
    "replace_classifier_",
    "vgg16_bn",
    "vgg16_bn_cifar",
]
