#!/bin/sh
# openssl: the ES256 signature of an envelope, the Ed25519 signature of a checkpoint, and that of its
# witness. Taking them apart needs no more than cut, base64, od and asn1parse.
set -eu
cd "$1"

# A checkpoint: all up to the blank line is signed; the signature follows a key id of four bytes.
sed '/^$/,$d' log/checkpoint >note.text
sed '1,/^$/d' log/checkpoint | cut -d' ' -f3 | base64 -d | tail -c +5 >note.sig
if ! openssl pkeyutl -verify -pubin -inkey log-key.pem -rawin -in note.text -sigfile note.sig; then
  echo "refused: the checkpoint's signature is not its key's"
  exit 3
fi

# A cosignature: four bytes of key id, eight of seconds after 1970, and the signature over both time
# and checkpoint, as C2SP tlog-cosignature spells them.
sed '/^$/,$d' cosigned-checkpoint >note.text
tail -n 1 cosigned-checkpoint | cut -d' ' -f3 | base64 -d >witness.line
seconds=$(printf %d "0x$(tail -c +5 witness.line | head -c 8 | od -An -v -tx1 | tr -d ' \n')")
(printf 'cosignature/v1\ntime %d\n' "$seconds" && cat note.text) >witness.text
tail -c +13 witness.line >witness.sig
if ! openssl pkeyutl -verify -pubin -inkey witness-key.pem -rawin -in witness.text -sigfile witness.sig; then
  echo "refused: the cosignature is not its key's"
  exit 3
fi

# An envelope: header.payload is signed; JOSE writes r and s one after the other, openssl as ASN.1.
tr -d '\n' <envelope.jws >envelope
printf %s "$(cut -d. -f1,2 envelope)" >envelope.text
hex=$(printf '%s==' "$(cut -d. -f3 envelope)" | tr '_-' '/+' | base64 -d | od -An -v -tx1 | tr -d ' \n')
r=$(printf %s "$hex" | cut -c1-64) s=$(printf %s "$hex" | cut -c65-128)
printf 'asn1=SEQUENCE:pair\n[pair]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "$r" "$s" >pair.cnf
openssl asn1parse -genconf pair.cnf -noout -out envelope.sig
if ! openssl dgst -sha256 -verify signing.pem -signature envelope.sig envelope.text; then
  echo "refused: the envelope's signature is not its key's"
  exit 3
fi
