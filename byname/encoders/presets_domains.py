"""Presets of encoders for one kind of picture, and for sounds."""
# fmt: off

from __future__ import annotations

from byname.encoders.presets import Preset

__all__ = ["DOMAINS"]

HUB = "https://huggingface.co/"
ARCHITECTURES = {  # size in MB, dim; all at 224 pixels and 77 tokens
    "RN50": (408, 1024), "ViT-B-32": (605, 512), "ViT-B-16": (598, 512), "ViT-L-14": (1710, 768),
    "ViT-H-14": (3944, 1024),
}


def _file(
    name: str, arch: str, repo: str, file: str, licence: str, note: str, family: str, domain: str
) -> Preset:
    """A checkpoint of one of open_clip's architectures, as a file of a repository."""
    size, dim = ARCHITECTURES[arch]
    return Preset(
        name, f"open_clip:{arch}@hf-hub:{repo}/{file}", licence, size, 224, dim, 77, None,
        HUB + repo, note, family=family, domain=domain,
    )


def _repo(
    name: str, spec: str, licence: str, arch: str | None, note: str, family: str, domain: str,
    numbers: tuple[int | None, int | None, int | None] = (None, None, None),
) -> Preset:
    """A whole repository; ``arch`` None where it is not known or none of the common ones.

    ``numbers`` are then input size, dim and context.
    """
    size: int | None = None
    side, dim, context = numbers
    if arch is not None:
        size, dim = ARCHITECTURES[arch]
        side, context = 224, 77
    return Preset(
        name, spec, licence, size, side, dim, context, None, HUB + spec.rpartition(":")[2], note,
        family=family, domain=domain,
    )


def _listed(name: str, source: str, note: str, family: str, domain: str) -> Preset:
    """What byname cannot load by itself; the note says why, and how else."""
    return Preset(
        name, "", "unknown", None, None, None, None, None, source, note, family=family,
        domain=domain,
    )


ACTIVATION = "activation unverified: quick-GELU may be needed"
AERIAL, MEDICAL, AUDIO = "remote-sensing", "medicine", "audio"

DOMAINS = (
    _file("remoteclip-rn50", "RN50", "chendelong/RemoteCLIP", "RemoteCLIP-RN50.pt", "unknown",
          "RemoteCLIP ResNet-50", "remoteclip", AERIAL),
    _file("remoteclip-vit-b-32", "ViT-B-32", "chendelong/RemoteCLIP", "RemoteCLIP-ViT-B-32.pt",
          "unknown", "RemoteCLIP ViT-B/32", "remoteclip", AERIAL),
    _file("remoteclip-vit-l-14", "ViT-L-14", "chendelong/RemoteCLIP", "RemoteCLIP-ViT-L-14.pt",
          "unknown", "RemoteCLIP ViT-L/14", "remoteclip", AERIAL),
    _file("georsclip-vit-b-32", "ViT-B-32", "Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-B-32.pt", "unknown",
          f"GeoRSCLIP ViT-B/32, RS5M; {ACTIVATION}", "georsclip", AERIAL),
    _file("georsclip-vit-l-14", "ViT-L-14", "Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-L-14.pt", "unknown",
          f"GeoRSCLIP ViT-L/14, RS5M; {ACTIVATION}", "georsclip", AERIAL),
    _file("georsclip-vit-h-14", "ViT-H-14", "Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-H-14.pt", "unknown",
          f"GeoRSCLIP ViT-H/14, RS5M; {ACTIVATION}", "georsclip", AERIAL),
    _listed("skyclip-vit-b-32", "https://github.com/wangzhecheng/SkyScript",
            "SkyCLIP: unzip its checkpoint and use open_clip:ViT-B-32@epoch_20.pt", "skyclip",
            AERIAL),
    _listed("skyclip-vit-l-14", "https://github.com/wangzhecheng/SkyScript",
            f"SkyCLIP: unzip its checkpoint and use open_clip:ViT-L-14@epoch_20.pt; {ACTIVATION}",
            "skyclip", AERIAL),
    _repo("bioclip", "open_clip:hf-hub:imageomics/bioclip", "MIT", "ViT-B-16",
          "BioCLIP ViT-B/16: species from the tree of life", "bioclip", "biology"),
    _repo("bioclip-2", "open_clip:hf-hub:imageomics/bioclip-2", "MIT", "ViT-L-14",
          "BioCLIP 2 ViT-L/14: species from the tree of life", "bioclip", "biology"),
    _repo("biomedclip",
          "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT", None,
          "BiomedCLIP ViT-B/16 with PubMedBERT; 256 tokens", "biomedclip", MEDICAL,
          (224, 512, 256)),
    _repo("bmc-clip", "open_clip:hf-hub:BIOMEDICA/BMC-CLIP_CF", "unknown", None,
          "BMC-CLIP, trained on BIOMEDICA", "bmc-clip", MEDICAL),
    _repo("open-pmc-clip", "open_clip:hf-hub:vector-institute/open-pmc-clip", "unknown", None,
          "Open-PMC, figures of medical papers; whether the repository has an "
          "open_clip_config.json is not known", "open-pmc", MEDICAL),
    _repo("dermlip-vit-b-16", "open_clip:hf-hub:redlessone/DermLIP_ViT-B-16", "CC-BY-NC-4.0",
          "ViT-B-16", "DermLIP ViT-B/16: skin", "dermlip", MEDICAL),
    _listed("dermlip-panderm", HUB + "redlessone/DermLIP_PanDerm-base-w-PubMed-256",
            "DermLIP with PanDerm; it needs its authors' branch of open_clip", "dermlip", MEDICAL),
    _listed("pathoclip", "https://github.com/Wenchuan-Zhang/Patho-R1",
            "PathoCLIP: fetch its checkpoint and use open_clip:ViT-B-16@PathoCLIP-B.pt",
            "pathoclip", MEDICAL),
    _repo("plip", "transformers:vinid/plip", "unknown", "ViT-B-32",
          "PLIP ViT-B/32: pathology", "plip", MEDICAL),
    _repo("quiltnet-b-32", "open_clip:hf-hub:wisdomik/QuiltNet-B-32", "MIT", "ViT-B-32",
          "QuiltNet ViT-B/32: histology", "quiltnet", MEDICAL),
    _repo("fashion-clip", "transformers:patrickjohncyh/fashion-clip", "MIT", "ViT-B-32",
          "FashionCLIP ViT-B/32", "fashion-clip", "fashion"),
    Preset(
        "clap-htsat-unfused", "transformers:laion/clap-htsat-unfused", "Apache-2.0", None, None,
        512, 77, None, HUB + "laion/clap-htsat-unfused",
        "CLAP: texts and sounds; takes no images", family="clap", domain=AUDIO,
    ),
    Preset(
        "clap-htsat-fused", "transformers:laion/clap-htsat-fused", "Apache-2.0", None, None, 512,
        77, None, HUB + "laion/clap-htsat-fused",
        "CLAP for sounds of any length; takes no images", family="clap", domain=AUDIO,
    ),
    _listed("reclap", "https://github.com/Sreyan88/ReCLAP",
            "ReCLAP: a checkpoint of laion_clap; embed with it, and use precomputed vectors",
            "clap", AUDIO),
    _listed("tinyclap", HUB + "fpaissan/tinyCLAP",
            "tinyCLAP: embed with its own code, and use precomputed vectors", "clap", AUDIO),
)
