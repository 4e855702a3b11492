#!/bin/sh
# jose (Debian, C): the signature of an envelope, and its content opened with the recipient's key.
set -eu
cd "$1"
if ! jose jws ver -i envelope.jws -k signing.jwk -O signed; then
  echo "refused: the signature is not its key's"
  exit 3
fi
if ! jose jwe dec -i content.jwe -k decryption.jwk -O opened; then
  echo "refused: the content cannot be opened"
  exit 3
fi
cmp signed event.json
cmp opened content.json
rm signed opened
