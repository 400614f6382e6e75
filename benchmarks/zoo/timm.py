"""timm's networks, without weights: the smallest that runs of every module, and kinds that differ."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.entry import BATCH, Entry, Inputs

__all__ = ["NETWORKS", "entries"]

# (module of timm.models, network, pixels, options): the fewest pixels it accepts, and fewer blocks
# where the smallest variant is large.
NETWORKS: tuple[tuple[str, str, int, Mapping[str, Any]], ...] = (
    ("beit", "beit_base_patch16_224", 64, {"img_size": 64, "depth": 2}),
    ("byoanet", "eca_botnext26ts_256", 64, {"img_size": 64}),
    ("byoanet", "halonet26t", 256, {"img_size": 256}),
    ("byoanet", "lambda_resnet26rpt_256", 64, {"img_size": 64}),
    ("byobnet", "mobileone_s0", 64, {"img_size": 64}),
    ("byobnet", "gernet_s", 64, {"img_size": 64}),
    ("byobnet", "repvgg_a0", 64, {"img_size": 64}),
    ("cait", "cait_xxs24_224", 64, {"img_size": 64, "depth": 4}),
    ("coat", "coat_tiny", 64, {"img_size": 64}),
    ("convit", "convit_tiny", 64, {"img_size": 64}),
    ("convmixer", "convmixer_768_32", 64, {}),
    ("convnext", "convnext_atto", 64, {}),
    ("convnext", "convnextv2_atto", 64, {}),
    ("cpubone", "cpubone_nano", 64, {}),
    ("crossvit", "crossvit_tiny_240", 64, {}),
    ("csatv2", "csatv2", 64, {}),
    ("cspnet", "cs3darknet_focus_s", 64, {}),
    ("cspnext", "cspnext_tiny", 64, {}),
    ("davit", "davit_tiny", 64, {"depths": [1, 1, 2, 1]}),
    ("deepseek_vit", "deepseek_vit_412m", 224, {"img_size": 224, "depth": 2}),
    ("deit", "deit_tiny_patch16_224", 64, {"img_size": 64}),
    ("densenet", "densenet121", 64, {}),
    ("dla", "dla46x_c", 64, {}),
    ("dpn", "dpn48b", 64, {}),
    ("edgenext", "edgenext_xx_small", 64, {}),
    ("efficientformer", "efficientformer_l1", 224, {}),
    ("efficientformer_v2", "efficientformerv2_s0", 64, {"img_size": 64}),
    ("efficientnet", "efficientnet_b0", 64, {}),
    ("efficientnet", "mixnet_s", 64, {}),
    ("efficientnet", "mnasnet_small", 64, {}),
    ("efficientnet", "tinynet_e", 64, {}),
    ("efficientvim", "efficientvim_m1", 64, {}),
    ("efficientvit_mit", "efficientvit_b0", 64, {}),
    ("efficientvit_msra", "efficientvit_m0", 64, {"img_size": 64}),
    ("eva", "vit_tiny_patch16_dinov3_qkvb", 64, {"img_size": 64}),
    ("eva", "eva02_tiny_patch14_224", 64, {"img_size": 64}),
    ("fasternet", "fasternet_t0", 64, {}),
    ("fastvit", "fastvit_t8", 64, {}),
    ("focalnet", "focalnet_tiny_srf", 64, {}),
    ("gcvit", "gcvit_xxtiny", 64, {"img_size": 64}),
    ("gemma4_vit", "gemma4_vit_167m", 64, {"img_size": 64, "depth": 2}),
    ("ghostnet", "ghostnet_050", 64, {}),
    ("ghostnet", "ghostnetv3_100", 64, {}),
    ("hardcorenas", "hardcorenas_b", 64, {}),
    ("hgnet", "hgnetv2_b0", 64, {}),
    ("hgnet", "hgnet_tiny", 64, {}),
    ("hiera", "hiera_tiny_224", 64, {"img_size": 64, "stages": [1, 1, 2, 1]}),
    ("hieradet_sam2", "sam2_hiera_tiny", 64, {"stages": [1, 1, 2, 1]}),
    ("hrnet", "hrnet_w18_small", 64, {}),
    ("iformer", "iformer_t", 64, {}),
    ("inception_next", "inception_next_atto", 64, {}),
    ("inception_resnet_v2", "inception_resnet_v2", 96, {}),
    ("inception_v3", "inception_v3", 96, {}),
    ("inception_v4", "inception_v4", 96, {}),
    ("lcnetv2", "lcnetv2_small", 64, {}),
    ("levit", "levit_128s", 64, {"img_size": 64}),
    ("lowformer", "lowformer_b0", 64, {}),
    ("mambaout", "mambaout_femto", 64, {}),
    ("maxxvit", "coatnet_nano_rw_224", 64, {"img_size": 64}),
    ("maxxvit", "maxvit_nano_rw_256", 64, {"img_size": 64}),
    ("maxxvit", "maxxvitv2_nano_rw_256", 64, {"img_size": 64}),
    ("metaformer", "poolformerv2_s12", 64, {}),
    ("metaformer", "convformer_s18", 64, {}),
    ("metaformer", "caformer_s18", 64, {}),
    ("mlp_mixer", "gmlp_ti16_224", 64, {"img_size": 64}),
    ("mlp_mixer", "mixer_s32_224", 64, {"img_size": 64}),
    ("mlp_mixer", "resmlp_12_224", 64, {"img_size": 64}),
    ("mobilenetv3", "mobilenetv3_small_050", 64, {}),
    ("mobilenetv3", "mobilenetv4_conv_small", 64, {}),
    ("mobilenetv3", "mobilenetv4_hybrid_medium", 64, {}),
    ("mobilenetv5", "mobilenetv5_base", 64, {}),
    ("mobilevit", "mobilevit_xxs", 64, {"img_size": 64}),
    ("mobilevit", "mobilevitv2_050", 64, {"img_size": 64}),
    ("mvitv2", "mvitv2_tiny", 64, {"img_size": 64}),
    ("naflexvit", "naflexvit_base_patch16_parfac_gap", 64, {"img_size": 64, "depth": 2}),
    ("nasnet", "nasnetalarge", 64, {}),
    ("nest", "jx_nest_tiny", 64, {"img_size": 64}),
    ("nextvit", "nextvit_small", 64, {}),
    ("nfnet", "nf_regnet_b0", 64, {}),
    ("pit", "pit_ti_224", 64, {"img_size": 64}),
    ("pnasnet", "pnasnet5large", 64, {}),
    ("pvt_v2", "pvt_v2_b0", 64, {}),
    ("qwen3_vit", "qwen3_vit_88m", 64, {"img_size": 64, "depth": 2}),
    ("rdnet", "rdnet_tiny", 64, {}),
    ("regnet", "regnetx_002", 64, {}),
    ("regnet", "regnety_002", 64, {}),
    ("regnet", "regnetz_b16", 64, {"img_size": 64}),
    ("repghost", "repghostnet_050", 64, {}),
    ("repvit", "repvit_m1", 64, {"img_size": 64}),
    ("res2net", "res2net50_26w_4s", 64, {}),
    ("resnest", "resnest14d", 64, {}),
    ("resnet", "resnet18", 64, {}),
    ("resnet", "ecaresnet26t", 64, {}),
    ("resnetv2", "resnetv2_18", 64, {}),
    ("resnetv2", "resnetv2_50d_gn", 64, {}),
    ("rexnet", "rexnet_100", 64, {}),
    ("selecsls", "selecsls42", 64, {}),
    ("senet", "legacy_seresnet18", 64, {}),
    ("sequencer", "sequencer2d_s", 64, {"img_size": 64}),
    ("shvit", "shvit_s1", 64, {}),
    ("sknet", "skresnet18", 64, {}),
    ("starnet", "starnet_s050", 64, {}),
    ("swiftformer", "swiftformer_xs", 64, {"img_size": 64}),
    ("swin_transformer", "swin_tiny_patch4_window7_224", 64, {"img_size": 64, "depths": [2, 2, 2, 2]}),
    ("swin_transformer_v2", "swinv2_tiny_window16_256", 64, {"img_size": 64, "depths": [2, 2, 2, 2]}),
    ("swin_transformer_v2_cr", "swinv2_cr_tiny_224", 64, {"img_size": 64, "depths": [2, 2, 2, 2]}),
    ("tiny_vit", "tiny_vit_5m_224", 64, {}),
    ("tnt", "tnt_s_legacy_patch16_224", 64, {"img_size": 64, "depth": 3}),
    ("tresnet", "tresnet_m", 64, {}),
    ("twins", "twins_svt_small", 64, {"img_size": 64, "depths": [1, 1, 2, 1]}),
    ("vgg", "vgg11", 64, {}),
    ("vgg", "vgg11_bn", 64, {}),
    ("visformer", "visformer_tiny", 64, {"img_size": 64}),
    ("vision_transformer", "vit_tiny_patch16_224", 64, {"img_size": 64}),
    ("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224", 64, {"img_size": 64}),
    ("vision_transformer_relpos", "vit_relpos_small_patch16_224", 64, {"img_size": 64, "depth": 3}),
    ("vision_transformer_sam", "samvit_base_patch16_224", 64, {"img_size": 64, "depth": 2}),
    ("vitamin", "vitamin_small_224", 64, {"img_size": 64}),
    ("volo", "volo_d1_224", 64, {"img_size": 64}),
    ("vovnet", "ese_vovnet19b_slim_dw", 64, {}),
    ("xception", "legacy_xception", 64, {}),
    ("xception_aligned", "xception41p", 64, {}),
    ("xcit", "xcit_nano_12_p8_224", 64, {"img_size": 64}),
)
_QUICK = (
    "resnet18",
    "densenet121",
    "mobilenetv3_small_050",
    "convnext_atto",
    "repvgg_a0",
    "ghostnet_050",
    "vit_tiny_patch16_224",
    "mixer_s32_224",
)


def entries(*, quick: bool) -> list[Entry]:
    """One network of every module, and further ones of modules with several kinds."""
    return [
        Entry("timm", module, name, _builder(name, pixels, options))
        for module, name, pixels, options in NETWORKS
        if not quick or name in _QUICK
    ]


def _builder(name: str, pixels: int, options: Mapping[str, Any]) -> Callable[[int], tuple[nn.Module, Inputs]]:
    def build(seed: int) -> tuple[nn.Module, Inputs]:
        timm = importlib.import_module("timm")
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **options)
        assert isinstance(model, nn.Module)
        return model.eval(), Inputs((torch.randn(BATCH, 3, pixels, pixels),))

    return build
