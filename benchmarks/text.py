"""The text classifier: byname beside open_clip's builder, in one interleaved run.

    python benchmarks/text.py MODEL [--classes 100] [--templates 20] [--sample 8] [--rounds 3]

Run it with an interpreter that has byname, torch, transformers and open_clip. MODEL holds ``onnx``,
``hf`` (the same weights) and ``labels``. open_clip pads every prompt to 77 tokens, so its time is
proportional to their number, and it gets the prompts of ``--sample`` classes only, others in every
round; byname gets all of them, cold: tokenising, encoding, averaging, writing to the cache. Speeds
are prompts a second. Cosines are those of the class vectors to transformers' in fp32, padded to 77,
with the same weights, for the sampled classes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.cache import TextCache
from byname.encoders.onnx import OnnxEncoder


def averaged(vectors: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    means = vectors.reshape(classes, -1, vectors.shape[1]).mean(1)
    unit: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def open_clip_builder() -> Callable[[list[str], list[str]], Any]:
    import open_clip

    model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def build(names: list[str], templates: list[str]) -> Any:
        made = [lambda c, t=t: t.format(c) for t in templates]
        return open_clip.build_zero_shot_classifier(model, tokenizer, names, made)

    return build


def reference(folder: Path, prompts: list[str], classes: int) -> NDArray[np.float32]:
    import torch
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = (
        CLIPModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    parts = []
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        inputs = tokenizer(
            part, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            found = model.get_text_features(**inputs)
        found = getattr(found, "pooler_output", found)
        parts.append(torch.nn.functional.normalize(found, dim=-1).numpy())
    return averaged(np.concatenate(parts), classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--templates", type=int, default=20)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    load_torchvision()
    import torch

    torch.set_num_threads(args.threads)
    names = spread(read(args.model / "labels/imagenet_1000.txt"), args.classes)
    templates = spread(read(args.model / "labels/templates_80.txt"), args.templates)
    prompts = [t.format(n) for n in names for t in templates]
    encoders = {
        name: OnnxEncoder(args.model / "onnx", threads=args.threads, precision=precision)
        for name, precision in (("byname fp32", "fp32"), ("byname int8", "int8-unchecked"))
    }
    build = open_clip_builder()
    rates: dict[str, list[float]] = {}
    vectors = {}
    with torch.inference_mode():
        build(names[:1], templates[:4])
        for turn in range(args.rounds):
            # later rounds take other classes
            chosen = spread(names[turn:] + names[:turn], args.sample)
            seconds = timed(lambda: build(chosen, templates))  # noqa: B023 - called at once
            rates.setdefault("open_clip", []).append(args.sample * args.templates / seconds)
            for name, encoder in encoders.items():
                for label, found in cold_and_warm(encoder, prompts).items():
                    seconds, vectors[name] = found
                    rates.setdefault(name + label, []).append(len(prompts) / seconds)
            print(f"round {turn + 1} done", file=sys.stderr)
    step = [i * args.classes // args.sample for i in range(args.sample)]
    some = [t.format(names[i]) for i in step for t in templates]
    wanted = reference(args.model / "hf", some, args.sample)
    report(rates, {n: averaged(v, args.classes)[step] for n, v in vectors.items()}, wanted, args)


def cold_and_warm(
    encoder: OnnxEncoder, prompts: list[str]
) -> dict[str, tuple[float, NDArray[np.float32]]]:
    """Seconds and vectors through the cache on disk: an empty one, then the same again."""
    found: dict[str, tuple[float, NDArray[np.float32]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for label in (", cold", ", warm"):
            cache = TextCache(Path(place), "x", encoder.info.dim)
            start = time.perf_counter()
            vectors = cache.encode(prompts, encoder.encode_texts)
            averaged(vectors, 1)
            found[label] = time.perf_counter() - start, vectors
    return found


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def spread(values: list[str], count: int) -> list[str]:
    return [values[i * len(values) // count] for i in range(count)]


def load_torchvision() -> None:
    """Declare operators that torchvision looks for on import where its own do not load."""
    import torch

    global _library
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for op in ("nms", "qnms"):
        try:
            _library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:  # it is there
            return


def report(
    rates: dict[str, list[float]],
    vectors: dict[str, NDArray[np.float32]],
    wanted: NDArray[np.float32],
    args: argparse.Namespace,
) -> None:
    print(
        f"\n{args.classes} classes x {args.templates} templates, {args.threads} threads, "
        f"{args.rounds} interleaved rounds, load {os.getloadavg()[0]:.1f} (own included); "
        "wanted: 8x fp32 cold with cosine > 0.99999, 25x int8 cold, 500x warm\n"
    )
    print("| way | prompts/s | speed, median | range | cosine, mean | lowest |")
    print("|---|---|---|---|---|---|")
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(found, rates["open_clip"], strict=True)]
        cosine = "- | -"
        if name.endswith("cold"):
            values = (vectors[name.removesuffix(", cold")] * wanted).sum(1)
            cosine = f"{values.mean():.6f} | {values.min():.6f}"
        print(
            f"| {name} | {statistics.median(found):,.0f} | {statistics.median(ratios):,.1f}x | "
            f"{min(ratios):,.1f}-{max(ratios):,.1f} | {cosine} |"
        )


if __name__ == "__main__":
    main()
