"""A gRPC client that makes calls of all four kinds through the edge.

grpc_client.py ADDRESS PORT HOST CA MODE
"""

import pathlib
import queue
import sys

import grpc

ADDRESS, PORT, HOST, CA, MODE = sys.argv[1:]
CREDENTIALS = grpc.ssl_channel_credentials(pathlib.Path(CA).read_bytes())
CHANNEL = grpc.secure_channel(
    f"{ADDRESS}:{PORT}",
    CREDENTIALS,
    [("grpc.ssl_target_name_override", HOST), ("grpc.default_authority", HOST)],
)


def unary():
    call = CHANNEL.unary_unary("/test.Test/Unary")
    answer, rest = call.with_call(b"abc", metadata=[("who", "me")], timeout=20)
    assert answer == b"cba me", answer
    assert dict(rest.initial_metadata())["first"] == "1", rest.initial_metadata()
    trailers = dict(rest.trailing_metadata())
    assert (trailers["last"], trailers["blob-bin"]) == ("2", b"\x00\xff"), trailers
    large = bytes(3_000_000)
    assert call(large, timeout=20) == large + b" nobody"


def streams():
    many = CHANNEL.unary_stream("/test.Test/Many")
    assert list(many(b"500", timeout=20)) == [b"%d" % number for number in range(500)]
    total = CHANNEL.stream_unary("/test.Test/Total")
    assert total((bytes(1000) for _ in range(500)), timeout=20) == b"500000"
    # Each word is said only after the answer to the one before.
    words = queue.Queue()
    answers = CHANNEL.stream_stream("/test.Test/Talk")(iter(words.get, None), timeout=20)
    for word in (b"one", b"two", b"three"):
        words.put(word)
        assert next(answers) == word.upper()
    words.put(None)
    assert list(answers) == []


def errors():
    for method, code, details in [
        ("Fail", grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % ünfit"),
        ("None", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    ]:
        try:
            CHANNEL.unary_unary(f"/test.Test/{method}")(b"", timeout=20)
            raise AssertionError(method)
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (code, details), error
            if method == "Fail":
                assert dict(error.trailing_metadata())["why"] == "because", error
    # The client's own deadline reaches the container, and a call given up frees its stream.
    endless = CHANNEL.unary_stream("/test.Test/Forever")(b"", timeout=20)
    assert next(endless) == b"begun"
    endless.cancel()


def calls():
    unary()
    streams()
    errors()


def until_cut():
    endless = CHANNEL.unary_stream("/test.Test/Forever")(b"", timeout=60)
    assert next(endless) == b"begun"
    print("open", flush=True)
    try:
        for _ in endless:
            pass
    except grpc.RpcError as error:
        assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, error


def unreachable():
    try:
        CHANNEL.unary_unary("/test.Test/Unary")(b"", timeout=20)
        raise AssertionError
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error
        assert "502" in error.details(), error


{"calls": calls, "until-cut": until_cut, "unreachable": unreachable}[MODE]()
print("done", flush=True)
