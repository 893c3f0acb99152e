"""What somebody may put into the stores in the place of a session."""

import json
import pickle
import random
import zlib

from django_dynamo_failover import record, runtime
from django_dynamo_failover.keys import Keyring, storage_id

from .configurations import hot_key

CARD = "4111-1111-1111-1111"
HEADER = record._HOT.size
TAG = record.TAG_BYTES

#: What pickles from a store have done.
executed = []


def execute(what):
    executed.append(what)


class Planted:
    def __reduce__(self):
        return execute, ("code from a store",)


def flipped(data, at, bit=0):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def sign_hot(session_key, body, keyring=None):
    """An entry by somebody who has the secrets of the keyring."""
    keyring = keyring or runtime.current().keyring
    return keyring.sign_hot(storage_id(session_key), body) + body


def sign_hot_as_cold(session_key, body):
    return runtime.current().keyring.sign_cold(storage_id(session_key), body) + body


def tombstone(session_key):
    return record.encode_tombstone(storage_id(session_key), runtime.current().keyring)


HOT_ENTRIES = {
    "empty but for a byte": lambda *_: b"x",
    "garbage": lambda entry, *_: random.randbytes(len(entry)),
    "json": lambda *_: json.dumps({"card_number": CARD}).encode(),
    "pickle": lambda *_: pickle.dumps(Planted()),
    "truncated to the tag": lambda entry, *_: entry[:TAG],
    "truncated by a byte": lambda entry, *_: entry[:-1],
    "longer by a byte": lambda entry, *_: entry + b"x",
    "a bit flipped in the tag": lambda entry, *_: flipped(entry, 5),
    "a bit flipped in the format": lambda entry, *_: flipped(entry, TAG),
    "a bit flipped in the numbers": lambda entry, *_: flipped(entry, TAG + 9),
    "a bit flipped in the payload": lambda entry, *_: flipped(entry, TAG + HEADER + 9),
    "another session's": lambda entry, key, other, hot: hot.get(hot_key(other)),
    "another session's tombstone": lambda entry, key, other, hot: tombstone(other),
    "by another secret": lambda entry, key, *_: sign_hot(key, entry[TAG:], Keyring(["not ours"])),
    "signed as a cold item": lambda entry, key, *_: sign_hot_as_cold(key, entry[TAG:]),
    "ours, of the future": lambda entry, key, *_: sign_hot(key, b"\x09" + entry[TAG + 1 :]),
    "ours, too short": lambda entry, key, *_: sign_hot(key, entry[TAG : TAG + HEADER - 1]),
}


def signed(item, body, keyring=None):
    """An item whose data are another body: by somebody who has the secrets of the keyring."""
    keyring = keyring or runtime.current().keyring
    version, expires, modified = (item[name]["N"] for name in ("version", "expires", "modified"))
    numbers = record._COLD.pack(int(version), int(expires), float(modified))
    data = keyring.sign_cold(item["id"]["S"], numbers + body) + body
    return {**item, "data": {"B": data}}


def with_data(change):
    return lambda item, *_: {**item, "data": {"B": change(item["data"]["B"])}}


def with_number(name, by):
    number = float if name == "modified" else int
    return lambda item, *_: {**item, name: {"N": repr(number(item[name]["N"]) + by)}}


BODIES = {
    "a zip bomb": b"\x02" + zlib.compress(bytes(20 * 1024 * 1024)),
    "a format of the future": b"\x09" + b"p{}",
    "what does not inflate": b"\x02" + b"p{}",
    "what inflates to a part": b"\x02" + zlib.compress(b'p{"card_number": "4111-1111"}')[:-9],
}
PAYLOADS = {
    "of the future": b"?{}",
    "that ends early": b'p{"card_number": "41',
    "of nothing": b"",
    "with a pickle": b"p" + pickle.dumps(Planted()),
    "with a list": b"p[]",
    "sealed with another key": b"e" + bytes(60),
    "sealed and too short": b"e",
}
COLD_ITEMS = {
    "garbage": with_data(lambda data: random.randbytes(len(data))),
    "truncated to nothing": with_data(lambda data: b"x"),
    "truncated to the tag": with_data(lambda data: data[:TAG]),
    "truncated by a byte": with_data(lambda data: data[:-1]),
    "longer by a byte": with_data(lambda data: data + b"x"),
    "a bit flipped in the tag": with_data(lambda data: flipped(data, 5)),
    "a bit flipped in the format": with_data(lambda data: flipped(data, TAG)),
    "a bit flipped in the payload": with_data(lambda data: flipped(data, TAG + 9)),
    "another session's data": lambda item, other: {**item, "data": other["data"]},
    "another session's item": lambda item, other: {**other, "id": item["id"]},
    "signed with another secret": lambda item, *_: signed(
        item, item["data"]["B"][TAG:], Keyring(["not ours"])
    ),
    "a later version": with_number("version", 1),
    "a later expiry": with_number("expires", 1),
    "an expiry that is past": with_number("expires", -10_000_000),
    "a later change": with_number("modified", 1),
    "numbers out of range": lambda item, *_: {**item, "version": {"N": "1" + "0" * 30}},
    "a negative version": lambda item, *_: {**item, "version": {"N": "-1"}},
    "a broken version": lambda item, *_: {**item, "version": {"N": "1.5"}},
    **{
        f"without {name}": lambda item, *_, name=name: {k: v for k, v in item.items() if k != name}
        for name in ("expires", "data", "version", "modified", "site", "nonce")
    },
    **{
        f"{name} of another type": lambda item, *_, name=name, value=value: {**item, name: value}
        for name, value in {
            "expires": {"S": "never"},
            "data": {"S": "text"},
            "version": {"L": [{"N": "1"}]},
            "modified": {"NULL": True},
            "site": {"B": b"x"},
            "nonce": {"BOOL": True},
        }.items()
    },
    **{
        f"ours, with {name}": lambda item, *_, body=body: signed(item, body)
        for name, body in BODIES.items()
    },
}
