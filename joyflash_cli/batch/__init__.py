"""Many renders from one table: rows checked, claimed, rendered by workers, and never done twice.

    manifest --read_rows--> RawRow --check_row--> Row --+              +--> worker --+
                                                        +--> runner ---+             +--> publish
    ledger.jsonl (what was done) -------judge-----------+   (a Job)    +--> worker --+

The ledger in the output folder is the truth: what it calls done is not done again, so that running
the same command once more *is* resuming. The engine (processes of this machine, or Ray actors) only
runs jobs; claims, retries and results are the runner's. Rows live in memory, what was done of them
in the ledger.
"""
