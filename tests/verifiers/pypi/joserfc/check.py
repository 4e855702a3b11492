"""joserfc: the signature of an envelope, and its content opened with the recipient's key."""

import json
import sys
from pathlib import Path

from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey


def main(folder: Path) -> str | None:
    """Return why the material is refused, None if it is accepted."""
    signing = ECKey.import_key(json.loads((folder / "signing.jwk").read_text()))
    signed = jws.deserialize_compact(
        (folder / "envelope.jws").read_bytes(), signing, algorithms=["ES256"]
    )
    decryption = ECKey.import_key(json.loads((folder / "decryption.jwk").read_text()))
    opened = jwe.decrypt_compact(
        (folder / "content.jwe").read_bytes(),
        decryption,
        algorithms=["ECDH-ES+A256KW", "A256GCM"],
    )
    if opened.plaintext != (folder / "content.json").read_bytes():
        return "the content is another one"
    print(json.loads(signed.payload)["id"])
    return None


try:
    refusal = main(Path(sys.argv[1]))
except (JoseError, ValueError) as error:
    refusal = f"{type(error).__name__}: {error}"
if refusal is not None:
    print("refused:", refusal)
    sys.exit(3)
