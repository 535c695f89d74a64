"""The headless commands: they show and ask, nothing else. One module a noun; grammar.py is what all share."""
