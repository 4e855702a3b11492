"""The keeper process: `python -m services.embedded HOME`."""

import sys
from pathlib import Path

from schemas.errors import NoticeBusError
from services.embedded.home import keep

if __name__ == "__main__":
    try:
        sys.exit(keep(Path(sys.argv[1])))
    except NoticeBusError as error:
        sys.exit(f"{error}\n{error.fix}")
