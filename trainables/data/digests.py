"""Digests that identify an image by its canonical pixels, at every training size.

Axes: N images of H×W pixels, 3 channels (RGB). Canonical pixels are an image's decoded pixels as
upright RGB (or grey of more than 8 bits), before it is cropped, scaled or resized;
`trainables.data.pixels` states the rule.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt8

from common.seeds import derive_seed

DIGEST_BYTES = 16


def pixel_digest(pixels: np.ndarray) -> bytes:
    """Return the digest, 16 bytes, of one image's shape and pixels.

    `pixels` are uint8 [H, W, 3], or grey numbers of any type [H, W], whose values count.
    """
    height, width = pixels.shape[:2]
    kind = "" if pixels.ndim == 3 else "grey"
    values = pixels if pixels.ndim == 3 else pixels.astype("<f8")
    digest = hashlib.blake2b(f"{height}x{width}:{kind}".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def pixel_digests(images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N 16"]:
    """Return the digest of each image; equal images have equal digests."""
    return join_digests([pixel_digest(image) for image in images])


def join_digests(digests: list[bytes]) -> UInt8[np.ndarray, "N 16"]:
    """Return digests as one array with a row for each."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def as_keys(digests: UInt8[np.ndarray, "N 16"]) -> np.ndarray:
    """Return digests as one V16 scalar each, [N], for np.unique and np.isin."""
    # Not dtype S16, which would drop a final zero byte.
    return np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").reshape(-1)


def uniform(keys: np.ndarray, *names: str, seed: int) -> Float64[np.ndarray, " N"]:
    """Return a number of 53 bits in [0, 1) for each V16 key: a hash keyed by seed and stream.

    `names` name the random stream, as in `common.seeds.derive_seed`.
    """
    secret = derive_seed(seed, *names).to_bytes(8, "big")
    digests = b"".join(
        hashlib.blake2b(key.tobytes(), digest_size=8, key=secret).digest() for key in keys
    )
    bits: Float64[np.ndarray, " N"] = np.frombuffer(digests, ">u8") >> np.uint64(11)
    return bits * 2.0**-53


def text_keys(texts: Sequence[str], *, kind: bytes) -> np.ndarray:
    """Return a V16 key for each text; keys of different kinds differ."""
    digests = [
        hashlib.blake2b(
            text.encode(errors="surrogateescape"), digest_size=DIGEST_BYTES, person=kind
        ).digest()
        for text in texts
    ]
    return as_keys(join_digests(digests))
