"""transformers' architectures for images, text and audio, as tiny configurations without weights."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.entry import BATCH, Entry, Inputs

__all__ = ["ARCHITECTURES", "entries"]

VOCABULARY, LENGTH, PIXELS = 96, 12, 64

# -- inputs ----------------------------------------------------------------------------------------


def _images(pixels: int = PIXELS) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(BATCH, 3, pixels, pixels)}


def _tokens() -> Tensor:
    return torch.randint(3, VOCABULARY, (BATCH, LENGTH))


def _text() -> dict[str, Tensor]:
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[1, -3:] = 0  # padding at the end of the second text
    return {"input_ids": _tokens(), "attention_mask": mask}


def _ids() -> dict[str, Tensor]:
    return {"input_ids": _tokens()}


def _text_pair() -> dict[str, Tensor]:
    return {**_text(), "decoder_input_ids": _tokens()[:, :7]}


def _image_and_text() -> dict[str, Tensor]:
    return {**_text(), **_images(32)}


def _waveform() -> dict[str, Tensor]:
    return {"input_values": torch.randn(BATCH, 1600)}


def _spectrum() -> dict[str, Tensor]:
    return {"input_values": torch.randn(BATCH, 64, 32)}


def _spectrum_and_text() -> dict[str, Tensor]:
    return {"input_features": torch.randn(BATCH, 20, 64), "decoder_input_ids": _tokens()[:, :7]}


@dataclass(frozen=True)
class Architecture:
    """A configuration class, a model class, what the configuration is given, what the model is."""

    config: str
    model: str
    inputs: Callable[[], dict[str, Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)


# -- configurations --------------------------------------------------------------------------------

_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_VISION = {**_ENCODER, "image_size": PIXELS, "patch_size": 16}
_LANGUAGE = {**_ENCODER, "vocab_size": VOCABULARY, "max_position_embeddings": 40}
_DECODER = {**_LANGUAGE, "use_cache": False}
_GROUPED = {**_DECODER, "num_key_value_heads": 2}
_BART = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 40, "use_cache": False, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "use_cache": False, "decoder_start_token_id": 0,
}  # fmt: skip
_STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 24, 32, 40]}
_SWIN = {"image_size": PIXELS, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
         "window_size": 4}  # fmt: skip
_WAV = {
    **_ENCODER, "conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    # images
    "ViT": Architecture("ViTConfig", "ViTForImageClassification", _images, _VISION),
    "DeiT": Architecture("DeiTConfig", "DeiTForImageClassificationWithTeacher", _images, _VISION),
    "BEiT": Architecture("BeitConfig", "BeitForImageClassification", _images,
                         {**_VISION, "use_relative_position_bias": True}),
    "Swin": Architecture("SwinConfig", "SwinForImageClassification", _images, _SWIN),
    "Swin v2": Architecture("Swinv2Config", "Swinv2ForImageClassification", _images, _SWIN),
    "ConvNeXt": Architecture("ConvNextConfig", "ConvNextForImageClassification", _images, _STAGES),
    "ConvNeXt v2": Architecture("ConvNextV2Config", "ConvNextV2ForImageClassification", _images, _STAGES),
    "SegFormer": Architecture("SegformerConfig", "SegformerForSemanticSegmentation", _images,
                              {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                               "num_attention_heads": [1, 2, 4, 4], "decoder_hidden_size": 32}),
    "MobileViT": Architecture("MobileViTConfig", "MobileViTForImageClassification", _images,
                              {"image_size": PIXELS, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes":
                               [8, 16, 24, 32, 40, 48, 64], "num_attention_heads": 4}),
    "MobileViT v2": Architecture("MobileViTV2Config", "MobileViTV2ForImageClassification", _images,
                                 {"image_size": PIXELS, "width_multiplier": 0.25}),
    "DETR": Architecture("DetrConfig", "DetrForObjectDetection", _images, {"small": "detr"}),
    "Deformable DETR": Architecture("DeformableDetrConfig", "DeformableDetrForObjectDetection", _images,
                                    {"small": "deformable"}),
    "YOLOS": Architecture("YolosConfig", "YolosForObjectDetection", _images,
                          {**_VISION, "image_size": [PIXELS, PIXELS], "num_detection_tokens": 5}),
    "DPT": Architecture("DPTConfig", "DPTForDepthEstimation", _images,
                        {**_VISION, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
                         "neck_hidden_sizes": [16, 24, 32, 40], "fusion_hidden_size": 32,
                         "is_hybrid": False}),
    "DINOv2": Architecture("Dinov2Config", "Dinov2ForImageClassification", _images,
                           {**_VISION, "mlp_ratio": 2}),
    "DINOv3": Architecture("DINOv3ViTConfig", "DINOv3ViTModel", _images, _VISION),
    "PoolFormer": Architecture("PoolFormerConfig", "PoolFormerForImageClassification", _images, _STAGES),
    "PVT": Architecture("PvtConfig", "PvtForImageClassification", _images,
                        {"image_size": PIXELS, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                         "num_attention_heads": [1, 2, 4, 4]}),
    "PVT v2": Architecture("PvtV2Config", "PvtV2ForImageClassification", _images,
                           {"image_size": PIXELS, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                            "num_attention_heads": [1, 2, 4, 4]}),
    "LeViT": Architecture("LevitConfig", "LevitForImageClassification", _images,
                          {"image_size": PIXELS, "hidden_sizes": [32, 48, 64],
                           "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}),
    "CvT": Architecture("CvtConfig", "CvtForImageClassification", _images,
                        {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}),
    "FocalNet": Architecture("FocalNetConfig", "FocalNetForImageClassification", _images,
                             {"image_size": PIXELS, "embed_dim": 16, "depths": [1, 1, 2, 1]}),
    "ResNet": Architecture("ResNetConfig", "ResNetForImageClassification", _images,
                           {**_STAGES, "embedding_size": 16}),
    "RegNet": Architecture("RegNetConfig", "RegNetForImageClassification", _images,
                           {**_STAGES, "embedding_size": 16, "groups_width": 8}),
    "EfficientNet": Architecture("EfficientNetConfig", "EfficientNetForImageClassification", _images,
                                 {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}),
    "MobileNet v1": Architecture("MobileNetV1Config", "MobileNetV1ForImageClassification", _images,
                                 {"depth_multiplier": 0.25}),
    "MobileNet v2": Architecture("MobileNetV2Config", "MobileNetV2ForImageClassification", _images,
                                 {"depth_multiplier": 0.35}),
    "BiT": Architecture("BitConfig", "BitForImageClassification", _images,
                        {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "embedding_size": 32,
                         "num_groups": 4}),
    "ViT MAE": Architecture("ViTMAEConfig", "ViTMAEModel", _images, {**_VISION, "mask_ratio": 0.0}),
    "Data2Vec vision": Architecture("Data2VecVisionConfig", "Data2VecVisionForImageClassification", _images,
                                    _VISION),
    "VideoMAE": Architecture("VideoMAEConfig", "VideoMAEForVideoClassification",
                             lambda: {"pixel_values": torch.randn(BATCH, 4, 3, 32, 32)},
                             {**_VISION, "image_size": 32, "num_frames": 4}),
    "TimeSformer": Architecture("TimesformerConfig", "TimesformerForVideoClassification",
                                lambda: {"pixel_values": torch.randn(BATCH, 4, 3, 32, 32)},
                                {**_VISION, "image_size": 32, "num_frames": 4}),
    "Hiera": Architecture("HieraConfig", "HieraForImageClassification", lambda: _images(64),
                          {"embed_dim": 16, "image_size": [64, 64], "depths": [1, 1, 1, 1]}),
    # images and text
    "CLIP": Architecture("CLIPConfig", "CLIPModel", _image_and_text, {"small": "clip"}),
    "SigLIP": Architecture("SiglipConfig", "SiglipModel", _image_and_text, {"small": "clip"}),
    # text
    "BERT": Architecture("BertConfig", "BertForMaskedLM", _text, _LANGUAGE),
    "RoBERTa": Architecture("RobertaConfig", "RobertaForSequenceClassification", _text, _LANGUAGE),
    "ALBERT": Architecture("AlbertConfig", "AlbertForSequenceClassification", _text,
                           {**_LANGUAGE, "embedding_size": 16}),
    "DistilBERT": Architecture("DistilBertConfig", "DistilBertForSequenceClassification", _text,
                               {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 2,
                                "n_heads": 4, "max_position_embeddings": 40}),
    "ELECTRA": Architecture("ElectraConfig", "ElectraForSequenceClassification", _text,
                            {**_LANGUAGE, "embedding_size": 16}),
    "MobileBERT": Architecture("MobileBertConfig", "MobileBertForSequenceClassification", _text,
                               {**_LANGUAGE, "embedding_size": 16, "intra_bottleneck_size": 24}),
    "MPNet": Architecture("MPNetConfig", "MPNetForSequenceClassification", _text, _LANGUAGE),
    "DeBERTa": Architecture("DebertaConfig", "DebertaForSequenceClassification", _text,
                            {**_LANGUAGE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                             "max_relative_positions": 20}),
    "DeBERTa v2": Architecture("DebertaV2Config", "DebertaV2ForSequenceClassification", _text,
                               {**_LANGUAGE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                "position_buckets": 8, "share_att_key": True}),
    "Funnel": Architecture("FunnelConfig", "FunnelForSequenceClassification", _text,
                           {"vocab_size": VOCABULARY, "block_sizes": [1, 1], "d_model": 32, "n_head": 4,
                            "d_head": 8, "d_inner": 48, "num_decoder_layers": 1}),
    "ModernBERT": Architecture("ModernBertConfig", "ModernBertForSequenceClassification", _text,
                               {**_LANGUAGE, "pad_token_id": 0, "reference_compile": False}),
    "SqueezeBERT": Architecture("SqueezeBertConfig", "SqueezeBertForSequenceClassification", _text,
                                {**_LANGUAGE, "embedding_size": 32}),
    "FNet": Architecture("FNetConfig", "FNetForSequenceClassification", _ids, _LANGUAGE),
    "T5": Architecture("T5Config", "T5ForConditionalGeneration", _text_pair, _T5),
    "Flan-T5": Architecture("T5Config", "T5ForConditionalGeneration", _text_pair,
                            {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "BART": Architecture("BartConfig", "BartForConditionalGeneration", _text_pair, _BART),
    "Marian": Architecture("MarianConfig", "MarianMTModel", _text_pair, _BART),
    "GPT-2": Architecture("GPT2Config", "GPT2LMHeadModel", _text,
                          {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4,
                           "n_positions": 40, "use_cache": False}),
    "GPT-Neo": Architecture("GPTNeoConfig", "GPTNeoForCausalLM", _text,
                            {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
                             "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 40,
                             "use_cache": False}),
    "GPT-NeoX": Architecture("GPTNeoXConfig", "GPTNeoXForCausalLM", _text, _DECODER),
    "OPT": Architecture("OPTConfig", "OPTForCausalLM", _text,
                        {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
                         "num_attention_heads": 4, "max_position_embeddings": 40, "use_cache": False,
                         "word_embed_proj_dim": 32}),
    "BLOOM": Architecture("BloomConfig", "BloomForCausalLM", _text,
                          {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4,
                           "use_cache": False}),
    "Falcon": Architecture("FalconConfig", "FalconForCausalLM", _text,
                           {**_DECODER, "multi_query": True, "new_decoder_architecture": False}),
    "Llama": Architecture("LlamaConfig", "LlamaForCausalLM", _text, _GROUPED),
    "Mistral": Architecture("MistralConfig", "MistralForCausalLM", _text, _GROUPED),
    "Qwen2": Architecture("Qwen2Config", "Qwen2ForCausalLM", _text, _GROUPED),
    "Qwen3": Architecture("Qwen3Config", "Qwen3ForCausalLM", _text, {**_GROUPED, "head_dim": 8}),
    "Gemma": Architecture("GemmaConfig", "GemmaForCausalLM", _text, {**_GROUPED, "head_dim": 8}),
    "Phi": Architecture("PhiConfig", "PhiForCausalLM", _text, _DECODER),
    "Phi-3": Architecture("Phi3Config", "Phi3ForCausalLM", _text, {**_GROUPED, "pad_token_id": 0}),
    "Mixtral": Architecture("MixtralConfig", "MixtralForCausalLM", _text,
                            {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2,
                             "experts_implementation": "eager"}),
    "Mamba": Architecture("MambaConfig", "MambaForCausalLM", _ids,
                          {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
                           "state_size": 8, "use_cache": False}),
    "RWKV": Architecture("RwkvConfig", "RwkvForCausalLM", _ids,
                         {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
                          "use_cache": False}),
    # audio
    "Whisper": Architecture("WhisperConfig", "WhisperForConditionalGeneration", _spectrum_and_text,
                            {**_BART, "num_mel_bins": 20, "max_source_positions": 32,
                             "max_target_positions": 20}),
    "Wav2Vec2": Architecture("Wav2Vec2Config", "Wav2Vec2ForCTC", _waveform, _WAV),
    "HuBERT": Architecture("HubertConfig", "HubertForCTC", _waveform, _WAV),
    "WavLM": Architecture("WavLMConfig", "WavLMForCTC", _waveform, _WAV),
    "AST": Architecture("ASTConfig", "ASTForAudioClassification", _spectrum,
                        {**_ENCODER, "num_mel_bins": 32, "max_length": 64, "patch_size": 16}),
}  # fmt: skip

_QUICK = ("ViT", "Swin", "ConvNeXt", "BERT", "T5", "GPT-2", "Llama", "Wav2Vec2")


def entries(*, quick: bool) -> list[Entry]:
    """One tiny network of every architecture, or with `quick` of a few."""
    return [
        Entry("transformers", family, architecture.model, _builder(architecture))
        for family, architecture in ARCHITECTURES.items()
        if not quick or family in _QUICK
    ]


def _builder(architecture: Architecture) -> Callable[[int], tuple[nn.Module, Inputs]]:
    def build(seed: int) -> tuple[nn.Module, Inputs]:
        library = importlib.import_module("transformers")
        torch.manual_seed(seed)
        options = dict(architecture.options)
        config_class = getattr(library, architecture.config)
        small = options.pop("small", None)
        config = config_class(**(_nested(library, small, architecture.config) if small else options))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = getattr(library, architecture.model)(config)
        assert isinstance(model, nn.Module)
        return model.eval(), Inputs((), architecture.inputs())

    return build


def _nested(library: Any, kind: str, config: str) -> dict[str, Any]:
    """Options of configurations that hold others."""
    if kind == "clip":
        vision = {**_VISION, "image_size": 32}
        return {"text_config": dict(_LANGUAGE), "vision_config": vision, "projection_dim": 24}
    backbone = library.ResNetConfig(
        **_STAGES,
        embedding_size=16,
        out_features=["stage2", "stage3", "stage4"] if kind == "deformable" else ["stage4"],
    )
    detector = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": backbone,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "num_queries": 6,
    }
    return detector
