"""12-megapixel photos: byname's decoding beside a full decode with Pillow, in one interleaved run.

    python benchmarks/decode.py ENCODER IMAGES [--count 8] [--rounds 5]

ENCODER is onnx:FOLDER or a preset; IMAGES holds photos that are enlarged to 4000 x 3000, with three
amounts of grain, and saved as JPEG of quality 90. The more grain, the more bytes; and all bytes of
a JPEG must be decoded before it can be made smaller, which is what bounds the gain. The full decode
is what scripts do: open, convert, resize, crop. Vectors of both are compared in fp32.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from byname.encoders import Encoder, load_encoder
from byname.images.load import load_pixels
from byname.images.preprocess import to_pixels

SIDES = (4000, 3000)
GRAINS = (0, 2, 4)


def photos(folder: Path, count: int, grain: float) -> list[bytes]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen, made = [paths[i * len(paths) // count] for i in range(count)], []
    rng = np.random.default_rng(0)
    noise = rng.normal(0, grain, (SIDES[1], SIDES[0], 1)).astype(np.float32)
    for path in chosen:
        large = Image.open(path).convert("RGB").resize(SIDES, Image.Resampling.BICUBIC)
        pixels = np.clip(np.asarray(large, np.float32) + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def measure(files: list[bytes], encoder: Encoder, rounds: int) -> str:
    """One row of the table."""
    preprocess = encoder.info.preprocess
    assert preprocess is not None
    ways = (
        lambda data: to_pixels(Image.open(io.BytesIO(data)).convert("RGB"), preprocess),
        lambda data: load_pixels(data, preprocess),
    )
    seconds: list[list[float]] = [[], []]
    pixels = [np.zeros(0), np.zeros(0)]
    for turn in range(rounds + 1):
        for i, way in enumerate(ways):
            start = time.process_time()
            pixels[i] = np.stack([way(data) for data in files])
            if turn:  # the first warms up
                seconds[i].append((time.process_time() - start) / len(files))
    X, Y = (encoder.encode_images(p.astype(np.uint8)) for p in pixels)
    cosines = (X * Y).sum(1)
    difference = np.abs(pixels[0].astype(int) - pixels[1]).mean()
    speeds = [full / own for full, own in zip(*seconds, strict=True)]
    full, own = (statistics.median(s) * 1e3 for s in seconds)
    return (
        f"{sum(map(len, files)) / len(files) / 1e6:.1f} | {full:.1f} | {own:.1f} | "
        f"{statistics.median(speeds):.2f}x ({min(speeds):.2f}-{max(speeds):.2f}) | "
        f"{difference:.2f} | {cosines.mean():.6f} | {cosines.min():.6f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", help="onnx:FOLDER, or a preset")
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    encoder = load_encoder(args.encoder)
    print(
        f"{args.count} JPEGs of {SIDES[0]} x {SIDES[1]}, one thread, CPU time, {args.rounds} "
        f"interleaved rounds, load {os.getloadavg()[0]:.1f}; wanted: 5x, cosine 0.999\n"
    )
    print("| grain | MB | full, ms | byname, ms | speed | pixels differ | cosine | lowest |")
    print("|---|---|---|---|---|---|---|---|")
    for grain in GRAINS:
        row = measure(photos(args.images, args.count, grain), encoder, args.rounds)
        print(f"| {grain} | {row}", flush=True)


if __name__ == "__main__":
    main()
