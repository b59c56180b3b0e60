"""Presets of encoders for pictures of anything."""
# fmt: off

from __future__ import annotations

from byname.encoders.presets import DEFAULT, Preset

__all__ = ["GENERAL"]

HUB = "https://huggingface.co/"


def _open_clip(
    name: str, spec: str, repo: str, licence: str, numbers: tuple[int, int, int, int], note: str,
    family: str = "clip",
) -> Preset:
    """``numbers``: size in MB, input size, dim, context; checked against the library by a test."""
    size, side, dim, context = numbers
    return Preset(
        name, f"open_clip:{spec}", licence, size, side, dim, context, None, HUB + repo, note,
        family=family,
    )


def _transformers(
    name: str, repo: str, licence: str, size: int | None, side: int | None, dim: int | None,
    context: int, note: str, family: str,
) -> Preset:
    return Preset(
        name, f"transformers:{repo}", licence, size, side, dim, context, None, HUB + repo, note,
        family=family,
    )


GENERAL = (
    # ONNX exports: no torch needed
    Preset(
        DEFAULT, "onnx-hub:Xenova/clip-vit-base-patch32", "MIT", 606, 224, 512, 77, 100.0,
        HUB + "Xenova/clip-vit-base-patch32", "default; OpenAI CLIP ViT-B/32",
    ),
    Preset(
        "clip-vit-b-16", "onnx-hub:Xenova/clip-vit-base-patch16", "MIT", 599, 224, 512, 77, 100.0,
        HUB + "Xenova/clip-vit-base-patch16",
        "OpenAI CLIP ViT-B/16; more accurate, four times slower",
    ),
    Preset(
        "clip-vit-l-14", "onnx-hub:Xenova/clip-vit-large-patch14", "MIT", 1711, 224, 768, 77, 100.0,
        HUB + "Xenova/clip-vit-large-patch14",
        "OpenAI CLIP ViT-L/14; much more accurate, wants a GPU or patience",
    ),
    Preset(
        "openclip-vit-b-32", "onnx-hub:immich-app/ViT-B-32__laion2b-s34b-b79k", "MIT", 606, 224,
        512, 77, 100.0, HUB + "immich-app/ViT-B-32__laion2b-s34b-b79k",
        "OpenCLIP ViT-B/32, LAION-2B; this export takes one image and 77 tokens at a time",
        family="openclip",
    ),
    Preset(
        "siglip-b-16", "onnx-hub:Xenova/siglip-base-patch16-224", "Apache-2.0", 813, 224, 768, 64,
        117.33, HUB + "Xenova/siglip-base-patch16-224",
        "SigLIP B/16, WebLI; texts always cost 64 tokens", logit_bias=-12.93, family="siglip",
    ),
    Preset(
        "mini", "mini", "Apache-2.0", 49, 260, 1000, 128, 34.0,
        'pip install "byname[demo]"', "embedded, offline, for trying things out; not for accuracy",
        family="mini",
    ),
    # OpenAI
    _open_clip("clip-rn50", "RN50/openai", "timm/resnet50_clip.openai", "MIT",
               (408, 224, 1024, 77), "OpenAI CLIP ResNet-50"),
    _open_clip("clip-vit-l-14-336", "ViT-L-14-336/openai", "timm/vit_large_patch14_clip_336.openai",
               "MIT", (1712, 336, 768, 77), "OpenAI CLIP ViT-L/14 at 336 pixels"),
    # LAION and DataComp
    _open_clip("openclip-vit-b-16", "ViT-B-16/laion2b_s34b_b88k",
               "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "MIT", (598, 224, 512, 77),
               "OpenCLIP ViT-B/16, LAION-2B", "openclip"),
    _open_clip("openclip-vit-l-14", "ViT-L-14/laion2b_s32b_b82k",
               "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "MIT", (1710, 224, 768, 77),
               "OpenCLIP ViT-L/14, LAION-2B", "openclip"),
    _open_clip("openclip-vit-h-14", "ViT-H-14/laion2b_s32b_b79k",
               "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "MIT", (3944, 224, 1024, 77),
               "OpenCLIP ViT-H/14, LAION-2B", "openclip"),
    _open_clip("openclip-vit-bigg-14", "ViT-bigG-14/laion2b_s39b_b160k",
               "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "MIT", (10158, 224, 1280, 77),
               "OpenCLIP ViT-bigG/14, LAION-2B", "openclip"),
    _open_clip("datacomp-vit-b-32", "ViT-B-32/datacomp_xl_s13b_b90k",
               "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "MIT", (605, 224, 512, 77),
               "OpenCLIP ViT-B/32, DataComp-1B", "openclip"),
    _open_clip("datacomp-vit-b-32-256", "ViT-B-32-256/datacomp_s34b_b86k",
               "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", "MIT", (605, 256, 512, 77),
               "the same at 256 pixels, trained longer", "openclip"),
    _open_clip("datacomp-vit-b-16", "ViT-B-16/datacomp_xl_s13b_b90k",
               "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "MIT", (598, 224, 512, 77),
               "OpenCLIP ViT-B/16, DataComp-1B", "openclip"),
    _open_clip("datacomp-vit-l-14", "ViT-L-14/datacomp_xl_s13b_b90k",
               "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "MIT", (1710, 224, 768, 77),
               "OpenCLIP ViT-L/14, DataComp-1B", "openclip"),
    # MetaCLIP
    _open_clip("metaclip-vit-b-32", "ViT-B-32/metaclip_fullcc",
               "timm/vit_base_patch32_clip_224.metaclip_2pt5b", "CC-BY-NC-4.0",
               (605, 224, 512, 77), "MetaCLIP ViT-B/32, 2.5 B pairs", "metaclip"),
    _open_clip("metaclip-vit-b-16", "ViT-B-16/metaclip_fullcc",
               "timm/vit_base_patch16_clip_224.metaclip_2pt5b", "CC-BY-NC-4.0",
               (598, 224, 512, 77), "MetaCLIP ViT-B/16, 2.5 B pairs", "metaclip"),
    _open_clip("metaclip-vit-l-14", "ViT-L-14/metaclip_fullcc",
               "timm/vit_large_patch14_clip_224.metaclip_2pt5b", "CC-BY-NC-4.0",
               (1710, 224, 768, 77), "MetaCLIP ViT-L/14, 2.5 B pairs", "metaclip"),
    _open_clip("metaclip-vit-h-14", "ViT-H-14/metaclip_fullcc",
               "timm/vit_huge_patch14_clip_224.metaclip_2pt5b", "CC-BY-NC-4.0",
               (3944, 224, 1024, 77), "MetaCLIP ViT-H/14, 2.5 B pairs", "metaclip"),
    _open_clip("metaclip-vit-h-14-altogether", "ViT-H-14/metaclip_altogether",
               "timm/vit_huge_patch14_clip_224.metaclip_altogether", "CC-BY-NC-4.0",
               (3944, 224, 1024, 77), "MetaCLIP 1.2 with the captions of Altogether", "metaclip"),
    # SigLIP and SigLIP 2
    _transformers("siglip-b-16-384", "google/siglip-base-patch16-384", "Apache-2.0", 814, 384, 768,
                  64, "SigLIP B/16 at 384 pixels", "siglip"),
    _transformers("siglip-l-16-256", "google/siglip-large-patch16-256", "Apache-2.0", 2609, 256,
                  1024, 64, "SigLIP L/16 at 256 pixels", "siglip"),
    _transformers("siglip-so400m-14-384", "google/siglip-so400m-patch14-384", "Apache-2.0", 3512,
                  384, 1152, 64, "SigLIP So400m/14 at 384 pixels", "siglip"),
    _transformers("siglip2-b-16", "google/siglip2-base-patch16-224", "Apache-2.0", 1501, 224, 768,
                  64, "SigLIP 2 B/16; many languages", "siglip2"),
    _transformers("siglip2-b-16-384", "google/siglip2-base-patch16-384", "Apache-2.0", 1502, 384,
                  768, 64, "SigLIP 2 B/16 at 384 pixels", "siglip2"),
    _transformers("siglip2-l-16-256", "google/siglip2-large-patch16-256", "Apache-2.0", 3526, 256,
                  1024, 64, "SigLIP 2 L/16 at 256 pixels", "siglip2"),
    _transformers("siglip2-so400m-14-384", "google/siglip2-so400m-patch14-384", "Apache-2.0", 4544,
                  384, 1152, 64, "SigLIP 2 So400m/14 at 384 pixels", "siglip2"),
    # small ones
    Preset(
        "mobileclip-s0", "onnx-hub:Xenova/mobileclip_s0", "Apple (apple-ascl)", None, 256, 512, 77,
        100.0, HUB + "Xenova/mobileclip_s0", "MobileCLIP-S0; an ONNX export, without torch",
        family="mobileclip",
    ),
    _open_clip("mobileclip-s1", "MobileCLIP-S1/datacompdr", "apple/MobileCLIP-S1-OpenCLIP",
               "Apple (apple-ascl)", (340, 256, 512, 77), "MobileCLIP-S1", "mobileclip"),
    _open_clip("mobileclip-s2", "MobileCLIP-S2/datacompdr", "apple/MobileCLIP-S2-OpenCLIP",
               "Apple (apple-ascl)", (397, 256, 512, 77), "MobileCLIP-S2", "mobileclip"),
    _open_clip("mobileclip-b", "MobileCLIP-B/datacompdr", "apple/MobileCLIP-B-OpenCLIP",
               "Apple (apple-ascl)", (599, 224, 512, 77), "MobileCLIP-B", "mobileclip"),
    _open_clip("mobileclip2-s0", "MobileCLIP2-S0/dfndr2b", "timm/MobileCLIP2-S0-OpenCLIP",
               "Apple (apple-amlr)", (299, 256, 512, 77), "MobileCLIP 2, research only",
               "mobileclip"),
    _transformers("tinyclip-8m-16", "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M", "MIT", None, 224,
                  512, 77, "TinyCLIP, 8 M + 3 M parameters", "tinyclip"),
    _transformers("tinyclip-40m-32", "wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M", "MIT", None,
                  224, 512, 77, "TinyCLIP, 40 M + 19 M parameters", "tinyclip"),
    _transformers("tinyclip-61m-32", "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M", "MIT", None,
                  224, 512, 77, "TinyCLIP, 61 M + 29 M parameters", "tinyclip"),
    # EVA
    _open_clip("eva02-b-16", "EVA02-B-16/merged2b_s8b_b131k",
               "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k", "MIT", (599, 224, 512, 77),
               "EVA02-CLIP B/16", "eva02"),
    _open_clip("eva02-l-14", "EVA02-L-14/merged2b_s4b_b131k",
               "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k", "MIT",
               (1711, 224, 768, 77), "EVA02-CLIP L/14", "eva02"),
    _open_clip("eva02-l-14-336", "EVA02-L-14-336/merged2b_s6b_b61k",
               "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k", "MIT",
               (1712, 336, 768, 77), "EVA02-CLIP L/14 at 336 pixels", "eva02"),
    # other languages, other ways of training
    _transformers("align-base", "kakaobrain/align-base", "unknown", None, 346, 640, 64,
                  "ALIGN, an EfficientNet-B7 with BERT; it crops 289 of 346 pixels itself",
                  "align"),
    _transformers("altclip", "BAAI/AltCLIP", "unknown", None, 224, 768, 77,
                  "Chinese and English; ViT-L/14 with XLM-R", "altclip"),
    _transformers("chinese-clip-b-16", "OFA-Sys/chinese-clip-vit-base-patch16", "unknown", None,
                  224, 512, 52, "Chinese; ViT-B/16", "chinese-clip"),
    _transformers("chinese-clip-l-14", "OFA-Sys/chinese-clip-vit-large-patch14", "unknown", None,
                  224, 768, 52, "Chinese; ViT-L/14", "chinese-clip"),
    Preset(
        "longclip-b", "", "unknown", None, 224, 512, 248, None, HUB + "BeichenZhang/LongCLIP-B",
        "LongCLIP, 248 tokens; its own pickled format: byname loads it only as a CLIPModel that "
        "someone saved with transformers", family="longclip",
    ),
    Preset(
        "longclip-l", "", "unknown", None, 224, 768, 248, None, HUB + "BeichenZhang/LongCLIP-L",
        "as longclip-b, ViT-L/14", family="longclip",
    ),
    Preset(
        "fg-clip", "", "unknown", None, 224, None, 248, None,
        "https://github.com/360CVGroup/FG-CLIP",
        "FG-CLIP; its repository needs code of its own, which byname does not run",
        family="fg-clip",
    ),
    Preset(
        "jina-clip-v2", "", "CC-BY-NC-4.0", None, 512, 1024, None, None,
        HUB + "jinaai/jina-clip-v2",
        "its repository needs code of its own, which byname does not run", family="jina-clip",
    ),
    # hardened against adversarial pixels
    Preset(
        "fare2-l-14", "open_clip:hf-hub:chs20/fare2-clip", "unknown", 1710, 224, 768, 77, None,
        HUB + "chs20/fare2-clip", "FARE: OpenAI ViT-L/14, robust image tower (eps 2/255)",
        family="fare", domain="robustness",
    ),
    Preset(
        "fare4-l-14", "open_clip:hf-hub:chs20/fare4-clip", "unknown", 1710, 224, 768, 77, None,
        HUB + "chs20/fare4-clip", "FARE: OpenAI ViT-L/14, robust image tower (eps 4/255)",
        family="fare", domain="robustness",
    ),
)
