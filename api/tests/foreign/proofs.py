"""Codes and signatures by libraries that know nothing of Gantry.

totp URL UNIX_TIME: the code of an otpauth URL at a time.
claim PUBLIC_KEY_HEX PAYLOAD SIGNATURE_HEX: what a claim says, if the key has signed it.
"""

import base64
import sys

import pyotp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def totp(url, at):
    print(pyotp.parse_uri(url).at(int(at)))


def claim(key, payload, signature):
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    public.verify(bytes.fromhex(signature), payload.encode("ascii"))
    print(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode("utf-8"))


{"totp": totp, "claim": claim}[sys.argv[1]](*sys.argv[2:])
