"""Many renders from one table: rows checked, claimed, rendered by workers, and never done twice.

    manifest --read_rows--> check_row --> RowTable --+                 +--> worker --+
                                                     +--> BatchRunner --+--> worker --+--> publish
    ledger.jsonl (what was done) --> RowTable -------+                 +--> worker --+

The ledger in the output folder is the truth: what it calls done is not done again, so that running
the same command once more *is* resuming. Engines (processes of this machine, or Ray actors) only
run jobs; claims, retries and results are the runner's. Nothing is kept in memory per row.
"""
