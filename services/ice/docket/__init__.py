"""Reading the court's docket: tables in, missed hearings of unaccompanied children out.

`scan.Docket` is the way in; `findings` is what comes out; `synthesize` invents dockets with known
answers. Nothing here writes to a database or sends anything.
"""
