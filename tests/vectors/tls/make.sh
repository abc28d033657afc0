#!/bin/sh
# Makes the certificates of the TLS tests: an authority, a server for 127.0.0.1 and a client, valid for a hundred years.
# The keys are in the repository and protect nothing.
set -eu
cd "$(dirname "$0")"
days=36500
key() { openssl ecparam -name prime256v1 -genkey -noout; }

key > authority.key
openssl req -x509 -new -key authority.key -days "$days" -subj "/CN=pet test authority" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -out authority.pem
issue() {
    key > "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=pet test $1" -out "$1.csr"
    printf '%s\n' "$2" "authorityKeyIdentifier=keyid" "keyUsage=critical,digitalSignature" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -days "$days" -extfile "$1.ext" -out "$1.crt"
    cat "$1.crt" "$1.key" > "$1.pem"
    rm "$1.key" "$1.csr" "$1.ext" "$1.crt"
}
issue server "subjectAltName=IP:127.0.0.1"
issue client "extendedKeyUsage=clientAuth"
rm -f authority.key authority.srl
