"""The tables of a release as the court publishes them: file names, headings, and other spellings.

Headings drift between releases: what is the same column under another name is an alias here. A
heading that is neither known nor an alias, or one that is missing, makes the whole file unknown,
because columns that mean something else would be read without any error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from schemas.errors import RejectedError

# Spare columns behind the last heading: what lands there was pushed out by a stray tab.
SPARES = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """One table: its name, the headings in the court's order, and those that are read.

    `aliases` maps other spellings to the heading; case does not matter in either.
    """

    name: str
    headings: tuple[str, ...]
    read: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    required: bool = True

    @property
    def file(self) -> str:
        """The file's name in the folder."""
        return f"{self.name}.csv"

    def columns(self, headings: Sequence[str]) -> tuple[str, ...]:
        """Return the known name of each heading of a file, in the file's order.

        Raises `RejectedError` NB-1011 with what is missing; what is unknown is only counted, since
        a file without headings starts with a row.
        """
        known = {heading.casefold(): heading for heading in self.headings}
        known |= {alias.casefold(): heading for alias, heading in self.aliases.items()}
        found = [known.get(heading.strip().casefold()) for heading in headings]
        names = tuple(name for name in found if name is not None)
        missing = [heading for heading in self.headings if heading not in names]
        unknown = len(headings) - len(set(names))
        if missing or unknown:
            raise RejectedError(
                "NB-1011", file=self.file, missing=", ".join(missing) or "none", unknown=unknown
            )
        return names


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CASES = Table(
    name="A_TblCase",
    headings=_words(
        "IDNCASE ALIEN_CITY ALIEN_STATE ALIEN_ZIPCODE UPDATED_ZIPCODE UPDATED_CITY NAT LANG CUSTODY"
        " SITE_TYPE E_28_DATE ATTY_NBR CASE_TYPE UPDATE_SITE LATEST_HEARING LATEST_TIME"
        " LATEST_CAL_TYPE UP_BOND_DATE UP_BOND_RSN CORRECTIONAL_FAC RELEASE_MONTH RELEASE_YEAR"
        " INMATE_HOUSING DATE_OF_ENTRY C_ASY_TYPE C_BIRTHDATE C_RELEASE_DATE UPDATED_STATE"
        " ADDRESS_CHANGEDON ZBOND_MRG_FLAG Sex DATE_DETAINED DATE_RELEASED LPR DETENTION_DATE"
        " DETENTION_LOCATION DCO_LOCATION DETENTION_FACILITY_TYPE CASEPRIORITY_CODE"
    ),
    read=_words(
        "IDNCASE ALIEN_CITY ALIEN_STATE ALIEN_ZIPCODE UPDATED_ZIPCODE UPDATED_CITY UPDATED_STATE"
        " NAT LANG CUSTODY E_28_DATE ATTY_NBR CASE_TYPE C_BIRTHDATE CASEPRIORITY_CODE"
    ),
    aliases=MappingProxyType({"GENDER": "Sex", "UPDATED_SITE": "UPDATE_SITE"}),
)
PROCEEDINGS = Table(
    name="B_TblProceeding",
    headings=_words(
        "IDNPROCEEDING IDNCASE OSC_DATE INPUT_DATE BASE_CITY_CODE HEARING_LOC_CODE IJ_CODE"
        " TRANS_IN_DATE PREV_HEARING_LOC PREV_HEARING_BASE PREV_IJ_CODE TRANS_NBR HEARING_DATE"
        " HEARING_TIME DEC_TYPE DEC_CODE DEPORTED_1 DEPORTED_2 OTHER_COMP APPEAL_RSVD"
        " APPEAL_NOT_FILED COMP_DATE ABSENTIA VENUE_CHG_GRANTED TRANSFER_TO DATE_APPEAL_DUE_STATUS"
        " TRANSFER_STATUS CUSTODY CASE_TYPE NAT LANG SCHEDULED_HEAR_LOC CORRECTIONAL_FAC CRIM_IND"
        " IHP AGGRAVATE_FELON DATE_DETAINED DATE_RELEASED"
    ),
    read=_words(
        "IDNPROCEEDING IDNCASE BASE_CITY_CODE DEC_CODE OTHER_COMP COMP_DATE ABSENTIA"
        " VENUE_CHG_GRANTED TRANSFER_TO CUSTODY CASE_TYPE"
    ),
    aliases=MappingProxyType(
        {
            "TRANSFER_DATE": "TRANS_IN_DATE",
            "DEP1": "DEPORTED_1",
            "DEP2": "DEPORTED_2",
        }
    ),
)
SCHEDULE = Table(
    name="tbl_schedule",
    headings=_words(
        "IDNSCHEDULE IDNPROCEEDING IDNCASE OSC_DATE GENERATION SUB_GENERATION REC_TYPE LANG"
        " HEARING_LOC_CODE BASE_CITY_CODE IJ_CODE INTERPRETER_CODE INPUT_DATE INPUT_TIME"
        " UPDATE_DATE UPDATE_TIME ASSIGNMENT_PATH CAL_TYPE ADJ_DATE ADJ_TIME_START ADJ_TIME_STOP"
        " ADJ_RSN ADJ_MEDIUM ADJ_MSG ADJ_ELAP_DAYS LNGSESSNID SCHEDULE_TYPE NOTICE_CODE"
        " BLNCLOCKOVERRIDE EOIRAttorneyID"
    ),
    read=_words(
        "IDNSCHEDULE IDNPROCEEDING IDNCASE REC_TYPE HEARING_LOC_CODE BASE_CITY_CODE CAL_TYPE"
        " ADJ_DATE ADJ_TIME_START ADJ_RSN ADJ_MEDIUM SCHEDULE_TYPE"
    ),
    aliases=MappingProxyType({"ADJ_MED": "ADJ_MEDIUM"}),
)
JUVENILES = Table(
    name="tbl_JuvenileHistory",
    headings=_words(
        "idnJuvenileHistory idnCase idnProceeding idnJuvenile DATCREATEDON DATMODIFIEDON"
    ),
    read=_words("idnCase idnJuvenile"),
)
PRIORITIES = Table(
    name="tbl_CasePriorityHistory",
    headings=_words("idnCasePriHistory casePriority_code idnCase DATCREATEDON DATMODIFIEDON"),
    read=_words("idnCase casePriority_code"),
)
IDENTIFIERS = Table(
    name="A_TblCaseIdentifier",
    headings=_words("IDNCASEID IDNCASE CASE_ID"),
    read=_words("IDNCASE CASE_ID"),
    required=False,
)
LEADS = Table(
    name="tbl_Lead_Rider",
    headings=_words(
        "idnLeadRider idnLeadCase idnRiderCase datCreatedOn datModifiedOn datSeveredOn"
        " idnLeadProceedingStart idnLeadProceedingEnd idnRiderProceedingStart"
        " idnRiderProceedingEnd blnActive"
    ),
    read=_words("idnLeadCase idnRiderCase datSeveredOn blnActive"),
    required=False,
)
COUNSEL = Table(
    name="tbl_RepsAssigned",
    headings=_words(
        "IDNREPSASSIGNED IDNCASE STRATTYLEVEL STRATTYTYPE PARENT_TABLE PARENT_IDN BASE_CITY_CODE"
        " INS_TA_DATE_ASSIGNED E_27_DATE E_28_DATE BLNPRIMEATTY"
    ),
    read=_words("IDNCASE STRATTYTYPE"),
    required=False,
)

# In the order of reading: who is in scope is known before the large tables are read.
TABLES = (JUVENILES, PRIORITIES, IDENTIFIERS, CASES, LEADS, COUNSEL, PROCEEDINGS, SCHEDULE)

# Who the cases are, from the protected side: comma, UTF-8, quotes where a value holds a comma.
CROSSWALK = Table(
    name="crosswalk",
    headings=_words(
        "IDNCASE a_number given_name family_name birth_date uac aor_code address_line1 address_unit"
        " address_city address_state address_zip address_as_of nta_served release_date"
    ),
    read=(),
)
