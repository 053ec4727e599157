"""What each verb of the `ifttn` command does: a module a verb, whose `run` takes the options that `ifttn.cli` read.

They stand above `lab`, because figures and the report are drawn; only those verbs import it.
"""
