"""The verbs of the `ifttn` command. Each has a module whose `run` takes the options from `ifttn.cli`.

The verbs that draw figures and the report import `lab`.
"""
