"""One request over each kind of TLS, by curl on BoringSSL (curl_cffi), which offers what it is told and nothing else.

tls_client.py ADDRESS PORT HOST CA

Says for each row of KINDS its name and the status, or the number of curl's error.
"""

import sys

from curl_cffi import Curl, CurlError, CurlInfo, CurlOpt

ADDRESS, PORT, HOST, CA = sys.argv[1:]

# CURL_SSLVERSION_…
TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = 4, 5, 6, 7
KINDS = [
    ("X25519MLKEM768", "X25519MLKEM768", TLS_1_3, TLS_1_3),
    ("X25519", "X25519", TLS_1_3, TLS_1_3),
    ("P-256", "P-256", TLS_1_3, TLS_1_3),
    ("P-384", "P-384", TLS_1_3, TLS_1_3),
    ("P-521", "P-521", TLS_1_3, TLS_1_3),
    ("TLS 1.2", "X25519:P-256", TLS_1_2, TLS_1_2),
    ("TLS 1.1", "X25519:P-256", TLS_1_0, TLS_1_1),
]


def ask(curves, lowest, highest):
    curl, body = Curl(), []
    try:
        curl.setopt(CurlOpt.URL, f"https://{HOST}:{PORT}/".encode())
        curl.setopt(CurlOpt.RESOLVE, [f"{HOST}:{PORT}:{ADDRESS}".encode()])
        curl.setopt(CurlOpt.NOPROXY, b"*")
        curl.setopt(CurlOpt.CAINFO, CA.encode())
        curl.setopt(CurlOpt.SSL_EC_CURVES, curves.encode())
        curl.setopt(CurlOpt.SSLVERSION, lowest | highest << 16)
        curl.setopt(CurlOpt.TIMEOUT, 20)
        curl.setopt(CurlOpt.WRITEFUNCTION, lambda octets: body.append(octets) or len(octets))
        curl.perform()
        return f"{curl.getinfo(CurlInfo.RESPONSE_CODE)}"
    except CurlError as error:
        return f"error {int(error.code)}"
    finally:
        curl.close()


for name, *kind in KINDS:
    print(f"{name}: {ask(*kind)}", flush=True)
