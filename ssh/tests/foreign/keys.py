"""Logins that OpenSSH's client does not try: `keys.py PORT DIRECTORY`.

Keys on tokens are made of software here. Each step prints what came of it.
"""

import hashlib
import os
import sys

import paramiko
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils
from paramiko.message import Message

PORT, DIRECTORY = int(sys.argv[1]), sys.argv[2]
APPLICATION = "ssh:"


class Token(paramiko.PKey):
    """A key on a token, as PROTOCOL.u2f of OpenSSH has it."""

    def __init__(self, name):
        self.name = name

    def get_name(self):
        return self.name

    def can_sign(self):
        return True

    def asbytes(self):
        message = Message()
        message.add_string(self.name)
        self.add_public(message)
        message.add_string(APPLICATION)
        return message.asbytes()

    def sign_ssh_data(self, data, algorithm=None):
        flags, counter = b"\x01", (7).to_bytes(4, "big")
        application = hashlib.sha256(APPLICATION.encode()).digest()
        signed = application + flags + counter + hashlib.sha256(data).digest()
        message = Message()
        message.add_string(self.name)
        message.add_string(self.sign(signed))
        message.add_bytes(flags + counter)
        return message


class TokenEd25519(Token):
    def __init__(self):
        super().__init__("sk-ssh-ed25519@openssh.com")
        self.key = ed25519.Ed25519PrivateKey.generate()

    def add_public(self, message):
        message.add_string(self.key.public_key().public_bytes_raw())

    def sign(self, data):
        return self.key.sign(data)


class TokenEcdsa(Token):
    def __init__(self):
        super().__init__("sk-ecdsa-sha2-nistp256@openssh.com")
        self.key = ec.generate_private_key(ec.SECP256R1())

    def add_public(self, message):
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        message.add_string("nistp256")
        message.add_string(point)

    def sign(self, data):
        r, s = utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        message = Message()
        message.add_mpint(r)
        message.add_mpint(s)
        return message.asbytes()


class Forged(TokenEd25519):
    """Its signatures are those of another key."""

    def sign(self, data):
        return ed25519.Ed25519PrivateKey.generate().sign(data)


class Rsa(paramiko.PKey):
    """An RSA key of a file that signs by what it is told, SHA-1 included."""

    def __init__(self, algorithm):
        self.algorithm = algorithm
        with open(os.path.join(DIRECTORY, "rsa"), "rb") as file:
            self.key = serialization.load_pem_private_key(file.read(), None)

    def get_name(self):
        return self.algorithm

    def can_sign(self):
        return True

    def asbytes(self):
        numbers = self.key.public_key().public_numbers()
        message = Message()
        message.add_string("ssh-rsa")
        message.add_mpint(numbers.e)
        message.add_mpint(numbers.n)
        return message.asbytes()

    def sign_ssh_data(self, data, algorithm=None):
        kinds = {
            "ssh-rsa": hashes.SHA1(),
            "rsa-sha2-256": hashes.SHA256(),
            "rsa-sha2-512": hashes.SHA512(),
        }
        message = Message()
        message.add_string(self.algorithm)
        message.add_string(self.key.sign(data, padding.PKCS1v15(), kinds[self.algorithm]))
        return message


def connect():
    transport = paramiko.Transport(("127.0.0.1", PORT))
    transport.start_client(timeout=30)
    return transport


class Exact(paramiko.auth_handler.AuthHandler):
    """Offers a key by the algorithm that the key says, whatever the server has announced."""

    def _finalize_pubkey_algorithm(self, key_type):
        return key_type

    def _get_key_type_and_bits(self, key):
        return key.get_name(), key.asbytes()


paramiko.transport.AuthHandler = Exact


def attempt(what, login):
    transport = connect()
    try:
        login(transport)
        assert transport.is_authenticated()
        print(what, "in", flush=True)
    except paramiko.BadAuthenticationType as error:
        print(what, "refused", ",".join(error.allowed_types), flush=True)
    except paramiko.AuthenticationException:
        print(what, "refused", flush=True)
    finally:
        transport.close()


def token(what, key):
    print(f"{key.name} {key.get_base64()}", flush=True)
    assert sys.stdin.readline() == "known\n"
    attempt(what, lambda transport: transport.auth_publickey("root", key))


token("sk-ed25519", TokenEd25519())
token("sk-ecdsa", TokenEcdsa())
token("forged", Forged())
for algorithm in ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"):
    key = Rsa(algorithm)
    attempt(algorithm, lambda transport: transport.auth_publickey("root", key))
attempt("none", lambda transport: transport.auth_none("root"))
attempt("password", lambda transport: transport.auth_password("root", "", fallback=False))
attempt("interactive", lambda transport: transport.auth_interactive("root", lambda *_: []))
# The key itself would open the container.
certified = paramiko.Ed25519Key.from_private_key_file(os.path.join(DIRECTORY, "id"))


class Certified(paramiko.PKey):
    """The key with a certificate of this file."""

    def __init__(self, name):
        with open(os.path.join(DIRECTORY, name)) as file:
            self.blob = paramiko.pkey.PublicBlob.from_string(file.read()).key_blob

    def get_name(self):
        return "ssh-ed25519-cert-v01@openssh.com"

    def asbytes(self):
        return self.blob

    def can_sign(self):
        return True

    def sign_ssh_data(self, data, algorithm=None):
        return certified.sign_ssh_data(data)


foreign, expired = Certified("id-cert.pub"), Certified("old-cert.pub")
attempt("certificate", lambda transport: transport.auth_publickey("root", foreign))
attempt("expired certificate", lambda transport: transport.auth_publickey("root", expired))
attempt("key", lambda transport: transport.auth_publickey("root", certified))
