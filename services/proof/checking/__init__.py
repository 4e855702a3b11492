"""Hold a bundle to what it says, with the code that the agencies themselves rely on.

The same checks as `verify.py`, which travels in the bundle, made a second time: on `schemas`, and
so on the `cryptography` library instead of openssl. Two programs that agree are worth more than
one. What does not hold raises `EvidenceError` NB-3100, which names the member and the rule.
"""

from collections.abc import Mapping

from services.proof.checking.bundle import Bundle, Checked, Held
from services.proof.checking.notice import BundledNotice

__all__ = ["Checked", "Held", "check"]


def check(members: Mapping[str, bytes], *, expected: Mapping[str, str] | None = None) -> Checked:
    """Check all of a bundle; `expected` fingerprints are by agency, compared where given.

    Raises `RejectedError` NB-3104 for a bundle of a later version, `EvidenceError` NB-3100.
    """
    bundle = Bundle(members)
    bundle.check_frame(expected or {})
    for notice_id in bundle.notices:
        BundledNotice(bundle, notice_id).check()
    return bundle.finish()
