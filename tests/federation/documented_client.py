"""A client written from docs/spec/federation.md 2 and 3 alone.

Nothing of pet is used by it: AES, MD5, HMAC and the string to sign stand here as the documents state them.
"""

import base64
import datetime as dt
import hashlib
import hmac
import json

import httpx
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

IV = base64.b64decode("LzM5QUtXZXWHm7HJ4wAePg==")


def pad(data):
    padder = padding.PKCS7(128).padder()
    return padder.update(data) + padder.finalize()


def unpad(data):
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(data) + unpadder.finalize()


def encrypt_map(entries, key):
    encryptor = Cipher(algorithms.AES(base64.b64decode(key)), modes.CBC(IV)).encryptor()
    return base64.b64encode(encryptor.update(pad(json.dumps(entries).encode())) + encryptor.finalize())


def decrypt_map(text, key):
    decryptor = Cipher(algorithms.AES(base64.b64decode(key)), modes.CBC(IV)).decryptor()
    return json.loads(unpad(decryptor.update(base64.b64decode(text)) + decryptor.finalize()))


def decrypt_invitation(text, password):
    decryptor = Cipher(algorithms.AES(password.encode().ljust(16, b"0")), modes.ECB()).decryptor()
    return json.loads(unpad(decryptor.update(base64.b64decode(text)) + decryptor.finalize()))


class DocumentedClient:
    def __init__(self, url, cid, key):
        self.url, self.cid, self.key = url, cid, key

    def call(self, method, path, query="", body=b"", *, offset_seconds=0.0, md5=None, signed_md5=None, **replaced):
        path = f"/symetry/rest/{self.cid}/{path}"
        digest = base64.b64encode(hashlib.md5(body).digest()).decode() if body else ""
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=offset_seconds)
        date = moment.strftime("%Y-%m-%d %H:%M:%S;1245")
        lines = [method, digest if signed_md5 is None else signed_md5, self.key, date, self.cid]
        lines += [part for part in (body.decode(), path, query) if part]
        self.signed = "".join(f"{line}\n" for line in lines)
        signature = hmac.new(base64.b64decode(self.key), self.signed.encode(), hashlib.sha256).digest()
        headers = {
            "authorization": base64.b64encode(signature).decode(),
            "sym-date": date,
            "content-md5": digest if md5 is None else md5,
            "sym-version": "6.3",
            "content-type": "application/json",
        }
        headers = {name: value for name, value in (headers | replaced).items() if value is not None}
        url = f"{self.url}{path}" + (f"?{query}" if query else "")
        return httpx.request(method, url, content=body, headers=headers)

    def send_map(self, path, entries, query=""):
        return self.call("POST", path, query, encrypt_map(entries, self.key))
