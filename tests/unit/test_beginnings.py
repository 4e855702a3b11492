"""Ids by their beginning: what may be one, and what it covers."""

from uuid import UUID

import pytest

from schemas.errors import NotFoundError
from services.exchange.beginnings import beginning

ID = UUID("0193ab12-0000-7000-8000-00000000beef")


@pytest.mark.parametrize("text", [str(ID), "0193", " 0193AB12-0 ", "0193ab120000", ID.hex])
def test_an_id_is_named_whole_or_by_its_beginning_in_letters_of_either_size(text: str) -> None:
    assert beginning(text).of(ID)


def test_what_begins_otherwise_is_not_meant() -> None:
    for text in ("0194", "0193ab12-0000-7000-8000-00000000bee0", "0193ac"):
        assert not beginning(text).of(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "%",
        "%%%%",
        "____",
        "0193%",
        "0193_",
        "019",
        "01-9",
        "----",
        "zz",
        "٠١٢٣",
        ID.hex + "0",
    ],
)
def test_what_no_id_begins_with_and_too_little_of_one_names_nothing(text: str) -> None:
    with pytest.raises(NotFoundError, match="NB-6120") as caught:
        beginning(text)

    assert "4 characters" in caught.value.fix
